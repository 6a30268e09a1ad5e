//! All that is cached of one key id: its versions, which is the latest, and the loads under way for
//! them. It knows no store.

pub(crate) mod cache;
pub(crate) mod flight;
pub(crate) mod key_set;
mod landing;
#[cfg_attr(claviger_loom, path = "models/lru.rs")]
mod lru;
pub(crate) mod orphans;
pub(crate) mod progress;
pub(crate) mod registry;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};

use crate::clock::{Moment, NANOS_PER_SECOND};
use crate::key::CryptoKey;
use crate::key::state::{KeyState, Trouble};
use crate::record::{Created, KeyId};
use crate::sync::{ArcSwap, AtomicU64, Guard, Mutex, MutexGuard};
use flight::Flights;
use key_set::{Change, KeySet, Role};
use registry::Registry;

/// One key id's keys. A session holds it and reads [`keys`](Self::keys) without a lock.
#[derive(Debug)]
pub(crate) struct Keyring {
    id: KeyId,
    keys: ArcSwap<KeySet>,
    /// Serialises the writers of `keys`, and outlives keys.
    states: Mutex<States>,
    flights: Arc<Flights>,
    trouble: Trouble,
    /// What attempts to replace the latest key before its end met.
    rotation: Trouble,
    /// When the keys were last used, to the second, in monotonic nanoseconds.
    used: AtomicU64,
    registry: Weak<Registry<Self>>,
}

/// A key of a keyring in use: it stays in memory until this is dropped. Taking it locks and counts
/// nothing.
#[derive(Debug)]
pub(crate) struct KeyInUse {
    keys: Guard<Arc<KeySet>>,
    /// Its place among the versions; `None` is the latest.
    place: Option<usize>,
}

impl Deref for KeyInUse {
    type Target = CryptoKey;

    #[inline]
    fn deref(&self) -> &CryptoKey {
        let key = match self.place {
            Some(place) => self.keys.versions.get(place),
            None => self.keys.latest.as_ref(),
        };
        match key {
            Some(key) => key,
            None => unreachable!("it was there when it was taken, and key sets do not change"),
        }
    }
}

/// What is known of versions that live anywhere, so that a key loaded again shares it.
#[derive(Debug, Default)]
struct States(BTreeMap<Created, Weak<KeyState>>);

impl Keyring {
    pub(crate) fn new(id: KeyId, registry: Weak<Registry<Self>>) -> Self {
        let series = registry.upgrade().map(|registry| Arc::clone(registry.series()));
        Self {
            id,
            keys: ArcSwap::default(),
            states: Mutex::default(),
            flights: Arc::new(Flights::new(series.unwrap_or_default())),
            trouble: Trouble::default(),
            rotation: Trouble::default(),
            used: AtomicU64::new(0),
            registry,
        }
    }

    pub(crate) const fn id(&self) -> &KeyId {
        &self.id
    }

    pub(crate) const fn flights(&self) -> &Arc<Flights> {
        &self.flights
    }

    /// Returns the keys as they are now. Reading takes no lock and writes nothing shared.
    pub(crate) fn keys(&self) -> Guard<Arc<KeySet>> {
        self.keys.load()
    }

    /// Takes the key to encrypt under, if there is one.
    #[inline]
    pub(crate) fn take_latest(&self) -> Option<KeyInUse> {
        let keys = self.keys();
        keys.latest.is_some().then_some(KeyInUse { keys, place: None })
    }

    /// Takes a version, if it is cached.
    #[inline]
    pub(crate) fn take_version(&self, created: Created) -> Option<KeyInUse> {
        let keys = self.keys();
        // Most records are of the latest key, which is found a step earlier.
        if keys.latest.as_ref().is_some_and(|key| key.created() == created) {
            return Some(KeyInUse { keys, place: None });
        }
        let place = keys.place(created)?;
        Some(KeyInUse { keys, place: Some(place) })
    }

    pub(crate) fn latest(&self) -> Option<Arc<CryptoKey>> {
        self.keys().latest.clone()
    }

    pub(crate) fn version(&self, created: Created) -> Option<Arc<CryptoKey>> {
        let keys = self.keys();
        keys.versions.get(keys.place(created)?).cloned()
    }

    /// Returns what is known of a version.
    pub(crate) fn state(&self, created: Created) -> Arc<KeyState> {
        let mut states = self.lock();
        if let Some(state) = states.0.get(&created).and_then(Weak::upgrade) {
            return state;
        }
        states.0.retain(|_, state| state.strong_count() > 0);
        let state = Arc::new(KeyState::default());
        states.0.insert(created, Arc::downgrade(&state));
        state
    }

    /// Returns what is known of a version whose row was found, by a read that began at `begun`.
    ///
    /// A row that is back after it was found gone begins anew: what its operations and the keys under
    /// it held on to stays lost.
    pub(crate) fn state_of_row(&self, created: Created, begun: Moment) -> Arc<KeyState> {
        self.renew_if(created, |state| state.is_row_missing_before(begun));
        self.state(created)
    }

    /// Notes that the row of a version was put back, by an insert of our own that began at `begun`. A
    /// loss that was noted later stays.
    pub(crate) fn renew(&self, created: Created, begun: Moment) {
        self.renew_if(created, |state| state.is_row_missing_by(begun));
    }

    fn renew_if(&self, created: Created, is_over: impl Fn(&KeyState) -> bool) {
        let mut states = self.lock();
        let state = states.0.get(&created).and_then(Weak::upgrade);
        if state.is_some_and(|state| is_over(&state)) {
            states.0.remove(&created);
        }
    }

