//! System keys that move from one KMS to another, that lack copies and get them back.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper fails its test by panicking")]

mod degraded;
mod edges;
mod known;
mod regions;
mod rewrap;
mod support;
