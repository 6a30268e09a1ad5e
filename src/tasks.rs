//! The tasks a factory owns: the flights, and the sweep of idle keys.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::Timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::Error;

#[derive(Debug)]
pub(crate) struct Tasks {
    runtime: Option<Handle>,
    flights: TaskTracker,
    /// Ends the flights.
    stop: CancellationToken,
    /// The factory closes: nothing begins that would keep it from it.
    closing: CancellationToken,
    sweep: Mutex<Option<JoinHandle<()>>>,
    background: Arc<Semaphore>,
}

impl Tasks {
    pub(crate) fn new(runtime: Option<Handle>, background_max: usize) -> Self {
        Self {
            runtime,
            flights: TaskTracker::new(),
            stop: CancellationToken::new(),
            closing: CancellationToken::new(),
            sweep: Mutex::default(),
            background: Arc::new(Semaphore::new(background_max)),
        }
    }

    /// Returns a place for a background refresh, if there is one left.
    pub(crate) fn background_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.background).try_acquire_owned().ok()
    }

    /// Runs a flight that goes on when its callers go away. `stopped` ends it at close.
    pub(crate) fn spawn<F>(&self, flight: impl FnOnce(CancellationToken) -> F) -> Result<(), Error>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = self.runtime()?;
        // The handle is not awaited: who waits for a flight waits for its outcome.
        drop(self.flights.spawn_on(flight(self.stop.clone()), &runtime));
        Ok(())
    }

    /// Limits how long `future` may take, also when its caller polls it outside of any runtime.
    pub(crate) fn timeout<F: Future>(&self, limit: Duration, future: F) -> Result<Timeout<F>, Error> {
        let runtime = self.runtime()?;
        // The timer is taken from the runtime that is entered while the time-out is made.
        let _entered = runtime.enter();
        Ok(tokio::time::timeout(limit, future))
    }

    /// Sees to it that `sweep` runs each `period`, also if the runtime that ran it went away.
    pub(crate) fn ensure_sweep(&self, period: Duration, mut sweep: impl FnMut() + Send + 'static) {
        let Ok(runtime) = self.runtime() else { return };
        let mut running = self.sweep.lock().unwrap_or_else(PoisonError::into_inner);
        if self.stop.is_cancelled() || running.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let stop = self.stop.clone();
        *running = Some(runtime.spawn(async move {
            while stop.run_until_cancelled(tokio::time::sleep(period)).await.is_some() {
                sweep();
            }
        }));
    }

    /// Returns what is cancelled when the factory begins to close.
    pub(crate) fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// Waits until no flight is under way.
    pub(crate) async fn idle(&self) {
        self.closing.cancel();
        self.flights.close();
        self.flights.wait().await;
    }

    /// Ends all tasks where they stand.
    pub(crate) fn stop(&self) {
        self.closing.cancel();
        self.stop.cancel();
        if let Some(sweep) = self.sweep.lock().unwrap_or_else(PoisonError::into_inner).take() {
            sweep.abort();
        }
    }

    /// Returns how many flights are under way.
    pub(crate) fn flights(&self) -> usize {
        self.flights.len()
    }

    pub(crate) fn runtime(&self) -> Result<Handle, Error> {
        match &self.runtime {
            Some(handle) => Ok(handle.clone()),
            None => Handle::try_current().map_err(|_none| Error::NoRuntime),
        }
    }
}
