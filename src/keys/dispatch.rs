//! How flights are begun, waited for and ended.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::Hierarchy;
use super::admission::Full;
use super::decide::{self, Awaited, Failure, WayOut};
use super::misses::Exceeded;
use super::request::LoadRequest;
use crate::BoxFuture;
use crate::clock::Moment;
use crate::error::{Dependency, Error};
use crate::events::Event;
use crate::key::state::Trouble;
use crate::keyring::Keyring;
use crate::keyring::flight::{Flights, Leader, MinGeneration, Outcome};
use crate::keyring::progress::Progress;
use crate::record::KeyId;

/// How often a flight whose task went away is started anew, and one that began too early awaited.
const BOARDINGS_MAX: usize = 4;

impl Hierarchy {
    pub(super) fn next_generation(&self, keyring: &Keyring) -> MinGeneration {
        if self.rules.checks_every_call() {
            keyring.flights().next_generation()
        } else {
            keyring.flights().current_generation()
        }
    }

    /// Returns how the way to the store is for this.
    pub(super) fn way_out(&self, request: &LoadRequest, awaited: Awaited, now: Moment) -> WayOut {
        let (reads, writes) = (self.store.reads(), self.store.writes());
        let is_shut = match awaited {
            Awaited::Check => reads.is_shut_to(&request.subject()),
            // Its row is to be read and inserted.
            Awaited::Successor => reads.is_open() || writes.is_open(),
        };
        let failure = |trouble: &Trouble| match trouble.is_recent_in_passing(now) {
            true => Some(Failure::Passing),
            false => trouble.is_recent(now).then_some(Failure::Lasting),
        };
        WayOut { is_shut, trouble: request.trouble(failure).flatten() }
    }

    /// Waits for a refresh, `refresh_wait` at most. `None` if there is no answer, or with
    /// `wait == false` none was waited for.
    pub(super) async fn refreshed(
        self: &Arc<Self>,
        request: LoadRequest,
        min_generation: MinGeneration,
        wait: bool,
    ) -> Option<Outcome> {
        if !wait {
            // If the store answers anybody it answers this one, and then all are asked again.
            if self.store.reads().prefers(&request.subject()) {
                self.begin_in_background(request);
            }
            return None;
        }
        let flight = self.fly(request.clone(), min_generation, &request.progress);
        let answer = self.tasks.within(self.rules.refresh_wait, flight).await;
        if let Ok(None) = answer {
            request.trouble(|trouble| trouble.note(self.now(), true));
        }
        answer.unwrap_or_else(|error| Some(Err(error)))
    }

    /// Waits for a flight as long as an operation may take.
    pub(super) async fn fly_to_end(
        self: &Arc<Self>,
        request: LoadRequest,
        min_generation: MinGeneration,
    ) -> Outcome {
        let _place = if request.is_limited() {
            Some(self.admission.begin_to_wait().map_err(|full| self.overloaded(&request, full))?)
        } else {
            None
        };
        let (id, progress) = (request.keyring.id().clone(), Progress::default());
        let answer =
            self.tasks.within(self.operation_deadline, self.fly(request, min_generation, &progress)).await?;
        answer.unwrap_or_else(|| Err(self.overran(&id, progress.dependency())))
    }

    /// Waits for the flight on this request that `min_generation` admits to; starts it if there is none. `progress`
    /// hears what the flight waits for.
    ///
    /// On the heap, since flights wait for flights, and since many callers wait at once.
    pub(super) fn fly<'a>(
        self: &'a Arc<Self>,
        request: LoadRequest,
        min_generation: MinGeneration,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Outcome> {
        Box::pin(self.fly_in_place(request, min_generation, progress))
    }

