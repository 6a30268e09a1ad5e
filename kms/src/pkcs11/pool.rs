//! The threads that talk to a token, each with a session of its own, and the queue before them.
//!
//! PKCS#11 blocks, and a session does one thing at a time. So calls wait in a queue for one of a
//! fixed number of threads. A module that hangs keeps its thread until it returns; all the others
//! go on, and a caller that waits leaves at the deadline.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, process};

use claviger::CallContext;
use tokio::sync::oneshot;

use super::error::{Meaning, Pkcs11Error};
use super::token::{Connection, Token};

/// Threads of which each connects to the token when it has something to do.
///
/// When it is dropped the threads end, and close their sessions, as soon as the call that they are
/// in returns. Dropping waits for that, since a process must not end while a module works in it; but
/// not for long, since the module may hang.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    process: u32,
}

#[derive(Debug)]
struct Shared {
    token: Token,
    queue: Mutex<Queue>,
    is_due: Condvar,
    has_ended: Condvar,
    queue_max: usize,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Box<dyn Job>>,
    is_closed: bool,
    /// How many threads have not ended.
    serving: usize,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("jobs", &self.jobs.len()).finish_non_exhaustive()
    }
}

/// How many calls may wait for each session.
const WAITING_PER_SESSION: usize = 16;

impl Pool {
    pub(super) fn new(token: Token, sessions: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            token,
            queue: Mutex::default(),
            is_due: Condvar::new(),
            has_ended: Condvar::new(),
            queue_max: sessions.saturating_mul(WAITING_PER_SESSION),
        });
        // Dropped if a thread cannot be had, and those before it end.
        let mut pool = Self { shared, threads: Vec::with_capacity(sessions), process: process::id() };
        for _ in 0..sessions {
            let shared = Arc::clone(&pool.shared);
            // The system shows the first 15 bytes.
            let name = format!("hsm {}", shared.token.label);
            pool.threads.push(thread::Builder::new().name(name).spawn(move || shared.serve())?);
            pool.shared.queue().serving += 1;
        }
        Ok(pool)
    }

    pub(super) fn token(&self) -> &Token {
        &self.shared.token
    }

    /// Does `work` with a session, by the deadline.
    ///
    /// # Cancel safety
    /// Work that has not begun is not done; of work that has, the answer is dropped.
    pub(super) async fn call<T, F>(&self, context: &CallContext, work: F) -> Result<T, Pkcs11Error>
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
        let within = context.remaining();
        match tokio::time::timeout_at(context.deadline, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_gone)) => Err(Pkcs11Error::GivenUp),
            Err(_elapsed) => Err(Pkcs11Error::NoAnswer(within)),
        }
    }
}

/// How long dropping waits for calls to return.
const DROP_MAX: Duration = Duration::from_millis(500);

impl Drop for Pool {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.is_closed = true;
        // What waits there is given up; callers are told outside the lock.
        let waiting = std::mem::take(&mut queue.jobs);
        drop(queue);
        drop(waiting);
        self.shared.is_due.notify_all();
        // A child process has no threads to wait for.
        if process::id() == self.process {
            let queue = self.shared.queue();
            let serves = |queue: &mut Queue| queue.serving > 0;
            let waited = self.shared.has_ended.wait_timeout_while(queue, DROP_MAX, serves);
            let have_all_ended = waited.unwrap_or_else(PoisonError::into_inner).0.serving == 0;
            for thread in self.threads.drain(..).filter(|thread| have_all_ended || thread.is_finished()) {
                // It catches its panics.
                drop(thread.join());
            }
        }
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
        drop(connection);
        self.queue().serving -= 1;
        self.has_ended.notify_all();
    }
}

/// A call that waits.
trait Job: Send {
    /// Returns `true` if nobody waits for the answer any more.
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
