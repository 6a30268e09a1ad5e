//! Warm-up: the latest keys of many partitions, loaded in bulk.
//!
//! A batch of partitions is read in one call, by a task that leads the load of each. So nobody else
//! loads them meanwhile. A load that would lead to a creation is abandoned, and so is one whose row could
//! not be read with the others: those are left to their waiters, if there are any.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::load::Judgement;
use super::loader::Loader;
use super::request::{Level, LoadRequest};
use crate::clock::Moment;
use crate::error::{Dependency, Error};
use crate::gate::Class;
use crate::keyring::Keyring;
use crate::keyring::flight::{Flights, Leader, Target, Waiter};
use crate::metastore::Latest;
use crate::record::{EnvelopeKeyRecord, KeyId, KeyMeta};
use crate::status::WarmUp;

/// How many partitions are read in one call.
const BATCH_MAX: usize = 1_000;

/// How often a failed call of one warm-up is made again in two halves. It takes ten to find the one
/// row among a thousand that spoils the call.
const HALVINGS_MAX: usize = 256;

/// What became of a partition.
enum Warmed {
    Loaded,
    Missing,
}

/// What became of the partitions that one task warms up.
struct Chunk {
    results: Vec<Option<Result<Warmed, Error>>>,
    halvings_left: usize,
}

/// A load of the batch that is being read.
struct Led {
    place: usize,
    request: LoadRequest,
    leader: Leader,
}

impl Loader {
    /// Loads the latest keys of these partitions, as many as the cache holds.
    ///
    /// # Cancel safety
    /// The chunk that is under way comes to its end; no other one is begun.
    pub(super) async fn warm_up(self: &Arc<Self>, mut partitions: Vec<String>) -> Result<WarmUp, Error> {
        self.dispatcher.before_loads();
        let mut seen = HashSet::new();
        partitions.retain(|partition| seen.insert(partition.clone()));
        drop(seen);
        let mut partitions = partitions.into_iter();
        let mut report = WarmUp::default();
        let mut halvings_left = HALVINGS_MAX;
        loop {
            let room = self.caches.intermediate().keys_max().saturating_sub(report.loaded + report.cached);
            let names: Vec<_> = partitions.by_ref().take(room.min(BATCH_MAX)).collect();
            if names.is_empty() {
                report.skipped = partitions.len();
                return Ok(report);
            }
            let (names, keyrings) = self.sort_out(names, &mut report);
            let (results, left) = self.run_chunk(keyrings, halvings_left).await?;
            halvings_left = left;
            for (partition, result) in names.into_iter().zip(results) {
                match result {
                    Ok(Warmed::Loaded) => report.loaded += 1,
                    Ok(Warmed::Missing) => report.missing += 1,
                    Err(error) => report.failed.push((partition, error)),
                }
            }
        }
    }

    /// Returns the partitions whose keys are to be loaded, with their keyrings.
    fn sort_out(&self, names: Vec<String>, report: &mut WarmUp) -> (Vec<String>, Vec<Arc<Keyring>>) {
        let (mut to_load, mut keyrings) = (Vec::new(), Vec::new());
        for partition in names {
            match self
                .context
                .naming()
                .intermediate_key_id(&partition)
                .map(|id| self.caches.intermediate().keyring(&id))
            {
                Ok(keyring) if self.is_warm(&keyring) => report.cached += 1,
                Ok(keyring) => {
                    to_load.push(partition);
                    keyrings.push(keyring);
                }
                Err(error) => report.failed.push((partition, error)),
            }
        }
        (to_load, keyrings)
    }

    fn is_warm(&self, keyring: &Keyring) -> bool {
        keyring.latest().is_some_and(|key| self.rules().is_ready(&key, self.now()))
    }

