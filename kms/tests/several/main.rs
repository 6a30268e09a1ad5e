//! Several services at once.
