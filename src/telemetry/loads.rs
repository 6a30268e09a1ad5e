//! What is shown of key loads, and of those that wait for them.

use metrics::{Counter, Gauge, Histogram};
use tokio::time::Instant;

use super::gauges::Raised;
use super::outcome::Outcome;
use super::scope::{Lazy, Scope};
use super::table::{LOAD_DURATION, LOADS, LOADS_UNDER_WAY, WAITING, WAITING_LIMIT};
use crate::error::Error;
use crate::partition::Level;

#[derive(Debug)]
pub(crate) struct LoadMetrics {
    system: OfLevel,
    intermediate: OfLevel,
    waiting: Gauge,
    scope: Scope,
}

#[derive(Debug)]
struct OfLevel {
    level: Level,
    under_way: Gauge,
    outcomes: Lazy<Counter>,
    durations: Lazy<Histogram>,
}

/// A load under way. One that is dropped was cancelled.
#[derive(Debug)]
pub(crate) struct LoadUnderWay<'a> {
    metrics: &'a LoadMetrics,
    level: Level,
    begun: Instant,
    is_over: bool,
    _under_way: Raised,
}

impl LoadMetrics {
    pub(super) fn new(scope: &Scope) -> Self {
        let of_level = |level| OfLevel::new(scope, level);
        let (system, intermediate) = (of_level(Level::System), of_level(Level::Intermediate));
        Self { system, intermediate, waiting: scope.gauge(&WAITING, &[]), scope: scope.clone() }
    }

    pub(super) fn show_limit(&self, waiting_max: usize) {
        self.scope.gauge(&WAITING_LIMIT, &[]).set(super::as_f64(waiting_max));
    }

    pub(crate) fn begin(&self, level: Level) -> LoadUnderWay<'_> {
        let under_way = Raised::new(&self.of(level).under_way);
        LoadUnderWay { metrics: self, level, begun: Instant::now(), is_over: false, _under_way: under_way }
    }

    /// Counts an operation that waits for a key which is not cached.
    pub(crate) fn waits(&self) -> Raised {
        Raised::new(&self.waiting)
    }

    const fn of(&self, level: Level) -> &OfLevel {
        match level {
            Level::System => &self.system,
            Level::Intermediate => &self.intermediate,
        }
    }
}

impl OfLevel {
    fn new(scope: &Scope, level: Level) -> Self {
        let under_way = scope.gauge(&LOADS_UNDER_WAY, &[("level", level.name())]);
        let outcomes = || Outcome::ALL.len();
        let of_level =
            Self { level, under_way, outcomes: Lazy::new(outcomes()), durations: Lazy::new(outcomes()) };
        of_level.count(scope, Outcome::Ok, 0);
        of_level
    }

    fn labels(&self, outcome: Outcome) -> [(&'static str, &'static str); 2] {
        [("level", self.level.name()), ("outcome", outcome.name())]
    }

    fn count(&self, scope: &Scope, outcome: Outcome, more: u64) {
        let make = || scope.counter(&LOADS, &self.labels(outcome));
        if let Some(counter) = self.outcomes.get(outcome as usize, make) {
            counter.increment(more);
        }
    }
}

impl LoadUnderWay<'_> {
    pub(crate) fn end<T>(mut self, outcome: &Result<T, Error>) {
        self.is_over = true;
        self.note(Outcome::of(outcome));
    }

    fn note(&self, outcome: Outcome) {
        let (scope, of_level) = (&self.metrics.scope, self.metrics.of(self.level));
        of_level.count(scope, outcome, 1);
        let make = || scope.histogram(&LOAD_DURATION, &of_level.labels(outcome));
        if let Some(histogram) = of_level.durations.get(outcome as usize, make) {
            histogram.record(self.begun.elapsed());
        }
    }
}

impl Drop for LoadUnderWay<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.note(Outcome::Cancelled);
        }
    }
}
