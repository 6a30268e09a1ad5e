//! What the library promises, each test named after its promise's id.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]
#![allow(clippy::indexing_slicing, reason = "a test may fail loudly")]
#![allow(clippy::cast_possible_truncation, reason = "draws small numbers from large ones")]

mod bound;
mod build;
#[path = "../common/child.rs"]
mod child;
mod close;
mod failures;
mod guards;
mod nonces;
mod order;
mod orphans;
mod outcomes;
#[path = "../common/runtime.rs"]
mod runtime;
mod script;
mod sources;
mod world;
