//! Several services, some of which must unwrap together.
