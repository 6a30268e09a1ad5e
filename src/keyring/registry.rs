//! All keyrings that anybody holds, so that an id has one keyring at a time.
//!
//! They lie in many maps, each under a lock of its own: walking over all of them, or a map that grows,
//! holds up the few that want the same map, and those for a moment only.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};

use claviger_memory::ForkSentinel;
use metrics::Gauge;

use super::flight::Series;
use crate::record::KeyId;
use crate::sync::{AtomicUsize, Mutex, MutexGuard};
use crate::telemetry::as_f64;

#[derive(Debug)]
pub(crate) struct Registry<R> {
    shards: Box<[Shard<R>]>,
    hasher: RandomState,
    /// How many keys the keyrings hold, all together.
    keys: AtomicUsize,
    /// Shows it.
    gauge: Gauge,
    series: Arc<Series>,
    sentinel: Arc<ForkSentinel>,
}

#[derive(Debug)]
struct Shard<R>(Mutex<HashMap<KeyId, Weak<R>>>);

/// How many keyrings lie in one map when the cache is full. To walk over so many takes a tenth of a
/// millisecond.
const SHARD_KEYS: usize = 64;
const SHARDS_MAX: usize = 4_096;

impl<R> Registry<R> {
    /// Makes room for the keyrings of so many keys; more only cost time.
    pub(super) fn new(keys_max: usize, gauge: Gauge, sentinel: Arc<ForkSentinel>) -> Self {
        let shards = keys_max.div_ceil(SHARD_KEYS).clamp(1, SHARDS_MAX);
        Self {
            shards: std::iter::repeat_with(|| Shard(Mutex::default())).take(shards).collect(),
            hasher: RandomState::new(),
            keys: AtomicUsize::new(0),
            gauge,
            series: Arc::default(),
            sentinel,
        }
    }

    pub(super) const fn series(&self) -> &Arc<Series> {
        &self.series
    }

    /// Returns the keyring of this id; makes it if nobody holds one.
    pub(super) fn get_or_insert(
        self: &Arc<Self>,
        id: &str,
        make: impl FnOnce(KeyId, Weak<Self>) -> R,
    ) -> Arc<R> {
        let mut keyrings = self.shard(id);
        if let Some(keyring) = keyrings.get(id).and_then(Weak::upgrade) {
            return keyring;
        }
        let id = KeyId::new(id);
        let keyring = Arc::new(make(id.clone(), Arc::downgrade(self)));
        keyrings.insert(id, Arc::downgrade(&keyring));
        keyring
    }

    pub(super) fn get(&self, id: &str) -> Option<Arc<R>> {
        self.shard(id).get(id).and_then(Weak::upgrade)
    }

    /// Walks over all keyrings. No lock is held while the caller looks at one, nor when it is dropped.
    pub(super) fn all(&self) -> impl Iterator<Item = Arc<R>> {
        self.shards.iter().flat_map(|shard| -> Vec<_> {
            let keyrings = shard.lock();
            keyrings.values().filter_map(Weak::upgrade).collect()
        })
    }

    /// Counts the keys that all keyrings hold.
    pub(super) fn keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// Notes that a keyring holds `after` keys where it held `before`.
    pub(super) fn recount(&self, before: usize, after: usize) {
        if after >= before {
            self.keys.fetch_add(after - before, Ordering::Relaxed);
            self.gauge.increment(as_f64(after - before));
        } else {
            self.keys.fetch_sub(before - after, Ordering::Relaxed);
            self.gauge.decrement(as_f64(before - after));
        }
    }

    /// Forgets the keyring of this id, which nobody holds any more and which holds so many keys, unless a new
    /// one has its place already.
    pub(super) fn forget(&self, id: &KeyId, keys: usize) {
        if self.sentinel.is_forked() {
            // The lock may be held by a thread of the parent, which does not exist here.
            return;
        }
        self.recount(keys, 0);
        let mut keyrings = self.shard(id.as_str());
        if keyrings.get(id).is_some_and(|keyring| keyring.strong_count() == 0) {
            keyrings.remove(id);
        }
    }

    #[cfg(test)]
    pub(super) fn keyrings_under_one_lock_max(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).max().unwrap_or_default()
    }

    #[expect(clippy::indexing_slicing, reason = "a remainder is less than the divisor")]
    fn shard(&self, id: &str) -> MutexGuard<'_, HashMap<KeyId, Weak<R>>> {
        let [low, high, ..] = self.hasher.hash_one(id).to_ne_bytes();
        let place = usize::from(u16::from_ne_bytes([low, high])) % self.shards.len();
        self.shards[place].lock()
    }
}

impl<R> Shard<R> {
    fn lock(&self) -> MutexGuard<'_, HashMap<KeyId, Weak<R>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