    async fn fly_in_place(
        self: &Arc<Self>,
        request: LoadRequest,
        min_generation: MinGeneration,
        progress: &Progress,
    ) -> Outcome {
        for _ in 0..BOARDINGS_MAX {
            let (waiter, leader) = request.keyring.flights().join(request.target, min_generation);
            progress.follows(waiter.progress());
            if let Some(leader) = leader {
                match self.place_for(&request) {
                    Ok(place) => self.launch(request.clone(), leader, place, false)?,
                    Err(error) => {
                        leader.complete(Err(error.clone()));
                        return Err(error);
                    }
                }
            }
            if let Some(outcome) = waiter.outcome().await {
                return outcome;
            }
        }
        Err(Error::Interrupted)
    }

    /// Starts a flight that nobody waits for, unless one is under way, there is no permit, or it is
    /// known to fail.
    pub(super) fn refresh_in_background(self: &Arc<Self>, request: LoadRequest, now: Moment) {
        let way_out = self.way_out(&request, Awaited::Check, now);
        if decide::is_worth_waiting(Awaited::Check, way_out) {
            self.begin_in_background(request);
        }
    }

    fn begin_in_background(self: &Arc<Self>, request: LoadRequest) {
        let flights = request.keyring.flights();
        if flights.is_under_way(request.target) || !self.store.reads().has_room_for_check() {
            return;
        }
        let Some(permit) = self.tasks.background_permit() else { return };
        if let (_, Some(leader)) = flights.join(request.target, Flights::any_generation()) {
            let id = request.keyring.id().clone();
            if let Err(error) = self.launch(request, leader, Some(permit), true) {
                self.events.raise_because(Event::RefreshFailed, &id, &error);
            }
        }
    }

    /// Takes the place of a load; others need none.
    fn place_for(&self, request: &LoadRequest) -> Result<Option<OwnedSemaphorePermit>, Error> {
        if !request.is_limited() {
            return Ok(None);
        }
        let place = self.admission.begin_load().map_err(|full| self.overloaded(request, full))?;
        if let Some(partition) = &request.partition {
            self.misses.begin(partition, self.now()).map_err(|exceeded| self.exceeded(request, exceeded))?;
        }
        Ok(Some(place))
    }

    fn exceeded(&self, request: &LoadRequest, Exceeded { max, is_news }: Exceeded) -> Error {
        self.events.raise_if(is_news, Event::TooManyMisses, request.keyring.id());
        let (max, key) = (usize::try_from(max).unwrap_or(usize::MAX), request.keyring.id().clone());
        Error::Overloaded { limit: "misses_max", max, key, dependency: None }
    }

    fn overloaded(&self, request: &LoadRequest, full: Full) -> Error {
        let (Full { limit, max }, key) = (full, request.keyring.id().clone());
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
        mut request: LoadRequest,
        leader: Leader,
        permit: Option<OwnedSemaphorePermit>,
        in_background: bool,
    ) -> Result<(), Error> {
        self.ensure_sweep();
        self.ensure_listening();
        request.take(&leader);
        let this = Arc::clone(self);
        // On the heap: many wait at once, and what is passed on takes its room at each step.
        let flight = async move |stopped: CancellationToken| {
            let _held = permit;
            let work = tokio::time::timeout(this.operation_deadline, Box::pin(this.run(&request)));
            let outcome = match stopped.run_until_cancelled(work).await {
                Some(Ok(outcome)) => outcome,
                Some(Err(_elapsed)) => Err(this.overran(request.keyring.id(), request.progress.dependency())),
                None => Err(Error::Closed),
            };
            if let (Err(error), true) = (&outcome, in_background) {
                this.events.raise_because(Event::RefreshFailed, request.keyring.id(), error);
            }
            this.complete_load(&request, leader, outcome);
        };
        self.tasks.spawn(|stopped| Box::pin(flight(stopped)))
    }

    /// Ends a flight: notes how, and tells all who wait.
    pub(super) fn complete_load(&self, request: &LoadRequest, leader: Leader, outcome: Outcome) {
        request.trouble(|trouble| match &outcome {
            Ok(_) => trouble.clear(),
            Err(error) => trouble.note(self.now(), error.is_retryable()),
        });
        if let (Some(partition), true) = (&request.partition, outcome.is_ok()) {
            self.misses.give_back(partition);
        }
        leader.complete(outcome);
    }
}
