//! Which key encrypts and which decrypts: the tables T1 and T5 of the key life cycle.
//!
//! What they cannot answer from memory they leave to a flight, which [`load`] runs: T2, T3 and T4.

mod admission;
pub(crate) mod ahead;
mod changed;
mod course;
mod create;
pub(crate) mod degraded;
mod doubt;
pub(crate) mod failover;
mod fly;
pub(crate) mod known;
mod learn;
mod load;
pub(crate) mod lost;
mod misses;
mod missing;
mod replica;
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
use crate::keyring::Keyring;
use crate::keyring::cache::KeyCache;
use crate::keyring::flight::{Outcome, Ticket};
use crate::keyring::orphans::Orphans;
use crate::kms::KmsHandle;
use crate::metastore::MetastoreHandle;
use crate::partition::Naming;
use crate::policy::RevokedDecrypt;
use crate::random::SecureRandom;
use crate::record::{Created, KeyId, KeyMeta};
use crate::tasks::Tasks;
pub(crate) use admission::Admission;
use ahead::Ahead;
use course::{Course, Level};
use degraded::Degraded;
use doubt::Parents;
use failover::Recheck;
use known::Known;
use lost::Lost;
pub(crate) use misses::Misses;
use missing::Missing;
use rules::{Fitness, Freshness, Purpose, Rules};

/// Everything a factory's sessions share.
#[derive(Debug)]
pub(crate) struct Hierarchy {
    pub(crate) naming: Naming,
    pub(crate) store: MetastoreHandle,
    pub(crate) kms: KmsHandle,
    pub(crate) intermediate: KeyCache,
    pub(crate) system: KeyCache,
    /// The keyring of the system key that new intermediate keys are wrapped under.
    pub(crate) system_ring: Arc<Keyring>,
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
    pub(crate) degraded: Degraded,
}

impl Hierarchy {
    pub(crate) fn now(&self) -> Moment {
        Moment::now(&*self.clock)
    }

    /// Returns the key to encrypt under (T1).
    ///
    /// # Cancel safety
    /// Leaving early harms nobody: loads and creations are tasks of their own.
    pub(crate) async fn key_to_encrypt(self: &Arc<Self>, ring: &Arc<Keyring>) -> Outcome {
        let ticket = self.ticket(ring);
        let now = self.now();
        let course = Course::latest(Level::Intermediate, ring);
        let Some(key) = ring.latest() else { return self.fly_to_end(course, ticket).await };
        let fitness = self.rules.fitness(&key, now);
        match fitness {
            Fitness::Barred => self.fly_to_end(course, ticket).await,
            Fitness::Expired | Fitness::Exhausted => {
                // Apart, as it is seldom: all who wait here for a key take room for it.
                Box::pin(self.replace_in_time(course, ticket, key, fitness, now)).await
            }
            Fitness::Fit | Fitness::Ending => match self.rules.freshness(&key, now, Purpose::Encrypt) {
                Freshness::Fresh => Ok(self.replaced_near_its_end(ring, key, now)),
                Freshness::Due => {
                    self.refresh_in_background(course, now);
                    Ok(key)
                }
                Freshness::Stale => {
                    let waited = !self.is_known_to_fail(&course, now);
                    match self.refreshed(course.clone(), ticket, waited).await {
                        Some(Ok(latest)) => Ok(self.replaced_near_its_end(ring, latest, now)),
                        Some(Err(error)) if key.is_barred() => Err(error),
                        Some(Err(_)) | None => self.go_on(course, ticket, key, waited, Event::Stale).await,
                    }
                }
                Freshness::TooOld => self.fly_to_end(course, ticket).await,
            },
        }
    }

    /// Has an expired or exhausted key replaced; goes on with it for a while if that cannot be done
    /// now.
    async fn replace_in_time(
        self: &Arc<Self>,
        course: Course,
        ticket: Ticket,
        key: Arc<CryptoKey>,
        fitness: Fitness,
        now: Moment,
    ) -> Outcome {
        if !self.rules.may_go_on(&key, fitness, now) {
            return self.fly_to_end(course, ticket).await;
        }
        let just_failed = course.trouble(|trouble| trouble.is_recent_in_passing(now));
        // The successor's row is to be read and inserted.
        let is_shut = self.store.reads().is_open() || self.store.writes().is_open();
        let waited = !(is_shut || just_failed.unwrap_or(false));
        match self.refreshed(course.clone(), ticket, waited).await {
            Some(Ok(latest)) => Ok(latest),
            Some(Err(error)) if !error.is_retryable() || key.is_barred() => Err(error),
            Some(Err(_)) | None => self.go_on(course, ticket, key, waited, Event::Degraded).await,
        }
    }

