//! Which keyrings have keys, bounded by how many those are all together: moka, as far as we use it.
//!
//! Models take one of their own in its place: moka's locks are none that they could schedule.

use std::collections::hash_map::RandomState;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::Keyring;
use super::orphans::OrphanCause;
use crate::policy::Capacity;
use crate::record::KeyId;

pub(super) struct Lru(Cache<KeyId, Arc<Place>, RandomState>);

/// Where a keyring is in the LRU. It leaves with its entry: what the LRU keeps of that is freed some time later, by
/// whichever thread comes by, and a keyring that lived on so long would be found again or not, by chance.
struct Place(ArcSwapOption<Keyring>);

impl Lru {
    /// Makes one that calls `evict` for each keyring that it lets go of.
    pub(super) fn new(
        capacity: Capacity,
        evict: impl Fn(&Keyring, OrphanCause) + Send + Sync + 'static,
    ) -> Self {
        let builder = Cache::builder()
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|_, place: &Arc<Place>| {
                let keys = place.0.load().as_ref().map_or(0, |keyring| keyring.keys().len());
                u32::try_from(keys).unwrap_or(u32::MAX)
            })
            .eviction_listener(move |_, place: Arc<Place>, cause| {
                let Some(keyring) = place.0.swap(None) else { return };
                match cause {
                    // A keyring that was added again replaced itself and is still in.
                    RemovalCause::Replaced => {}
                    RemovalCause::Size => evict(&keyring, OrphanCause::Evicted),
                    RemovalCause::Expired | RemovalCause::Explicit => evict(&keyring, OrphanCause::Idle),
                }
            });
        let builder = match capacity {
            Capacity::Keys(keys) => builder.max_capacity(keys),
            Capacity::Unbounded => builder,
        };
        Self(builder.build_with_hasher(RandomState::new()))
    }

    pub(super) fn get(&self, id: &str) -> Option<Arc<Keyring>> {
        self.0.get(id)?.0.load_full()
    }

    /// Notes a use.
    pub(super) fn touch(&self, id: &KeyId) {
        self.0.get(id);
    }

    /// Takes a keyring in, or notes how many keys it has by now.
    pub(super) fn insert(&self, keyring: &Arc<Keyring>) {
        let place = Place(ArcSwapOption::from(Some(Arc::clone(keyring))));
        self.0.insert(keyring.id().clone(), Arc::new(place));
    }

    pub(super) fn remove(&self, id: &KeyId) {
        self.0.invalidate(id);
    }

    pub(super) fn clear(&self) {
        self.0.invalidate_all();
    }

    /// Lets go of what is over the bound, and of what was removed.
    pub(super) fn settle(&self) {
        self.0.run_pending_tasks();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Arc<Keyring>> + '_ {
        self.0.iter().filter_map(|(_, place)| place.0.load_full())
    }
}
