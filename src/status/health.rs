//! Whether a factory is well, and why not.

use serde::Serialize;

use super::{Status, WayStatus};
use crate::telemetry::Way;

/// Whether a factory is well, and why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// How it is, all in all.
    pub state: HealthState,
    /// Everything that is not as it should be; empty if all is.
    pub reasons: Vec<HealthReason>,
}

/// How a factory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "it is well, or not quite, or not at all")]
pub enum HealthState {
    /// Nothing is known to be wrong.
    Ok = 0,
    /// Something is wrong. Partitions are served still: all, or all whose keys are cached.
    Degraded = 1,
    /// Keys that are not cached cannot be had, or the factory is closed.
    Down = 2,
}

/// Why a factory is not well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
#[non_exhaustive]
pub enum HealthReason {
    /// The factory was closed.
    Closed,
    /// The dependency is taken to be down: its breaker is open, or a replica did not answer.
    #[non_exhaustive]
    DependencyDown {
        /// Which one.
        dependency: Way,
    },
    /// Calls failed, and none went well since.
    #[non_exhaustive]
    DependencyFailing {
        /// Which one.
        dependency: Way,
        /// How many calls.
        failures: u64,
    },
    /// Invalidation sources failed: revocations are learned by the regular checks only.
    #[non_exhaustive]
    SourcesLost {
        /// How many.
        sources: usize,
    },
    /// Rows of keys are gone ([`Status::lost_rows`]).
    #[non_exhaustive]
    RowsLost {
        /// How many.
        rows: usize,
    },
    /// System keys lack copies ([`Status::incomplete_keys`]).
    #[non_exhaustive]
    KeysIncomplete {
        /// How many.
        keys: usize,
    },
}

impl Status {
    /// Returns whether the factory is well, and everything that is not.
    ///
    /// It is degraded from the first failed call of a dependency until that does again what it is asked for. What is
    /// not asked is not known: while all keys are cached and fresh, nothing is.
    ///
    /// ```
    /// # use claviger::{Error, HealthState, SessionFactory};
    /// # fn is_alive(factory: &SessionFactory) -> Result<bool, Error> {
    /// let health = factory.status()?.health();
    /// for reason in &health.reasons {
    ///     eprintln!("{reason:?}");
    /// }
    /// Ok(health.state < HealthState::Down)
    /// # }
    /// ```
    #[must_use]
    pub fn health(&self) -> Health {
        let mut reasons: Vec<_> = self.dependencies.iter().filter_map(WayStatus::trouble).collect();
        let counted = [
            (self.sources_lost, HealthReason::SourcesLost { sources: self.sources_lost }),
            (self.lost_rows.len(), HealthReason::RowsLost { rows: self.lost_rows.len() }),
            (self.incomplete_keys.len(), HealthReason::KeysIncomplete { keys: self.incomplete_keys.len() }),
            (usize::from(self.closed), HealthReason::Closed),
        ];
        reasons.extend(counted.into_iter().filter(|(count, _)| *count > 0).map(|(_, reason)| reason));
        let state = if reasons.iter().any(|reason| self.is_down_by(reason)) {
            HealthState::Down
        } else if reasons.is_empty() {
            HealthState::Ok
        } else {
            HealthState::Degraded
        };
        Health { state, reasons }
    }

    const fn is_down_by(&self, reason: &HealthReason) -> bool {
        match reason {
            HealthReason::Closed | HealthReason::DependencyDown { dependency: Way::MetastoreReads } => true,
            // With a system key at hand all keys under it can be loaded and made.
            HealthReason::DependencyDown { dependency: Way::Kms } => self.system_keys == 0,
            HealthReason::DependencyDown { .. }
            | HealthReason::DependencyFailing { .. }
            | HealthReason::SourcesLost { .. }
            | HealthReason::RowsLost { .. }
            | HealthReason::KeysIncomplete { .. } => false,
        }
    }
}

impl WayStatus {
    const fn trouble(&self) -> Option<HealthReason> {
        let Self { way: dependency, down, failures, .. } = *self;
        if down {
            Some(HealthReason::DependencyDown { dependency })
        } else if failures > 0 {
            Some(HealthReason::DependencyFailing { dependency, failures })
        } else {
            None
        }
    }
}
