//! Closing a factory: what is waited for, in which order, and for how long.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tracing::Instrument as _;

use crate::error::Error;
use crate::keys::engine::Engine;
use crate::status::CloseReport;

/// How long a closing factory waits for aborted key loads to let go of their keys: each does at its
/// task's next turn, unless a plug-in blocks its thread.
const ABORT_GRACE: Duration = Duration::from_millis(50);

/// How often a closing factory looks whether keys are still in use.
const ORPHAN_POLL: Duration = Duration::from_millis(2);

/// Closes the factory in the caller's runtime, or on a thread for that where the caller has none.
pub(super) async fn close(engine: &Arc<Engine>, deadline: Duration) -> Result<CloseReport, Error> {
    let span = tracing::info_span!("claviger.close", system_key = %engine.caches().system_keyring().id());
    if Handle::try_current().is_ok() {
        return Ok(in_order(engine, deadline).instrument(span).await);
    }
    let (sender, report) = oneshot::channel();
    let engine = Arc::clone(engine);
    let run = move || {
        let runtime = Builder::new_current_thread().enable_time().build();
        // A caller that went away closes again or not at all.
        let _sent = sender
            .send(runtime.map(|runtime| runtime.block_on(in_order(&engine, deadline).instrument(span))));
    };
    thread::Builder::new().name("claviger-close".to_owned()).spawn(run).map_err(Error::no_runtime)?;
    report
        .await
        .map_err(|_gone| Error::Interrupted { key: None, dependency: None })?
        .map_err(Error::no_runtime)
}

/// The listeners and the loads first, then the caches, then the keys still in use.
async fn in_order(engine: &Engine, deadline: Duration) -> CloseReport {
    let until = tokio::time::Instant::now() + deadline;
    engine.listeners().stop();
    let _ended = tokio::time::timeout_at(until, engine.listeners().ended()).await;
    let has_ended = tokio::time::timeout_at(until, engine.tasks().idle()).await.is_ok();
    let mut aborted_loads = Vec::new();
    if !has_ended {
        aborted_loads = engine.caches().in_flight();
    }
    engine.tasks().stop();
    engine.caches().close();
    if !has_ended {
        // What does not end now is abandoned; its tasks end when they can.
        let _ended = tokio::time::timeout(ABORT_GRACE, engine.tasks().idle()).await;
    }
    let keys_in_use = loop {
        let keys_in_use = engine.orphans();
        if keys_in_use.is_empty() || tokio::time::Instant::now() >= until {
            break keys_in_use;
        }
        tokio::time::sleep(ORPHAN_POLL).await;
    };
    let stuck_sources = engine.listeners().listening();
    let stuck_thread = match engine.tasks().stop_thread() {
        Some(mut ended) => {
            let at_least = tokio::time::Instant::now() + ABORT_GRACE;
            let ended = ended.wait_for(|ended| *ended);
            tokio::time::timeout_at(until.max(at_least), ended).await.is_err()
        }
        None => false,
    };
    engine.context().telemetry().end();
    CloseReport { aborted_loads, keys_in_use, stuck_sources, stuck_thread }
}
