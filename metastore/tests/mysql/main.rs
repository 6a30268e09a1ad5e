//! What is MySQL's and MariaDB's own: the tables that others made, time zones, what the check finds.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a helper fails its test by panicking")]

#[path = "../common/huge.rs"]
mod common_huge;
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
mod rows;
mod support;
mod zones;
