//! The tasks a factory owns: the loads, their callers' timers, the sweep of idle keys, the listeners.

mod home;

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::Error;
use home::Home;

#[derive(Debug)]
pub(crate) struct Tasks {
    home: Home,
    flights: TaskTracker,
    /// Ends the loads.
    stop: CancellationToken,
    /// The factory closes: nothing begins that would keep it from it.
    closing: CancellationToken,
    sweep: Periodic,
    reports: Periodic,
    background: Arc<Semaphore>,
}

/// A task that does something from time to time, if it runs.
#[derive(Debug, Default)]
struct Periodic(Mutex<Option<JoinHandle<()>>>);

/// Held by a task while it runs: tells that its runtime shut down, unless the task came to its end, was
/// stopped or panicked.
#[derive(Debug)]
struct Watch {
    is_gone: Arc<AtomicBool>,
    stop: CancellationToken,
    is_over: bool,
}

impl Tasks {
    pub(crate) fn new(runtime: Option<Handle>, background_max: usize) -> Self {
        Self {
            home: Home::new(runtime),
            flights: TaskTracker::new(),
            stop: CancellationToken::new(),
            closing: CancellationToken::new(),
            sweep: Periodic::default(),
            reports: Periodic::default(),
            background: Arc::new(Semaphore::new(background_max)),
        }
    }

    /// Returns a place for a background refresh, if there is one left.
    pub(crate) fn background_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.background).try_acquire_owned().ok()
    }

    /// Runs a load that goes on when its callers go away. `stopped` ends it at close.
    pub(crate) fn spawn<F>(&self, flight: impl FnOnce(CancellationToken) -> F) -> Result<(), Error>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_in(&self.flights, flight(self.stop.clone()))
    }

    /// Runs a task among others that are waited for together.
    pub(crate) fn spawn_in<F>(&self, tasks: &TaskTracker, task: F) -> Result<(), Error>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // The handle is not awaited: waiters wait for what the task brings.
        drop(tasks.spawn_on(self.watched(task), &self.home.handle()?));
        Ok(())
    }

    /// Waits for `future`, for `limit` at most; `None` if that is over. The caller needs no runtime: its
    /// timer runs where loads do.
    pub(crate) async fn within<F: Future>(
        &self,
        limit: Duration,
        future: F,
    ) -> Result<Option<F::Output>, Error> {
        let mut future = pin!(future);
        loop {
            let mut timer = self.timer(limit)?;
            let first = std::future::poll_fn(|context| match future.as_mut().poll(context) {
                Poll::Ready(output) => Poll::Ready(Ok(Some(output))),
                Poll::Pending => Pin::new(&mut timer).poll(context).map_ok(|()| None),
            });
            // A timer that went away with its runtime is set anew.
            if let Ok(answer) = first.await {
                return Ok(answer);
            }
        }
    }

    fn timer(&self, limit: Duration) -> Result<oneshot::Receiver<()>, Error> {
        let (mut caller, timer) = oneshot::channel();
        let wait = self.watched(async move {
            let limit_is_over = tokio::time::timeout(limit, caller.closed()).await.is_err();
            if limit_is_over {
                // The caller may have gone away just now.
                let _rung = caller.send(());
            }
        });
        drop(self.home.handle()?.spawn(wait));
        Ok(timer)
    }

    /// Sees to it that `sweep` runs each `period`, also if the runtime that ran it went away.
    pub(crate) fn ensure_sweep<F>(&self, period: Duration, sweep: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send,
    {
        self.ensure(&self.sweep, period, sweep);
    }

    /// Sees to it that `report` runs each `period`, likewise.
    pub(crate) fn ensure_reports(&self, period: Duration, mut report: impl FnMut() + Send + 'static) {
        self.ensure(&self.reports, period, move || {
            report();
            std::future::ready(())
        });
    }

    fn ensure<F>(&self, periodic: &Periodic, period: Duration, mut act: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send,
    {
        let mut running = periodic.lock();
        if self.stop.is_cancelled() || running.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let Ok(runtime) = self.home.handle() else { return };
        let stop = self.stop.clone();
        *running = Some(runtime.spawn(async move {
            while stop.run_until_cancelled(tokio::time::sleep(period)).await.is_some() {
                act().await;
            }
        }));
    }

    /// Returns what is cancelled when the factory begins to close.
    pub(crate) fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// Waits until no load is under way.
    pub(crate) async fn idle(&self) {
        self.closing.cancel();
        self.flights.close();
        self.flights.wait().await;
    }

    /// Ends all tasks where they stand.
    pub(crate) fn stop(&self) {
        self.closing.cancel();
        self.stop.cancel();
        for periodic in [&self.sweep, &self.reports] {
            if let Some(task) = periodic.lock().take() {
                task.abort();
            }
        }
    }

    /// Lets the factory's own thread end, and drops the tasks that are left on it. Returns what tells when
    /// it has ended, if there ever was one.
    pub(crate) fn stop_thread(&self) -> Option<watch::Receiver<bool>> {
        self.home.stop()
    }

    /// Returns how many loads are under way.
    pub(crate) fn flights(&self) -> usize {
        self.flights.len()
    }

    fn watched<F: Future<Output = ()>>(&self, task: F) -> impl Future<Output = ()> + use<F> {
        let is_gone = Arc::clone(self.home.is_gone());
        let watch = Watch { is_gone, stop: self.stop.clone(), is_over: false };
        async move {
            task.await;
            watch.end();
        }
    }
}

impl Periodic {
    fn lock(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    fn end(mut self) {
        self.is_over = true;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.is_over && !self.stop.is_cancelled() && !thread::panicking() {
            self.is_gone.store(true, Ordering::Relaxed);
        }
    }
}
