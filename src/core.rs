//! What the handles of one factory share, and its end.

mod close;
mod waiting;

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use claviger_memory::ForkSentinel;
use tokio::sync::OnceCell;

use crate::error::Error;
use crate::keys::caches::Caches;
use crate::keys::context::Context;
use crate::keys::engine::Engine;
use crate::status::{CloseReport, Status};
use crate::telemetry::operations::Operations;
use waiting::Waiting;

/// What factory and session handles share. Dropped with the last of them; loads, which hold what they need,
/// end then.
pub(crate) struct Core {
    engine: Arc<Engine>,
    /// The engine's, a step nearer.
    context: Arc<Context>,
    caches: Arc<Caches>,
    sentinel: Arc<ForkSentinel>,
    max_payload_bytes: usize,
    closed: AtomicBool,
    report: OnceCell<CloseReport>,
}

impl Core {
    pub(crate) fn new(engine: Arc<Engine>, sentinel: Arc<ForkSentinel>, max_payload_bytes: usize) -> Self {
        let (context, caches) = (Arc::clone(engine.context()), Arc::clone(engine.caches()));
        let (closed, report) = (AtomicBool::new(false), OnceCell::new());
        Self { engine, context, caches, sentinel, max_payload_bytes, closed, report }
    }

    /// Lets an operation in: not closed, and not in a forked child.
    #[inline]
    pub(crate) fn open(&self) -> Result<&Self, Error> {
        self.unforked()?;
        if self.closed.load(Ordering::Relaxed) { Err(Error::Closed) } else { Ok(self) }
    }

    #[inline]
    pub(crate) const fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    #[inline]
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    #[inline]
    pub(crate) fn operations(&self) -> &Operations {
        self.context.telemetry().operations()
    }

    #[inline]
    pub(crate) fn caches(&self) -> &Caches {
        &self.caches
    }

    #[inline]
    pub(crate) const fn max_payload_bytes(&self) -> usize {
        self.max_payload_bytes
    }

    /// Returns what waits for `awaited`. Whatever an operation waits for goes through here.
    pub(crate) fn wait_for<'a, T>(
        &'a self,
        awaited: impl Future<Output = Result<T, Error>> + Send + 'a,
    ) -> Waiting<'a, T> {
        Waiting::new(awaited, &self.sentinel)
    }

    pub(crate) fn status(&self) -> Result<Status, Error> {
        self.unforked()?;
        Ok(self.engine.status(self.closed.load(Ordering::Acquire)))
    }

    /// Refuses new work and closes, once; answers each call with that report.
    pub(crate) async fn close(&self, deadline: Duration) -> Result<CloseReport, Error> {
        self.unforked()?;
        self.closed.store(true, Ordering::Release);
        let close = || close::close(&self.engine, deadline);
        let report = async { self.report.get_or_try_init(close).await.cloned() };
        self.wait_for(report).await
    }

    fn unforked(&self) -> Result<(), Error> {
        if self.sentinel.is_forked() { Err(Error::Forked) } else { Ok(()) }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // In a forked child a lock may be held by a thread that does not exist there, and the keys
        // are wiped already. What else the engine holds, the metastore's connections too, is the parent's.
        if self.sentinel.is_forked() {
            mem::forget(Arc::clone(&self.engine));
        } else {
            self.engine.listeners().stop();
            self.engine.tasks().stop();
            self.caches.close();
            self.context.telemetry().end();
            // Not waited for: this may be inside of a runtime, or on that very thread.
            let _ended = self.engine.tasks().stop_thread();
        }
    }
}
