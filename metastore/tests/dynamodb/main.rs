//! `DynamoDbMetastore` on dynalite and moto, and on a stand-in that answers as it is told.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a helper fails its test by panicking"
)]

mod bulk;
mod check;
mod contract;
mod credentials;
mod cuts;
mod endpoints;
#[path = "../common/equal_keys.rs"]
mod equal_keys;
mod errors;
mod items;
#[path = "../common/latest.rs"]
mod latest;
mod limits;
mod list;
mod outage;
#[path = "../common/refused.rs"]
mod refused;
mod requests;
mod support;
