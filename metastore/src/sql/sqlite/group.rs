//! Group commit: writes that wait for one another are committed together.
//!
//! A commit costs a sync of the disk, whatever it holds. So a caller puts what it has to write in a
//! queue, and one thread writes all that is in it with one commit, again and again until it is empty.
//! Then the thread ends: there is none before the first write, and none while nobody writes.
//!
//! It is a thread and no task, so that it belongs to no caller's runtime: one that shuts down, or is
//! not driven for a while, would else stop the writes of all the others.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread;

use claviger::BackendError;
use sqlx::sqlite::SqlitePool;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use crate::sql::sqlite::patience::{connection, until_free};
use crate::sql::sqlite::statements::{self, Outcome};
use crate::sql::write::Write;
use crate::task::NoRuntime;

/// As many as wait for a place in the queue cost a future each; those in it their records too.
const QUEUE_MAX: usize = 1_024;

/// More gain little over the sync that they share, and make the first wait for the last.
const BATCH_MAX: usize = 256;

pub(super) struct Group {
    pool: SqlitePool,
    queue: Mutex<Queue>,
    places: Arc<Semaphore>,
    /// The thread went away before the queue was empty.
    abandoned: Notify,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    has_writer: bool,
}

struct Job {
    write: Write,
    deadline: Instant,
    answer: oneshot::Sender<Outcome>,
    place: OwnedSemaphorePermit,
}

impl Group {
    pub(super) fn new(pool: SqlitePool) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(QUEUE_MAX));
        Arc::new(Self { pool, queue: Mutex::default(), places, abandoned: Notify::new() })
    }

    /// Has `write` done with what else waits, and returns how many rows it reached. At the deadline the writer
    /// waits no longer for other processes.
    ///
    /// A caller that goes away before a place in the queue is free leaves nothing behind. Later the write
    /// is done, or is not.
    pub(super) async fn write(self: &Arc<Self>, deadline: Instant, write: Write) -> Outcome {
        if Handle::try_current().is_err() {
            return Err(BackendError::permanent(NoRuntime));
        }
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(BackendError::permanent)?;
        let (answer, mut outcome) = oneshot::channel();
        self.queue().jobs.push_back(Job { write, deadline, answer, place });
        loop {
            // Listening begins before the look at the queue, or a writer that goes between the two
            // would be missed.
            let mut abandoned = pin!(self.abandoned.notified());
            self.ensure_writer().map_err(BackendError::transient)?;
            let outcome = poll_fn(|context| match Pin::new(&mut outcome).poll(context) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                Poll::Pending => abandoned.as_mut().poll(context).map(|()| None),
            });
            if let Some(outcome) = outcome.await {
                // Transient: the writer died with the batch, which is then undone.
                return outcome.map_err(BackendError::transient)?;
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Each use is one step that does not panic half way.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the writer if there is work and nobody does it.
    fn ensure_writer(self: &Arc<Self>) -> io::Result<()> {
        let mut queue = self.queue();
        if queue.has_writer || queue.jobs.is_empty() {
            return Ok(());
        }
        queue.has_writer = true;
        drop(queue);
        let writer = Writer { group: Arc::clone(self), has_ended: false };
        thread::Builder::new().name("claviger-sqlite".into()).spawn(|| writer.run()).map(drop)
    }

    /// Takes what is to be written next; `None`, and no writer any more, if there is nothing.
    fn next_batch(&self) -> Option<Vec<Job>> {
        let mut queue = self.queue();
        let mut batch = Vec::new();
        while batch.len() < BATCH_MAX {
            let Some(job) = queue.jobs.pop_front() else { break };
            // Nobody waits for it any more, so it need not be done.
            if !job.answer.is_closed() {
                batch.push(job);
            }
        }
        queue.has_writer = !batch.is_empty();
        queue.has_writer.then_some(batch)
    }
}

/// The caller that writes; others may, once it is dropped.
struct Writer {
    group: Arc<Group>,
    /// It has found the queue empty, under the lock, and another may have begun since.
    has_ended: bool,
}

impl Writer {
    fn run(mut self) {
        // A runtime of its own, for the time limits of the pool.
        match Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime.block_on(async {
                while let Some(batch) = self.group.next_batch() {
                    self.write(batch).await;
                }
            }),
            // Callers that wait are told, or they would start one writer after another.
            Err(_) => while self.group.next_batch().is_some() {},
        }
        self.has_ended = true;
    }

    async fn write(&self, batch: Vec<Job>) {
        // The last of the callers that wait.
        let deadline = batch.iter().map(|job| job.deadline).max().unwrap_or_else(Instant::now);
        let (writes, answers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|job| (job.write, (job.answer, job.place))).unzip();
        for ((answer, _place), outcome) in answers.into_iter().zip(self.outcomes(&writes, deadline).await) {
            // A caller that has gone away does not want to know.
            let _gone = answer.send(outcome);
        }
    }

    async fn outcomes(&self, writes: &[Write], deadline: Instant) -> Vec<Outcome> {
        let error = match until_free(deadline, || self.commit(writes, deadline)).await {
            Ok(outcomes) => return outcomes,
            Err(error) => error,
        };
        if error.is_transient() || writes.len() == 1 {
            return vec![Err(error); writes.len()];
        }
        // Nothing was written. One of them may be what the table cannot take: each by itself.
        let mut outcomes = Vec::with_capacity(writes.len());
        for write in writes {
            match self.commit(slice::from_ref(write), deadline).await {
                Ok(outcome) => outcomes.extend(outcome),
                // Nor would the others come through, and each would wait as long.
                Err(error) if error.is_transient() => {
                    outcomes.resize(writes.len(), Err(error));
                    break;
                }
                Err(error) => outcomes.push(Err(error)),
            }
        }
        outcomes
    }

    /// All of them are written, or none.
    async fn commit(&self, writes: &[Write], deadline: Instant) -> Result<Vec<Outcome>, BackendError> {
        let mut connection = connection(&self.group.pool, deadline).await?;
        let outcomes = statements::write(&mut connection, writes).await;
        if outcomes.is_err() {
            // SQLite may have rolled back by itself, which the driver does not notice: it would take
            // the next transaction for one inside this.
            let _closed = connection.close().await;
        } else {
            // At once: this runtime may not live to do it later.
            connection.return_to_pool().await;
        }
        outcomes
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.has_ended {
            self.group.queue().has_writer = false;
            self.group.abandoned.notify_waiters();
        }
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("waiting", &self.queue().jobs.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
