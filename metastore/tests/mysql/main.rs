//! What is MySQL's and MariaDB's own: the tables that others made, time zones, what the check finds.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a helper fails its test by panicking")]

#[path = "../common/huge.rs"]
mod common_huge;
#[path = "../common/pool.rs"]
mod common_pool;
mod contract;
#[path = "../common/equal_keys.rs"]
mod equal_keys;
mod errors;
mod findings;
mod folding;
mod huge;
#[path = "../common/latest.rs"]
mod latest;
mod migrate;
mod peers;
mod plans;
mod pool;
#[path = "../common/refused.rs"]
mod refused;
mod rows;
mod support;
#[path = "../common/told.rs"]
mod told;
mod zones;
