//! All that a factory has cached: keys of both levels, what is known of system keys, and which versions were
//! not found.

use std::sync::Arc;

use claviger_memory::ForkSentinel;

use super::missing::Missing;
use super::parents::Parents;
use super::request::Level;
use crate::clock::{Clock, Moment};
use crate::keyring::Keyring;
use crate::keyring::cache::KeyCache;
use crate::keyring::orphans::Orphans;
use crate::partition::is_system_key_id;
use crate::policy::Limits;
use crate::record::{KeyId, KeyMeta};
use crate::telemetry::keys::KeyMetrics;

#[derive(Debug)]
pub(crate) struct Caches {
    intermediate: KeyCache,
    system: KeyCache,
    /// The keyring of the system key that new intermediate keys are wrapped under.
    system_keyring: Arc<Keyring>,
    parents: Parents,
    orphans: Arc<Orphans>,
    missing: Missing,
}

/// After how many keyrings others have their turn.
const TURN: usize = 256;

impl Caches {
    pub(crate) fn new(
        limits: &Limits,
        system_key: &KeyId,
        clock: &Arc<dyn Clock>,
        sentinel: &Arc<ForkSentinel>,
        metrics: &KeyMetrics,
    ) -> Self {
        let orphans = Arc::new(Orphans::new(metrics));
        let cache = |capacity, level| {
            let (orphans, cached) = (Arc::clone(&orphans), metrics.cached(level).clone());
            KeyCache::new(capacity, orphans, Arc::clone(clock), Arc::clone(sentinel), cached)
        };
        let system = cache(limits.max_system_keys, Level::System);
        let intermediate = cache(limits.max_intermediate_keys, Level::Intermediate);
        Self {
            intermediate,
            system_keyring: system.keyring(system_key.as_str()),
            system,
            parents: Parents::default(),
            orphans,
            missing: Missing::default(),
        }
    }

    pub(super) const fn of(&self, level: Level) -> &KeyCache {
        match level {
            Level::System => &self.system,
            Level::Intermediate => &self.intermediate,
        }
    }

    pub(crate) const fn intermediate(&self) -> &KeyCache {
        &self.intermediate
    }

    pub(crate) const fn system(&self) -> &KeyCache {
        &self.system
    }

    pub(crate) const fn system_keyring(&self) -> &Arc<Keyring> {
        &self.system_keyring
    }

    pub(super) const fn parents(&self) -> &Parents {
        &self.parents
    }

    pub(crate) const fn orphans(&self) -> &Arc<Orphans> {
        &self.orphans
    }

    pub(super) const fn missing(&self) -> &Missing {
        &self.missing
    }

    /// Notes that the rows of this key may have changed: what is cached of them stays, and is no longer
    /// fresh.
    ///
    /// A load that began before is of no use then, even one in the same tick of the clocks: loads are told
    /// apart by their generations.
    pub(super) fn invalidate(&self, id: &KeyId) {
        self.intermediate.invalidate(id.as_str());
        self.system.invalidate(id.as_str());
        // After the keyrings: a load that finds no row notes so first and then asks them.
        self.missing.forget_all_of(id);
        if is_system_key_id(id) {
            self.parents.invalidate(id);
            // A load of a child asks for its parent too. Last, so that one which begins later finds the
            // parents invalidated.
            self.intermediate.invalidate_flights();
        }
    }

    /// Notes that any row may have changed.
    pub(super) fn invalidate_everything(&self) {
        self.keyrings().for_each(|keyring| keyring.invalidate());
        self.missing.forget_everything();
    }

    /// Does the same where loads may run on the same thread, and lets them have their turn.
    pub(super) async fn invalidate_everything_in_turns(&self) {
        for (number, keyring) in self.keyrings().enumerate() {
            keyring.invalidate();
            if number % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
        self.missing.forget_everything();
    }

    /// The system keys come first, so that a load of a key under one finds that invalidated.
    fn keyrings(&self) -> impl Iterator<Item = Arc<Keyring>> {
        self.system.keyrings().chain(self.intermediate.keyrings())
    }

    /// Notes that a row which was gone is back, by an insert that began at `begun`.
    pub(super) fn renew(&self, key: &KeyMeta, begun: Moment) {
        self.system.renew(key, begun);
        self.intermediate.renew(key, begun);
        self.missing.forget(key);
    }

    /// Forgets what keys of this id were before their rows held other bytes.
    pub(super) fn drop_formers(&self, id: &KeyId) {
        self.intermediate.drop_formers(id.as_str());
        self.system.drop_formers(id.as_str());
    }

    /// Returns the key ids that loads are under way for.
    pub(crate) fn in_flight(&self) -> Vec<KeyId> {
        let mut ids = self.intermediate.in_flight();
        ids.extend(self.system.in_flight());
        ids
    }

    /// Empties every keyring and adds nothing any more.
    pub(crate) fn close(&self) {
        self.intermediate.close();
        self.system.close();
    }
}
