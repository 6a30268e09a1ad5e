//! The threads of a run.

use tokio::runtime::{Builder, Runtime};

use crate::exit::{Exit, Failure};

/// Starts the threads that a command works with.
pub(crate) fn start() -> Result<Runtime, Failure> {
    Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Unavailable, format!("cannot start threads: {error}; try again")))
}
