//! What a factory tells its operator.

mod health;
mod shape;

use std::time::Duration;

use claviger_memory::Stats;

pub use self::health::{Health, HealthReason, HealthState};
use crate::error::Error;
use crate::events::Event;
use crate::keyring::orphans::Orphan;
use crate::record::{KeyId, KeyMeta};
use crate::telemetry::Way;

/// What a factory holds, and what happened to it, at one moment.
///
/// It is serialised with the fields' names, and with what [`health`](Self::health) says under `health`. Names
/// that are there stay; others may come. It holds key ids, and with them names of partitions: it is for operators,
/// not for the public.
///
/// - Times are in seconds, with a fraction, and their names say so: `since_good_answer_seconds`, `age_seconds`.
/// - A key version is `{"id": .., "created": ..}`, `created` in Unix seconds.
/// - `events` is an object of names and counts, and has all names there are.
/// - Enums are their names in lower case, with `_`, as labels of metrics have them.
///
/// ```
/// # use claviger::{Error, SessionFactory};
/// # fn shown(factory: &SessionFactory) -> Result<(), Box<dyn std::error::Error>> {
/// let json = serde_json::to_string_pretty(&factory.status()?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// How many intermediate key versions are cached.
    pub intermediate_keys: usize,
    /// How many system key versions are cached.
    pub system_keys: usize,
    /// The keys that are in use though they are not cached any more.
    pub orphans: Vec<Orphan>,
    /// How many key loads are under way.
    pub loads: usize,
    /// The protected memory that keys lie in.
    pub memory: Stats,
    /// What happened since the factory was built, with how often; what never happened is left out.
    pub events: Vec<(Event, u64)>,
    /// System keys that lack copies, as of their last wrap or load here: where those are missing,
    /// the KMS cannot unwrap them. [`repair_system_keys`](crate::repair_system_keys) makes them.
    pub incomplete_keys: Vec<IncompleteKey>,
    /// The metastore is taken to be down, from five failed reads in a row until its next answer: keys that
    /// are not cached cannot be loaded. It is asked once a second.
    pub metastore_down: bool,
    /// The metastore answers reads, and inserts are refused or not answered: no key can be made, but
    /// for a probe each second. Cached and stored keys are used as ever.
    pub metastore_read_only: bool,
    /// The metastore's replica did not answer when it was last asked. The metastore itself is asked
    /// instead, and the replica once a second.
    pub replica_down: bool,
    /// The KMS is taken to be down, likewise: system keys that are not cached cannot be loaded, nor new ones
    /// made.
    pub kms_down: bool,
    /// Rows of keys that checks found gone, the first loss first: what was sealed under them cannot be
    /// decrypted, unless they are put back, by
    /// [`restore_lost`](crate::SessionFactory::restore_lost). At most 10 000 are remembered, each for
    /// `max_stale_decrypt`.
    pub lost_rows: Vec<LostRow>,
    /// How each dependency is doing, as of its last calls.
    pub dependencies: Vec<WayStatus>,
    /// For each invalidation source, in the order the builder was given them: whether it is listened
    /// to and its last answer was a good one.
    pub sources_connected: Vec<bool>,
    /// How many of the sources failed, and have not answered well since: what they would have told is learned by
    /// the regular checks.
    pub sources_lost: usize,
    /// The factory was closed.
    pub closed: bool,
}

/// How one way to a back end is doing, as of its last calls.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WayStatus {
    /// Which one.
    pub way: Way,
    /// It is taken to be down, and is asked once a second; a replica, from its first failure on.
    pub down: bool,
    /// How many calls failed since one went well. Those that failed by the one key that they were about do not
    /// count.
    pub failures: u64,
    /// How long ago it did what it was asked for; `None` if it never did.
    pub since_good_answer: Option<Duration>,
}

/// A key version whose row is gone from the metastore.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostRow {
    /// The key.
    pub key: KeyMeta,
    /// How long ago that was found out.
    pub age: Duration,
}

/// A system key that lacks copies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IncompleteKey {
    /// The key.
    pub key: KeyMeta,
    /// The KMS's names for the copies: regions, say.
    pub missing: Vec<String>,
}

/// What a warm-up did. Each partition counts once.
#[derive(Clone, Debug, Default)]
#[must_use = "the partitions that failed are in the report alone"]
#[non_exhaustive]
pub struct WarmUp {
    /// Partitions whose key was loaded.
    pub loaded: usize,
    /// Partitions whose key was cached and fresh already.
    pub cached: usize,
    /// Partitions without a key that may encrypt: none was ever made, or it is expired or revoked.
    /// Their first encrypt makes one.
    pub missing: usize,
    /// Partitions that were left out, since the cache holds no more keys.
    pub skipped: usize,
    /// Partitions whose key could not be loaded, and why.
    pub failed: Vec<(String, Error)>,
}

impl WarmUp {
    /// Returns how many partitions there are of each kind, by what metrics call it.
    pub(crate) fn counts(&self) -> [(&'static str, usize); 5] {
        let Self { loaded, cached, missing, skipped, failed } = self;
        [
            ("loaded", *loaded),
            ("cached", *cached),
            ("missing", *missing),
            ("skipped", *skipped),
            ("failed", failed.len()),
        ]
    }
}

/// What closing a factory had to force.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "what had to be forced is in the report alone"]
#[non_exhaustive]
pub struct CloseReport {
    /// The key ids whose loads did not end by the deadline and were aborted.
    pub aborted_loads: Vec<KeyId>,
    /// The keys that operations still used at the deadline. Each is wiped with its last user.
    pub keys_in_use: Vec<Orphan>,
    /// How many invalidation sources did not let go of their thread by the deadline.
    pub stuck_sources: usize,
    /// The factory's own thread, which runs key loads where the builder had no runtime, did not end by the
    /// deadline: a metastore, a KMS or a source blocks it.
    pub stuck_thread: bool,
}

impl CloseReport {
    /// Returns `true` if everything ended by itself.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.aborted_loads.is_empty()
            && self.keys_in_use.is_empty()
            && self.stuck_sources == 0
            && !self.stuck_thread
    }
}
