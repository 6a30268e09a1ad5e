//! Closing a factory: what is waited for, in which order, and for how long.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::error::Error;
use crate::keys::Hierarchy;
use crate::status::CloseReport;

/// How long a closing factory waits for aborted key loads to let go of their keys: each does at its
/// task's next turn, unless a plug-in blocks its thread.
const ABORT_GRACE: Duration = Duration::from_millis(50);

/// How often a closing factory looks whether keys are still in use.
const ORPHAN_POLL: Duration = Duration::from_millis(2);

/// Closes the factory in the caller's runtime, or on a thread for that where the caller has none.
pub(super) async fn close(core: &Arc<Hierarchy>, deadline: Duration) -> Result<CloseReport, Error> {
    if Handle::try_current().is_ok() {
        return Ok(in_order(core, deadline).await);
    }
    let (sender, report) = oneshot::channel();
    let core = Arc::clone(core);
    let run = move || {
        let runtime = Builder::new_current_thread().enable_time().build();
        // A caller that went away closes again or not at all.
        let _told = sender.send(runtime.map(|runtime| runtime.block_on(in_order(&core, deadline))));
    };
    thread::Builder::new().name("claviger-close".to_owned()).spawn(run).map_err(Error::no_runtime)?;
    report.await.map_err(|_gone| Error::Interrupted)?.map_err(Error::no_runtime)
}

/// The listeners and the flights first, then the caches, then the keys still in use.
async fn in_order(core: &Hierarchy, deadline: Duration) -> CloseReport {
    let until = tokio::time::Instant::now() + deadline;
    core.listeners.stop();
    let _ended = tokio::time::timeout_at(until, core.listeners.ended()).await;
    let landed = tokio::time::timeout_at(until, core.tasks.idle()).await.is_ok();
    let mut aborted_flights = Vec::new();
    if !landed {
        aborted_flights = core.intermediate.in_flight();
        aborted_flights.extend(core.system.in_flight());
    }
    core.tasks.stop();
    core.intermediate.close();
    core.system.close();
    if !landed {
        // What does not end now is abandoned; its tasks end when they can.
        let _ended = tokio::time::timeout(ABORT_GRACE, core.tasks.idle()).await;
    }
    let keys_in_use = loop {
        let keys_in_use = core.orphans.list(core.now());
        if keys_in_use.is_empty() || tokio::time::Instant::now() >= until {
            break keys_in_use;
        }
        tokio::time::sleep(ORPHAN_POLL).await;
    };
    let stuck_sources = core.listeners.listening();
    let stuck_thread = match core.tasks.stop_thread() {
        Some(mut ended) => {
            let at_least = tokio::time::Instant::now() + ABORT_GRACE;
            let ended = ended.wait_for(|ended| *ended);
            tokio::time::timeout_at(until.max(at_least), ended).await.is_err()
        }
        None => false,
    };
    CloseReport { aborted_flights, keys_in_use, stuck_sources, stuck_thread }
}
