//! What is SQLite's own: the file, its rows as others write them, processes that share it.

mod files;
mod forms;
mod processes;
mod support;
