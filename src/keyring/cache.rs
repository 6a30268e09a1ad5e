//! The bounded cache of keyrings.
//!
//! An LRU holds the keyrings with keys in them and bounds how many keys there are; the [`Registry`] know all
//! keyrings that anybody holds.
//!
//! An evicted keyring is emptied at once, whoever still holds it. moka's own bound is
//! eventual: under a flood it holds many times its capacity. So every addition is made under one
//! mutex and followed by moka's maintenance, which a cold load's I/O hides.

use std::fmt;
use std::sync::{Arc, PoisonError};

use claviger_memory::ForkSentinel;
use metrics::Gauge;

use super::Keyring;
use super::key_set::{Role, VERSIONS_MAX};
use super::lru::Lru;
use super::orphans::{OrphanCause, Orphans};
use super::registry::Registry;
use crate::clock::{Clock, Moment};
use crate::key::CryptoKey;
use crate::key::state::KeyState;
use crate::policy::Capacity;
use crate::record::{EnvelopeKeyRecord, KeyId, KeyMeta};
use crate::sync::{Mutex, MutexGuard};

/// After how many keyrings a sweep lets loads have their turn, which may run on the same thread.
const TURN: usize = 32;

pub(crate) struct KeyCache {
    lru: Lru,
    registry: Arc<Registry<Keyring>>,
    orphans: Arc<Orphans>,
    clock: Arc<dyn Clock>,
    versions_max: usize,
    keys_max: usize,
    /// Paces additions; `true` once closed, when nothing is added any more.
    closed: Mutex<bool>,
}

impl KeyCache {
    pub(crate) fn new(
        capacity: Capacity,
        orphans: Arc<Orphans>,
        clock: Arc<dyn Clock>,
        sentinel: Arc<ForkSentinel>,
        cached: Gauge,
    ) -> Self {
        let keys_max = match capacity {
            Capacity::Keys(keys) => usize::try_from(keys).unwrap_or(usize::MAX),
            Capacity::Unbounded => usize::MAX,
        };
        let versions_max = keys_max.min(VERSIONS_MAX);
        let lru = Lru::new(capacity, {
            let (orphans, clock) = (Arc::clone(&orphans), Arc::clone(&clock));
            move |keyring, cause| orphans.release(keyring.clear(), Moment::now(&*clock), cause)
        });
        let registry = Arc::new(Registry::new(keys_max, cached, sentinel));
        Self { lru, registry, orphans, clock, versions_max, keys_max, closed: Mutex::default() }
    }

    /// Returns the id's keyring, an empty one if nothing is cached.
    pub(crate) fn keyring(&self, id: &str) -> Arc<Keyring> {
        let cached = self.lru.get(id);
        cached.unwrap_or_else(|| self.registry.get_or_insert(id, Keyring::new))
    }

    /// Adds a key to a keyring and makes room for it. Does nothing once closed.
    pub(crate) fn add(&self, keyring: &Arc<Keyring>, key: &Arc<CryptoKey>, role: Role) {
        let closed = self.admission();
        if *closed {
            return;
        }
        let now = Moment::now(&*self.clock);
        keyring.touch(now);
        // It may have been evicted while the load held it.
        self.orphans.forget(key);
        self.orphans.release(keyring.add(key, role, self.versions_max, now), now, OrphanCause::Superseded);
        self.lru.insert(keyring);
        self.lru.settle();
    }

    /// Drops the keys of a keyring for which `is_gone` holds and returns their rows, each with what is
    /// known of it.
    pub(crate) fn remove(
        &self,
        keyring: &Arc<Keyring>,
        is_gone: impl Fn(&CryptoKey) -> bool,
    ) -> Vec<(EnvelopeKeyRecord, Arc<KeyState>)> {
        let closed = self.admission();
        let gone = keyring.remove(is_gone);
        let rows = gone.iter().map(|key| (key.record(), Arc::clone(key.state()))).collect();
        self.release(keyring, gone, &closed);
        rows
    }

    /// Drops the former keys whose time ends so that `is_over` holds.
    fn remove_formers(&self, keyring: &Arc<Keyring>, is_over: impl Fn(u64) -> bool) {
        if keyring.has_formers() {
            let closed = self.admission();
            self.release(keyring, keyring.drop_formers(is_over), &closed);
        }
    }

    /// Gives up the hold on keys that a keyring dropped. That was done under the same lock: else a load may
    /// have added one of them again meanwhile, and it would be listed as an orphan while it is cached.
    fn release(&self, keyring: &Arc<Keyring>, gone: Vec<Arc<CryptoKey>>, closed: &MutexGuard<'_, bool>) {
        if gone.is_empty() {
            return;
        }
        self.orphans.release(gone, Moment::now(&*self.clock), OrphanCause::Superseded);
        if !**closed && keyring.keys().len() > 0 {
            // Tells the LRU its new weight.
            self.lru.insert(keyring);
        }
        self.lru.settle();
    }

