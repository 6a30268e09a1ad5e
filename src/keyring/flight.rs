//! Single flight: however many ask for the same load at once, one task runs it for all.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::error::Error;
use crate::key::CryptoKey;
use crate::keyring::landing::Landing;
use crate::keyring::progress::Progress;
use crate::record::Created;
use crate::sync::{AtomicU64, Mutex, MutexGuard};

/// What is loaded: one version of a key, or the latest there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Latest,
    Version(Created),
}

/// What a load brought.
pub(crate) type Outcome = Result<Arc<CryptoKey>, Error>;

/// The loads under way for one key id.
///
/// Each load has a generation. A caller that needs an answer which is newer than its question takes the
/// [next generation](Self::next_generation) first, and joins only loads that begin later.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    series: Arc<Series>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the rows were last invalidated.
    invalidated: u64,
    under_way: HashMap<Target, Flight>,
}

/// The generations of a cache: of its loads, for whatever key id, and of its invalidations. What began earlier
/// has the lower one.
#[derive(Debug, Default)]
pub(crate) struct Series {
    last: AtomicU64,
    /// When rows were last invalidated that loads for any key id may ask for.
    invalidated: AtomicU64,
}

impl Series {
    /// Notes that what loads under way bring is no news, whatever they are for.
    pub(crate) fn invalidate(&self) {
        self.invalidated.fetch_max(self.next(), Ordering::AcqRel);
    }

    /// Takes a generation. A caller that takes a later one sees all that was done before.
    fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::AcqRel) + 1
    }
}

#[derive(Clone, Debug)]
struct Flight {
    generation: u64,
    progress: Arc<Progress>,
    landing: Arc<Landing<Outcome>>,
}

/// Loads of this generation or an earlier one cannot answer the question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MinGeneration(u64);

/// One of those that wait for a load.
#[derive(Debug)]
pub(crate) struct Waiter {
    flight: Flight,
    /// The load began before the question was asked: its outcome is of no use.
    too_early: bool,
}

/// What the task that runs a load holds. However the task ends, the load is over with it.
#[derive(Debug)]
pub(crate) struct Leader {
    flights: Arc<Flights>,
    target: Target,
    generation: u64,
    progress: Arc<Progress>,
    landing: Arc<Landing<Outcome>>,
}

impl Flights {
    pub(crate) fn new(series: Arc<Series>) -> Self {
        Self { series, state: Mutex::default() }
    }

    /// Admits any load that is under way or begins later.
    pub(crate) const fn any_generation() -> MinGeneration {
        MinGeneration(0)
    }

    /// Admits only loads that begin from now on.
    pub(crate) fn next_generation(&self) -> MinGeneration {
        MinGeneration(self.series.next())
    }

    /// Admits loads that began since the rows were last invalidated, and any that begins later.
    pub(crate) fn current_generation(&self) -> MinGeneration {
        MinGeneration(self.invalidated(&self.state()))
    }

    /// Takes a generation: loads that begin from now on have a later one.
    pub(crate) fn take_generation(&self) -> u64 {
        self.series.next()
    }

    /// Notes that the rows may have changed: what loads under way bring is no news.
    pub(crate) fn invalidate(&self) {
        let mut state = self.state();
        state.invalidated = self.series.next();
    }

    /// Returns `true` if the load of this generation began since the rows were last invalidated.
    pub(crate) fn is_current(&self, generation: u64) -> bool {
        generation > self.invalidated(&self.state())
    }

    /// Returns `true` if the rows, not the parent's, were ever invalidated.
    pub(crate) fn is_any_invalidated(&self) -> bool {
        self.state().invalidated > 0
    }

    pub(crate) fn is_under_way(&self, target: Target) -> bool {
        self.state().under_way.contains_key(&target)
    }

    pub(crate) fn under_way(&self) -> usize {
        self.state().under_way.len()
    }

    /// Joins the load of `target`. If there was none, also returns the leader of a new one, which the caller
    /// must give to a task.
    pub(crate) fn join(
        self: &Arc<Self>,
        target: Target,
        min_generation: MinGeneration,
    ) -> (Waiter, Option<Leader>) {
        self.join_since(target, min_generation, None)
    }

    /// As [`join`](Self::join), where a new load goes on with what a load of generation `since` has read.
    pub(crate) fn join_since(
        self: &Arc<Self>,
        target: Target,
        min_generation: MinGeneration,
        since: Option<u64>,
    ) -> (Waiter, Option<Leader>) {
        let mut state = self.state();
        if let Some(flight) = state.under_way.get(&target) {
            return (
                Waiter { too_early: flight.generation <= min_generation.0, flight: flight.clone() },
                None,
            );
        }
        let landing = Arc::<Landing<Outcome>>::default();
        let generation = since.unwrap_or_else(|| self.series.next());
        let progress = Arc::<Progress>::default();
        let flight = Flight { generation, progress: Arc::clone(&progress), landing: Arc::clone(&landing) };
        let leader = Leader { flights: Arc::clone(self), target, generation, progress, landing };
        state.under_way.insert(target, flight.clone());
        (Waiter { flight, too_early: false }, Some(leader))
    }

    fn invalidated(&self, state: &State) -> u64 {
        state.invalidated.max(self.series.invalidated.load(Ordering::Acquire))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each use is one step on whole values: a panic in between leaves nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    pub(crate) const fn progress(&self) -> &Arc<Progress> {
        &self.flight.progress
    }

    /// Waits for the load's end. `None` if its outcome cannot be used: it began too early, or
    /// its task went away.
    ///
    /// # Cancel safety
    /// Leaving early harms nobody; the load goes on.
    pub(crate) async fn outcome(self) -> Option<Outcome> {
        self.flight.landing.outcome().await.filter(|_| !self.too_early)
    }
}

impl Leader {
    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) const fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Ends the load and hands its outcome to all waiters.
    pub(crate) fn complete(self, outcome: Outcome) {
        // The load leaves the list before its outcome is there, so that nobody joins it after.
        self.abandon();
        self.landing.land(Some(outcome));
    }

    fn abandon(&self) {
        let mut state = self.flights.state();
        if state.under_way.get(&self.target).is_some_and(|flight| Arc::ptr_eq(&flight.landing, &self.landing))
        {
            state.under_way.remove(&self.target);
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.abandon();
        self.landing.land(None);
    }
}
