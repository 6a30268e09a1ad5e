//! Attempts: how long one may take, when the next one follows.

use std::error::Error as StdError;
use std::time::Duration;

use crate::context::CallContext;
use crate::error::{BackendError, FailureKind};
use crate::random::SecureRandom;

/// An attempt that did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
struct NoAnswer(Duration);

/// An attempt that was ended before it answered.
#[derive(Debug, thiserror::Error)]
#[error("no answer before the operation's deadline")]
pub(super) struct CutOff;

const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Makes a call, and again after a pause while its failure `may_pass` and attempts are left.
///
/// # Cancel safety
/// As of the call.
pub(crate) async fn retried<T, E, F>(
    max_attempts: u32,
    random: &dyn SecureRandom,
    mut call: impl FnMut(u32) -> F,
    may_pass: impl Fn(&E) -> bool,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut attempts = 1;
    loop {
        match call(attempts).await {
            Err(error) if may_pass(&error) && attempts < max_attempts => {
                pause(attempts, random).await;
                attempts += 1;
            }
            answer => return answer,
        }
    }
}

/// How much earlier than its caller goes away a back end is told to end: its own error says more than that it
/// did not answer.
const LEAD: Duration = Duration::from_millis(50);

/// The context of an attempt that begins now and is waited for so long.
pub(crate) fn context(deadline: Duration) -> CallContext {
    CallContext::within(deadline.saturating_sub(LEAD.min(deadline / 4)))
}

/// Waits for the answer to one attempt, so long at most.
pub(crate) async fn in_time<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, BackendError>>,
) -> Result<T, BackendError> {
    tokio::time::timeout(deadline, call).await.unwrap_or_else(|_elapsed| Err(no_answer(deadline)))
}

pub(super) fn no_answer(within: Duration) -> BackendError {
    unreachable(NoAnswer(within))
}

/// The dependency brought no answer.
pub(crate) fn unreachable(why: impl StdError + Send + Sync + 'static) -> BackendError {
    BackendError::transient(why).with_kind(FailureKind::Unreachable)
}

/// Waits until the attempt after so many may follow.
pub(super) async fn pause(attempts: u32, random: &dyn SecureRandom) {
    let span = BACKOFF_FIRST.saturating_mul(1 << (attempts - 1).min(16)).min(BACKOFF_MAX);
    tokio::time::sleep(jittered(span, random)).await;
}

/// Returns a random part of `span` (full jitter), the whole of it if randomness fails.
pub(crate) fn jittered(span: Duration, random: &dyn SecureRandom) -> Duration {
    let mut bytes = [0; 4];
    match random.fill(&mut bytes) {
        Ok(()) => span.mul_f64(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)),
        Err(_) => span,
    }
}
