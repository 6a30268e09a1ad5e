//! Carries out what T1 and T5 decide, and what comes from outside.

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::Instrument as _;

use super::back_ends::BackEnds;
use super::caches::Caches;
use super::context::Context;
use super::decide::{
    self, Admittance, Awaited, DecryptStep, EncryptStep, Failure, Fitness, Next, VersionFacts, Waited,
};
use super::dispatch::Dispatcher;
use super::loader::Loader;
use super::parts::Parts;
use super::recheck::Recheck;
use super::request::{Level, LoadRequest};
use super::sweep::Sweep;
use crate::clock::Moment;
use crate::error::{Dependency, Error};
use crate::events::Event;
use crate::invalidation::listener::{Invalidate, Listeners};
use crate::key::CryptoKey;
use crate::keyring::Keyring;
use crate::keyring::flight::{MinGeneration, Outcome};
use crate::keyring::orphans::Orphan;
use crate::record::{Created, KeyId, KeyMeta};
use crate::status::{Status, WarmUp, WayStatus};
use crate::tasks::Tasks;
use crate::telemetry::operations::{Lookup, Operation};
use crate::telemetry::{REPORT_PERIOD, Snapshot, Way};

/// What an operation comes to before it waits for anything.
pub(crate) enum Begun {
    /// The key, or why it is not to be had.
    Ready(Outcome),
    /// A cached key is there, and something must be waited for before it is used.
    Wait(Wait),
    /// No cached key serves.
    Load(LoadRequest, MinGeneration),
}

/// What is waited for, and the key to go on with if it does not come.
pub(crate) struct Wait {
    request: LoadRequest,
    min_generation: MinGeneration,
    key: Arc<CryptoKey>,
    awaited: Awaited,
    now: Moment,
}

#[derive(Debug)]
pub(crate) struct Engine {
    context: Arc<Context>,
    caches: Arc<Caches>,
    back_ends: Arc<BackEnds>,
    dispatcher: Arc<Dispatcher>,
    loader: Arc<Loader>,
    recheck: Arc<Recheck>,
    sweep: Arc<Sweep>,
    listeners: Listeners,
}

impl Engine {
    pub(crate) fn new(parts: Parts, loader: Arc<Loader>, sweep: Sweep, listeners: Listeners) -> Self {
        let Parts { context, caches, back_ends } = parts;
        let dispatcher = Arc::clone(&loader.dispatcher);
        let recheck = Arc::new(Recheck::new(Arc::clone(&loader)));
        Self { context, caches, back_ends, dispatcher, loader, recheck, sweep: Arc::new(sweep), listeners }
    }

    pub(crate) const fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    pub(crate) const fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub(crate) const fn caches(&self) -> &Arc<Caches> {
        &self.caches
    }

    /// Lists the keys that are in use though they are not cached any more.
    pub(crate) fn orphans(&self) -> Vec<Orphan> {
        self.caches.orphans().list(self.context.now())
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        self.dispatcher.tasks()
    }

    /// Returns the key to encrypt under (T1).
    ///
    /// # Cancel safety
    /// Leaving early harms nobody: loads and creations are tasks of their own.
    pub(crate) async fn key_to_encrypt(&self, keyring: &Arc<Keyring>) -> Outcome {
        match self.counted(Operation::Encrypt, self.begin_to_encrypt(keyring)) {
            Begun::Ready(outcome) => outcome,
            // On the heap, as it is seldom: each operation that waits for a key takes room for it.
            Begun::Wait(wait) => Box::pin(self.wait_to_encrypt(wait)).await,
            Begun::Load(request, min_generation) => self.load(request, min_generation).await,
        }
    }

    /// Counts what the cache had.
    fn counted(&self, operation: Operation, begun: Begun) -> Begun {
        let lookup = match &begun {
            Begun::Ready(_) => Lookup::Hit,
            Begun::Wait(_) => Lookup::Stale,
            Begun::Load(..) => Lookup::Miss,
        };
        self.context.telemetry().operations().count_lookup(operation, lookup);
        begun
    }

