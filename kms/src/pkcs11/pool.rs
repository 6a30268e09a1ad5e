//! The threads that talk to a token, each with a session of its own, and the queue before them.
//!
//! PKCS#11 blocks, and a session does one thing at a time. So calls wait in a queue for one of a
//! fixed number of threads. A module that hangs keeps its thread until it returns; all the others
//! go on, and who waits leaves at the deadline.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, process, thread};

use tokio::sync::oneshot;

use super::error::{Meaning, Pkcs11Error};
use super::token::{Connection, Token};

/// Threads of which each connects to the token when it has something to do.
///
/// When it is dropped the threads end, and close their sessions, as soon as the call that they are
/// in returns. Nobody waits for them: a module that hangs would hold up whoever drops the KMS.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    deadline: Duration,
    process: u32,
}

#[derive(Debug)]
struct Shared {
    token: Token,
    queue: Mutex<Queue>,
    is_due: Condvar,
    queue_max: usize,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Box<dyn Job>>,
    is_closed: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("jobs", &self.jobs.len()).finish_non_exhaustive()
    }
}

/// How many calls may wait for each session.
const WAITING_PER_SESSION: usize = 16;

impl Pool {
    pub(super) fn new(token: Token, sessions: usize, deadline: Duration) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            token,
            queue: Mutex::default(),
            is_due: Condvar::new(),
            queue_max: sessions.saturating_mul(WAITING_PER_SESSION),
        });
        // Dropped if a thread cannot be had, and those before it end.
        let pool = Self { shared, deadline, process: process::id() };
        for _ in 0..sessions {
            let shared = Arc::clone(&pool.shared);
            thread::Builder::new().name("claviger-pkcs11".to_owned()).spawn(move || shared.serve())?;
        }
        Ok(pool)
    }

    pub(super) fn token(&self) -> &Token {
        &self.shared.token
    }

    /// Does `work` with a session, by the deadline of calls.
    ///
    /// # Cancel safety
    /// Work that has not begun is not done; of work that has, the answer is dropped.
    pub(super) async fn call<T, F>(&self, work: F) -> Result<T, Pkcs11Error>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> Result<T, Pkcs11Error> + Send + 'static,
    {
        self.call_within(self.deadline, work).await
    }

    pub(super) async fn call_within<T, F>(&self, deadline: Duration, work: F) -> Result<T, Pkcs11Error>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> Result<T, Pkcs11Error> + Send + 'static,
    {
        // A child has the memory of its parent, but none of its threads.
        if process::id() != self.process {
            return Err(Pkcs11Error::Forked);
        }
        let (answer, answered) = oneshot::channel();
        self.shared.push(Box::new(Call { work, answer }))?;
        match tokio::time::timeout(deadline, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_gone)) => Err(Pkcs11Error::GivenUp),
            Err(_elapsed) => Err(Pkcs11Error::NoAnswer(deadline)),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.is_closed = true;
        let waiting = std::mem::take(&mut queue.jobs);
        drop(queue);
        drop(waiting);
        self.shared.is_due.notify_all();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Box<dyn Job>) -> Result<(), Pkcs11Error> {
        let mut queue = self.queue();
        if queue.jobs.len() >= self.queue_max {
            // Those whose callers have gone hold no place.
            queue.jobs.retain(|job| !job.is_given_up());
        }
        if queue.jobs.len() >= self.queue_max {
            return Err(Pkcs11Error::QueueFull);
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.is_due.notify_one();
        Ok(())
    }

    /// Waits for something to do; `None` when the pool is gone.
    fn next(&self) -> Option<Box<dyn Job>> {
        let mut queue = self.queue();
        loop {
            if queue.is_closed {
                return None;
            }
            match queue.jobs.pop_front() {
                Some(job) if job.is_given_up() => drop(job),
                Some(job) => return Some(job),
                None => queue = self.is_due.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn serve(&self) {
        let mut connection = None;
        while let Some(job) = self.next() {
            // The caller of a job that panicked learns that it was given up.
            let work = AssertUnwindSafe(|| job.run(&self.token, &mut connection));
            if catch_unwind(work).is_err() {
                connection = None;
            }
        }
    }
}

/// A call that waits.
trait Job: Send {
    /// Tells whether nobody waits for the answer any more.
    fn is_given_up(&self) -> bool;

    fn run(self: Box<Self>, token: &Token, connection: &mut Option<Connection>);
}

struct Call<T, F> {
    work: F,
    answer: oneshot::Sender<Result<T, Pkcs11Error>>,
}

impl<T, F> Job for Call<T, F>
where
    T: Send,
    F: Fn(&Connection) -> Result<T, Pkcs11Error> + Send,
{
    fn is_given_up(&self) -> bool {
        self.answer.is_closed()
    }

    fn run(self: Box<Self>, token: &Token, connection: &mut Option<Connection>) {
        let mut answer = self.attempt(token, connection);
        let is_disconnected = |answer: &Result<T, Pkcs11Error>| {
            answer.as_ref().is_err_and(|error| error.meaning() == Meaning::Disconnected)
        };
        if is_disconnected(&answer) && !self.is_given_up() {
            answer = self.attempt(token, connection);
        }
        // Should nobody wait, a key in it is wiped here.
        drop(self.answer.send(answer));
    }
}

impl<T, F> Call<T, F>
where
    F: Fn(&Connection) -> Result<T, Pkcs11Error>,
{
    fn attempt(&self, token: &Token, connection: &mut Option<Connection>) -> Result<T, Pkcs11Error> {
        let connected = match connection.take() {
            Some(connected) => connected,
            None => token.connect()?,
        };
        let answer = (self.work)(&connected);
        // A session is kept when it is known to be good. Closing it ends what it may have left
        // undone, and destroys the objects in it.
        if answer.as_ref().map_or_else(|error| error.meaning() == Meaning::Damaged, |_| true) {
            *connection = Some(connected);
        }
        answer
    }
}
