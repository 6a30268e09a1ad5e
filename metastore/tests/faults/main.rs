//! Real servers that break: in the middle of an exchange, of a query, of a call that nobody waits
//! for any more; and that refuse for reasons of their own.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

mod bytes;
mod cancel;
mod causes;
mod deadlines;
mod engine;
mod keys;
#[expect(dead_code, reason = "these ask for one id at a time")]
#[path = "../common/latest.rs"]
mod latest;
mod runtimes;
mod sessions;
