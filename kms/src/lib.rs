//! Key management services for [claviger](https://docs.rs/claviger): who holds the master key.
//!
//! Each service is a cargo feature, and none is on by default:
//!
//! | feature | service |
//! |---|---|
//! | `local` | `LocalKms`: a master key in a file of this machine |

#[cfg(feature = "local")]
mod local;

#[cfg(feature = "local")]
pub use local::{LocalKms, LocalKmsError};
