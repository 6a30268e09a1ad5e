//! Calls of back ends: how many, how they ended, how long they took, and when one last went well.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::scope::{Lazy, Scope};
use super::table::{CALL_DURATION, CALLS, LAST_ANSWER, RETRIES, REWRAPS};
use super::way::Way;
use crate::clock::{Clock, nanos};
use crate::context::CallContext;
use crate::error::{BackendError, FailureClass};

macro_rules! calls {
    ($($variant:ident => $name:literal, $way:ident;)+) => {
        /// What a back end is asked for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Call {
            $($variant,)+
        }

        impl Call {
            const ALL: &[Self] = &[$(Self::$variant,)+];

            const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            const fn way(self) -> Way {
                match self { $(Self::$variant => Way::$way,)+ }
            }
        }
    };
}

calls! {
    Load => "load", MetastoreReads;
    LoadFromReplica => "load", MetastoreReplica;
    LoadLatest => "load_latest", MetastoreReads;
    LoadMany => "load_many", MetastoreReads;
    LoadLatestMany => "load_latest_many", MetastoreReads;
    Insert => "insert", MetastoreWrites;
    WrapKey => "wrap_key", Kms;
    UnwrapKey => "unwrap_key", Kms;
    // Those of tools.
    List => "list", MetastoreReads;
    Revoke => "revoke", MetastoreWrites;
    ReplaceMany => "replace_many", MetastoreWrites;
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Ok,
    Transient,
    Permanent,
    Damaged,
    Folded,
    /// There was no answer by the deadline.
    Timeout,
    /// Nobody waited for the answer any more.
    Cancelled,
}

/// All calls of a factory, or of a tool.
#[derive(Debug)]
pub(crate) struct Calls {
    counts: Lazy<Counter>,
    durations: Lazy<Histogram>,
    retries: Lazy<Counter>,
    /// In the order of [`Way::ALL`].
    pulses: Vec<Pulse>,
    scope: Scope,
    clock: Arc<dyn Clock>,
}

/// How a dependency is doing, as of its last calls.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// When it last did what it was asked for, in monotonic nanoseconds and one more; 0 if it never did.
    served: AtomicU64,
    /// How often it failed since.
    failures: AtomicU64,
    last_answer: Option<Gauge>,
}

/// A call under way. One that is dropped has no answer.
struct UnderWay<'a> {
    calls: &'a Calls,
    call: Call,
    begun: Instant,
    deadline: Instant,
    is_over: bool,
}

impl Calls {
    pub(super) fn of_factory(scope: &Scope, clock: Arc<dyn Clock>) -> Self {
        let calls =
            Self::new(scope, clock, |way| Some(scope.gauge(&LAST_ANSWER, &[("dependency", way.name())])));
        for call in
            Call::ALL.iter().filter(|call| !matches!(call, Call::List | Call::Revoke | Call::ReplaceMany))
        {
            for ending in Ending::ALL {
                // So that the first failure is seen to be one more.
                calls.count(*call, *ending, 0);
            }
        }
        for way in Way::ALL {
            calls.count_retries(*way, 0);
        }
        calls
    }

    pub(crate) fn of_tool(clock: Arc<dyn Clock>) -> Self {
        Self::new(&Scope::default(), clock, |_way| None)
    }

    fn new(scope: &Scope, clock: Arc<dyn Clock>, last_answer: impl Fn(Way) -> Option<Gauge>) -> Self {
        let series = Call::ALL.len() * Ending::ALL.len();
        let pulse = |way: &Way| Pulse { last_answer: last_answer(*way), ..Pulse::default() };
        Self {
            counts: Lazy::new(series),
            durations: Lazy::new(series),
            retries: Lazy::new(Way::ALL.len()),
            pulses: Way::ALL.iter().map(pulse).collect(),
            scope: scope.clone(),
            clock,
        }
    }

