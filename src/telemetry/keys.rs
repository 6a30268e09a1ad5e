//! What is shown of keys: how many there are, where, and what becomes of them.

use std::sync::atomic::{AtomicBool, Ordering};

use metrics::{Counter, Gauge};

use super::gauges::Raised;
use super::scope::Scope;
use super::table::{CACHED_KEYS, EVICTIONS, KEY_CHANGES, LIVE_KEYS, ORPHANED_KEYS};
use crate::partition::Level;

macro_rules! changes {
    ($($(#[$doc:meta])+ $variant:ident => $name:literal, $text:literal;)+) => {
        /// What became of a key version.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum KeyChange {
            $($(#[$doc])+ $variant,)+
        }

        impl KeyChange {
            pub(super) const ALL: &[Self] = &[$(Self::$variant,)+];

            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What the log says of it.
            pub(crate) const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

changes! {
    /// It is the first one of its id.
    Created => "created", "key created";
    /// It was made since the one before it came to its end, or near to it.
    Rotated => "rotated", "key rotated";
    /// It was made since the one before it is not to be used, such as a revoked one.
    Replaced => "replaced", "key replaced";
    /// Its row was found to be revoked.
    Revoked => "revoked", "key found revoked";
}

/// The gauges and counters of keys.
#[derive(Debug)]
pub(crate) struct KeyMetrics {
    system: OfLevel,
    intermediate: OfLevel,
    orphaned: Gauge,
    scope: Scope,
}

#[derive(Debug)]
struct OfLevel {
    cached: Gauge,
    live: Gauge,
    /// In the order of [`KeyChange`].
    changes: Vec<Counter>,
}

/// A key version in memory, as long as it lives.
#[derive(Debug)]
pub(crate) struct LiveKey {
    _live: Raised,
    is_orphan: AtomicBool,
    orphaned: Gauge,
}

impl KeyMetrics {
    pub(super) fn new(scope: &Scope) -> Self {
        Self {
            system: OfLevel::new(scope, Level::System),
            intermediate: OfLevel::new(scope, Level::Intermediate),
            orphaned: scope.gauge(&ORPHANED_KEYS, &[]),
            scope: scope.clone(),
        }
    }

    const fn of(&self, level: Level) -> &OfLevel {
        match level {
            Level::System => &self.system,
            Level::Intermediate => &self.intermediate,
        }
    }

    pub(crate) const fn cached(&self, level: Level) -> &Gauge {
        &self.of(level).cached
    }

    /// Counts a key from now on.
    pub(crate) fn live(&self, level: Level) -> LiveKey {
        let live = Raised::new(&self.of(level).live);
        LiveKey { _live: live, is_orphan: AtomicBool::new(false), orphaned: self.orphaned.clone() }
    }

    /// What counts the keys that leave the cache for this cause.
    pub(crate) fn evictions(&self, cause: &'static str) -> Counter {
        self.scope.counter(&EVICTIONS, &[("cause", cause)])
    }

    pub(crate) fn count_change(&self, level: Level, change: KeyChange) {
        if let Some(counter) = self.of(level).changes.get(change as usize) {
            counter.increment(1);
        }
    }
}

#[cfg(test)]
impl Default for KeyMetrics {
    fn default() -> Self {
        Self::new(&Scope::default())
    }
}

impl OfLevel {
    fn new(scope: &Scope, level: Level) -> Self {
        let level = ("level", level.name());
        let change = |change: &KeyChange| scope.counter(&KEY_CHANGES, &[level, ("change", change.name())]);
        Self {
            cached: scope.gauge(&CACHED_KEYS, &[level]),
            live: scope.gauge(&LIVE_KEYS, &[level]),
            changes: KeyChange::ALL.iter().map(change).collect(),
        }
    }
}

impl LiveKey {
    /// Notes whether the key is out of the cache and in use.
    pub(crate) fn set_orphan(&self, is_orphan: bool) {
        match (self.is_orphan.swap(is_orphan, Ordering::AcqRel), is_orphan) {
            (false, true) => self.orphaned.increment(1),
            (true, false) => self.orphaned.decrement(1),
            _ => {}
        }
    }
}

impl Drop for LiveKey {
    fn drop(&mut self) {
        self.set_orphan(false);
    }
}
