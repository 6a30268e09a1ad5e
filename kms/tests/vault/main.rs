//! Vault, as a fake of its HTTP API.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper fails its test by panicking"
)]

mod answers;
mod configuration;
mod connections;
mod contract;
#[path = "../common/deadlines.rs"]
mod deadlines;
mod login;
mod nodes;
mod secrets;
mod sessions;
mod support;
mod tls;
mod versions;
