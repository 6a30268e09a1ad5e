//! Which key encrypts and which decrypts: the tables T1 and T5 of the key life cycle.
//!
//! What they cannot answer from memory they leave to a flight, which [`load`] runs: T2, T3 and T4.

mod changed;
mod create;
pub(crate) mod degraded;
mod doubt;
pub(crate) mod failover;
mod load;
pub(crate) mod lost;
mod missing;
mod replica;
mod restore;
pub(crate) mod rules;
mod warm;

use std::sync::Arc;
use std::time::Duration;

use claviger_memory::Arena;
use tokio::sync::OwnedSemaphorePermit;

use crate::clock::{Clock, Moment};
use crate::error::Error;
use crate::events::{Event, Events};
use crate::invalidation::listener::Listeners;
use crate::key::CryptoKey;
use crate::key::state::Trouble;
use crate::keyring::Keyring;
use crate::keyring::cache::KeyCache;
use crate::keyring::flight::{Flights, Outcome, Pilot, Target, Ticket};
use crate::keyring::orphans::Orphans;
use crate::kms::KmsHandle;
use crate::metastore::MetastoreHandle;
use crate::partition::Naming;
use crate::policy::RevokedDecrypt;
use crate::random::SecureRandom;
use crate::record::{Created, EnvelopeKeyRecord, KeyMeta};
use crate::tasks::Tasks;
use degraded::Degraded;
use doubt::Parents;
use failover::Recheck;
use lost::Lost;
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
    pub(crate) tasks: Tasks,
    pub(crate) listeners: Listeners,
    pub(crate) missing: Missing,
    pub(crate) lost: Lost,
    /// Rows that are found gone are put back at once.
    pub(crate) restores_lost: bool,
    pub(crate) recheck: Recheck,
    pub(crate) degraded: Degraded,
}

/// A level of the tree of keys that the metastore keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    System,
    Intermediate,
}

/// What a flight is to do.
#[derive(Clone, Debug)]
struct Course {
    level: Level,
    ring: Arc<Keyring>,
    target: Target,
    /// Replace the latest key if it is this old or older, though it may be valid.
    replace: Option<Created>,
    /// The flight's number, once it has begun.
    flight: u64,
    /// The version's row as a call for many brought it, and when that call began.
    prefetched: Option<(Option<EnvelopeKeyRecord>, Moment)>,
}

impl Course {
    fn latest(level: Level, ring: &Arc<Keyring>) -> Self {
        Self::new(level, ring, Target::Latest)
    }

    fn version(level: Level, ring: &Arc<Keyring>, created: Created) -> Self {
        Self::new(level, ring, Target::Version(created))
    }

    fn new(level: Level, ring: &Arc<Keyring>, target: Target) -> Self {
        Self { level, ring: Arc::clone(ring), target, replace: None, flight: 0, prefetched: None }
    }

    /// Asks or tells the trouble of what is to be loaded; a version that is not cached has none.
    fn trouble<T>(&self, ask: impl FnOnce(&Trouble) -> T) -> Option<T> {
        match self.target {
            Target::Latest => Some(ask(self.ring.trouble())),
            Target::Version(created) => self.ring.version(created).map(|key| ask(key.state().trouble())),
        }
    }

    fn replacing(mut self, key: &CryptoKey) -> Self {
        self.replace = Some(key.created());
        self
    }
}

