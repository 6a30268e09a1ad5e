//! The decisions of the tables T1, T4 and T5 by themselves, so that a model of the life cycle can ask the code instead
//! of repeating it.

use std::time::Duration;

use crate::clock::{Moment, nanos};
use crate::keys::decide;
use crate::keys::rules::{Purpose, Rules};
use crate::policy::CryptoPolicy;
use crate::record::{Created, KeyId, KeyMeta};

/// What is decided under one policy. Times are those since the Unix epoch.
#[derive(Debug)]
pub struct Decisions {
    rules: Rules,
    /// Keys that are near their end are replaced some earlier than others, by their id.
    id: KeyId,
}

/// What a process knows of the latest key that it holds.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "whoever asks has to say all of it")]
pub struct HeldKey {
    /// When it was created.
    pub created: Created,
    /// When the key that wraps it was created.
    pub parent_created: Created,
    /// Since when it was not checked, or its parent, whichever is longer.
    pub age: Duration,
    /// It or its parent is known to be revoked, or to have no row.
    pub is_unusable: bool,
}

/// What an operation does first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a model has to say what each leads to")]
pub enum Step {
    /// Uses the key that is held.
    Use,
    /// Uses it, and has its rows read in the background.
    UseAndRefresh,
    /// Uses it, and has it replaced in the background.
    UseAndReplace,
    /// Waits for this, and for no longer than `refresh_wait`.
    Wait(Awaited),
    /// Waits for a load, and uses only what it brings.
    Load,
    /// Fails.
    Fail,
}

/// What is waited for with a key at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a model has to say what each leads to")]
pub enum Awaited {
    /// That the overdue check is made.
    Check,
    /// That a key past its end has a successor.
    Successor,
}

/// What a wait brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a model has to say what each comes from")]
pub enum Waited {
    /// A key.
    Answered,
    /// That the row is gone.
    Gone,
    /// A failure that may pass.
    Failed,
    /// Nothing in time.
    NoAnswer,
    /// There was no use in waiting.
    NotAtAll,
}

/// What is done after a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a model has to say what each leads to")]
pub enum Next {
    /// The key that came is used.
    UseAnswer,
    /// The key that was held is used.
    UseHeld,
    /// The operation fails.
    Fail,
    /// It is waited on, and only what comes is used.
    Load,
}

impl Decisions {
    /// Returns those under a policy, which is not checked.
    #[must_use]
    pub fn new(policy: &CryptoPolicy) -> Self {
        Self { rules: Rules::new(policy), id: KeyId::new("_IK_model_service_product") }
    }

    /// T1: what an encrypt does first, by the key that is held.
    #[must_use]
    pub fn encrypt(&self, held: Option<HeldKey>, now: Duration) -> Step {
        match decide::encrypt(held.map(|held| self.latest_facts(held, now))) {
            decide::EncryptStep::Use => Step::Use,
            decide::EncryptStep::UseAndRefresh => Step::UseAndRefresh,
            decide::EncryptStep::UseAndReplace => Step::UseAndReplace,
            decide::EncryptStep::Wait(decide::Awaited::Check) => Step::Wait(Awaited::Check),
            decide::EncryptStep::Wait(decide::Awaited::Successor) => Step::Wait(Awaited::Successor),
            decide::EncryptStep::Load => Step::Load,
        }
    }

    /// T1: whether there is any use in waiting, if a refresh failed or took too long a moment ago, or did not.
    #[must_use]
    pub const fn is_worth_waiting(awaited: Awaited, is_in_trouble: bool) -> bool {
        let trouble = if is_in_trouble { Some(decide::Failure::Passing) } else { None };
        decide::is_worth_waiting(awaited.to_core(), decide::WayOut { is_shut: false, trouble })
    }

    /// T1: what an encrypt does after a wait; `is_unusable` is what is known of the held key by then.
    #[must_use]
    pub const fn after_wait_to_encrypt(awaited: Awaited, waited: Waited, is_unusable: bool) -> Next {
        Next::of(decide::after_wait_to_encrypt(awaited.to_core(), waited.to_core(), is_unusable))
    }

