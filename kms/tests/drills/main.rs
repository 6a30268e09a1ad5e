//! Moves from one service to another, with writers running.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper fails its test by panicking"
)]

mod fleet;
mod moves;
mod quorum;
mod services;
