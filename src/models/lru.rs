//! The double of `keyring::lru`: which keyrings have keys, the one used longest ago first.

use std::sync::{Arc, PoisonError};

use super::Keyring;
use super::orphans::OrphanCause;
use crate::policy::Capacity;
use crate::record::KeyId;

type Evict = Box<dyn Fn(&Keyring, OrphanCause) + Send + Sync>;

pub(super) struct Lru {
    /// Not loom's: nobody holds it while threads could change.
    keyrings: std::sync::Mutex<Vec<Arc<Keyring>>>,
    keys_max: usize,
    evict: Evict,
}

impl Lru {
    pub(super) fn new(
        capacity: Capacity,
        evict: impl Fn(&Keyring, OrphanCause) + Send + Sync + 'static,
    ) -> Self {
        let keys_max = match capacity {
            Capacity::Keys(keys) => usize::try_from(keys).unwrap_or(usize::MAX),
            Capacity::Unbounded => usize::MAX,
        };
        Self { keyrings: std::sync::Mutex::default(), keys_max, evict: Box::new(evict) }
    }

    pub(super) fn get(&self, id: &str) -> Option<Arc<Keyring>> {
        self.all().into_iter().find(|keyring| keyring.id().as_str() == id)
    }

    pub(super) fn touch(&self, id: &KeyId) {
        if let Some(keyring) = self.get(id.as_str()) {
            self.insert(&keyring);
        }
    }

    pub(super) fn insert(&self, keyring: &Arc<Keyring>) {
        let mut keyrings = self.keyrings.lock().unwrap_or_else(PoisonError::into_inner);
        keyrings.retain(|held| !Arc::ptr_eq(held, keyring));
        keyrings.push(Arc::clone(keyring));
    }

    pub(super) fn remove(&self, id: &KeyId) {
        if let Some(keyring) = self.take(|keyring| keyring.id() == id) {
            (self.evict)(&keyring, OrphanCause::Idle);
        }
    }

    pub(super) fn clear(&self) {
        while let Some(keyring) = self.take(|_| true) {
            (self.evict)(&keyring, OrphanCause::Idle);
        }
    }

    pub(super) fn settle(&self) {
        while self.all().iter().map(|keyring| keyring.keys().len()).sum::<usize>() > self.keys_max {
            let Some(oldest) = self.take(|_| true) else { return };
            (self.evict)(&oldest, OrphanCause::Evicted);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Arc<Keyring>> + '_ {
        self.all().into_iter()
    }

    fn all(&self) -> Vec<Arc<Keyring>> {
        self.keyrings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take(&self, is_it: impl Fn(&Keyring) -> bool) -> Option<Arc<Keyring>> {
        let mut keyrings = self.keyrings.lock().unwrap_or_else(PoisonError::into_inner);
        let place = keyrings.iter().position(|keyring| is_it(keyring))?;
        Some(keyrings.remove(place))
    }
}
