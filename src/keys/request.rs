//! What a load is to do, and how it is asked for.

use std::sync::Arc;

use tracing::Span;

use crate::clock::Moment;
use crate::gate::{Class, Subject};
use crate::key::CryptoKey;
use crate::key::state::Trouble;
use crate::keyring::Keyring;
use crate::keyring::flight::{Leader, Target};
use crate::keyring::progress::Progress;
pub(crate) use crate::partition::Level;
use crate::record::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};

/// What a load is to do.
#[derive(Clone, Debug)]
pub(crate) struct LoadRequest {
    pub(super) level: Level,
    pub(super) keyring: Arc<Keyring>,
    pub(super) target: Target,
    /// Replace the latest key if it is this old or older, though it may be valid.
    pub(super) replace: Option<Created>,
    pub(super) class: Class,
    /// The load's generation, once it has begun.
    pub(super) generation: u64,
    pub(super) progress: Arc<Progress>,
    /// The KMS may be asked: this load, or the one that it is for, waited for that.
    pub(super) is_cleared: bool,
    /// The partition whose record names the version, by the id that its new data is encrypted under.
    pub(super) partition: Option<KeyId>,
    /// The version's row, if it was read already.
    pub(super) prefetched: Option<Prefetched>,
}

/// A version's row as another load or a call for many brought it.
#[derive(Clone, Debug)]
pub(super) struct Prefetched {
    pub(super) row: Option<EnvelopeKeyRecord>,
    /// When the read began.
    pub(super) begun: Moment,
    /// The generation of the load that read it: the row is no newer than that, whenever it is used.
    pub(super) generation: u64,
}

impl LoadRequest {
    pub(super) fn latest(level: Level, keyring: &Arc<Keyring>) -> Self {
        Self::new(level, keyring, Target::Latest)
    }

    pub(super) fn version(level: Level, keyring: &Arc<Keyring>, created: Created) -> Self {
        Self::new(level, keyring, Target::Version(created))
    }

    fn new(level: Level, keyring: &Arc<Keyring>, target: Target) -> Self {
        let is_held = match target {
            Target::Latest => keyring.latest().is_some(),
            Target::Version(created) => keyring.version(created).is_some(),
        };
        Self {
            level,
            keyring: Arc::clone(keyring),
            target,
            replace: None,
            class: if is_held { Class::Check } else { Class::Load },
            generation: 0,
            progress: Arc::default(),
            is_cleared: false,
            partition: None,
            prefetched: None,
        }
    }

    pub(super) fn on_behalf_of(mut self, partition: &KeyId) -> Self {
        self.partition = Some(partition.clone());
        self
    }

    /// Makes it the request of a load that another one needs.
    pub(super) fn needed_by(mut self, child: &Self) -> Self {
        debug_assert!(child.rank() < self.rank(), "loads that wait for one another never end");
        if child.class == Class::Check {
            self.class = Class::Check;
        }
        self.is_cleared = child.is_cleared;
        self
    }

    /// Makes it the request of a load that goes on with a row that was read before.
    pub(super) fn with_row(mut self, row: Option<EnvelopeKeyRecord>, begun: Moment, generation: u64) -> Self {
        self.prefetched = Some(Prefetched { row, begun, generation });
        self
    }

    /// Returns the generation of the load that read the row, if it was read already.
    pub(super) fn since(&self) -> Option<u64> {
        self.prefetched.as_ref().map(|prefetched| prefetched.generation)
    }

    /// Loads wait for loads of a higher rank only.
    const fn rank(&self) -> u8 {
        match (self.level, self.target) {
            (Level::Intermediate, Target::Latest) => 0,
            (Level::Intermediate, Target::Version(_)) => 1,
            (Level::System, Target::Latest) => 2,
            (Level::System, Target::Version(_)) => 3,
        }
    }

    /// Returns how the metastore is asked. Many wait for what a system key's row says.
    pub(super) fn store_class(&self) -> Class {
        if self.level == Level::System { Class::Check } else { self.class }
    }

    /// Returns `true` if it counts against the limits: others are parts of loads, or for keys in use.
    pub(super) fn is_limited(&self) -> bool {
        self.level == Level::Intermediate && self.class == Class::Load
    }

    pub(super) fn subject(&self) -> Subject {
        match self.target {
            Target::Latest => Subject::latest(self.keyring.id()),
            Target::Version(created) => Subject::version(&KeyMeta::new(self.keyring.id().clone(), created)),
        }
    }

    /// Reads or notes the trouble of what is to be loaded; a version that is not cached has none.
    pub(super) fn trouble<T>(&self, ask: impl FnOnce(&Trouble) -> T) -> Option<T> {
        match self.target {
            Target::Latest => Some(ask(self.keyring.trouble())),
            Target::Version(created) => self.keyring.version(created).map(|key| ask(key.state().trouble())),
        }
    }

    /// The span of the load.
    pub(super) fn span(&self) -> Span {
        let created = match self.target {
            Target::Latest => None,
            Target::Version(created) => Some(created.unix_seconds()),
        };
        tracing::info_span!("claviger.load", level = self.level.name(), key = %self.keyring.id(), created)
    }

    /// Makes it the request of the load that `leader` runs.
    pub(super) fn lead_by(&mut self, leader: &Leader) {
        self.generation = leader.generation();
        self.progress = Arc::clone(leader.progress());
    }

    pub(super) fn replacing(mut self, key: &CryptoKey) -> Self {
        self.replace = Some(key.created());
        self
    }
}
