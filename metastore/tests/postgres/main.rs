//! PostgreSQL: the contract on our table and on others', what is Postgres' own, and what goes wrong
//! with servers.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper fails its test by panicking"
)]

#[path = "../common/huge.rs"]
mod common_huge;
#[path = "../common/pool.rs"]
mod common_pool;
mod contract;
mod crossing;
mod durable;
#[path = "../common/equal_keys.rs"]
mod equal_keys;
mod errors;
mod findings;
mod folding;
mod forms;
mod huge;
mod invalidations;
#[path = "../common/latest.rs"]
mod latest;
mod migrate;
mod plans;
mod pool;
#[path = "../common/refused.rs"]
mod refused;
mod support;
#[path = "../common/told.rs"]
mod told;
mod zones;
