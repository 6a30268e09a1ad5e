//! Where a factory's work runs: one runtime that somebody always drives.
//!
//! A load that many wait for must not depend on the runtime of the caller that happened to begin it:
//! that one may stop being driven, or may be driven only while its own request lasts. So everything
//! runs on the runtime that the builder was given, else on the multi-threaded one that it was in, else
//! on a thread of the factory's own, which the first load starts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::Error;

#[derive(Debug)]
pub(super) struct Home {
    captured: Option<Handle>,
    /// The captured runtime has shut down.
    is_gone: Arc<AtomicBool>,
    own: Mutex<Own>,
}

/// The factory's own thread.
#[derive(Debug, Default)]
enum Own {
    #[default]
    NotStarted,
    Started(OwnThread),
    Stopped(Option<watch::Receiver<bool>>),
}

#[derive(Debug)]
struct OwnThread {
    handle: Handle,
    stop: CancellationToken,
    ended: watch::Receiver<bool>,
}

/// A runtime that may be dropped anywhere, inside of another one too: nothing waits for its tasks.
struct OwnRuntime(Option<Runtime>);

impl Home {
    pub(super) fn new(given: Option<Handle>) -> Self {
        let is_driven = |handle: &Handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread;
        let captured = given.or_else(|| Handle::try_current().ok().filter(is_driven));
        Self { captured, is_gone: Arc::default(), own: Mutex::default() }
    }

    /// Returns the runtime that work runs on, started if need be.
    pub(super) fn handle(&self) -> Result<Handle, Error> {
        match self.captured.as_ref().filter(|_| !self.is_gone.load(Ordering::Relaxed)) {
            Some(captured) => Ok(captured.clone()),
            None => self.own_handle(),
        }
    }

    /// Returns the flag to raise when the captured runtime turns out to have shut down.
    pub(super) const fn is_gone(&self) -> &Arc<AtomicBool> {
        &self.is_gone
    }

    /// Lets the own thread end, and starts none any more. Returns what tells when it has ended, if it was
    /// ever started.
    pub(super) fn stop(&self) -> Option<watch::Receiver<bool>> {
        let mut own = self.own();
        if matches!(*own, Own::NotStarted) {
            *own = Own::Stopped(None);
        } else if let Own::Started(thread) = &*own {
            thread.stop.cancel();
            *own = Own::Stopped(Some(thread.ended.clone()));
        }
        match &*own {
            Own::Stopped(ended) => ended.clone(),
            Own::NotStarted | Own::Started(_) => None,
        }
    }

    fn own_handle(&self) -> Result<Handle, Error> {
        let mut own = self.own();
        match &*own {
            Own::Started(thread) => return Ok(thread.handle.clone()),
            Own::Stopped(_) => return Err(Error::Closed),
            Own::NotStarted => {}
        }
        let thread = OwnThread::start()?;
        let handle = thread.handle.clone();
        *own = Own::Started(thread);
        Ok(handle)
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OwnThread {
    fn start() -> Result<Self, Error> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(Error::no_runtime)?;
        let handle = runtime.handle().clone();
        let runtime = OwnRuntime(Some(runtime));
        let stop = CancellationToken::new();
        let (has_ended, ended) = watch::channel(false);
        let stopped = stop.clone();
        // Nobody joins it: the last handle of a factory may be dropped inside of any runtime, and on this
        // very thread.
        let run = move || {
            runtime.run_until(stopped);
            has_ended.send_replace(true);
        };
        thread::Builder::new().name("claviger".to_owned()).spawn(run).map_err(Error::no_runtime)?;
        Ok(Self { handle, stop, ended })
    }
}

impl OwnRuntime {
    fn run_until(mut self, stopped: CancellationToken) {
        if let Some(runtime) = self.0.take() {
            runtime.block_on(stopped.cancelled());
            runtime.shutdown_background();
        }
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
