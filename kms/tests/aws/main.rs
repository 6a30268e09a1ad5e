//! `AwsKms` on moto and LocalStack, and on a stand-in that answers as it is told.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a helper fails its test by panicking"
)]

mod calls;
mod configuration;
mod context;
mod contract;
mod credentials;
#[path = "../common/deadlines.rs"]
mod deadlines;
mod drills;
mod endpoints;
mod envelopes;
mod errors;
mod forgery;
mod regions;
mod secrets;
mod stand_in;
mod support;
