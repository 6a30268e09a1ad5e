//! Which key encrypts and which decrypts: the tables T1 and T5 of the key life cycle.
//!
//! What they cannot answer from memory they leave to a flight, which [`load`] runs: T2, T3 and T4.

mod admission;
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
mod sweep;
mod warm;

use std::sync::Arc;
use std::time::Duration;

use claviger_memory::Arena;
use tokio::sync::OwnedSemaphorePermit;

use crate::clock::{Clock, Moment};
use crate::error::{Dependency, Error};
use crate::events::{Event, Events};
use crate::gate::{Class, Subject};
use crate::invalidation::listener::Listeners;
use crate::key::CryptoKey;
use crate::key::state::Trouble;
use crate::keyring::Keyring;
use crate::keyring::cache::KeyCache;
use crate::keyring::flight::{Flights, Outcome, Pilot, Target, Ticket};
use crate::keyring::orphans::Orphans;
use crate::keyring::progress::Progress;
use crate::kms::KmsHandle;
use crate::metastore::MetastoreHandle;
use crate::partition::Naming;
use crate::policy::RevokedDecrypt;
use crate::random::SecureRandom;
use crate::record::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};
use crate::tasks::Tasks;
pub(crate) use admission::Admission;
use admission::Full;
use degraded::Degraded;
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
    class: Class,
    /// The flight's number, once it has begun.
    flight: u64,
    progress: Arc<Progress>,
    /// The KMS may be asked: this flight, or the one that it is for, waited for that.
    is_cleared: bool,
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
        let is_held = match target {
            Target::Latest => ring.latest().is_some(),
            Target::Version(created) => ring.version(created).is_some(),
        };
        Self {
            level,
            ring: Arc::clone(ring),
            target,
            replace: None,
            class: if is_held { Class::Check } else { Class::Load },
            flight: 0,
            progress: Arc::default(),
            is_cleared: false,
            prefetched: None,
        }
    }

    /// The course of a flight that another one needs.
    fn needed_by(mut self, child: &Self) -> Self {
        if child.class == Class::Check {
            self.class = Class::Check;
        }
        self.is_cleared = child.is_cleared;
        self
    }

    /// Returns how the metastore is asked. What a system key's row says many wait for.
    fn store_class(&self) -> Class {
        if self.level == Level::System { Class::Check } else { self.class }
    }

    /// Tells whether it counts against the limits: others are parts of loads, or for keys in use.
    fn is_limited(&self) -> bool {
        self.level == Level::Intermediate && self.class == Class::Load
    }

    fn subject(&self) -> Subject {
        match self.target {
            Target::Latest => Subject::latest(self.ring.id()),
            Target::Version(created) => Subject::version(&KeyMeta::new(self.ring.id().clone(), created)),
        }
    }

    /// Asks or tells the trouble of what is to be loaded; a version that is not cached has none.
    fn trouble<T>(&self, ask: impl FnOnce(&Trouble) -> T) -> Option<T> {
        match self.target {
            Target::Latest => Some(ask(self.ring.trouble())),
            Target::Version(created) => self.ring.version(created).map(|key| ask(key.state().trouble())),
        }
    }

    /// Makes it the course of this pilot's flight.
    fn take(&mut self, pilot: &Pilot) {
        self.flight = pilot.number();
        self.progress = Arc::clone(pilot.progress());
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

    fn ticket(&self, ring: &Keyring) -> Ticket {
        if self.rules.checks_every_call() {
            ring.flights().ticket()
        } else {
            ring.flights().ticket_of_current()
        }
    }

    /// Waiting would be in vain: the store is down, or a refresh of this key failed just now.
    fn is_known_to_fail(&self, course: &Course, now: Moment) -> bool {
        course.trouble(|trouble| trouble.is_recent(now)).unwrap_or(false)
            || self.store.reads().is_shut_to(&course.subject())
    }

    /// Waits for a refresh, `refresh_wait` at most. `None` if there is no answer, or with
    /// `wait == false` none was waited for.
    async fn refreshed(self: &Arc<Self>, course: Course, ticket: Ticket, wait: bool) -> Option<Outcome> {
        if !wait {
            return None;
        }
        let flight = self.fly(course.clone(), ticket, &course.progress);
        let answer = self.tasks.within(self.rules.refresh_wait, flight).await;
        if let Ok(None) = answer {
            course.trouble(|trouble| trouble.note(self.now(), true));
        }
        answer.unwrap_or_else(|error| Some(Err(error)))
    }

    /// Waits for a flight as long as an operation may take.
    async fn fly_to_end(self: &Arc<Self>, course: Course, ticket: Ticket) -> Outcome {
        let _place = if course.is_limited() {
            Some(self.admission.begin_to_wait().map_err(|full| self.overloaded(&course, full))?)
        } else {
            None
        };
        let (id, waiter) = (course.ring.id().clone(), Progress::default());
        let answer = self.tasks.within(self.operation_deadline, self.fly(course, ticket, &waiter)).await?;
        answer.unwrap_or_else(|| Err(self.overran(&id, waiter.dependency())))
    }

    /// Waits for the flight on this course that `ticket` admits to; starts it if there is none. `waiter`
    /// hears what the flight waits for.
    async fn fly(self: &Arc<Self>, course: Course, ticket: Ticket, waiter: &Progress) -> Outcome {
        for _ in 0..BOARDINGS_MAX {
            let (seat, pilot) = course.ring.flights().board(course.target, ticket);
            waiter.follows(seat.progress());
            if let Some(pilot) = pilot {
                match self.place_for(&course) {
                    Ok(place) => self.launch(course.clone(), pilot, place, false)?,
                    Err(error) => {
                        pilot.land(Err(error.clone()));
                        return Err(error);
                    }
                }
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
        if !self.store.reads().has_room_for_check() {
            return;
        }
        let Some(permit) = self.tasks.background_permit() else { return };
        if let (_, Some(pilot)) = flights.board(course.target, Flights::any_ticket()) {
            let id = course.ring.id().clone();
            if let Err(error) = self.launch(course, pilot, Some(permit), true) {
                self.events.raise_because(Event::RefreshFailed, &id, &error);
            }
        }
    }

    /// Takes the place of a load; others need none.
    fn place_for(&self, course: &Course) -> Result<Option<OwnedSemaphorePermit>, Error> {
        if !course.is_limited() {
            return Ok(None);
        }
        self.admission.begin_load().map(Some).map_err(|full| self.overloaded(course, full))
    }

    fn overloaded(&self, course: &Course, full: Full) -> Error {
        let (Full { limit, max }, key) = (full, course.ring.id().clone());
        Error::Overloaded { limit, max, key, dependency: Some(self.bottleneck()) }
    }

    /// Returns what many wait for, if many wait.
    fn bottleneck(&self) -> Dependency {
        // The KMS is asked seldom, but when it hangs.
        let is_kms = self.kms.gate().is_tripped() || self.kms.gate().is_asked();
        if is_kms { Dependency::Kms } else { Dependency::Metastore }
    }

    fn overran(&self, key: &KeyId, dependency: Option<Dependency>) -> Error {
        let (key, after) = (key.clone(), self.operation_deadline);
        Error::Deadline { limit: "operation_deadline", after, key, dependency }
    }

    /// Runs a flight as a task of its own. `permit` is what it holds meanwhile: a load's place, or, if it is
    /// `in_background`, that of one that nobody waits for.
    fn launch(
        self: &Arc<Self>,
        mut course: Course,
        pilot: Pilot,
        permit: Option<OwnedSemaphorePermit>,
        in_background: bool,
    ) -> Result<(), Error> {
        self.ensure_sweep();
        self.ensure_listening();
        course.take(&pilot);
        let this = Arc::clone(self);
        self.tasks.spawn(move |stopped| async move {
            let _held = permit;
            let work = tokio::time::timeout(this.operation_deadline, this.run(&course));
            let outcome = match stopped.run_until_cancelled(work).await {
                Some(Ok(outcome)) => outcome,
                Some(Err(_elapsed)) => Err(this.overran(course.ring.id(), course.progress.dependency())),
                None => Err(Error::Closed),
            };
            if let (Err(error), true) = (&outcome, in_background) {
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
}

#[cfg(test)]
mod tests;