    /// Returns the key to encrypt under (T1) if it is cached and need not be waited for.
    pub(crate) fn begin_to_encrypt(&self, keyring: &Arc<Keyring>) -> Begun {
        let min_generation = self.dispatcher.min_generation(keyring);
        let now = self.context.now();
        let request = LoadRequest::latest(Level::Intermediate, keyring);
        let latest = keyring.latest();
        let rules = self.context.rules();
        match (decide::encrypt(latest.as_deref().map(|key| rules.latest_facts(key, now))), latest) {
            (EncryptStep::Use, Some(key)) => Begun::Ready(Ok(key)),
            (EncryptStep::UseAndRefresh, Some(key)) => {
                self.dispatcher.refresh_in_background(&self.loader, request, now);
                Begun::Ready(Ok(key))
            }
            (EncryptStep::UseAndReplace, Some(key)) => {
                self.replace_in_background(keyring, &key, now);
                Begun::Ready(Ok(key))
            }
            (EncryptStep::Wait(awaited), Some(key)) => {
                Begun::Wait(Wait { request, min_generation, key, awaited, now })
            }
            (EncryptStep::Load, _) | (_, None) => Begun::Load(request, min_generation),
        }
    }

    /// Has the key checked, or its successor made; goes on with it for a while if that cannot be done now.
    async fn wait_to_encrypt(&self, wait: Wait) -> Outcome {
        let (waited, answer) = self.wait(&wait).await;
        let Wait { request, min_generation, key, awaited, now } = wait;
        match (decide::after_wait_to_encrypt(awaited, waited, key.is_unusable()), answer) {
            (Next::UseAnswer | Next::Fail, Some(answer)) => {
                if let (Awaited::Check, Ok(latest)) = (awaited, &answer)
                    && self.context.rules().fitness(latest, now) == Fitness::Ending
                {
                    self.replace_in_background(&request.keyring, latest, now);
                }
                answer
            }
            (Next::UseCached { is_logged }, _) => {
                let event = match awaited {
                    Awaited::Check => Event::Stale,
                    Awaited::Successor => Event::ExpiredKeyUsed,
                };
                self.context.events().raise_if(is_logged, event, request.keyring.id());
                Ok(key)
            }
            (Next::Load, _) | (_, None) => self.load(request, min_generation).await,
        }
    }

    /// Waits for a load, `refresh_wait` at most, if there is any use in that.
    async fn wait(&self, wait: &Wait) -> (Waited, Option<Outcome>) {
        let Wait { min_generation, awaited, now, .. } = *wait;
        let request = wait.request.clone();
        if !decide::is_worth_waiting(awaited, self.back_ends.way_out(&request, awaited, now)) {
            self.dispatcher.probe(&self.loader, request);
            return (Waited::NotAtAll, None);
        }
        let answer = self.dispatcher.refresh(&self.loader, request, min_generation).await;
        let waited = match &answer {
            None => Waited::NoAnswer,
            Some(Ok(_)) => Waited::Answered,
            Some(Err(Error::KeyNotFound(_))) => Waited::Gone,
            Some(Err(error)) if error.is_retryable() => Waited::Failed(Failure::Passing),
            Some(Err(_)) => Waited::Failed(Failure::Lasting),
        };
        (waited, answer)
    }

    async fn load(&self, request: LoadRequest, min_generation: MinGeneration) -> Outcome {
        self.dispatcher.load_with_deadline(&self.loader, request, min_generation).await
    }

    /// Has the key replaced, which is near its end, so that nobody waits there.
    fn replace_in_background(&self, keyring: &Arc<Keyring>, key: &CryptoKey, now: Moment) {
        if !self.back_ends.store().writes().is_open() && !keyring.rotation().is_recent(now) {
            let request = LoadRequest::latest(Level::Intermediate, keyring).replacing(key);
            self.dispatcher.refresh_in_background(&self.loader, request, now);
        }
    }

    /// Has the key replaced in the background that was worn out by chance: before it is evicted, say, and that
    /// is forgotten.
    pub(crate) fn replace_worn_out(&self, keyring: &Arc<Keyring>) {
        if let Some(key) = keyring.latest().filter(|key| self.context.rules().is_exhausted(key)) {
            let request = LoadRequest::latest(Level::Intermediate, keyring).replacing(&key);
            self.dispatcher.refresh_in_background(&self.loader, request, self.context.now());
        }
    }