    /// Warms up a chunk as a task of its own. Returns what became of each keyring, and how many
    /// halvings are left.
    async fn run_chunk(
        self: &Arc<Self>,
        keyrings: Vec<Arc<Keyring>>,
        halvings_left: usize,
    ) -> Result<(Vec<Result<Warmed, Error>>, usize), Error> {
        if keyrings.is_empty() {
            return Ok((Vec::new(), halvings_left));
        }
        let ids: Arc<[KeyId]> = keyrings.iter().map(|keyring| keyring.id().clone()).collect();
        let keys = Arc::clone(&ids);
        let (sender, receiver) = oneshot::channel();
        let this = Arc::clone(self);
        self.dispatcher.tasks().spawn(move |stopped| async move {
            let mut chunk = Chunk { results: keyrings.iter().map(|_| None).collect(), halvings_left };
            let work = tokio::time::timeout(
                this.dispatcher.operation_deadline(),
                this.load_chunk(&mut chunk, keyrings),
            );
            let outcome = stopped.run_until_cancelled(work).await;
            let (system_key, bottleneck) = (this.caches.system_keyring().id(), this.back_ends.bottleneck());
            let error = match outcome {
                Some(Ok(())) => Error::interrupted(system_key, bottleneck),
                Some(Err(_elapsed)) => this.dispatcher.overran(system_key, Some(bottleneck)),
                None => Error::Closed,
            };
            let unfinished = |id| Err(error.clone().about(id));
            let results = chunk.results.into_iter().zip(&*keys);
            let results: Vec<_> =
                results.map(|(result, id)| result.unwrap_or_else(|| unfinished(id))).collect();
            // The caller may have gone away.
            drop(sender.send((results, chunk.halvings_left)));
        })?;
        let interrupted = |id| Err(Error::interrupted(id, Dependency::Metastore));
        Ok(receiver.await.unwrap_or_else(|_gone| (ids.iter().map(interrupted).collect(), 0)))
    }

    /// Loads a chunk in one batch. A call that fails is made again in two halves: the batch may have
    /// been too large to be answered in time, or a single row spoils it. Meanwhile others may load
    /// these keys.
    async fn load_chunk(self: &Arc<Self>, chunk: &mut Chunk, keyrings: Vec<Arc<Keyring>>) {
        let mut awaited = Vec::new();
        let mut batches = vec![keyrings.into_iter().enumerate().collect::<Vec<_>>()];
        while let Some(batch) = batches.pop() {
            let led = self.lead(chunk, batch, &mut awaited);
            let begun = self.now();
            match self.read_batch(&led, begun).await {
                Ok(rows) => self.complete_batch(chunk, led, rows, begun).await,
                Err(error) => {
                    let is_last = led.len() == 1 || chunk.halvings_left == 0;
                    if is_last || matches!(error, Error::Overloaded { .. }) {
                        for Led { place, request, .. } in led {
                            chunk.note(place, Err(error.clone().about(request.keyring.id())));
                        }
                    } else {
                        chunk.halvings_left -= 1;
                        let mut batch: Vec<_> = led.into_iter().map(Led::abandon).collect();
                        let second_half = batch.split_off(batch.len() / 2);
                        batches.extend([second_half, batch]);
                    }
                }
            }
        }
        for (place, waiter) in awaited {
            // One that went away is told with those that are unfinished.
            if let Some(outcome) = waiter.outcome().await {
                chunk.note(place, outcome.map(|_key| Warmed::Loaded));
            }
        }
    }

    /// Takes the lead of a batch's loads, but of those that others run or have ended meanwhile.
    fn lead(
        &self,
        chunk: &mut Chunk,
        batch: Vec<(usize, Arc<Keyring>)>,
        awaited: &mut Vec<(usize, Waiter)>,
    ) -> Vec<Led> {
        let mut led = Vec::with_capacity(batch.len());
        for (place, keyring) in batch {
            if self.is_warm(&keyring) {
                chunk.note(place, Ok(Warmed::Loaded));
                continue;
            }
            match keyring.flights().join(Target::Latest, Flights::any_generation()) {
                (_, Some(leader)) => {
                    let mut request = LoadRequest::latest(Level::Intermediate, &keyring);
                    request.lead_by(&leader);
                    led.push(Led { place, request, leader });
                }
                (waiter, None) => awaited.push((place, waiter)),
            }
        }
        led
    }

