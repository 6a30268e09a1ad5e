//! How many loads may be begun, and how many operations may wait for keys they do not have.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::policy::Limits;

#[derive(Debug)]
pub(crate) struct Admission {
    loads: Limit,
    operations: Limit,
}

#[derive(Debug)]
struct Limit {
    name: &'static str,
    max: usize,
    places: Arc<Semaphore>,
}

/// There is no place left.
#[derive(Debug)]
pub(super) struct Full {
    pub(super) limit: &'static str,
    pub(super) max: usize,
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Self {
        let Limits { max_store_calls, max_waiting_calls, max_cold_operations, .. } = *limits;
        let places = max_store_calls.saturating_add(max_waiting_calls).min(Semaphore::MAX_PERMITS);
        Self {
            loads: Limit::new("max_waiting_calls", max_waiting_calls, places),
            operations: Limit::new("max_cold_operations", max_cold_operations, max_cold_operations),
        }
    }

    /// Takes a load's place, for all its calls.
    pub(super) fn begin_load(&self) -> Result<OwnedSemaphorePermit, Full> {
        Arc::clone(&self.loads.places).try_acquire_owned().map_err(|_none_left| self.loads.full())
    }

    /// Waits for the place of a call for many keys.
    pub(super) async fn wait_to_load(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.loads.places.acquire().await.ok()
    }

    /// Lets an operation wait for a key that it does not have.
    pub(super) fn begin_to_wait(&self) -> Result<SemaphorePermit<'_>, Full> {
        self.operations.places.try_acquire().map_err(|_none_left| self.operations.full())
    }
}

impl Limit {
    fn new(name: &'static str, max: usize, places: usize) -> Self {
        Self { name, max, places: Arc::new(Semaphore::new(places)) }
    }

    const fn full(&self) -> Full {
        Full { limit: self.name, max: self.max }
    }
}
