//! One customer's trouble is nobody else's: isolation, fairness and overload, on a paused clock, with a
//! metastore and a KMS that tell what they were asked, by whom and when.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]
#![expect(clippy::indexing_slicing, reason = "a test may fail loudly")]

mod admission;
mod breaker;
mod classes;
#[path = "../common/clock.rs"]
mod clock;
mod desk;
mod hanging;
mod permits;
mod refused;
mod retries;
#[path = "../common/runtime.rs"]
mod runtime;
mod support;
mod sweep;
mod trouble;
mod useless;
