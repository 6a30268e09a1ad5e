//! Several services, each of which unwraps alone.
