//! What attackers try, and what they get: who writes the key table, who writes the data, and who writes
//! both. For each attack the alarm that tells of it is named.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]
#![expect(dead_code, unused_imports, reason = "the support is that of the life cycle's tests")]

#[path = "../common/clock.rs"]
mod clock;
mod copies;
mod data_writer;
mod far_ahead;
mod forged;
mod revoked;
#[path = "../common/runtime.rs"]
mod runtime;
#[path = "../life_cycle/support.rs"]
mod support;
mod wraps;
