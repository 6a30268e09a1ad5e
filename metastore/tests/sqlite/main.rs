//! What is SQLite's own: the file, its rows as others write them, processes that share it.

#![expect(clippy::unwrap_used, reason = "a helper fails its test by panicking")]

mod files;
mod forms;
mod processes;
mod support;