    /// Goes on with the cached key, since nothing newer could be had in time. But what a flight
    /// learned on its way counts: if the key is revoked or lost, its successor is waited for.
    async fn go_on(
        self: &Arc<Self>,
        course: Course,
        ticket: Ticket,
        key: Arc<CryptoKey>,
        log: bool,
        event: Event,
    ) -> Outcome {
        if key.is_barred() {
            return self.fly_to_end(course, ticket).await;
        }
        self.events.raise_if(log, event, course.ring.id());
        Ok(key)
    }

    /// Has the key replaced in the background if it is near its end, so that nobody waits there.
    fn replaced_near_its_end(
        self: &Arc<Self>,
        ring: &Arc<Keyring>,
        key: Arc<CryptoKey>,
        now: Moment,
    ) -> Arc<CryptoKey> {
        let may_replace = || !self.store.writes().is_open() && !ring.rotation().is_recent(now);
        if self.rules.fitness(&key, now) == Fitness::Ending && may_replace() {
            self.refresh_in_background(Course::latest(Level::Intermediate, ring).replacing(&key), now);
        }
        key
    }

    /// Has the key replaced in the background that was worn out by chance: before it is evicted, say, and that
    /// is forgotten.
    pub(crate) fn replace_worn_out(self: &Arc<Self>, ring: &Arc<Keyring>) {
        if let Some(key) = ring.latest().filter(|key| self.rules.is_exhausted(key)) {
            self.refresh_in_background(Course::latest(Level::Intermediate, ring).replacing(&key), self.now());
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
        ring: &Arc<Keyring>,
        created: Created,
    ) -> Outcome {
        let key = self.version_to_decrypt(partition, ring, created).await?;
        self.admit_to_decrypt(key)
    }

    /// Returns the key version, revoked or not.
    async fn version_to_decrypt(
        self: &Arc<Self>,
        partition: &KeyId,
        ring: &Arc<Keyring>,
        created: Created,
    ) -> Outcome {
        let ticket = self.ticket(ring);
        let now = self.now();
        let course = Course::version(Level::Intermediate, ring, created);
        let Some(key) = ring.version(created) else {
            let meta = KeyMeta::new(ring.id().clone(), created);
            if self.missing.contains(&meta, now) {
                return Err(Error::KeyNotFound(meta));
            }
            return self.fly_to_end(course.on_behalf_of(partition), ticket).await;
        };
        if self.rules.revoked_decrypt == RevokedDecrypt::Deny && key.is_revoked() {
            // No refresh could change the answer.
            return Ok(key);
        }
        match self.rules.freshness(&key, now, Purpose::Decrypt) {
            Freshness::Fresh => Ok(key),
            Freshness::Due => {
                self.refresh_in_background(course, now);
                Ok(key)
            }
            Freshness::Stale => {
                let waited = !self.is_known_to_fail(&course, now);
                match self.refreshed(course, ticket, waited).await {
                    Some(Ok(key)) => Ok(key),
                    Some(Err(gone @ Error::KeyNotFound(_))) => Err(gone),
                    Some(Err(_)) | None => {
                        self.events.raise_if(waited, Event::Stale, ring.id());
                        Ok(key)
                    }
                }
            }
            Freshness::TooOld => self.fly_to_end(course, ticket).await,
        }
    }

    /// Applies the policy for decrypting under revoked keys.
    fn admit_to_decrypt(&self, key: Arc<CryptoKey>) -> Outcome {
        if key.is_revoked() {
            match self.rules.revoked_decrypt {
                RevokedDecrypt::Allow => {}
                RevokedDecrypt::Warn => self.events.raise(Event::RevokedDecrypt, key.meta().id()),
                RevokedDecrypt::Deny => return Err(Error::KeyRevoked(key.meta().clone())),
            }
        }
        Ok(key)
    }
}

#[cfg(test)]
mod tests;
