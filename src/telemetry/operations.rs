//! Encrypts and decrypts: how many, how they ended, how long they took.
//!
//! A warm one, whose key is ready, costs one addition to a count that few threads share; one in [`SAMPLE`] is
//! timed. The counts go to the recorder about once a second, by an operation, and else by the factory's own
//! reports.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use claviger_memory::ForkSentinel;
use metrics::{Counter, Histogram};
use tokio::time::Instant;

use super::outcome::Outcome;
use super::scope::{Lazy, Scope};
use super::table::{LOOKUPS, OPERATION_DURATION, OPERATIONS};
use crate::clock::{Moment, NANOS_PER_SECOND};
use crate::error::Error;

/// What a session does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Encrypt,
    Decrypt,
}

/// What the cache has for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// A key that may be used at once.
    Hit,
    /// A key, and something is waited for before it is used.
    Stale,
    Miss,
}

#[derive(Debug)]
pub(crate) struct Operations {
    shards: Box<[Shard; SHARDS]>,
    encrypts: Series,
    decrypts: Series,
    scope: Scope,
    /// In a forked child a recorder's locks may be held for ever.
    sentinel: Arc<ForkSentinel>,
}

/// What is recorded of one kind of operation.
#[derive(Debug)]
struct Series {
    operation: Operation,
    outcomes: Lazy<Counter>,
    durations: Lazy<Histogram>,
    /// In the order of [`Lookup`].
    lookups: [Counter; 3],
}

/// The warm operations of the threads that share this.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    encrypts: Tally,
    decrypts: Tally,
    /// When they were last reported, in monotonic nanoseconds.
    reported_at: AtomicU64,
}

#[derive(Debug, Default)]
struct Tally {
    count: AtomicU64,
    /// How many of them the recorder was told.
    reported: AtomicU64,
}

#[derive(Clone, Copy)]
enum Path {
    Warm,
    Cold,
}

/// An operation that has begun.
#[must_use]
pub(crate) struct Begun<'a> {
    operations: &'a Operations,
    shard: &'a Shard,
    operation: Operation,
    /// When, if it is one of those that are timed.
    since: Option<Instant>,
}

/// An operation that left the hot path. One that is dropped was cancelled.
#[must_use]
pub(crate) struct Cold<'a> {
    operations: &'a Operations,
    operation: Operation,
    since: Instant,
    is_over: bool,
}

/// One warm operation in so many is timed.
const SAMPLE: u64 = 1024;
const SHARDS: usize = 64;

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The number of this thread, from 1 on.
    static THREAD: Cell<usize> = const { Cell::new(0) };
}

impl Operations {
    pub(super) fn new(scope: &Scope, sentinel: Arc<ForkSentinel>) -> Self {
        let (encrypts, decrypts) =
            (Series::new(Operation::Encrypt, scope), Series::new(Operation::Decrypt, scope));
        let shards = Box::new(std::array::from_fn(|_| Shard::default()));
        Self { shards, encrypts, decrypts, scope: scope.clone(), sentinel }
    }

    #[inline]
    pub(crate) fn begin(&self, operation: Operation) -> Begun<'_> {
        let shard = self.shard();
        let is_timed = shard.of(operation).count.load(Ordering::Relaxed).is_multiple_of(SAMPLE);
        let since = if is_timed { begin_timing() } else { None };
        Begun { operations: self, shard, operation, since }
    }

    /// Counts what the cache had for an operation that left the hot path.
    pub(crate) fn count_lookup(&self, operation: Operation, lookup: Lookup) {
        let [hits, stale, misses] = &self.of(operation).lookups;
        let counter = match lookup {
            Lookup::Hit => hits,
            Lookup::Stale => stale,
            Lookup::Miss => misses,
        };
        counter.increment(1);
    }

    /// Tells the recorder all that it was not told yet.
    pub(super) fn report(&self) {
        self.shards.iter().for_each(|shard| self.report_shard(shard));
    }

    #[inline]
    #[expect(clippy::indexing_slicing, reason = "a remainder is less than the divisor")]
    fn shard(&self) -> &Shard {
        let thread = THREAD.get();
        &self.shards[if thread == 0 { number_thread() } else { thread } % SHARDS]
    }

    const fn of(&self, operation: Operation) -> &Series {
        match operation {
            Operation::Encrypt => &self.encrypts,
            Operation::Decrypt => &self.decrypts,
        }
    }

    #[cold]
    fn report_shard(&self, shard: &Shard) {
        for series in [&self.encrypts, &self.decrypts] {
            let tally = shard.of(series.operation);
            let count = tally.count.load(Ordering::Relaxed);
            // Another thread may report a later count at the same time.
            let news = count.saturating_sub(tally.reported.fetch_max(count, Ordering::Relaxed));
            if news > 0 {
                series.outcome(Outcome::Ok, &self.scope, |counter| counter.increment(news));
                let [hits, ..] = &series.lookups;
                hits.increment(news);
            }
        }
    }

    fn time(&self, operation: Operation, path: Path, outcome: Outcome, since: Instant) {
        if let Some(histogram) = self.of(operation).histogram(path, outcome, &self.scope) {
            histogram.record(since.elapsed());
        }
    }

    /// Counts an operation that left the hot path, or failed on it.
    #[cold]
    fn count(&self, operation: Operation, outcome: Outcome) {
        if !self.sentinel.is_forked() {
            self.of(operation).outcome(outcome, &self.scope, |counter| counter.increment(1));
        }
    }
}

