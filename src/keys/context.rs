//! What a factory was built with, and the events that it raises: all its parts look here.

use std::sync::Arc;

use super::rules::Rules;
use crate::clock::{Clock, Moment};
use crate::events::Events;
use crate::partition::{Level, Naming};
use crate::random::SecureRandom;
use crate::record::KeyMeta;
use crate::telemetry::Telemetry;
use crate::telemetry::keys::KeyChange;

#[derive(Debug)]
pub(crate) struct Context {
    naming: Naming,
    rules: Rules,
    clock: Arc<dyn Clock>,
    random: Arc<dyn SecureRandom>,
    events: Events,
    telemetry: Arc<Telemetry>,
}

impl Context {
    pub(crate) fn new(
        naming: Naming,
        rules: Rules,
        clock: Arc<dyn Clock>,
        random: Arc<dyn SecureRandom>,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        Self { naming, rules, clock, random, events: Events::new(&telemetry), telemetry }
    }

    #[inline]
    pub(crate) fn now(&self) -> Moment {
        Moment::now(&*self.clock)
    }

    #[inline]
    pub(crate) const fn naming(&self) -> &Naming {
        &self.naming
    }

    #[inline]
    pub(crate) const fn rules(&self) -> &Rules {
        &self.rules
    }

    #[inline]
    pub(crate) fn random(&self) -> &dyn SecureRandom {
        &*self.random
    }

    pub(crate) const fn events(&self) -> &Events {
        &self.events
    }

    #[inline]
    pub(crate) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Counts and tells what became of a key.
    pub(crate) fn note_change(&self, level: Level, change: KeyChange, key: &KeyMeta) {
        self.telemetry.keys().count_change(level, change);
        Events::key_changed(level, change, key);
    }
}