    /// Returns the key version that a record names (T5), for the partition whose new data is encrypted under
    /// that id.
    ///
    /// # Cancel safety
    /// As [`key_to_encrypt`](Self::key_to_encrypt).
    pub(crate) async fn key_to_decrypt(
        &self,
        partition: &KeyId,
        keyring: &Arc<Keyring>,
        created: Created,
    ) -> Outcome {
        let begun = self.begin_to_decrypt(partition, keyring, created);
        let outcome = match self.counted(Operation::Decrypt, begun) {
            Begun::Ready(outcome) => return outcome,
            Begun::Wait(wait) => self.wait_to_decrypt(wait).await,
            Begun::Load(request, min_generation) => self.load(request, min_generation).await,
        };
        self.admit(outcome?)
    }

    /// Applies the policy on revoked keys.
    fn admit(&self, key: Arc<CryptoKey>) -> Outcome {
        match decide::admit(key.is_revoked(), self.context.rules().revoked_decrypt) {
            Admittance::Granted => {}
            Admittance::Warned => self.context.events().raise(Event::RevokedDecrypt, key.meta().id()),
            Admittance::Denied => return Err(Error::KeyRevoked(key.meta().clone())),
        }
        Ok(key)
    }

    /// Returns the key version that a record names (T5) if it is cached and need not be waited for.
    pub(crate) fn begin_to_decrypt(
        &self,
        partition: &KeyId,
        keyring: &Arc<Keyring>,
        created: Created,
    ) -> Begun {
        let min_generation = self.dispatcher.min_generation(keyring);
        let now = self.context.now();
        let request = LoadRequest::version(Level::Intermediate, keyring, created);
        let (cached, meta) = (keyring.version(created), KeyMeta::new(keyring.id().clone(), created));
        let facts = match &cached {
            Some(key) => self.context.rules().version_facts(key, now),
            None if self.caches.missing().contains(&meta, now) => VersionFacts::Missing,
            None => VersionFacts::Absent,
        };
        match (decide::decrypt(facts, self.context.rules().revoked_decrypt), cached) {
            (DecryptStep::NotFound, _) => Begun::Ready(Err(Error::KeyNotFound(meta))),
            (DecryptStep::Revoked, _) => Begun::Ready(Err(Error::KeyRevoked(meta))),
            (DecryptStep::Use, Some(key)) => Begun::Ready(self.admit(key)),
            (DecryptStep::UseAndRefresh, Some(key)) => {
                self.dispatcher.refresh_in_background(&self.loader, request, now);
                Begun::Ready(self.admit(key))
            }
            (DecryptStep::Wait, Some(key)) => {
                Begun::Wait(Wait { request, min_generation, key, awaited: Awaited::Check, now })
            }
            (DecryptStep::Load, Some(_)) => Begun::Load(request, min_generation),
            (_, None) => Begun::Load(request.on_behalf_of(partition), min_generation),
        }
    }

    /// Has the key checked; goes on with it for a while if that cannot be done now.
    async fn wait_to_decrypt(&self, wait: Wait) -> Outcome {
        let (waited, answer) = self.wait(&wait).await;
        match (decide::after_wait_to_decrypt(waited), answer) {
            (Next::UseCached { is_logged }, _) => {
                self.context.events().raise_if(is_logged, Event::Stale, wait.request.keyring.id());
                Ok(wait.key)
            }
            (Next::UseAnswer | Next::Fail | Next::Load, answer) => answer.unwrap_or(Ok(wait.key)),
        }
    }

    /// Loads the latest keys of these partitions, as many as the cache holds.
    ///
    /// # Cancel safety
    /// The chunk that is under way comes to its end; no other one is begun.
    pub(crate) async fn warm_up(&self, partitions: Vec<String>) -> Result<WarmUp, Error> {
        let span = tracing::info_span!("claviger.warm_up", partitions = partitions.len());
        let report = self.loader.warm_up(partitions).instrument(span).await?;
        for (result, partitions) in report.counts() {
            self.context.telemetry().count_warmed_up(result, partitions);
        }
        Ok(report)
    }

    /// Notes that any row may have changed.
    pub(crate) fn invalidate_everything_at_once(&self) {
        self.caches.invalidate_everything();
    }

