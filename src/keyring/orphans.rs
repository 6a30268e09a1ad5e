//! Keys that were dropped from the cache while an operation still used them.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use metrics::Counter;

use crate::clock::Moment;
use crate::key::CryptoKey;
use crate::record::KeyMeta;
use crate::sync::{Mutex, MutexGuard};
use crate::telemetry::keys::KeyMetrics;

/// A key that is in use though its cache entry is gone. It is wiped with its last user.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Orphan {
    /// Which key it is.
    pub key: KeyMeta,
    /// For how long it has been one.
    pub age: Duration,
    /// Why it was dropped from the cache.
    pub cause: OrphanCause,
}

/// Why a key in use was dropped from the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OrphanCause {
    /// Others needed the room.
    Evicted,
    /// Its partition was idle.
    Idle,
    /// Newer knowledge replaced it, or its row is gone.
    Superseded,
    /// The factory was closed.
    Closed,
}

impl OrphanCause {
    const ALL: [Self; 4] = [Self::Evicted, Self::Idle, Self::Superseded, Self::Closed];

    /// Returns what the metrics call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Idle => "idle",
            Self::Superseded => "superseded",
            Self::Closed => "closed",
        }
    }
}

/// Lists the orphans there are, by weak references: it keeps none alive.
#[derive(Debug)]
pub(crate) struct Orphans {
    entries: Mutex<Vec<Entry>>,
    /// In the order of [`OrphanCause::ALL`].
    evictions: [Counter; 4],
}

#[derive(Debug)]
struct Entry {
    key: Weak<CryptoKey>,
    since: Moment,
    cause: OrphanCause,
}

impl Orphans {
    pub(crate) fn new(metrics: &KeyMetrics) -> Self {
        let evictions = OrphanCause::ALL.map(|cause| metrics.evictions(cause.name()));
        Self { entries: Mutex::default(), evictions }
    }

    /// Gives up the cache's hold on `keys` and lists those that live on.
    pub(crate) fn release(&self, keys: Vec<Arc<CryptoKey>>, now: Moment, cause: OrphanCause) {
        if let Some(evictions) = self.evictions.get(cause as usize) {
            evictions.increment(u64::try_from(keys.len()).unwrap_or(u64::MAX));
        }
        for key in keys {
            let weak = Arc::downgrade(&key);
            drop(key);
            if let Some(key) = weak.upgrade() {
                key.set_orphan(true);
                drop(key);
                let mut entries = self.entries();
                // The dead make room first, so the list is never over twice what lives.
                if entries.len() == entries.capacity() {
                    entries.retain(|entry| entry.key.strong_count() > 0);
                }
                entries.push(Entry { key: weak, since: now, cause });
            }
        }
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.entries().capacity()
    }

    /// Takes an orphan back if it is the key looked for, so that no second copy is made.
    pub(crate) fn adopt(&self, is_wanted: impl Fn(&CryptoKey) -> bool) -> Option<Arc<CryptoKey>> {
        let mut entries = self.entries();
        entries.retain(|entry| entry.key.strong_count() > 0);
        let is_it = |entry: &Entry| entry.key.upgrade().filter(|key| is_wanted(key));
        let (index, key) =
            entries.iter().enumerate().find_map(|(index, entry)| is_it(entry).map(|key| (index, key)))?;
        entries.swap_remove(index);
        key.set_orphan(false);
        Some(key)
    }

    /// Takes a key off the list, which is cached again.
    pub(crate) fn forget(&self, key: &Arc<CryptoKey>) {
        self.entries().retain(|entry| entry.key.as_ptr() != Arc::as_ptr(key));
    }

    /// Lists the orphans that live.
    pub(crate) fn list(&self, now: Moment) -> Vec<Orphan> {
        let mut entries = self.entries();
        entries.retain(|entry| entry.key.strong_count() > 0);
        let orphan = |entry: &Entry| {
            entry.key.upgrade().map(|key| Orphan {
                key: key.meta().clone(),
                age: Duration::from_nanos(now.monotonic.saturating_sub(entry.since.monotonic)),
                cause: entry.cause,
            })
        };
        entries.iter().filter_map(orphan).collect()
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        // A panic while the lock was held leaves a list of weak references, in whatever order.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
