//! How flights are begun, waited for and ended.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::Hierarchy;
use super::admission::Full;
use super::course::Course;
use super::decide::{self, Awaited, Failure, WayOut};
use super::misses::Exceeded;
use crate::BoxFuture;
use crate::clock::Moment;
use crate::error::{Dependency, Error};
use crate::events::Event;
use crate::key::state::Trouble;
use crate::keyring::Keyring;
use crate::keyring::flight::{Flights, Outcome, Pilot, Ticket};
use crate::keyring::progress::Progress;
use crate::record::KeyId;

/// How often a flight whose task went away is started anew, and one that began too early awaited.
const BOARDINGS_MAX: usize = 4;

impl Hierarchy {
    pub(super) fn ticket(&self, ring: &Keyring) -> Ticket {
        if self.rules.checks_every_call() {
            ring.flights().ticket()
        } else {
            ring.flights().ticket_of_current()
        }
    }

    /// Returns how the way to the store is for this.
    pub(super) fn way_out(&self, course: &Course, awaited: Awaited, now: Moment) -> WayOut {
        let (reads, writes) = (self.store.reads(), self.store.writes());
        let is_shut = match awaited {
            Awaited::Check => reads.is_shut_to(&course.subject()),
            // Its row is to be read and inserted.
            Awaited::Successor => reads.is_open() || writes.is_open(),
        };
        let failure = |trouble: &Trouble| match trouble.is_recent_in_passing(now) {
            true => Some(Failure::Passing),
            false => trouble.is_recent(now).then_some(Failure::Lasting),
        };
        WayOut { is_shut, trouble: course.trouble(failure).flatten() }
    }

    /// Waits for a refresh, `refresh_wait` at most. `None` if there is no answer, or with
    /// `wait == false` none was waited for.
    pub(super) async fn refreshed(
        self: &Arc<Self>,
        course: Course,
        ticket: Ticket,
        wait: bool,
    ) -> Option<Outcome> {
        if !wait {
            // If the store answers anybody it answers this one, and then all are asked again.
            if self.store.reads().prefers(&course.subject()) {
                self.begin_in_background(course);
            }
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
    pub(super) async fn fly_to_end(self: &Arc<Self>, course: Course, ticket: Ticket) -> Outcome {
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
    ///
    /// On the heap, since flights wait for flights, and since many callers wait at once.
    pub(super) fn fly<'a>(
        self: &'a Arc<Self>,
        course: Course,
        ticket: Ticket,
        waiter: &'a Progress,
    ) -> BoxFuture<'a, Outcome> {
        Box::pin(self.fly_in_place(course, ticket, waiter))
    }

    async fn fly_in_place(self: &Arc<Self>, course: Course, ticket: Ticket, waiter: &Progress) -> Outcome {
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
    pub(super) fn refresh_in_background(self: &Arc<Self>, course: Course, now: Moment) {
        let way_out = self.way_out(&course, Awaited::Check, now);
        if decide::is_worth_waiting(Awaited::Check, way_out) {
            self.begin_in_background(course);
        }
    }

    fn begin_in_background(self: &Arc<Self>, course: Course) {
        let flights = course.ring.flights();
        if flights.is_under_way(course.target) || !self.store.reads().has_room_for_check() {
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
        let place = self.admission.begin_load().map_err(|full| self.overloaded(course, full))?;
        if let Some(partition) = &course.partition {
            self.misses.begin(partition, self.now()).map_err(|exceeded| self.exceeded(course, exceeded))?;
        }
        Ok(Some(place))
    }

    fn exceeded(&self, course: &Course, Exceeded { max, is_news }: Exceeded) -> Error {
        self.events.raise_if(is_news, Event::TooManyMisses, course.ring.id());
        let (max, key) = (usize::try_from(max).unwrap_or(usize::MAX), course.ring.id().clone());
        Error::Overloaded { limit: "misses_max", max, key, dependency: None }
    }

    fn overloaded(&self, course: &Course, full: Full) -> Error {
        let (Full { limit, max }, key) = (full, course.ring.id().clone());
        Error::Overloaded { limit, max, key, dependency: Some(self.bottleneck()) }
    }

    /// Returns what many wait for, if many wait.
    pub(super) fn bottleneck(&self) -> Dependency {
        // The KMS is asked seldom, but when it hangs.
        let is_kms = self.kms.gate().is_tripped() || self.kms.gate().is_asked();
        if is_kms { Dependency::Kms } else { Dependency::Metastore }
    }

    pub(super) fn overran(&self, key: &KeyId, dependency: Option<Dependency>) -> Error {
        let (key, after) = (key.clone(), self.operation_deadline);
        Error::Deadline { limit: "operation_deadline", after, key, dependency }
    }

    /// Runs a flight as a task of its own. `permit` is what it holds meanwhile: a load's place, or, if it is
    /// `in_background`, that of one that nobody waits for.
    pub(super) fn launch(
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
        // On the heap: many wait at once, and what is passed on takes its room at each step.
        let flight = async move |stopped: CancellationToken| {
            let _held = permit;
            let work = tokio::time::timeout(this.operation_deadline, Box::pin(this.run(&course)));
            let outcome = match stopped.run_until_cancelled(work).await {
                Some(Ok(outcome)) => outcome,
                Some(Err(_elapsed)) => Err(this.overran(course.ring.id(), course.progress.dependency())),
                None => Err(Error::Closed),
            };
            if let (Err(error), true) = (&outcome, in_background) {
                this.events.raise_because(Event::RefreshFailed, course.ring.id(), error);
            }
            this.land_one(&course, pilot, outcome);
        };
        self.tasks.spawn(|stopped| Box::pin(flight(stopped)))
    }

    /// Ends a flight: notes how, and tells all who wait.
    pub(super) fn land_one(&self, course: &Course, pilot: Pilot, outcome: Outcome) {
        course.trouble(|trouble| match &outcome {
            Ok(_) => trouble.clear(),
            Err(error) => trouble.note(self.now(), error.is_retryable()),
        });
        if let (Some(partition), true) = (&course.partition, outcome.is_ok()) {
            self.misses.give_back(partition);
        }
        pilot.land(outcome);
    }
}