    /// Keeps a version's key for decrypting, until then, since its row holds `current`; that one is added
    /// next. Does nothing once closed.
    pub(crate) fn put_aside(
        &self,
        keyring: &Arc<Keyring>,
        key: &Arc<CryptoKey>,
        current: &CryptoKey,
        until: u64,
    ) {
        let closed = self.admission();
        if *closed {
            return;
        }
        let gone = keyring.put_aside(key, current, until);
        self.orphans.release(gone, Moment::now(&*self.clock), OrphanCause::Superseded);
    }

    /// Drops what the versions of this id were before their rows held other bytes.
    pub(crate) fn drop_formers(&self, id: &str) {
        if let Some(keyring) = self.registry.get(id) {
            self.remove_formers(&keyring, |_until| true);
        }
    }

    /// Tells the LRU that a keyring is in use.
    pub(crate) fn touch(&self, keyring: &Keyring) {
        self.lru.touch(keyring.id());
    }

    /// Returns `true` if any keyring has been idle for `idle_max` nanoseconds.
    ///
    /// # Cancel safety
    /// It changes nothing.
    pub(crate) async fn is_any_idle(&self, now: Moment, idle_max: u64) -> bool {
        for (number, keyring) in self.lru.iter().enumerate() {
            if keyring.idle(now) > idle_max {
                return true;
            }
            if number % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
        false
    }

    /// Drops the keyrings that have been idle for `idle_max` nanoseconds.
    ///
    /// Those whose refreshes fail stay for `troubled_max`: dropping their keys would turn an outage
    /// into errors. So do parents of keys in memory: to check these would cost a KMS call.
    ///
    /// # Cancel safety
    /// Those that it came to are gone, the others stay.
    pub(crate) async fn sweep(&self, now: Moment, idle_max: u64, troubled_max: u64) {
        for (number, keyring) in self.lru.iter().enumerate() {
            if number % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            self.remove_formers(&keyring, |until| until < now.monotonic);
            let idle = keyring.idle(now);
            if idle > idle_max && !keyring.is_parent() && (!keyring.is_troubled() || idle > troubled_max) {
                // One at a time, since additions wait for this.
                let _paced = self.admission();
                self.lru.remove(keyring.id());
                self.lru.settle();
            }
        }
        let _paced = self.admission();
        self.lru.settle();
    }

    /// Empties every keyring and adds nothing any more.
    pub(crate) fn close(&self) {
        *self.admission() = true;
        let now = Moment::now(&*self.clock);
        for keyring in self.registry.all() {
            self.orphans.release(keyring.clear(), now, OrphanCause::Closed);
        }
        self.lru.clear();
        self.lru.settle();
    }

    /// Notes that the rows of a key may have changed. Makes no keyring where there is none.
    pub(crate) fn invalidate(&self, id: &str) {
        if let Some(keyring) = self.registry.get(id) {
            keyring.invalidate();
        }
    }

    /// Notes that the row of a version was put back by an insert that began at `begun`. Makes no keyring
    /// where there is none.
    pub(crate) fn renew(&self, key: &KeyMeta, begun: Moment) {
        if let Some(keyring) = self.registry.get(key.id().as_str()) {
            keyring.renew(key.created(), begun);
        }
    }

    /// Notes that what loads under way bring is no news, whatever they are for.
    pub(crate) fn invalidate_flights(&self) {
        self.registry.series().invalidate();
    }

    /// Walks over all keyrings that anybody holds, with no lock held meanwhile.
    pub(crate) fn keyrings(&self) -> impl Iterator<Item = Arc<Keyring>> {
        self.registry.all()
    }

    #[cfg(test)]
    pub(super) fn keyrings_under_one_lock_max(&self) -> usize {
        self.registry.keyrings_under_one_lock_max()
    }

    /// Returns how many keys there may be.
    pub(crate) const fn keys_max(&self) -> usize {
        self.keys_max
    }

    /// Counts the cached keys.
    pub(crate) fn keys(&self) -> usize {
        self.registry.keys()
    }

    /// Returns the key ids that loads are under way for.
    pub(crate) fn in_flight(&self) -> Vec<KeyId> {
        let busy = |keyring: Arc<Keyring>| (keyring.flights().under_way() > 0).then(|| keyring.id().clone());
        self.registry.all().filter_map(busy).collect()
    }

    fn admission(&self) -> MutexGuard<'_, bool> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache").field("keys", &self.keys()).finish_non_exhaustive()
    }
}
