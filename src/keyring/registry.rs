//! All keyrings that anybody holds, so that an id has one keyring at a time.
//!
//! They lie in many maps, each under a lock of its own: walking over all of them, or a map that grows,
//! holds up the few that want the same map, and those for a moment only.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use claviger_memory::ForkSentinel;

use super::Keyring;
use super::flight::Series;
use crate::record::KeyId;

#[derive(Debug)]
pub(crate) struct Registry {
    shards: Box<[Mutex<Keyrings>]>,
    hasher: RandomState,
    /// How many keys the keyrings hold, all together.
    keys: AtomicUsize,
    series: Arc<Series>,
    sentinel: Arc<ForkSentinel>,
}

#[derive(Debug, Default)]
struct Keyrings(HashMap<KeyId, Weak<Keyring>>);

/// How many keyrings lie in one map when the cache is full. To walk over so many takes a tenth of a
/// millisecond.
const SHARD_KEYS: usize = 64;
const SHARDS_MAX: usize = 4_096;

impl Registry {
    /// Makes room for the keyrings of so many keys; more only cost time.
    pub(super) fn new(keys_max: usize, sentinel: Arc<ForkSentinel>) -> Self {
        let shards = keys_max.div_ceil(SHARD_KEYS).clamp(1, SHARDS_MAX);
        Self {
            shards: std::iter::repeat_with(Mutex::default).take(shards).collect(),
            hasher: RandomState::new(),
            keys: AtomicUsize::new(0),
            series: Arc::default(),
            sentinel,
        }
    }

    pub(super) const fn series(&self) -> &Arc<Series> {
        &self.series
    }

    pub(super) fn get_or_insert(self: &Arc<Self>, id: &str) -> Arc<Keyring> {
        let mut keyrings = self.shard(id);
        if let Some(keyring) = keyrings.0.get(id).and_then(Weak::upgrade) {
            return keyring;
        }
        let keyring = Arc::new(Keyring::new(KeyId::new(id), Arc::downgrade(self)));
        keyrings.0.insert(keyring.id().clone(), Arc::downgrade(&keyring));
        keyring
    }

    pub(super) fn get(&self, id: &str) -> Option<Arc<Keyring>> {
        self.shard(id).0.get(id).and_then(Weak::upgrade)
    }

    /// Walks over all keyrings. No lock is held while the caller looks at one, nor when it is dropped.
    pub(super) fn all(&self) -> impl Iterator<Item = Arc<Keyring>> {
        self.shards.iter().flat_map(|shard| -> Vec<_> {
            let keyrings = lock(shard);
            keyrings.0.values().filter_map(Weak::upgrade).collect()
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
        } else {
            self.keys.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// Forgets a keyring that nobody holds any more, unless a new one has its place already.
    pub(super) fn forget(&self, keyring: &Keyring) {
        if self.sentinel.is_forked() {
            // The lock may be held by a thread of the parent, which does not exist here.
            return;
        }
        self.recount(keyring.keys().len(), 0);
        let mut keyrings = self.shard(keyring.id().as_str());
        if keyrings.0.get(keyring.id()).is_some_and(|keyring| keyring.strong_count() == 0) {
            keyrings.0.remove(keyring.id());
        }
    }

    #[cfg(test)]
    pub(super) fn keyrings_under_one_lock_max(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).0.len()).max().unwrap_or_default()
    }

    #[expect(clippy::indexing_slicing, reason = "a remainder is less than the divisor")]
    fn shard(&self, id: &str) -> MutexGuard<'_, Keyrings> {
        let [low, high, ..] = self.hasher.hash_one(id).to_ne_bytes();
        let place = usize::from(u16::from_ne_bytes([low, high])) % self.shards.len();
        lock(&self.shards[place])
    }
}

fn lock(shard: &Mutex<Keyrings>) -> MutexGuard<'_, Keyrings> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