    /// T5: what a decrypt does first, by the age of the key that it needs, which is held, or is not.
    #[must_use]
    pub fn decrypt(&self, age: Option<Duration>, is_revoked: bool) -> Step {
        let version = age.map_or(decide::VersionFacts::Absent, |age| decide::VersionFacts::Cached {
            freshness: self.rules.freshness_at(nanos(age), Purpose::Decrypt),
            is_revoked,
        });
        match decide::decrypt(version, self.rules.revoked_decrypt) {
            decide::DecryptStep::Use => Step::Use,
            decide::DecryptStep::UseAndRefresh => Step::UseAndRefresh,
            decide::DecryptStep::Wait => Step::Wait(Awaited::Check),
            decide::DecryptStep::Load => Step::Load,
            decide::DecryptStep::NotFound | decide::DecryptStep::Revoked => Step::Fail,
        }
    }

    /// T5: what a decrypt does after a wait.
    #[must_use]
    pub const fn after_wait_to_decrypt(waited: Waited) -> Next {
        Next::of(decide::after_wait_to_decrypt(waited.to_core()))
    }

    /// T5: whether a key may decrypt.
    #[must_use]
    pub fn admits(&self, is_revoked: bool) -> bool {
        decide::admit(is_revoked, self.rules.revoked_decrypt) != decide::Admittance::Denied
    }

    /// T4: when the key is created that comes after `above`; `None` if none can be made at this time.
    #[must_use]
    pub fn next_created(&self, now: Duration, above: Option<Created>) -> Option<Created> {
        self.rules.next_created(moment(now), above).ok().flatten()
    }

    /// Returns `true` if a key created then is past its end.
    #[must_use]
    pub fn is_expired(&self, created: Created, now: Duration) -> bool {
        self.rules.is_expired(&self.key(created), moment(now))
    }

    /// Returns `true` if a row that was read so long ago is to be read again before its key wraps another.
    #[must_use]
    pub fn is_due(&self, age: Duration) -> bool {
        self.rules.freshness_at(nanos(age), Purpose::Encrypt) != decide::Freshness::Fresh
    }

    fn latest_facts(&self, held: HeldKey, now: Duration) -> decide::LatestFacts {
        let (now, age) = (moment(now), nanos(held.age));
        let [own, parents] = [held.created, held.parent_created].map(|key| self.rules.life(&self.key(key)));
        let expires = own.expires.min(parents.expires);
        let fitness = if held.is_unusable {
            decide::Fitness::Unusable
        } else if now.wall > expires {
            decide::Fitness::Expired
        } else if now.wall >= own.replace_from.min(parents.replace_from) {
            decide::Fitness::Ending
        } else {
            decide::Fitness::Fit
        };
        let is_in_grace =
            fitness == decide::Fitness::Expired && self.rules.is_in_grace_after(expires, age, now);
        let freshness = self.rules.freshness_at(age, Purpose::Encrypt);
        decide::LatestFacts { fitness, freshness, is_in_grace }
    }

    fn key(&self, created: Created) -> KeyMeta {
        KeyMeta::new(self.id.clone(), created)
    }
}

impl Awaited {
    const fn to_core(self) -> decide::Awaited {
        match self {
            Self::Check => decide::Awaited::Check,
            Self::Successor => decide::Awaited::Successor,
        }
    }
}

impl Waited {
    const fn to_core(self) -> decide::Waited {
        match self {
            Self::Answered => decide::Waited::Answered,
            Self::Gone => decide::Waited::Gone,
            Self::Failed => decide::Waited::Failed(decide::Failure::Passing),
            Self::NoAnswer => decide::Waited::NoAnswer,
            Self::NotAtAll => decide::Waited::NotAtAll,
        }
    }
}

impl Next {
    const fn of(next: decide::Next) -> Self {
        match next {
            decide::Next::UseAnswer => Self::UseAnswer,
            decide::Next::UseCached { .. } => Self::UseHeld,
            decide::Next::Fail => Self::Fail,
            decide::Next::Load => Self::Load,
        }
    }
}

fn moment(now: Duration) -> Moment {
    Moment { wall: nanos(now), monotonic: nanos(now) }
}