    async fn read_batch(&self, batch: &[Led], begun: Moment) -> Result<Vec<Option<Latest>>, Error> {
        let up_to = self.rules().created_max(begun);
        if let [Led { request, .. }] = batch {
            let latest =
                self.back_ends.store_for(request).load_latest(Class::Load, request.keyring.id(), up_to).await;
            return Ok(vec![self.read(request, latest)?]);
        }
        let ids: Vec<KeyId> = batch.iter().map(|led| led.request.keyring.id().clone()).collect();
        let _place = self.dispatcher.place_for_many().await;
        self.back_ends.store().load_latest_many(Class::Load, &ids, up_to).await
    }

    /// Judges the rows of a batch as any load does, and ends the loads.
    async fn complete_batch(
        self: &Arc<Self>,
        chunk: &mut Chunk,
        batch: Vec<Led>,
        rows: Vec<Option<Latest>>,
        begun: Moment,
    ) {
        self.learn_revocations(&batch, &rows);
        self.load_parents(&rows).await;
        for (Led { place, request, leader }, row) in batch.into_iter().zip(rows) {
            match self.judge(&request, row, begun).await {
                Ok(Judgement::Use(key)) => {
                    self.dispatcher.complete(&request, leader, Ok(key));
                    chunk.note(place, Ok(Warmed::Loaded));
                }
                Ok(Judgement::Create { .. }) => chunk.note(place, Ok(Warmed::Missing)),
                Err(error) => {
                    self.dispatcher.complete(&request, leader, Err(error.clone()));
                    chunk.note(place, Err(error));
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Notes what the rows say of keys that are held, and has those checked that have a successor: the load of
    /// one may wait for the KMS, and those that ask for it meanwhile go on with what is held.
    fn learn_revocations(self: &Arc<Self>, batch: &[Led], rows: &[Option<Latest>]) {
        for (Led { request, .. }, latest) in batch.iter().zip(rows) {
            let Some(latest) = latest else { continue };
            self.learn_latest_in_passing(&request.keyring, latest);
            if let Some(check) = self.check_of_held(request, &latest.record) {
                self.dispatcher.begin(self, check);
            }
        }
    }

    /// Reads the rows of the system keys that these name, in one call, and starts their loads. What
    /// cannot be had so is loaded by whoever needs it.
    async fn load_parents(self: &Arc<Self>, rows: &[Option<Latest>]) {
        let is_own = |child: &EnvelopeKeyRecord, parent: &&KeyMeta| {
            self.context.naming().is_parent_of(child.meta().id(), parent.id())
        };
        let named = rows
            .iter()
            .flatten()
            .filter_map(|Latest { record, .. }| record.parent().filter(|parent| is_own(record, parent)));
        let distinct: BTreeSet<&KeyMeta> = named.collect();
        let (mut metas, mut flights) = (Vec::new(), Vec::new());
        for parent in distinct {
            let keyring = self.caches.system().keyring(parent.id().as_str());
            if keyring.version(parent.created()).is_some_and(|key| !self.rules().is_due(&key, self.now())) {
                continue;
            }
            let request = LoadRequest::version(Level::System, &keyring, parent.created());
            if let (_, Some(leader)) = keyring.flights().join(request.target, Flights::any_generation()) {
                metas.push(parent.clone());
                flights.push((request, leader));
            }
        }
        let begun = self.now();
        let Ok(rows) = self.back_ends.store().load_many(Class::Check, &metas).await else { return };
        for ((request, leader), row) in flights.into_iter().zip(rows) {
            let request = request.with_row(row, begun, leader.generation());
            // It fails without a runtime only, and this runs on one.
            let _launched = self.dispatcher.spawn(self, request, leader, None, false);
        }
    }
}

impl Led {
    /// Ends the load without an outcome.
    fn abandon(self) -> (usize, Arc<Keyring>) {
        (self.place, self.request.keyring)
    }
}

impl Chunk {
    fn note(&mut self, place: usize, result: Result<Warmed, Error>) {
        if let Some(slot) = self.results.get_mut(place) {
            *slot = Some(result);
        }
    }
}
