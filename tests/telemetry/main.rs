//! What a factory shows of itself: its metrics, log lines and spans, its status and its health.

#![expect(clippy::unwrap_used, reason = "a helper fails its test by panicking")]

mod calls;
mod health;
mod keys;
mod logs;
mod operations;
mod rest;
#[path = "../common/runtime.rs"]
mod runtime;
mod status;
mod support;
