//! What the load of a key waits for at the moment: for the message if it does not end in time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Dependency;

#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<Awaited>);

#[derive(Debug, Default)]
enum Awaited {
    #[default]
    Nothing,
    Dependency(Dependency),
    Load(Arc<Progress>),
}

impl Progress {
    pub(crate) fn awaits(&self, dependency: Dependency) {
        *self.awaited() = Awaited::Dependency(dependency);
    }

    /// Notes that another load is waited for.
    pub(crate) fn follows(&self, load: &Arc<Self>) {
        *self.awaited() = Awaited::Load(Arc::clone(load));
    }

    pub(crate) fn dependency(&self) -> Option<Dependency> {
        let load = match &*self.awaited() {
            Awaited::Nothing => return None,
            Awaited::Dependency(dependency) => return Some(*dependency),
            Awaited::Load(load) => Arc::clone(load),
        };
        // Loads follow those of the level above, so this ends.
        load.dependency()
    }

    fn awaited(&self) -> MutexGuard<'_, Awaited> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
