//! How loads are begun, waited for and ended: one at a time for each target, each as a task of its own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::admission::{Admission, Full};
use super::back_ends::BackEnds;
use super::context::Context;
use super::decide::{self, Awaited};
use super::misses::{Exceeded, Misses};
use super::parts::Parts;
use super::request::LoadRequest;
use crate::BoxFuture;
use crate::clock::Moment;
use crate::error::{Dependency, Error};
use crate::events::Event;
use crate::keyring::Keyring;
use crate::keyring::flight::{Flights, Leader, MinGeneration, Outcome};
use crate::keyring::progress::Progress;
use crate::policy::Limits;
use crate::record::KeyId;
use crate::tasks::Tasks;

/// What makes a key ready that is not at hand.
pub(super) trait Load: Send + Sync + 'static {
    /// Loads what is requested, or has it made.
    fn load<'a>(self: &'a Arc<Self>, request: &'a LoadRequest) -> impl Future<Output = Outcome> + Send + 'a;
}

#[derive(Debug)]
pub(crate) struct Dispatcher {
    context: Arc<Context>,
    back_ends: Arc<BackEnds>,
    tasks: Tasks,
    admission: Admission,
    misses: Misses,
    operation_deadline: Duration,
    before_loads: BeforeLoads,
}

/// What is done before each load: sees to the tasks that run as long as the factory is in use.
struct BeforeLoads(Box<dyn Fn() + Send + Sync>);

/// How often a load whose task went away is started anew, and one that began too early awaited.
const JOINS_MAX: usize = 4;

