//! What is SQLite's own: the file, its rows as others write them, processes that share it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a helper fails its test by panicking"
)]

#[path = "../common/huge.rs"]
mod common_huge;
#[path = "../common/equal_keys.rs"]
mod equal_keys;
mod files;
mod folding;
mod forms;
mod group;
mod huge;
#[path = "../common/latest.rs"]
mod latest;
mod pages;
mod processes;
mod schema;
mod support;
