//! The store came to another server, which may lack what was committed last: all that is cached is
//! checked, so that each key whose row is gone is told of, also if nobody uses it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::dispatch::Load;
use super::loader::Loader;
use super::request::{Level, LoadRequest};
use crate::error::Error;
use crate::events::Event;
use crate::gate::{Class, jittered};
use crate::keyring::Keyring;
use crate::keyring::flight::{Flights, Leader, Target};
use crate::record::KeyMeta;

/// How many versions are read in one call.
const CHUNK_MAX: usize = 1_000;

/// How often a chunk that cannot be read is tried, and after which pause the second time: twice as long
/// each time, the later half of it at random.
const TRIES_MAX: u32 = 5;
const PAUSE_FIRST: Duration = Duration::from_millis(500);

/// How often a chunk is halved that is refused: a single row may spoil it.
const HALVINGS_MAX: usize = 256;

/// Checks all that is cached, by one task at a time.
#[derive(Debug)]
pub(crate) struct Recheck {
    loader: Arc<Loader>,
    phase: Mutex<Phase>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Idle,
    UnderWay,
    /// Under way, and once more after that.
    Again,
}

/// The task that checks. However it ends, the next fail-over begins another.
struct Turn {
    recheck: Arc<Recheck>,
    is_over: bool,
}

impl Recheck {
    pub(crate) fn new(loader: Arc<Loader>) -> Self {
        Self { loader, phase: Mutex::default() }
    }

    /// Asks for a check of all; `true` if the caller is to begin it.
    fn begins(&self) -> bool {
        let mut phase = self.phase();
        let is_idle = *phase == Phase::Idle;
        *phase = if is_idle { Phase::UnderWay } else { Phase::Again };
        is_idle
    }

    /// Ends a check; `true` if another one is due.
    fn goes_on(&self) -> bool {
        let mut phase = self.phase();
        let is_due = *phase == Phase::Again;
        *phase = if is_due { Phase::UnderWay } else { Phase::Idle };
        is_due
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Once it is over, another may have begun.
        if !self.is_over {
            *self.recheck.phase() = Phase::Idle;
        }
    }
}

impl Recheck {
    /// Has all that is cached checked, in the background.
    pub(super) fn begin(self: &Arc<Self>) {
        if !self.begins() {
            return;
        }
        let mut turn = Turn { recheck: Arc::clone(self), is_over: false };
        let tasks = self.loader.dispatcher.tasks();
        // Without a runtime the keys are checked by their next use.
        let _spawned = tasks.spawn(|_stopped| async move {
            let closing = turn.recheck.loader.dispatcher.tasks().closing();
            let _ended = closing.run_until_cancelled(turn.run()).await;
        });
    }

    /// Reads the rows of all cached versions of a level.
    async fn check_level(&self, level: Level) {
        let versions = self.cached_versions(level);
        let chunks = versions.chunks(CHUNK_MAX).map(|chunk| (chunk.to_vec(), TRIES_MAX));
        let mut chunks: VecDeque<_> = chunks.collect();
        let mut halvings_left = HALVINGS_MAX;
        while let Some((chunk, tries_left)) = chunks.pop_front() {
            let Err(error) = self.check_chunk(&chunk).await else { continue };
            let (first, second) = chunk.split_at(chunk.len() / 2);
            if error.is_retryable() && tries_left > 1 {
                let half = PAUSE_FIRST * (1 << (TRIES_MAX - tries_left)) / 2;
                tokio::time::sleep(half + jittered(half, self.loader.context.random())).await;
                chunks.push_back((chunk, tries_left - 1));
            } else if !error.is_retryable() && !first.is_empty() && halvings_left > 0 {
                halvings_left -= 1;
                chunks.extend([(first.to_vec(), tries_left), (second.to_vec(), tries_left)]);
            } else if let Some(request) = chunk.first() {
                // The regular checks go on.
                self.loader.events().raise_because(Event::RefreshFailed, request.keyring.id(), &error);
            }
        }
    }

    fn cached_versions(&self, level: Level) -> Vec<LoadRequest> {
        let versions = |keyring: Arc<Keyring>| -> Vec<LoadRequest> {
            let keys = keyring.keys();
            keys.versions.iter().map(|key| LoadRequest::version(level, &keyring, key.created())).collect()
        };
        self.loader.caches.of(level).keyrings().flat_map(versions).collect()
    }

    /// Reads the rows of these versions in one call, as the loads of each; those that others run are
    /// waited for.
    async fn check_chunk(&self, chunk: &[LoadRequest]) -> Result<(), Error> {
        let (mut led, mut keys, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for request in chunk {
            let Some(key) = self.version_due(request) else { continue };
            match request.keyring.flights().join(request.target, Flights::any_generation()) {
                (_, Some(leader)) => {
                    led.push((request.clone(), leader));
                    keys.push(key);
                }
                (_, None) => others.push(request.clone()),
            }
        }
        let begun = self.loader.now();
        let rows = self.loader.back_ends.store().load_many(Class::Check, &keys).await?;
        let mut gone = Vec::new();
        for ((mut request, leader), row) in led.into_iter().zip(rows) {
            request.lead_by(&leader);
            let is_found = row.is_some();
            request = request.with_row(row, begun, leader.generation());
            if is_found {
                self.complete(&request, leader).await;
            } else {
                self.loader.lost_rows.drop_target(&request, begun);
                gone.push((request, leader));
            }
        }
        // Once all are told of, since putting rows back may take its time.
        for (request, leader) in gone {
            self.complete(&request, leader).await;
        }
        for request in others {
            let min_generation = request.keyring.flights().current_generation();
            // The load itself tells what became of it.
            let _outcome =
                self.loader.dispatcher.load_with_deadline(&self.loader, request, min_generation).await;
        }
        Ok(())
    }

    /// Returns the version if it is cached still, and nobody has checked it meanwhile.
    fn version_due(&self, request: &LoadRequest) -> Option<KeyMeta> {
        let Target::Version(created) = request.target else { return None };
        let key = request
            .keyring
            .version(created)
            .filter(|key| self.loader.rules().is_due(key, self.loader.now()))?;
        Some(key.meta().clone())
    }

    async fn complete(&self, request: &LoadRequest, leader: Leader) {
        let is_found = request.prefetched.as_ref().is_some_and(|prefetched| prefetched.row.is_some());
        // One that was evicted meanwhile is not brought back.
        if is_found && self.version_due(request).is_none() {
            return;
        }
        let run =
            tokio::time::timeout(self.loader.dispatcher.operation_deadline(), self.loader.load(request))
                .await;
        let outcome = run.unwrap_or_else(|_elapsed| {
            Err(self.loader.dispatcher.overran(request.keyring.id(), request.progress.dependency()))
        });
        self.loader.dispatcher.complete(request, leader, outcome);
        tokio::task::yield_now().await;
    }
}

impl Turn {
    async fn run(&mut self) {
        while !self.is_over {
            for level in [Level::System, Level::Intermediate] {
                self.recheck.check_level(level).await;
            }
            self.is_over = !self.recheck.goes_on();
        }
    }
}