impl Dispatcher {
    pub(crate) fn new(
        parts: &Parts,
        tasks: Tasks,
        limits: &Limits,
        before_loads: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            context: Arc::clone(&parts.context),
            back_ends: Arc::clone(&parts.back_ends),
            tasks,
            admission: Admission::new(limits),
            misses: Misses::new(limits.max_misses),
            operation_deadline: limits.operation_deadline,
            before_loads: BeforeLoads(Box::new(before_loads)),
        }
    }

    pub(crate) const fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    pub(super) const fn operation_deadline(&self) -> Duration {
        self.operation_deadline
    }

    /// Returns which loads answer a question that is asked now.
    pub(super) fn min_generation(&self, keyring: &Keyring) -> MinGeneration {
        if self.context.rules().checks_every_call() {
            keyring.flights().next_generation()
        } else {
            keyring.flights().current_generation()
        }
    }

    /// Waits for a refresh, `refresh_wait` at most. `None` if there is no answer.
    pub(super) async fn refresh<L: Load>(
        self: &Arc<Self>,
        loader: &Arc<L>,
        request: LoadRequest,
        min_generation: MinGeneration,
    ) -> Option<Outcome> {
        let load = self.join_or_start(loader, request.clone(), min_generation, &request.progress);
        let answer = self.tasks.within(self.context.rules().refresh_wait, load).await;
        if let Ok(None) = answer {
            request.trouble(|trouble| trouble.note(self.context.now(), true));
        }
        answer.unwrap_or_else(|error| Some(Err(error)))
    }

    /// Starts a refresh that nobody waits for, as it seems to be in vain, if it is as good a probe as any: if
    /// the store answers anybody it answers this one, and then all are asked again.
    pub(super) fn probe<L: Load>(self: &Arc<Self>, loader: &Arc<L>, request: LoadRequest) {
        if self.back_ends.store().reads().prefers(&request.subject()) {
            self.start_in_background(loader, request);
        }
    }

    /// Starts a load that nobody waits for, unless one is under way, there is no permit, or it is known to
    /// fail.
    pub(super) fn refresh_in_background<L: Load>(
        self: &Arc<Self>,
        loader: &Arc<L>,
        request: LoadRequest,
        now: Moment,
    ) {
        let way_out = self.back_ends.way_out(&request, Awaited::Check, now);
        if decide::is_worth_waiting(Awaited::Check, way_out) {
            self.start_in_background(loader, request);
        }
    }

    fn start_in_background<L: Load>(self: &Arc<Self>, loader: &Arc<L>, request: LoadRequest) {
        let flights = request.keyring.flights();
        if flights.is_under_way(request.target) || !self.back_ends.store().reads().has_room_for_check() {
            return;
        }
        let Some(permit) = self.tasks.background_permit() else { return };
        if let (_, Some(leader)) = flights.join(request.target, Flights::any_generation()) {
            let id = request.keyring.id().clone();
            if let Err(error) = self.spawn(loader, request, leader, Some(permit), true) {
                self.context.events().raise_because(Event::RefreshFailed, &id, &error);
            }
        }
    }

    /// Waits for a load as long as an operation may take.
    pub(super) async fn load_with_deadline<L: Load>(
        self: &Arc<Self>,
        loader: &Arc<L>,
        request: LoadRequest,
        min_generation: MinGeneration,
    ) -> Outcome {
        let _place = if request.is_limited() {
            let place = self.admission.begin_to_wait().map_err(|full| self.overloaded(&request, full))?;
            Some((place, self.context.telemetry().loads().waits()))
        } else {
            None
        };
        let (id, progress) = (request.keyring.id().clone(), Progress::default());
        let load = self.join_or_start(loader, request, min_generation, &progress);
        let answer = self.tasks.within(self.operation_deadline, load).await?;
        answer.unwrap_or_else(|| Err(self.overran(&id, progress.dependency())))
    }

    /// Waits for the load of this target that `min_generation` admits; starts it if there is none.
    /// `progress` hears what it waits for.
    ///
    /// On the heap, since loads wait for loads, and since many callers wait at once.
    pub(super) fn join_or_start<'a, L: Load>(
        self: &'a Arc<Self>,
        loader: &'a Arc<L>,
        request: LoadRequest,
        min_generation: MinGeneration,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            for _ in 0..JOINS_MAX {
                let flights = request.keyring.flights();
                let (waiter, leader) = flights.join_since(request.target, min_generation, request.since());
                progress.follows(waiter.progress());
                if let Some(leader) = leader {
                    match self.place_for(&request) {
                        Ok(place) => self.spawn(loader, request.clone(), leader, place, false)?,
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
            Err(Error::interrupted(request.keyring.id(), progress.dependency()))
        })
    }

    /// Begins a load that nobody waits for yet, unless one is under way: a check, which takes no place.
    pub(super) fn begin<L: Load>(self: &Arc<Self>, loader: &Arc<L>, check: LoadRequest) {
        if let (_, Some(leader)) = check.keyring.flights().join(check.target, Flights::any_generation()) {
            // Without a runtime there is nobody who could wait, either.
            let _spawned = self.spawn(loader, check, leader, None, false);
        }
    }

    /// Takes the place of a load; others need none.
    fn place_for(&self, request: &LoadRequest) -> Result<Option<OwnedSemaphorePermit>, Error> {
        if !request.is_limited() {
            return Ok(None);
        }
        let place = self.admission.begin_load().map_err(|full| self.overloaded(request, full))?;
        if let Some(partition) = &request.partition {
            let looked = self.misses.begin(partition, self.context.now());
            looked.map_err(|exceeded| self.exceeded(request, exceeded))?;
        }
        Ok(Some(place))
    }

    /// Waits for the place of a call for many keys.
    pub(super) async fn place_for_many(&self) -> Option<SemaphorePermit<'_>> {
        self.admission.wait_to_load().await
    }

    fn exceeded(&self, request: &LoadRequest, Exceeded { max, is_news }: Exceeded) -> Error {
        self.context.events().raise_if(is_news, Event::TooManyMisses, request.keyring.id());
        let (max, key) = (usize::try_from(max).unwrap_or(usize::MAX), request.keyring.id().clone());
        Error::Overloaded { limit: "max_misses", max, key, dependency: None }
    }

    fn overloaded(&self, request: &LoadRequest, full: Full) -> Error {
        let (Full { limit, max }, key) = (full, request.keyring.id().clone());
        Error::Overloaded { limit, max, key, dependency: Some(self.back_ends.bottleneck()) }
    }

    pub(super) fn overran(&self, key: &KeyId, dependency: Option<Dependency>) -> Error {
        let (key, after) = (key.clone(), self.operation_deadline);
        Error::Deadline { limit: "operation_deadline", after, key, dependency }
    }

    /// Sees to the tasks that run as long as the factory is in use.
    pub(super) fn before_loads(&self) {
        (self.before_loads.0)();
    }

    /// Runs a load as a task of its own. `permit` is what it holds meanwhile: a load's place, or, if it is
    /// `in_background`, that of one that nobody waits for.
    pub(super) fn spawn<L: Load>(
        self: &Arc<Self>,
        loader: &Arc<L>,
        mut request: LoadRequest,
        leader: Leader,
        permit: Option<OwnedSemaphorePermit>,
        in_background: bool,
    ) -> Result<(), Error> {
        self.before_loads();
        request.lead_by(&leader);
        let span = request.span();
        let (this, loader) = (Arc::clone(self), Arc::clone(loader));
        // On the heap: many wait at once, and what is passed on takes its room at each step.
        let load = async move |stopped: CancellationToken| {
            let _held = permit;
            let under_way = this.context.telemetry().loads().begin(request.level);
            let work = tokio::time::timeout(this.operation_deadline, Box::pin(loader.load(&request)));
            let outcome = match stopped.run_until_cancelled(work).await {
                Some(Ok(outcome)) => outcome,
                Some(Err(_elapsed)) => Err(this.overran(request.keyring.id(), request.progress.dependency())),
                None => Err(Error::Closed),
            };
            if let (Err(error), true) = (&outcome, in_background) {
                this.context.events().raise_because(Event::RefreshFailed, request.keyring.id(), error);
            }
            under_way.end(&outcome);
            this.complete(&request, leader, outcome);
        };
        self.tasks.spawn(|stopped| Box::pin(load(stopped).instrument(span)))
    }

    /// Ends a load: notes how, and hands the outcome to all waiters.
    pub(super) fn complete(&self, request: &LoadRequest, leader: Leader, outcome: Outcome) {
        request.trouble(|trouble| match &outcome {
            Ok(_) => trouble.clear(),
            Err(error) => trouble.note(self.context.now(), error.is_retryable()),
        });
        if let (Some(partition), true) = (&request.partition, outcome.is_ok()) {
            self.misses.give_back(partition);
        }
        leader.complete(outcome);
    }
}

impl fmt::Debug for BeforeLoads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BeforeLoads")
    }
}
