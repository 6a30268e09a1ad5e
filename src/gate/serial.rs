//! The way out of a tool that makes one call after the other: a deadline, retries, and a breaker.

use std::time::Duration;

use super::{context, in_time, retried, unreachable};
use crate::breaker::Breaker;
use crate::clock::{Clock as _, SystemClock};
use crate::context::CallContext;
use crate::error::BackendError;
use crate::random::SystemRandom;

#[derive(Debug)]
pub(crate) struct SerialGate {
    breaker: Breaker,
    deadline: Duration,
    max_attempts: u32,
    clock: SystemClock,
    random: SystemRandom,
}

const FAILURES_MAX: u32 = 5;
const COOL_DOWN: Duration = Duration::from_secs(1);

impl SerialGate {
    pub(crate) const fn new(deadline: Duration, max_attempts: u32) -> Self {
        Self {
            breaker: Breaker::new(FAILURES_MAX, COOL_DOWN),
            deadline,
            max_attempts,
            clock: SystemClock::new(),
            random: SystemRandom::new(),
        }
    }

    /// Makes the call, and again while it fails transiently and attempts are left.
    ///
    /// # Cancel safety
    /// The call is dropped where it stands.
    pub(crate) async fn call<T, F>(&self, mut call: impl FnMut(CallContext) -> F) -> Result<T, BackendError>
    where
        F: Future<Output = Result<T, BackendError>>,
    {
        let may_pass = |error: &BackendError| error.is_transient() && !self.breaker.is_open(self.now());
        retried(
            self.max_attempts,
            &self.random,
            |attempts| self.attempt(call(context(self.deadline).attempt(attempts))),
            may_pass,
        )
        .await
    }

    async fn attempt<T>(
        &self,
        call: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        self.breaker.admit(self.now()).map_err(unreachable)?;
        let answer = in_time(self.deadline, call).await;
        match &answer {
            Err(error) if error.is_transient() => self.breaker.failed(self.now()),
            Err(error) if !error.was_asked() => self.breaker.not_asked(self.now()),
            // Any other permanent refusal is an answer.
            Ok(_) | Err(_) => self.breaker.succeeded(),
        }
        answer
    }

    fn now(&self) -> Duration {
        self.clock.monotonic()
    }
}