    /// Makes a call about `key`, in a span of its own, and notes how it ended.
    ///
    /// # Cancel safety
    /// The call is dropped where it stands, which is noted.
    pub(crate) async fn observe<T>(
        &self,
        call: Call,
        key: &impl fmt::Display,
        context: &CallContext,
        answer: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let (dependency, operation) = (call.way().name(), call.name());
        let span = tracing::info_span!("claviger.call", dependency, operation, key = %key, attempt = context.attempt);
        if context.attempt > 1 {
            self.count_retries(call.way(), 1);
        }
        let (begun, deadline) = (Instant::now(), context.deadline);
        let mut under_way = UnderWay { calls: self, call, begun, deadline, is_over: false };
        let answer = answer.instrument(span).await;
        under_way.is_over = true;
        let ending = Ending::of(&answer);
        self.end(&under_way, ending);
        if let Some(pulse) = self.pulse(call.way()) {
            match &answer {
                Ok(_) => pulse.serve(&*self.clock),
                // The one key is at fault, not the dependency.
                Err(error) if error.is_of_one_key() => {}
                Err(_) => pulse.fail(),
            }
        }
        answer
    }

    /// Returns how often a dependency failed since it last did what it was asked for, and how long ago that was.
    pub(crate) fn pulse_of(&self, way: Way) -> (u64, Option<Duration>) {
        let Some(pulse) = self.pulse(way) else { return (0, None) };
        let served = pulse.served.load(Ordering::Relaxed).checked_sub(1);
        let ago = served.map(|served| nanos(self.clock.monotonic()).saturating_sub(served));
        (pulse.failures.load(Ordering::Relaxed), ago.map(Duration::from_nanos))
    }

    /// Counts a system key that a tool looked at.
    pub(crate) fn count_rewrap(&self, result: &'static str) {
        self.scope.counter(&REWRAPS, &[("result", result)]).increment(1);
    }

    fn pulse(&self, way: Way) -> Option<&Pulse> {
        self.pulses.get(way as usize)
    }

    fn end(&self, under_way: &UnderWay<'_>, ending: Ending) {
        let UnderWay { call, begun, .. } = *under_way;
        self.count(call, ending, 1);
        let make = || self.scope.histogram(&CALL_DURATION, &labels(call, ending));
        if let Some(histogram) = self.durations.get(place(call, ending), make) {
            histogram.record(begun.elapsed());
        }
    }

    fn count(&self, call: Call, ending: Ending, more: u64) {
        let make = || self.scope.counter(&CALLS, &labels(call, ending));
        if let Some(counter) = self.counts.get(place(call, ending), make) {
            counter.increment(more);
        }
    }

    fn count_retries(&self, way: Way, more: u64) {
        let make = || self.scope.counter(&RETRIES, &[("dependency", way.name())]);
        if let Some(counter) = self.retries.get(way as usize, make) {
            counter.increment(more);
        }
    }
}

const fn place(call: Call, ending: Ending) -> usize {
    call as usize * Ending::ALL.len() + ending as usize
}

const fn labels(call: Call, ending: Ending) -> [(&'static str, &'static str); 3] {
    [("dependency", call.way().name()), ("operation", call.name()), ("outcome", ending.name())]
}

impl Ending {
    const ALL: &[Self] = &[
        Self::Ok,
        Self::Transient,
        Self::Permanent,
        Self::Damaged,
        Self::Folded,
        Self::Timeout,
        Self::Cancelled,
    ];

    const fn of<T>(answer: &Result<T, BackendError>) -> Self {
        match answer {
            Ok(_) => Self::Ok,
            Err(error) => match error.class() {
                FailureClass::Transient => Self::Transient,
                FailureClass::Permanent => Self::Permanent,
                FailureClass::Damaged => Self::Damaged,
                FailureClass::Folded => Self::Folded,
            },
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Damaged => "damaged",
            Self::Folded => "folded",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Pulse {
    fn serve(&self, clock: &dyn Clock) {
        self.served.store(nanos(clock.monotonic()).saturating_add(1), Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
        if let Some(gauge) = &self.last_answer {
            gauge.set(clock.wall());
        }
    }

    fn fail(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let is_late = Instant::now() >= self.deadline;
        self.calls.end(self, if is_late { Ending::Timeout } else { Ending::Cancelled });
        if let Some(pulse) = self.calls.pulse(self.call.way()).filter(|_| is_late) {
            pulse.fail();
        }
    }
}
