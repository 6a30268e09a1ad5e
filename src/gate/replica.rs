//! The way to a replica, which the store itself stands in for: nothing is waited for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::{context, in_time};
use crate::breaker::Breaker;
use crate::clock::Clock;
use crate::context::{CallContext, Consistency};
use crate::error::BackendError;

#[derive(Debug)]
pub(crate) struct ReplicaGate {
    permits: Semaphore,
    breaker: Breaker,
    deadline: Duration,
    clock: Arc<dyn Clock>,
}

/// How long a replica that failed is left alone.
const COOL_DOWN: Duration = Duration::from_secs(1);

impl ReplicaGate {
    pub(crate) fn new(calls_max: usize, deadline: Duration, clock: Arc<dyn Clock>) -> Self {
        let (permits, breaker) = (Semaphore::new(calls_max), Breaker::new(1, COOL_DOWN));
        Self { permits, breaker, deadline, clock }
    }

    /// Makes the call once; `None` if the replica is busy or left alone. A refusal counts as no answer,
    /// as the store is asked then; but not one that is of the one key.
    ///
    /// # Cancel safety
    /// The call is dropped where it stands.
    pub(crate) async fn ask<T>(
        &self,
        call: impl AsyncFnOnce(CallContext) -> Result<T, BackendError>,
    ) -> Option<Result<T, BackendError>> {
        let _permit = self.permits.try_acquire().ok()?;
        self.breaker.admit(self.clock.monotonic()).ok()?;
        let context = context(self.deadline).consistency(Consistency::Eventual);
        let result = in_time(self.deadline, call(context)).await;
        match &result {
            Err(error) if !error.was_asked() => self.breaker.not_asked(self.clock.monotonic()),
            Err(error) if !error.is_of_one_key() => self.breaker.failed(self.clock.monotonic()),
            Ok(_) | Err(_) => self.breaker.succeeded(),
        }
        Some(result)
    }
}
