//! Calls that were given up, and that the server may still be at.
//!
//! A caller that no longer waits does not make the server stop: a statement that waits for a lock, or
//! a commit that waits for a standby, keeps its server session, however often the socket is closed.
//! So a call that is given up keeps its place among the sessions until the server has let go of it,
//! and the server is told to. It has let go when it answers, when the connection breaks, or when it
//! says, asked on a connection of its own, that it has no such session.
//!
//! A commit that waits for a standby is left alone: to end its wait would make visible what is on no
//! other machine yet.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::sql::dialect::{Dialect, Setup};
use crate::sql::hosts::Hosts;

/// The rest of a call: it ends when the server answers or the connection breaks.
type Rest = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a store has given up.
pub(crate) struct Abandoned<D: Dialect>(Arc<Shared<D>>);

struct Shared<D: Dialect> {
    hosts: Arc<Hosts<D>>,
    setup: Setup,
    calls: Mutex<Calls<D>>,
    tasks: TaskTracker,
    closed: CancellationToken,
}

struct Calls<D: Dialect> {
    /// Those whose session the server has a name for, and what tells them that it is gone.
    known: Vec<(D::Backend, CancellationToken)>,
    /// A task tells the server to end them.
    is_ending: bool,
}

/// How long a call is held whose server cannot be asked. The system gives up a connection on which
/// nothing is acknowledged about as late.
const HOLD_MAX: Duration = Duration::from_secs(15 * 60);

const ASK_AGAIN_FIRST: Duration = Duration::from_millis(20);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(1);

impl<D: Dialect> Abandoned<D> {
    pub(crate) fn new(hosts: Arc<Hosts<D>>, setup: Setup) -> Self {
        Self(Arc::new(Shared {
            hosts,
            setup,
            calls: Mutex::new(Calls { known: Vec::new(), is_ending: false }),
            tasks: TaskTracker::new(),
            closed: CancellationToken::new(),
        }))
    }

    /// Holds the rest of a call until the server has let go of it. Called within a runtime.
    pub(crate) fn add(&self, backend: Option<D::Backend>, rest: Rest) {
        let shared = &self.0;
        let gone = CancellationToken::new();
        let hold = Arc::clone(shared).hold(rest, backend.clone(), gone.clone());
        if let Some(backend) = backend {
            let mut calls = shared.calls();
            calls.known.push((backend, gone));
            if !std::mem::replace(&mut calls.is_ending, true) {
                drop(shared.tasks.spawn(Arc::clone(shared).end()));
            }
        }
        drop(shared.tasks.spawn(hold));
    }

    /// Lets go of everything, and waits until the tasks have ended.
    pub(crate) async fn close(&self) {
        self.0.closed.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl<D: Dialect> Drop for Abandoned<D> {
    fn drop(&mut self) {
        // The tasks hold what is shared, and would go on for a store that is gone.
        self.0.closed.cancel();
    }
}

impl<D: Dialect> Shared<D> {
    async fn hold(self: Arc<Self>, rest: Rest, backend: Option<D::Backend>, gone: CancellationToken) {
        let held = async {
            match &backend {
                Some(_) => drop(gone.run_until_cancelled(rest).await),
                None => drop(timeout(HOLD_MAX, rest).await),
            }
        };
        // Either way the rest of the call is gone with it, and so is its session.
        self.closed.run_until_cancelled(held).await;
        if let Some(backend) = backend {
            self.calls().known.retain(|(known, _)| *known != backend);
        }
    }

    /// Tells the server to end what was given up, until it has.
    async fn end(self: Arc<Self>) {
        let mut session = None;
        let mut pause = ASK_AGAIN_FIRST;
        loop {
            let backends: Vec<_> = {
                let mut calls = self.calls();
                if calls.known.is_empty() {
                    calls.is_ending = false;
                    break;
                }
                calls.known.iter().map(|(backend, _)| backend.clone()).collect()
            };
            let asked = self.closed.run_until_cancelled(self.ask(&mut session, &backends)).await;
            match asked {
                None => break,
                Some(Some(left)) => self.tell_gone(&backends, &left),
                // It cannot be asked now.
                Some(None) => session = None,
            }
            if self.closed.run_until_cancelled(sleep(pause)).await.is_none() {
                break;
            }
            pause = (pause * 2).min(ASK_AGAIN_MAX);
        }
        if let Some(session) = session {
            drop(timeout(self.setup.deadline, D::farewell(session)).await);
        }
    }

    /// Returns those of `backends` that the server has not let go of; `None` if it did not say.
    async fn ask(
        &self,
        session: &mut Option<D::Session>,
        backends: &[D::Backend],
    ) -> Option<Vec<D::Backend>> {
        let ask = async {
            if session.is_none() {
                let connected = self.hosts.connect_once(&self.setup, self.setup.deadline).await.ok()?;
                *session = Some(connected.session);
            }
            D::end(session.as_mut()?, backends).await.ok()
        };
        timeout(self.setup.deadline * 2, ask).await.ok().flatten()
    }

    fn tell_gone(&self, asked: &[D::Backend], left: &[D::Backend]) {
        for (backend, gone) in &self.calls().known {
            if asked.contains(backend) && !left.contains(backend) {
                gone.cancel();
            }
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls<D>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
