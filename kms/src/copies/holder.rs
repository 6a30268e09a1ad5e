//! A region or a member: its breaker, and what is measured of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use claviger::backend::Breaker;
use claviger::{BackendError, CallContext, Clock, FailureClass, FailureKind};
use tokio::time::Instant;
use tracing::Instrument as _;

/// What can wrap and unwrap one of the copies: a region, a member. It has a circuit breaker of its own, so that
/// one that is down costs the others nothing.
#[derive(Debug)]
pub(crate) struct CopyHolder {
    name: Arc<str>,
    breaker: Breaker,
    is_down: AtomicBool,
    clock: Arc<dyn Clock>,
}

/// A holder did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
struct NoAnswer(Duration);

fn unreachable(why: impl std::error::Error + Send + Sync + 'static) -> BackendError {
    BackendError::transient(why).with_kind(FailureKind::Unreachable)
}

const FAILURES_MAX: u32 = 3;
const COOL_DOWN: Duration = Duration::from_secs(1);

impl CopyHolder {
    pub(crate) fn new(name: impl Into<Arc<str>>, clock: Arc<dyn Clock>) -> Self {
        let breaker = Breaker::new(FAILURES_MAX, COOL_DOWN);
        Self { name: name.into(), breaker, is_down: AtomicBool::new(false), clock }
    }

    /// The same holder, of which nothing is known yet, for a check of how it is.
    #[cfg(feature = "aws")]
    pub(crate) fn afresh(&self) -> Self {
        Self::new(Arc::clone(&self.name), Arc::clone(&self.clock))
    }

    pub(crate) const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns `true` if the holder was found to be down and not yet to be up again. A call is then refused,
    /// or it is the probe that tells; a caller that may drop it early should see it to its end.
    #[cfg(any(feature = "any-of", feature = "k-of-n"))]
    pub(crate) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Relaxed)
    }

    /// Makes the call, unless the holder is taken to be down. `operation` is what metrics call it.
    ///
    /// # Cancel safety
    /// The call is dropped where it stands. Should it have been a probe of the breaker, the next may
    /// go after the cool-down.
    pub(crate) async fn call<T>(
        &self,
        operation: &'static str,
        context: &CallContext,
        call: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        self.breaker.admit(self.clock.monotonic()).map_err(unreachable)?;
        self.call_anyway(operation, context, call).await
    }

    /// Makes the call, also when the holder is taken to be down, for a check of how it is.
    ///
    /// # Cancel safety
    /// As of [`call`](Self::call).
    pub(crate) async fn call_anyway<T>(
        &self,
        operation: &'static str,
        context: &CallContext,
        call: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let mut measured =
            Measured { copy: &self.name, operation, begun: Instant::now(), outcome: "cancelled" };
        let span = tracing::info_span!("claviger.kms_copy", copy = &*self.name, operation);
        let within = context.remaining();
        let result = tokio::time::timeout_at(context.deadline, call.instrument(span)).await;
        measured.outcome = match &result {
            Ok(answer) => outcome(answer),
            Err(_elapsed) => "timeout",
        };
        let result = result.unwrap_or_else(|_elapsed| Err(unreachable(NoAnswer(within))));
        match &result {
            Err(error) if error.is_transient() => {
                let now = self.clock.monotonic();
                self.breaker.failed(now);
                self.set_down(self.breaker.is_open(now));
            }
            // It refused by itself: that says nothing of what is behind it.
            Err(error) if !error.was_asked() => self.breaker.not_asked(self.clock.monotonic()),
            // A permanent refusal is an answer: the holder is up.
            Ok(_) | Err(_) => {
                self.breaker.succeeded();
                self.set_down(false);
            }
        }
        result
    }

    fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
        let gauge = metrics::gauge!("claviger_kms_copy_breaker_open", &[("copy", self.name.to_string())]);
        gauge.set(u8::from(is_down));
    }
}

const fn outcome<T>(answer: &Result<T, BackendError>) -> &'static str {
    match answer {
        Ok(_) => "ok",
        Err(error) => match error.class() {
            FailureClass::Transient => "transient",
            FailureClass::Damaged => "damaged",
            _ => "permanent",
        },
    }
}

