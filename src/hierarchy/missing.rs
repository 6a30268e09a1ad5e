//! Key versions that were looked for and not found a moment ago.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::{Moment, NANOS_PER_SECOND};
use crate::record::{KeyId, KeyMeta};

/// Answers for a second that a key version does not exist, so that a hot record whose key is gone
/// does not become a load per read.
#[derive(Debug, Default)]
pub(crate) struct Missing(Mutex<HashMap<KeyMeta, u64>>);

const ENTRIES_MAX: usize = 1_000;

impl Missing {
    pub(crate) fn note(&self, key: KeyMeta, now: Moment) {
        let mut entries = self.entries();
        if entries.len() >= ENTRIES_MAX {
            entries.retain(|_, since| is_recent(*since, now));
        }
        if entries.len() < ENTRIES_MAX {
            entries.insert(key, now.monotonic);
        }
    }

    pub(crate) fn contains(&self, key: &KeyMeta, now: Moment) -> bool {
        self.entries().get(key).is_some_and(|since| is_recent(*since, now))
    }

    pub(crate) fn forget(&self, key: &KeyMeta) {
        self.entries().remove(key);
    }

    /// Forgets all versions of a key.
    pub(crate) fn forget_all_of(&self, id: &KeyId) {
        self.entries().retain(|key, _| key.id() != id);
    }

    pub(crate) fn forget_everything(&self) {
        self.entries().clear();
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<KeyMeta, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn is_recent(since: u64, now: Moment) -> bool {
    now.monotonic.saturating_sub(since) < NANOS_PER_SECOND
}
