//! Which key encrypts and which decrypts: the tables T1 and T5 of the key life cycle.
//!
//! What they cannot answer from memory they leave to a flight, which [`load`] runs: T2, T3 and T4.

mod admission;
pub(crate) mod ahead;
mod changed;
pub(crate) mod copies;
mod create;
mod decide;
mod dispatch;
mod learn;
mod load;
pub(crate) mod lost;
mod misses;
mod missing;
mod parents;
pub(crate) mod recheck;
mod replica;
mod request;
mod restore;
pub(crate) mod rules;
mod sweep;
mod unwrap;
mod warm;

use std::sync::Arc;
use std::time::Duration;

use claviger_memory::Arena;

use crate::clock::{Clock, Moment};
use crate::error::Error;
use crate::events::{Event, Events};
use crate::invalidation::listener::Listeners;
use crate::key::CryptoKey;
use crate::key::known::Known;
use crate::keyring::Keyring;
use crate::keyring::cache::KeyCache;
use crate::keyring::flight::{MinGeneration, Outcome};
use crate::keyring::orphans::Orphans;
use crate::kms::KmsHandle;
use crate::metastore::MetastoreHandle;
use crate::partition::Naming;
use crate::random::SecureRandom;
use crate::record::{Created, KeyId, KeyMeta};
use crate::tasks::Tasks;
pub(crate) use admission::Admission;
use ahead::Ahead;
use copies::MissingCopies;
use decide::{Admittance, Awaited, DecryptStep, EncryptStep, Failure, Fitness, Next, VersionFacts, Waited};
use lost::Lost;
pub(crate) use misses::Misses;
use missing::Missing;
use parents::Parents;
use recheck::Recheck;
use request::{Level, LoadRequest};
use rules::Rules;

/// Everything a factory's sessions share.
#[derive(Debug)]
pub(crate) struct Hierarchy {
    pub(crate) naming: Naming,
    pub(crate) store: MetastoreHandle,
    pub(crate) kms: KmsHandle,
    pub(crate) intermediate: KeyCache,
    pub(crate) system: KeyCache,
    /// The keyring of the system key that new intermediate keys are wrapped under.
    pub(crate) system_keyring: Arc<Keyring>,
    pub(crate) parents: Parents,
    pub(crate) orphans: Arc<Orphans>,
    pub(crate) arena: Arena,
    pub(crate) rules: Rules,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) operation_deadline: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn SecureRandom>,
    pub(crate) events: Events,
    pub(crate) admission: Admission,
    pub(crate) tasks: Tasks,
    pub(crate) listeners: Listeners,
    pub(crate) missing: Missing,
    pub(crate) misses: Misses,
    pub(crate) lost: Lost,
    pub(crate) known: Arc<Known>,
    pub(crate) ahead: Ahead,
    /// Rows that are found gone are put back at once.
    pub(crate) restores_lost: bool,
    pub(crate) recheck: Recheck,
    pub(crate) degraded: MissingCopies,
}

impl Hierarchy {
    pub(crate) fn now(&self) -> Moment {
        Moment::now(&*self.clock)
    }

    /// Returns the key to encrypt under (T1).
    ///
    /// # Cancel safety
    /// Leaving early harms nobody: loads and creations are tasks of their own.
    pub(crate) async fn key_to_encrypt(self: &Arc<Self>, keyring: &Arc<Keyring>) -> Outcome {
        let min_generation = self.next_generation(keyring);
        let now = self.now();
        let request = LoadRequest::latest(Level::Intermediate, keyring);
        let latest = keyring.latest();
        let step = decide::encrypt(latest.as_deref().map(|key| self.rules.latest_facts(key, now)));
        let Some(key) = latest else { return self.fly_to_end(request, min_generation).await };
        match step {
            EncryptStep::Use => Ok(key),
            EncryptStep::UseAndRefresh => {
                self.refresh_in_background(request, now);
                Ok(key)
            }
            EncryptStep::UseAndReplace => {
                self.replace_in_background(keyring, &key, now);
                Ok(key)
            }
            // Apart, as it is seldom: all who wait here for a key take room for it.
            EncryptStep::Wait(awaited) => {
                Box::pin(self.wait_to_encrypt(request, min_generation, key, awaited, now)).await
            }
            EncryptStep::Load => self.fly_to_end(request, min_generation).await,
        }
    }

    /// Has the key checked, or its successor made; goes on with it for a while if that cannot be done now.
    async fn wait_to_encrypt(
        self: &Arc<Self>,
        request: LoadRequest,
        min_generation: MinGeneration,
        key: Arc<CryptoKey>,
        awaited: Awaited,
        now: Moment,
    ) -> Outcome {
        let is_worth_it = decide::is_worth_waiting(awaited, self.way_out(&request, awaited, now));
        let answer = self.refreshed(request.clone(), min_generation, is_worth_it).await;
        match (
            decide::after_wait_to_encrypt(awaited, waited(is_worth_it, &answer), key.is_unusable()),
            answer,
        ) {
            (Next::UseAnswer | Next::Fail, Some(answer)) => {
                if let (Awaited::Check, Ok(latest)) = (awaited, &answer) {
                    self.replace_near_its_end(&request.keyring, latest, now);
                }
                answer
            }
            (Next::UseCached { is_told }, _) => {
                let event = match awaited {
                    Awaited::Check => Event::Stale,
                    Awaited::Successor => Event::Degraded,
                };
                self.events.raise_if(is_told, event, request.keyring.id());
                Ok(key)
            }
            (Next::Load | Next::UseAnswer | Next::Fail, _) => self.fly_to_end(request, min_generation).await,
        }
    }

