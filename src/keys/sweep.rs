//! Keys of partitions that nobody uses any more leave the cache, unless they may be needed to outlast an
//! outage: one that nobody has noticed yet, too.

use std::sync::Arc;
use std::time::Duration;

use super::Hierarchy;
use crate::clock::nanos;
use crate::gate::Class;
use crate::record::Created;

impl Hierarchy {
    pub(super) fn ensure_sweep(self: &Arc<Self>) {
        if let Some(idle_timeout) = self.idle_timeout {
            let period = (idle_timeout / 8).clamp(Duration::from_millis(100), Duration::from_secs(60));
            let this = Arc::downgrade(self);
            self.tasks.ensure_sweep(period, move || {
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
        let outage_max = idle_max.max(self.rules.decrypt_age_max());
        let (intermediate, system) = (&self.intermediate, &self.system);
        let is_any_idle = intermediate.is_any_idle(self.now(), idle_max).await
            || system.is_any_idle(self.now(), idle_max).await;
        // While the store is down a dropped key could not be had again.
        let may_be_dropped = is_any_idle && self.is_store_up().await;
        let now = self.now();
        for cache in [intermediate, system] {
            cache.sweep(now, if may_be_dropped { idle_max } else { outage_max }, outage_max).await;
        }
    }

    /// Tells whether the store read a row lately, or does so now.
    async fn is_store_up(&self) -> bool {
        if self.store.reads().has_served_within(self.rules.interval()) {
            return true;
        }
        // One that refuses is no help either.
        match self.system_keyring.latest() {
            Some(key) => self.store.load(Class::Check, key.meta()).await.is_ok(),
            None => {
                self.store.load_latest(Class::Check, self.system_keyring.id(), Created::MAX).await.is_ok()
            }
        }
    }
}