/// How often a flight whose task went away is started anew, and one that began too early awaited.
const BOARDINGS_MAX: usize = 4;

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
                self.replace_in_time(course, ticket, key, fitness, now).await
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

    /// Returns the key version that a record names (T5).
    ///
    /// # Cancel safety
    /// As [`key_to_encrypt`](Self::key_to_encrypt).
    pub(crate) async fn key_to_decrypt(self: &Arc<Self>, ring: &Arc<Keyring>, created: Created) -> Outcome {
        let key = self.version_to_decrypt(ring, created).await?;
        self.admit_to_decrypt(key)
    }

    /// Returns the key version, revoked or not.
    async fn version_to_decrypt(self: &Arc<Self>, ring: &Arc<Keyring>, created: Created) -> Outcome {
        let ticket = self.ticket(ring);
        let now = self.now();
        let course = Course::version(Level::Intermediate, ring, created);
        let Some(key) = ring.version(created) else {
            let meta = KeyMeta::new(ring.id().clone(), created);
            if self.missing.contains(&meta, now) {
                return Err(Error::KeyNotFound(meta));
            }
            return self.fly_to_end(course, ticket).await;
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

    /// Drops the keys of partitions that nobody used for the idle timeout.
    async fn sweep(&self) {
        // While the store is down a dropped key could not be had again.
        if let Some(idle_timeout) = self.idle_timeout.filter(|_| !self.store.reads().has_failed()) {
            let (now, idle_max) = (self.now(), crate::clock::nanos(idle_timeout));
            let troubled_max = idle_max.max(self.rules.decrypt_age_max());
            self.intermediate.sweep(now, idle_max, troubled_max).await;
            self.system.sweep(now, idle_max, troubled_max).await;
        }
    }

    fn ticket(&self, ring: &Keyring) -> Ticket {
        if self.rules.checks_every_call() {
            ring.flights().ticket()
        } else {
            ring.flights().ticket_of_current()
        }
    }

    /// Waiting would be in vain: the store is down, or a refresh of this key failed just now.
    fn is_known_to_fail(&self, course: &Course, now: Moment) -> bool {
        self.store.reads().is_open() || course.trouble(|trouble| trouble.is_recent(now)).unwrap_or(false)
    }

    /// Waits for a refresh, `refresh_wait` at most. `None` if there is no answer, or with
    /// `wait == false` none was waited for.
    async fn refreshed(self: &Arc<Self>, course: Course, ticket: Ticket, wait: bool) -> Option<Outcome> {
        if !wait {
            return None;
        }
        let answer = self.tasks.within(self.rules.refresh_wait, self.fly(course.clone(), ticket)).await;
        if let Ok(None) = answer {
            course.trouble(|trouble| trouble.note(self.now(), true));
        }
        answer.unwrap_or_else(|error| Some(Err(error)))
    }

    /// Waits for a flight as long as an operation may take.
    async fn fly_to_end(self: &Arc<Self>, course: Course, ticket: Ticket) -> Outcome {
        let deadline = self.operation_deadline;
        let answer = self.tasks.within(deadline, self.fly(course, ticket)).await?;
        answer.unwrap_or(Err(Error::Deadline(deadline)))
    }

    /// Waits for the flight on this course that `ticket` admits to; starts it if there is none.
    async fn fly(self: &Arc<Self>, course: Course, ticket: Ticket) -> Outcome {
        for _ in 0..BOARDINGS_MAX {
            let (seat, pilot) = course.ring.flights().board(course.target, ticket);
            if let Some(pilot) = pilot {
                self.launch(course.clone(), pilot, None)?;
            }
            if let Some(outcome) = seat.outcome().await {
                return outcome;
            }
        }
        Err(Error::Interrupted)
    }

    /// Starts a flight that nobody waits for, unless one is under way, there is no permit, or it is
    /// known to fail.
    fn refresh_in_background(self: &Arc<Self>, course: Course, now: Moment) {
        let flights = course.ring.flights();
        if flights.is_under_way(course.target) || self.is_known_to_fail(&course, now) {
            return;
        }
        let Some(permit) = self.tasks.background_permit() else { return };
        if let (_, Some(pilot)) = flights.board(course.target, Flights::any_ticket()) {
            let id = course.ring.id().clone();
            if let Err(error) = self.launch(course, pilot, Some(permit)) {
                self.events.raise_because(Event::RefreshFailed, &id, &error);
            }
        }
    }

    /// Runs a flight as a task of its own. `permit` is held by one that nobody waits for.
    fn launch(
        self: &Arc<Self>,
        mut course: Course,
        pilot: Pilot,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<(), Error> {
        self.ensure_sweep();
        self.ensure_listening();
        course.flight = pilot.number();
        let this = Arc::clone(self);
        self.tasks.spawn(move |stopped| async move {
            let deadline = this.operation_deadline;
            let work = tokio::time::timeout(deadline, this.run(&course));
            let outcome = match stopped.run_until_cancelled(work).await {
                Some(Ok(outcome)) => outcome,
                Some(Err(_elapsed)) => Err(Error::Deadline(deadline)),
                None => Err(Error::Closed),
            };
            if let (Err(error), Some(_)) = (&outcome, permit) {
                this.events.raise_because(Event::RefreshFailed, course.ring.id(), error);
            }
            this.land_one(&course, pilot, outcome);
        })
    }

    /// Ends a flight: notes how, and tells all who wait.
    fn land_one(&self, course: &Course, pilot: Pilot, outcome: Outcome) {
        course.trouble(|trouble| match &outcome {
            Ok(_) => trouble.clear(),
            Err(error) => trouble.note(self.now(), error.is_retryable()),
        });
        pilot.land(outcome);
    }

    fn ensure_sweep(self: &Arc<Self>) {
        if let Some(idle_timeout) = self.idle_timeout {
            let period = (idle_timeout / 8).clamp(Duration::from_millis(100), Duration::from_secs(60));
            let this = Arc::downgrade(self);
            self.tasks.ensure_sweep(period, move || {
                let this = this.upgrade();
                async move {
                    if let Some(this) = this {
                        this.sweep().await;
                    }
                }
            });
        }
    }
}

#[cfg(test)]
mod tests;
