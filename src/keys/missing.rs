//! Key versions that were looked for and not found a moment ago.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::{Moment, NANOS_PER_SECOND};
use crate::record::{KeyId, KeyMeta};

/// Answers for a while that a key version does not exist, so that a hot record whose key is gone does
/// not become a load per read: until when, in monotonic nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Missing(Mutex<HashMap<KeyMeta, u64>>);

const ENTRIES_MAX: usize = 1_000;

const HELD: u64 = NANOS_PER_SECOND;
/// A young version may have been inserted elsewhere a moment ago.
const YOUNG_HELD: u64 = NANOS_PER_SECOND / 10;
const YOUNG_SECONDS: i64 = 5 * 60;

impl Missing {
    pub(crate) fn note(&self, key: KeyMeta, now: Moment) {
        let mut entries = self.entries();
        if entries.len() >= ENTRIES_MAX {
            entries.retain(|_, until| now.monotonic < *until);
        }
        if entries.len() < ENTRIES_MAX {
            let is_young = key.created().unix_seconds() >= now.unix_seconds() - YOUNG_SECONDS;
            let held = if is_young { YOUNG_HELD } else { HELD };
            entries.insert(key, now.monotonic.saturating_add(held));
        }
    }

    pub(crate) fn contains(&self, key: &KeyMeta, now: Moment) -> bool {
        self.entries().get(key).is_some_and(|until| now.monotonic < *until)
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
