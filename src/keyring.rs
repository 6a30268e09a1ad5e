//! All that is cached of one key id: its versions, which is the latest, and the flights that load
//! them. It knows no store.

pub(crate) mod cache;
pub(crate) mod flight;
pub(crate) mod orphans;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::{ArcSwap, Guard};

use crate::clock::{Moment, NANOS_PER_SECOND};
use crate::key::{CryptoKey, KeyState};
use crate::record::{Created, KeyId};
use flight::Flights;

/// How many versions of one key are cached.
pub(crate) const VERSIONS_MAX: usize = 16;

/// One key id's keys. A session holds it and reads [`keys`](Self::keys) without a lock.
#[derive(Debug)]
pub(crate) struct Keyring {
    id: KeyId,
    keys: ArcSwap<KeySet>,
    /// Serialises the writers of `keys`, and outlives keys: what is known of versions that live
    /// anywhere, so that a key loaded again learns what was known, above all that it was revoked.
    states: Mutex<BTreeMap<Created, Weak<KeyState>>>,
    flights: Arc<Flights>,
    /// When a refresh last failed or took too long, in monotonic nanoseconds, and in the lowest bit
    /// whether for good; 0 since the last good one.
    trouble: AtomicU64,
    /// When the keys were last used, to the second, in monotonic nanoseconds.
    used: AtomicU64,
    shells: Weak<cache::Shells>,
}

/// The versions of one key that are cached, ascending, and the one to encrypt under.
#[derive(Debug, Default)]
pub(crate) struct KeySet {
    pub(crate) latest: Option<Arc<CryptoKey>>,
    pub(crate) versions: Vec<Arc<CryptoKey>>,
}

impl KeySet {
    pub(crate) fn version(&self, created: Created) -> Option<&Arc<CryptoKey>> {
        self.versions.iter().find(|key| key.created() == created)
    }
}

/// What a new key is to its keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The one to encrypt under.
    Latest,
    /// A version that some record names.
    Version,
}

impl Keyring {
    pub(crate) fn new(id: KeyId, shells: Weak<cache::Shells>) -> Self {
        Self {
            id,
            keys: ArcSwap::default(),
            states: Mutex::default(),
            flights: Arc::default(),
            trouble: AtomicU64::new(0),
            used: AtomicU64::new(0),
            shells,
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

    pub(crate) fn latest(&self) -> Option<Arc<CryptoKey>> {
        self.keys().latest.clone()
    }

    pub(crate) fn version(&self, created: Created) -> Option<Arc<CryptoKey>> {
        self.keys().version(created).cloned()
    }

    /// Returns what is known of a version, kept as long as anybody holds it.
    pub(crate) fn state(&self, created: Created) -> Arc<KeyState> {
        let mut states = self.lock();
        if let Some(state) = states.get(&created).and_then(Weak::upgrade) {
            return state;
        }
        states.retain(|_, state| state.strong_count() > 0);
        let state = Arc::new(KeyState::default());
        states.insert(created, Arc::downgrade(&state));
        state
    }

    /// Adds a key, in the place of one of the same version; returns the keys that had to go for it.
    fn add(&self, key: &Arc<CryptoKey>, role: Role, versions_max: usize) -> Vec<Arc<CryptoKey>> {
        let _writer = self.lock();
        let old = self.keys.load_full();
        let (mut versions, mut gone): (Vec<_>, Vec<_>) =
            old.versions.iter().cloned().partition(|held| held.created() != key.created());
        gone.retain(|held| !Arc::ptr_eq(held, key));
        let latest = match role {
            Role::Latest => Some(Arc::clone(key)),
            Role::Version => old.latest.as_ref().map(|latest| {
                if latest.created() == key.created() { Arc::clone(key) } else { Arc::clone(latest) }
            }),
        };
        let at = versions.partition_point(|held| held.created() < key.created());
        versions.insert(at, Arc::clone(key));
        while versions.len() > versions_max.clamp(1, VERSIONS_MAX) {
            let is_needed =
                |held: &Arc<CryptoKey>| Arc::ptr_eq(held, key) || latest.as_ref().is_some_and(|latest| Arc::ptr_eq(held, latest));
            match versions.iter().position(|held| !is_needed(held)) {
                Some(oldest) => gone.push(versions.remove(oldest)),
                None => break,
            }
        }
        self.keys.store(Arc::new(KeySet { latest, versions }));
        gone
    }

    /// Drops the keys for which `is_gone` holds and returns them.
    fn remove(&self, is_gone: impl Fn(&CryptoKey) -> bool) -> Vec<Arc<CryptoKey>> {
        let _writer = self.lock();
        let old = self.keys.load_full();
        let (gone, versions): (Vec<_>, Vec<_>) = old.versions.iter().cloned().partition(|held| is_gone(held));
        if !gone.is_empty() {
            let latest = old.latest.clone().filter(|latest| !is_gone(latest));
            self.keys.store(Arc::new(KeySet { latest, versions }));
        }
        gone
    }

    /// Notes that a refresh failed or took too long; `in_passing` if that may pass by itself.
    pub(crate) fn note_trouble(&self, now: Moment, in_passing: bool) {
        // The lowest bit is the kind; two nanoseconds are exact enough.
        self.trouble.store((now.monotonic & !1).max(2) | u64::from(!in_passing), Ordering::Relaxed);
    }

    /// Notes that a refresh succeeded.
    pub(crate) fn clear_trouble(&self) {
        self.trouble.store(0, Ordering::Relaxed);
    }

    /// Tells whether the last refresh failed or took too long.
    pub(crate) fn is_troubled(&self) -> bool {
        self.trouble.load(Ordering::Relaxed) != 0
    }

    /// Tells whether a refresh failed or took too long within the last second.
    pub(crate) fn was_troubled(&self, now: Moment) -> bool {
        let trouble = self.trouble.load(Ordering::Relaxed);
        trouble != 0 && now.monotonic.saturating_sub(trouble & !1) < NANOS_PER_SECOND
    }

    /// Tells whether that was the case, and may have passed since.
    pub(crate) fn was_troubled_in_passing(&self, now: Moment) -> bool {
        self.was_troubled(now) && self.trouble.load(Ordering::Relaxed) & 1 == 0
    }

    /// Notes a use. `true` at most once a second: then the cache wants to hear of it too.
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

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Created, Weak<KeyState>>> {
        // Writers replace whole values, so a panic in between leaves nothing half-done.
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        if let Some(shells) = self.shells.upgrade() {
            shells.forget(&self.id);
        }
    }
}