#[cold]
fn begin_timing() -> Option<Instant> {
    Some(Instant::now())
}

#[cold]
fn number_thread() -> usize {
    let thread = THREADS.fetch_add(1, Ordering::Relaxed) + 1;
    THREAD.set(thread);
    thread
}

impl Shard {
    const fn of(&self, operation: Operation) -> &Tally {
        match operation {
            Operation::Encrypt => &self.encrypts,
            Operation::Decrypt => &self.decrypts,
        }
    }
}

impl Series {
    fn new(operation: Operation, scope: &Scope) -> Self {
        let name = operation.name();
        let lookups = ["hit", "stale", "miss"]
            .map(|result| scope.counter(&LOOKUPS, &[("operation", name), ("result", result)]));
        let outcomes = Outcome::ALL.len();
        let (outcomes, durations) = (Lazy::new(outcomes), Lazy::new(2 * outcomes));
        let series = Self { operation, outcomes, durations, lookups };
        for outcome in Outcome::ALL {
            // So that the first failure is seen to be one more.
            series.outcome(*outcome, scope, |counter| counter.increment(0));
        }
        // So that no warm operation allocates a handle.
        let _warm = series.histogram(Path::Warm, Outcome::Ok, scope);
        series
    }

    fn outcome(&self, outcome: Outcome, scope: &Scope, count: impl FnOnce(&Counter)) {
        let labels = [("operation", self.operation.name()), ("outcome", outcome.name())];
        if let Some(counter) = self.outcomes.get(outcome as usize, || scope.counter(&OPERATIONS, &labels)) {
            count(counter);
        }
    }

    fn histogram(&self, path: Path, outcome: Outcome, scope: &Scope) -> Option<&Histogram> {
        let (place, path) = match path {
            Path::Warm => (outcome as usize, "warm"),
            Path::Cold => (Outcome::ALL.len() + outcome as usize, "cold"),
        };
        let labels = [("operation", self.operation.name()), ("path", path), ("outcome", outcome.name())];
        self.durations.get(place, || scope.histogram(&OPERATION_DURATION, &labels))
    }
}

impl Operation {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
        }
    }
}

impl<'a> Begun<'a> {
    /// Takes a result that lets the operation go on, or ends it.
    #[inline]
    pub(crate) fn check<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &result {
            self.operations.count(self.operation, error.into());
        }
        result
    }

    /// Notes the end of an operation that had its key at hand.
    #[inline]
    pub(crate) fn end_warm<T>(self, now: Moment, result: &Result<T, Error>) {
        let Self { operations, shard, operation, since } = self;
        match result {
            Ok(_) => {
                shard.of(operation).count.fetch_add(1, Ordering::Relaxed);
                if let Some(since) = since {
                    operations.time(operation, Path::Warm, Outcome::Ok, since);
                }
                let reported_at = shard.reported_at.load(Ordering::Relaxed);
                if now.monotonic.wrapping_sub(reported_at) >= NANOS_PER_SECOND {
                    shard.reported_at.store(now.monotonic, Ordering::Relaxed);
                    operations.report_shard(shard);
                }
            }
            Err(error) => {
                operations.count_lookup(operation, Lookup::Hit);
                operations.count(operation, error.into());
            }
        }
    }

    /// Notes that the operation leaves the hot path.
    pub(crate) fn leave_hot_path(self) -> Cold<'a> {
        let Self { operations, operation, .. } = self;
        Cold { operations, operation, since: Instant::now(), is_over: false }
    }
}

impl Cold<'_> {
    /// Notes the end of the operation.
    pub(crate) fn end<T>(mut self, result: Result<T, Error>) -> Result<T, Error> {
        self.is_over = true;
        self.note(Outcome::of(&result));
        result
    }

    fn note(&self, outcome: Outcome) {
        self.operations.count(self.operation, outcome);
        if !self.operations.sentinel.is_forked() {
            self.operations.time(self.operation, Path::Cold, outcome, self.since);
        }
    }
}

impl Drop for Cold<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.note(Outcome::Cancelled);
        }
    }
}