    /// Notes a good read, by the load of this generation, of a version's row.
    pub(crate) fn mark_checked(&self, state: &KeyState, begun: Moment, generation: u64) {
        let _writer = self.lock();
        state.mark_checked(begun, self.flights.is_current(generation));
    }

    /// Notes a good read of a version's row from a replica, as [`mark_checked`](Self::mark_checked)
    /// does one from the store itself.
    pub(crate) fn mark_read_from_replica(&self, state: &KeyState, begun: Moment, generation: u64) {
        let _writer = self.lock();
        state.mark_read_from_replica(begun, self.flights.is_current(generation));
    }

    /// Notes that the rows may have changed: nothing that is known of them is fresh, and nothing
    /// that loads under way learn will be.
    pub(crate) fn invalidate(&self) {
        let states = self.lock();
        self.flights.invalidate();
        for state in states.0.values().filter_map(Weak::upgrade) {
            state.invalidate();
        }
    }

    /// Notes `now` that the rows of some versions are gone, by a read of this load that began at
    /// `begun`. What was learned later, by an insert of our own for one, is not undone.
    pub(crate) fn mark_rows_missing(
        &self,
        begun: Moment,
        now: Moment,
        generation: u64,
        is_lost: impl Fn(Created, &KeyState) -> bool,
    ) {
        let states = self.lock();
        let is_current = self.flights.is_current(generation);
        for (created, state) in &states.0 {
            let Some(state) = state.upgrade().filter(|state| is_lost(*created, state)) else { continue };
            if !state.outlives(begun, is_current) {
                state.mark_row_missing(now);
            }
        }
    }

    /// Returns the former keys of a version, the one that was known last first.
    pub(crate) fn formers(&self, created: Created, now: Moment) -> Vec<Arc<CryptoKey>> {
        self.keys().formers(created, now)
    }

    /// Returns `true` if any version has a former key.
    pub(crate) fn has_formers(&self) -> bool {
        self.keys().has_formers()
    }

    /// Adds a key, in the place of one of the same version; returns the keys that had to go for it, and
    /// those whose time is over.
    fn add(&self, key: &Arc<CryptoKey>, role: Role, versions_max: usize, now: Moment) -> Vec<Arc<CryptoKey>> {
        let _writer = self.lock();
        let Change { keys, gone } = self.keys.load().with(key, role, versions_max, now);
        self.replace(keys);
        gone
    }

    /// Drops the versions for which `is_gone` holds and returns them.
    fn remove(&self, is_gone: impl Fn(&CryptoKey) -> bool) -> Vec<Arc<CryptoKey>> {
        let _writer = self.lock();
        let Change { keys, gone } = self.keys.load().without(is_gone);
        if !gone.is_empty() {
            self.replace(keys);
        }
        gone
    }

    /// Keeps a version's key for decrypting, until then, since its row holds `current`. Returns the keys
    /// that had to go for it.
    fn put_aside(&self, key: &Arc<CryptoKey>, current: &CryptoKey, until: u64) -> Vec<Arc<CryptoKey>> {
        key.mark_former();
        let _writer = self.lock();
        let Change { keys, gone } = self.keys.load().put_aside(key, current, until);
        self.replace(keys);
        gone
    }

    /// Drops the former keys whose time ends so that `is_over` holds, and returns them.
    fn drop_formers(&self, is_over: impl Fn(u64) -> bool) -> Vec<Arc<CryptoKey>> {
        let _writer = self.lock();
        let Change { keys, gone } = self.keys.load().without_formers(is_over);
        self.replace(keys);
        gone
    }

    /// Drops all keys and returns them.
    fn clear(&self) -> Vec<Arc<CryptoKey>> {
        let _writer = self.lock();
        self.replace(KeySet::default()).all()
    }

    /// Puts these keys in the place of those that were, which it returns. The caller holds the lock.
    fn replace(&self, keys: KeySet) -> Arc<KeySet> {
        let len = keys.len();
        let old = self.keys.swap(Arc::new(keys));
        if let Some(registry) = self.registry.upgrade() {
            registry.recount(old.len(), len);
        }
        old
    }

    /// Returns the trouble that refreshes of the latest key met. Each version has its own, so that
    /// one that cannot be loaded does not keep the latest from being checked.
    pub(crate) const fn trouble(&self) -> &Trouble {
        &self.trouble
    }

    /// Returns the trouble that replacing the latest key before its end met, which keeps nobody from
    /// checking it.
    pub(crate) const fn rotation(&self) -> &Trouble {
        &self.rotation
    }

    /// Returns `true` if one of the keys wraps a key that is in memory.
    fn is_parent(&self) -> bool {
        // Besides the key itself only children hold a key's state.
        self.keys().versions.iter().any(|key| Arc::strong_count(key.state()) > 1)
    }

    /// Returns `true` if the last refresh of the latest key or of a version failed or took too long.
    fn is_troubled(&self) -> bool {
        self.trouble.is_any() || self.keys().versions.iter().any(|key| key.state().trouble().is_any())
    }

    /// Notes a use. `true` at most once a second: then the cache wants to hear of it too.
    #[inline]
    pub(crate) fn touch(&self, now: Moment) -> bool {
        let used = self.used.load(Ordering::Relaxed);
        if now.monotonic.saturating_sub(used) < NANOS_PER_SECOND && used != 0 {
            return false;
        }
        self.used.store(now.monotonic.max(1), Ordering::Relaxed);
        true
    }

    /// Returns how long ago the keys were last used, in nanoseconds, to the second.
    pub(crate) fn idle(&self, now: Moment) -> u64 {
        now.monotonic.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, States> {
        // Writers replace whole values, so a panic in between leaves nothing half-done.
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.upgrade() {
            registry.forget(&self.id, self.keys().len());
        }
    }
}

#[cfg(test)]
mod tests;
