//! Keys of partitions that nobody uses any more leave the cache, unless they may be needed to outlast an
//! outage: one that nobody has noticed yet, too.

use std::sync::Arc;
use std::time::Duration;

use super::back_ends::BackEnds;
use super::caches::Caches;
use super::context::Context;
use super::loader::Loader;
use super::parts::Parts;
use crate::clock::nanos;
use crate::gate::Class;
use crate::record::Created;
use crate::tasks::Tasks;

#[derive(Debug)]
pub(crate) struct Sweep {
    context: Arc<Context>,
    back_ends: Arc<BackEnds>,
    caches: Arc<Caches>,
    loader: Arc<Loader>,
    /// `None` if keys are never idle.
    idle_timeout: Option<Duration>,
}

impl Sweep {
    pub(crate) fn new(parts: &Parts, loader: Arc<Loader>, idle_timeout: Option<Duration>) -> Self {
        let (context, back_ends) = (Arc::clone(&parts.context), Arc::clone(&parts.back_ends));
        Self { context, back_ends, caches: Arc::clone(&parts.caches), loader, idle_timeout }
    }

    /// Sees to it that it is made from time to time.
    pub(super) fn ensure(self: &Arc<Self>, tasks: &Tasks) {
        if let Some(idle_timeout) = self.idle_timeout {
            let period = (idle_timeout / 8).clamp(Duration::from_millis(100), Duration::from_secs(60));
            let this = Arc::downgrade(self);
            tasks.ensure_sweep(period, move || {
                let this = this.upgrade();
                async move {
                    if let Some(this) = this {
                        this.sweep(nanos(idle_timeout)).await;
                    }
                }
            });
        }
    }

    /// Drops the keys of partitions that nobody used for the idle timeout.
    async fn sweep(&self, idle_max: u64) {
        let outage_max = idle_max.max(self.context.rules().decrypt_age_max());
        let (intermediate, system) = (self.caches.intermediate(), self.caches.system());
        let is_any_idle = intermediate.is_any_idle(self.context.now(), idle_max).await
            || system.is_any_idle(self.context.now(), idle_max).await;
        // While the store is down a dropped key could not be had again.
        let may_be_dropped = is_any_idle && self.is_store_up().await;
        let now = self.context.now();
        for cache in [intermediate, system] {
            cache.sweep(now, if may_be_dropped { idle_max } else { outage_max }, outage_max).await;
        }
    }

    /// Returns `true` if the store read a row lately, or does so now.
    async fn is_store_up(&self) -> bool {
        let store = self.back_ends.store();
        if store.reads().has_served_within(self.context.rules().interval()) {
            return true;
        }
        let system_keyring = self.caches.system_keyring();
        // One that refuses is no help either.
        match system_keyring.latest() {
            Some(key) => {
                let row = store.load(Class::Check, key.meta()).await;
                row.map(|row| row.map(|record| self.loader.learn_in_passing(system_keyring, &record))).is_ok()
            }
            None => {
                let latest = store.load_latest(Class::Check, system_keyring.id(), Created::MAX).await;
                let learn = |latest| self.loader.learn_latest_in_passing(system_keyring, &latest);
                latest.map(|latest| latest.map(learn)).is_ok()
            }
        }
    }
}
