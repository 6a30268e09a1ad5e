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

use crate::sql::dialect::Role;
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

/// How long the server may take to say whether it has let go, and to be reached for that.
const ASK_MAX: Duration = Duration::from_millis(1_500);

const ASK_AGAIN_FIRST: Duration = Duration::from_millis(20);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(1);

impl<D: Dialect> Abandoned<D> {
    pub(crate) fn new(hosts: Arc<Hosts<D>>, setup: Setup) -> Self {
        Self(Arc::new(Shared {
            hosts,
            // What was demoted meanwhile is to let go, too.
            setup: Setup { role: Role::Any, ..setup },
            calls: Mutex::new(Calls { known: Vec::new(), is_ending: false }),
            tasks: TaskTracker::new(),
            closed: CancellationToken::new(),
        }))
    }

    /// Holds the rest of a call until the server has let go of it. Called within a runtime.
    pub(crate) fn add(&self, backend: Option<D::Backend>, rest: Rest) {
        let shared = &self.0;
        let gone = CancellationToken::new();
        let held = Held { shared: Arc::clone(shared), backend: backend.clone() };
        // In this order it is known before it can be over.
        let begins = backend.is_some_and(|backend| {
            let mut calls = shared.calls();
            calls.known.push((backend, gone.clone()));
            !std::mem::replace(&mut calls.is_ending, true)
        });
        drop(shared.tasks.spawn(held.hold(rest, gone)));
        if begins {
            let ending = Ending { shared: Arc::clone(shared), is_over: false };
            drop(shared.tasks.spawn(ending.end()));
        }
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

/// A call that is held. However its task ends, also with its runtime, it is let go of.
struct Held<D: Dialect> {
    shared: Arc<Shared<D>>,
    backend: Option<D::Backend>,
}

impl<D: Dialect> Held<D> {
    async fn hold(self, rest: Rest, gone: CancellationToken) {
        let held = async {
            match &self.backend {
                Some(_) => drop(gone.run_until_cancelled(rest).await),
                None => drop(timeout(HOLD_MAX, rest).await),
            }
        };
        // Either way the rest of the call is gone with it, and so is its session.
        self.shared.closed.run_until_cancelled(held).await;
    }
}

impl<D: Dialect> Drop for Held<D> {
    fn drop(&mut self) {
        if let Some(backend) = &self.backend {
            self.shared.calls().known.retain(|(known, _)| known != backend);
        }
    }
}

/// The task that tells the server. However it ends, the next call that is given up begins another.
struct Ending<D: Dialect> {
    shared: Arc<Shared<D>>,
    is_over: bool,
}

impl<D: Dialect> Ending<D> {
    /// Tells the server to end what was given up, until it has.
    async fn end(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut session = None;
        let mut pause = ASK_AGAIN_FIRST;
        while let Some(backends) = self.left() {
            match shared.closed.run_until_cancelled(shared.ask(&mut session, &backends)).await {
                None => return,
                Some(Some(left)) => shared.tell_gone(&backends, &left),
                // It cannot be asked now.
                Some(None) => session = None,
            }
            if shared.closed.run_until_cancelled(sleep(pause)).await.is_none() {
                return;
            }
            pause = (pause * 2).min(ASK_AGAIN_MAX);
        }
        if let Some(session) = session {
            drop(timeout(ASK_MAX, D::farewell(session)).await);
        }
    }

    /// Returns what is still held; `None` if nothing is, and this task is over.
    fn left(&mut self) -> Option<Vec<D::Backend>> {
        let mut calls = self.shared.calls();
        if calls.known.is_empty() {
            calls.is_ending = false;
            self.is_over = true;
            return None;
        }
        Some(calls.known.iter().map(|(backend, _)| backend.clone()).collect())
    }
}

impl<D: Dialect> Drop for Ending<D> {
    fn drop(&mut self) {
        // Once it is over, another may have begun.
        if !self.is_over {
            self.shared.calls().is_ending = false;
        }
    }
}

impl<D: Dialect> Shared<D> {
    /// Returns those of `backends` that the server has not let go of; `None` if it did not say.
    async fn ask(
        &self,
        session: &mut Option<D::Session>,
        backends: &[D::Backend],
    ) -> Option<Vec<D::Backend>> {
        let ask = async {
            if session.is_none() {
                let connected = self.hosts.connect_once(&self.setup, ASK_MAX).await.ok()?;
                *session = Some(connected.session);
            }
            D::end(session.as_mut()?, backends).await.ok()
        };
        timeout(ASK_MAX * 2, ask).await.ok().flatten()
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
