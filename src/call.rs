//! What every call to the outside goes through: permits, a deadline, classified retry, a breaker.

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::breaker::Breaker;
use crate::clock::Clock;
use crate::error::{BackendError, FailureKind};
use crate::random::SecureRandom;

/// The way out to one dependency.
#[derive(Debug)]
pub(crate) struct Gate {
    permits: Semaphore,
    waiting: AtomicUsize,
    breaker: Breaker,
    rules: GateRules,
    clock: Arc<dyn Clock>,
    random: Arc<dyn SecureRandom>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct GateRules {
    /// How many calls may be under way at once.
    pub(crate) calls_max: usize,
    /// How many may wait for that.
    pub(crate) waiting_max: usize,
    /// How long one attempt may take.
    pub(crate) deadline: Duration,
    pub(crate) attempts_max: u32,
    /// After how many failures in a row it is left alone for a second.
    pub(crate) failures_max: u32,
}

/// Why a call brought nothing.
#[derive(Debug)]
pub(crate) enum CallError {
    Backend(BackendError),
    Overloaded,
}

/// An attempt that did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
struct NoAnswer(Duration);

pub(crate) const FAILURES_MAX: u32 = 5;
const COOL_DOWN: Duration = Duration::from_secs(1);
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

impl Gate {
    pub(crate) fn new(rules: GateRules, clock: Arc<dyn Clock>, random: Arc<dyn SecureRandom>) -> Self {
        Self {
            permits: Semaphore::new(rules.calls_max),
            waiting: AtomicUsize::new(0),
            breaker: Breaker::new(rules.failures_max, COOL_DOWN),
            rules,
            clock,
            random,
        }
    }

    /// Tells whether the dependency is taken to be down.
    pub(crate) fn is_open(&self) -> bool {
        self.breaker.is_open(self.clock.monotonic())
    }

    /// Tells the same, also when the next call would be a probe.
    pub(crate) fn is_tripped(&self) -> bool {
        self.breaker.is_tripped()
    }

    /// Tells whether the dependency did not answer the last time it was asked.
    pub(crate) fn has_failed(&self) -> bool {
        self.breaker.has_failed()
    }

    /// Makes the call, and again while it fails transiently and attempts are left.
    ///
    /// # Cancel safety
    /// Permits and places in the queue are guards; the call itself is dropped where it stands.
    pub(crate) async fn call<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, BackendError>>,
    {
        let _permit = self.permit().await?;
        let mut attempts = 1;
        loop {
            let error = match self.attempt(attempt()).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if !error.is_transient() || attempts >= self.rules.attempts_max || self.is_open() {
                return Err(CallError::Backend(error));
            }
            tokio::time::sleep(jittered(backoff(attempts), &*self.random)).await;
            attempts += 1;
        }
    }

    /// Makes a call once, whose failure does not speak against the dependency: it is asked in another
    /// way then.
    ///
    /// # Cancel safety
    /// As of [`call`](Self::call).
    pub(crate) async fn call_once<T>(
        &self,
        call: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, CallError> {
        let _permit = self.permit().await?;
        self.in_time(call).await.map_err(CallError::Backend)
    }

    /// Makes a call once, if the breaker lets it through; `None` if not. A refusal counts as no answer,
    /// as another is asked then; but not one that is of the one key.
    ///
    /// # Cancel safety
    /// As of [`call`](Self::call).
    pub(crate) async fn ask<T>(
        &self,
        call: impl Future<Output = Result<T, BackendError>>,
    ) -> Option<Result<T, BackendError>> {
        let _permit = self.permit().await.ok()?;
        self.breaker.admit(self.clock.monotonic()).ok()?;
        let result = self.in_time(call).await;
        match &result {
            Err(error) if !error.is_of_one_key() => {
                self.breaker.failed(self.clock.monotonic());
            }
            Ok(_) | Err(_) => self.breaker.succeeded(),
        }
        Some(result)
    }

    async fn permit(&self) -> Result<SemaphorePermit<'_>, CallError> {
        if let Ok(permit) = self.permits.try_acquire() {
            return Ok(permit);
        }
        let place = Place::take(&self.waiting, self.rules.waiting_max).ok_or(CallError::Overloaded)?;
        let permit = self.permits.acquire().await;
        drop(place);
        // The semaphore is never closed.
        permit.map_err(|_closed| CallError::Overloaded)
    }

    async fn attempt<T>(
        &self,
        call: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        self.breaker.admit(self.clock.monotonic()).map_err(unreachable)?;
        let result = self.in_time(call).await;
        match &result {
            Err(error) if error.is_transient() => self.breaker.failed(self.clock.monotonic()),
            // A permanent refusal is an answer: the dependency is up.
            Ok(_) | Err(_) => self.breaker.succeeded(),
        }
        result
    }

    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let deadline = self.rules.deadline;
        tokio::time::timeout(deadline, call)
            .await
            .unwrap_or_else(|_elapsed| Err(unreachable(NoAnswer(deadline))))
    }
}

/// The dependency brought no answer.
pub(crate) fn unreachable(why: impl StdError + Send + Sync + 'static) -> BackendError {
    BackendError::transient(why).with_kind(FailureKind::Unreachable)
}

/// A place in the queue, given back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, max: usize) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < max).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn backoff(attempts: u32) -> Duration {
    BACKOFF_FIRST.saturating_mul(1 << (attempts - 1).min(16)).min(BACKOFF_MAX)
}

/// Returns a random part of `span` (full jitter), the whole of it if randomness fails.
pub(crate) fn jittered(span: Duration, random: &dyn SecureRandom) -> Duration {
    let mut bytes = [0; 4];
    match random.fill(&mut bytes) {
        Ok(()) => span.mul_f64(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)),
        Err(_) => span,
    }
}