/// A call that is counted and timed, however it ends.
struct Measured<'a> {
    copy: &'a str,
    operation: &'static str,
    begun: Instant,
    outcome: &'static str,
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        let Self { copy, operation, begun, outcome } = *self;
        let labels =
            [("copy", copy.to_owned()), ("operation", operation.to_owned()), ("outcome", outcome.to_owned())];
        metrics::counter!("claviger_kms_copy_calls_total", &labels).increment(1);
        metrics::histogram!("claviger_kms_copy_call_duration_seconds", &labels).record(begun.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use claviger::telemetry::METRICS;
    use claviger::testing::{FixedClock, call};
    use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

    use super::*;

    const HEDGE: Duration = Duration::from_millis(50);
    const OPERATION: &str = "unwrap_key";

    /// Every series that was recorded, as a line.
    fn recorded(snapshotter: &Snapshotter) -> Vec<String> {
        let series = snapshotter.snapshot().into_vec().into_iter().map(|(key, _, _, value)| {
            let key = key.key();
            let metric = METRICS.iter().find(|metric| metric.name == key.name());
            let labels: Vec<_> = key.labels().map(|label| (label.key(), label.value())).collect();
            let names: Vec<_> = labels.iter().map(|(name, _)| *name).collect();
            assert_eq!(metric.map(|metric| metric.labels), Some(&*names), "it is in the table");
            let value = match value {
                DebugValue::Counter(count) => count.to_string(),
                DebugValue::Gauge(value) => value.to_string(),
                DebugValue::Histogram(values) => format!("{} values", values.len()),
            };
            let labels: Vec<_> = labels.iter().map(|(_, value)| *value).collect();
            format!("{} {} {value}", key.name(), labels.join(" "))
        });
        let mut series: Vec<_> = series.collect();
        series.sort();
        series
    }

    #[test]
    fn each_call_is_counted_and_timed_and_the_breaker_is_shown() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        metrics::with_local_recorder(&recorder, || {
            runtime.unwrap().block_on(async {
                let holder = CopyHolder::new("eu", Arc::new(FixedClock::new(1_700_000_000)));
                assert!(holder.call(OPERATION, &call(), ready(Ok(()))).await.is_ok());
                let context = call();
                let cut_off = holder.call(OPERATION, &context, pending::<Result<(), _>>());
                assert!(tokio::time::timeout(HEDGE, cut_off).await.is_err());
                let late = CallContext::within(HEDGE);
                assert!(holder.call(OPERATION, &late, pending::<Result<(), _>>()).await.is_err());
                for error in [BackendError::damaged("x"), BackendError::permanent("denied")] {
                    assert!(holder.call(OPERATION, &call(), ready(Err::<(), _>(error))).await.is_err());
                }
                for _ in 0..FAILURES_MAX {
                    assert!(
                        holder.call("wrap_key", &call(), ready(Err::<(), _>(transient()))).await.is_err()
                    );
                }
                assert!(holder.call("wrap_key", &call(), ready(Ok(()))).await.is_err(), "it is not asked");
            });
        });
        let calls = |labels, calls| {
            [
                format!("claviger_kms_copy_calls_total eu {labels} {calls}"),
                format!("claviger_kms_copy_call_duration_seconds eu {labels} {calls} values"),
            ]
        };
        let outcomes = ["ok", "cancelled", "timeout", "damaged", "permanent"];
        let mut expected: Vec<_> =
            outcomes.iter().flat_map(|outcome| calls(format!("unwrap_key {outcome}"), 1)).collect();
        expected.extend(calls("wrap_key transient".to_owned(), 3));
        expected.push("claviger_kms_copy_breaker_open eu 1".to_owned());
        expected.sort();
        assert_eq!(recorded(&snapshotter), expected);
    }

    fn transient() -> BackendError {
        BackendError::transient("down")
    }

    #[tokio::test(start_paused = true)]
    async fn s3_11_a_dead_keeper_gets_one_probe_a_second() {
        let clock = FixedClock::new(1_700_000_000);
        let holder = CopyHolder::new("r", Arc::new(clock.clone()));
        let mut asked = 0;
        for _ in 0..10_000 {
            let attempt = async {
                asked += 1;
                Err::<(), _>(transient())
            };
            assert!(holder.call(OPERATION, &call(), attempt).await.unwrap_err().is_transient());
            clock.advance(Duration::from_millis(1));
        }
        assert_eq!(asked, FAILURES_MAX + 9);
        clock.advance(COOL_DOWN);
        assert_eq!(holder.call(OPERATION, &call(), ready(Ok(1))).await.unwrap(), 1);
        assert_eq!(holder.call(OPERATION, &call(), ready(Ok(2))).await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_without_asking_neither_opens_nor_closes_a_breaker() {
        let clock = FixedClock::new(1_700_000_000);
        let holder = CopyHolder::new("r", Arc::new(clock.clone()));
        let refused = || ready(Err::<(), _>(BackendError::damaged("malformed").not_asked()));
        let down = || ready(Err::<(), _>(transient()));
        for _ in 0..FAILURES_MAX - 1 {
            assert!(holder.call(OPERATION, &call(), down()).await.is_err());
            assert!(!holder.call(OPERATION, &call(), refused()).await.unwrap_err().was_asked());
        }
        assert!(holder.call(OPERATION, &call(), down()).await.is_err());
        for _ in 0..3 {
            clock.advance(COOL_DOWN);
            assert!(
                !holder.call(OPERATION, &call(), refused()).await.unwrap_err().was_asked(),
                "it may be the probe"
            );
            assert!(holder.call(OPERATION, &call(), down()).await.is_err());
            assert!(
                holder.call(OPERATION, &call(), ready(Ok(()))).await.unwrap_err().is_transient(),
                "it is still down"
            );
        }
        clock.advance(COOL_DOWN);
        assert!(holder.call(OPERATION, &call(), ready(Ok(()))).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_keeper_that_hangs_is_left_at_its_deadline() {
        let holder = CopyHolder::new("r", Arc::new(FixedClock::new(1_700_000_000)));
        let begun = tokio::time::Instant::now();
        assert!(
            holder
                .call(OPERATION, &CallContext::within(HEDGE), pending::<Result<(), _>>())
                .await
                .unwrap_err()
                .is_transient()
        );
        assert_eq!(begun.elapsed(), HEDGE);
    }
}