    /// Notes that the records of this key were deleted for good.
    pub(crate) fn shredded(&self, id: &KeyId) {
        // First, so that a check which this causes finds it noted.
        self.note_shredded(id);
        self.invalidate(id);
    }

    /// Puts the row of a lost key back as a task of its own; `false` if that is not to be.
    ///
    /// # Cancel safety
    /// The task goes on.
    pub(crate) async fn restore_lost(&self, key: &KeyMeta) -> Result<bool, Error> {
        let (sender, receiver) = oneshot::channel();
        let interrupted = || Err(Error::interrupted(key.id(), Dependency::Metastore));
        let (loader, dispatcher, key) = (Arc::clone(&self.loader), Arc::clone(&self.dispatcher), key.clone());
        self.tasks().spawn(move |stopped| async move {
            let work = tokio::time::timeout(dispatcher.operation_deadline(), loader.lost_rows.put_back(&key));
            let outcome = match stopped.run_until_cancelled(work).await {
                Some(Ok(row)) => row.map(|row| row.is_some()),
                Some(Err(_elapsed)) => Err(dispatcher.overran(key.id(), Some(Dependency::Metastore))),
                None => Err(Error::Closed),
            };
            // The caller may have gone away.
            drop(sender.send(outcome));
        })?;
        receiver.await.unwrap_or_else(|_gone| interrupted())
    }

    /// The store came to another server.
    pub(crate) fn failed_over(&self) {
        self.context.events().raise(Event::FailedOver, self.caches.system_keyring().id());
        self.caches.invalidate_everything();
        self.recheck.begin();
    }

    /// Sees to the tasks that run as long as the factory is in use.
    pub(crate) fn ensure_tasks(self: &Arc<Self>) {
        self.sweep.ensure(self.tasks());
        self.listeners.ensure(self, &self.context, self.tasks());
        let this = Arc::downgrade(self);
        self.tasks().ensure_reports(REPORT_PERIOD, move || {
            if let Some(this) = this.upgrade() {
                this.status(false);
            }
        });
    }

    /// Returns how the factory is, and reports what no event updates.
    pub(crate) fn status(&self, closed: bool) -> Status {
        let status = self.look(closed);
        let health = status.health().state as u8;
        let (lost_rows, incomplete_keys) = (status.lost_rows.len(), status.incomplete_keys.len());
        self.context.telemetry().report(&Snapshot {
            memory: status.memory,
            health,
            lost_rows,
            incomplete_keys,
        });
        status
    }

    fn look(&self, closed: bool) -> Status {
        let (store, kms) = (self.back_ends.store(), self.back_ends.kms());
        let is_down = |way| match way {
            Way::MetastoreReads => store.reads().is_tripped(),
            Way::MetastoreWrites => store.writes().is_tripped(),
            Way::MetastoreReplica => store.replica_is_down(),
            Way::Kms => kms.gate().is_tripped(),
        };
        let calls = self.context.telemetry().calls();
        let way_status = |way: &Way| {
            let (failures, since_good_answer) = calls.pulse_of(*way);
            WayStatus { way: *way, down: is_down(*way), failures, since_good_answer }
        };
        Status {
            intermediate_keys: self.caches.intermediate().keys(),
            system_keys: self.caches.system().keys(),
            orphans: self.orphans(),
            loads: self.tasks().flights(),
            memory: self.loader.maker.memory(),
            events: self.context.events().counts(),
            incomplete_keys: self.loader.maker.incomplete_keys(),
            metastore_down: is_down(Way::MetastoreReads),
            metastore_read_only: is_down(Way::MetastoreWrites) && !is_down(Way::MetastoreReads),
            replica_down: is_down(Way::MetastoreReplica),
            kms_down: is_down(Way::Kms),
            lost_rows: self.loader.lost_rows.list(),
            dependencies: Way::ALL.iter().map(way_status).collect(),
            sources_connected: self.listeners.connected(),
            sources_lost: self.listeners.lost(),
            closed,
        }
    }
}

impl Invalidate for Engine {
    fn invalidate(&self, id: &KeyId) {
        self.caches.invalidate(id);
    }

    async fn invalidate_everything(&self) {
        self.caches.invalidate_everything_in_turns().await;
    }

    fn note_shredded(&self, id: &KeyId) {
        self.loader.lost_rows.note_shredded(id);
    }
}
