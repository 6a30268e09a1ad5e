//! What a factory was built with, and the events that it raises: all its parts look here.

use std::sync::Arc;

use super::rules::Rules;
use crate::clock::{Clock, Moment};
use crate::events::Events;
use crate::partition::Naming;
use crate::random::SecureRandom;

#[derive(Debug)]
pub(crate) struct Context {
    naming: Naming,
    rules: Rules,
    clock: Arc<dyn Clock>,
    random: Arc<dyn SecureRandom>,
    events: Events,
}

impl Context {
    pub(crate) fn new(
        naming: Naming,
        rules: Rules,
        clock: Arc<dyn Clock>,
        random: Arc<dyn SecureRandom>,
    ) -> Self {
        Self { naming, rules, clock, random, events: Events::default() }
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
}