    fn replace_near_its_end(self: &Arc<Self>, keyring: &Arc<Keyring>, key: &CryptoKey, now: Moment) {
        if self.rules.fitness(key, now) == Fitness::Ending {
            self.replace_in_background(keyring, key, now);
        }
    }

    /// Has the key replaced, which is near its end, so that nobody waits there.
    fn replace_in_background(self: &Arc<Self>, keyring: &Arc<Keyring>, key: &CryptoKey, now: Moment) {
        if !self.store.writes().is_open() && !keyring.rotation().is_recent(now) {
            self.refresh_in_background(LoadRequest::latest(Level::Intermediate, keyring).replacing(key), now);
        }
    }

    /// Has the key replaced in the background that was worn out by chance: before it is evicted, say, and that
    /// is forgotten.
    pub(crate) fn replace_worn_out(self: &Arc<Self>, keyring: &Arc<Keyring>) {
        if let Some(key) = keyring.latest().filter(|key| self.rules.is_exhausted(key)) {
            self.refresh_in_background(
                LoadRequest::latest(Level::Intermediate, keyring).replacing(&key),
                self.now(),
            );
        }
    }

    /// Returns the key version that a record names (T5), for the partition whose new data is encrypted under
    /// that id.
    ///
    /// # Cancel safety
    /// As [`key_to_encrypt`](Self::key_to_encrypt).
    pub(crate) async fn key_to_decrypt(
        self: &Arc<Self>,
        partition: &KeyId,
        keyring: &Arc<Keyring>,
        created: Created,
    ) -> Outcome {
        let key = self.version_to_decrypt(partition, keyring, created).await?;
        self.admit_to_decrypt(key)
    }

    /// Returns the key version, revoked or not.
    async fn version_to_decrypt(
        self: &Arc<Self>,
        partition: &KeyId,
        keyring: &Arc<Keyring>,
        created: Created,
    ) -> Outcome {
        let min_generation = self.next_generation(keyring);
        let now = self.now();
        let request = LoadRequest::version(Level::Intermediate, keyring, created);
        let (cached, meta) = (keyring.version(created), KeyMeta::new(keyring.id().clone(), created));
        let facts = match &cached {
            Some(key) => self.rules.version_facts(key, now),
            None if self.missing.contains(&meta, now) => VersionFacts::Missing,
            None => VersionFacts::Absent,
        };
        let step = decide::decrypt(facts, self.rules.revoked_decrypt);
        match (step, cached) {
            (DecryptStep::NotFound, _) => Err(Error::KeyNotFound(meta)),
            (DecryptStep::Revoked, _) => Err(Error::KeyRevoked(meta)),
            (DecryptStep::Use, Some(key)) => Ok(key),
            (DecryptStep::UseAndRefresh, Some(key)) => {
                self.refresh_in_background(request, now);
                Ok(key)
            }
            (DecryptStep::Wait, Some(key)) => {
                let way_out = self.way_out(&request, Awaited::Check, now);
                let is_worth_it = decide::is_worth_waiting(Awaited::Check, way_out);
                let answer = self.refreshed(request, min_generation, is_worth_it).await;
                match (decide::after_wait_to_decrypt(waited(is_worth_it, &answer)), answer) {
                    (Next::UseAnswer | Next::Fail, Some(answer)) => answer,
                    (Next::UseCached { is_told }, _) => {
                        self.events.raise_if(is_told, Event::Stale, keyring.id());
                        Ok(key)
                    }
                    // Without an answer the cached key is used.
                    (Next::UseAnswer | Next::Fail | Next::Load, _) => Ok(key),
                }
            }
            (DecryptStep::Load, Some(_)) => self.fly_to_end(request, min_generation).await,
            (_, None) => self.fly_to_end(request.on_behalf_of(partition), min_generation).await,
        }
    }

    /// Applies the policy for decrypting under revoked keys.
    fn admit_to_decrypt(&self, key: Arc<CryptoKey>) -> Outcome {
        match decide::admit(key.is_revoked(), self.rules.revoked_decrypt) {
            Admittance::Granted => {}
            Admittance::Warned => self.events.raise(Event::RevokedDecrypt, key.meta().id()),
            Admittance::Denied => return Err(Error::KeyRevoked(key.meta().clone())),
        }
        Ok(key)
    }
}

/// Returns what a wait brought, as the tables tell it.
fn waited(was_worth_it: bool, answer: &Option<Outcome>) -> Waited {
    match answer {
        None if was_worth_it => Waited::NoAnswer,
        None => Waited::NotAtAll,
        Some(Ok(_)) => Waited::Answered,
        Some(Err(Error::KeyNotFound(_))) => Waited::Gone,
        Some(Err(error)) if error.is_retryable() => Waited::Failed(Failure::Passing),
        Some(Err(_)) => Waited::Failed(Failure::Lasting),
    }
}

#[cfg(test)]
mod tests;
