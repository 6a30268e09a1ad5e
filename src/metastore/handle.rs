//! The core's way to the metastore: every call through a gate, every failure an [`Error`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::boxed::BoxedMetastore;
use super::{Insert, Latest, Metastore};
use crate::context::CallContext;
use crate::error::{BackendError, Error};
use crate::gate::replica::ReplicaGate;
use crate::gate::{Class, Gate, Subject};
use crate::record::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};
use crate::telemetry::calls::{Call, Calls};
use crate::telemetry::way::WayGauges;

/// The core's way to the metastore. Reads, inserts and replicas have a gate each, so that what fails
/// or hangs in one neither closes another nor takes its permits.
#[derive(Debug)]
pub(crate) struct MetastoreHandle {
    store: BoxedMetastore,
    reads: Gate,
    writes: Gate,
    replicas: ReplicaGate,
    /// The breaker that they show is up if the replica did not answer the last time it was asked.
    replica_gauges: Arc<WayGauges>,
    calls: Arc<Calls>,
    /// How often the store came to another server, as of the last call.
    failovers: AtomicU64,
    on_failover: OnFailover,
}

/// What a replica has to say of a version.
pub(crate) enum Copied {
    /// Nothing that counts: the store itself is asked.
    Nothing,
    Row(EnvelopeKeyRecord),
    /// It failed, for the first time since it answered well.
    Lost(BackendError),
}

impl MetastoreHandle {
    pub(crate) fn new(
        store: BoxedMetastore,
        [reads, writes]: [Gate; 2],
        (replicas, replica_gauges): (ReplicaGate, Arc<WayGauges>),
        calls: Arc<Calls>,
        on_failover: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let failovers = AtomicU64::new(store.failovers());
        let on_failover = OnFailover(Box::new(on_failover));
        Self { store, reads, writes, replicas, replica_gauges, calls, failovers, on_failover }
    }

    pub(crate) const fn reads(&self) -> &Gate {
        &self.reads
    }

    pub(crate) const fn writes(&self) -> &Gate {
        &self.writes
    }

    /// Returns `true` if the replica did not answer the last time it was asked.
    pub(crate) fn replica_is_down(&self) -> bool {
        self.replica_gauges.breaker().is_set()
    }

    pub(crate) async fn load(&self, class: Class, key: &KeyMeta) -> Result<Option<EnvelopeKeyRecord>, Error> {
        let subject = Subject::version(key);
        let call = |context| async move {
            self.calls.observe(Call::Load, key, &context, self.store.load(key, &context)).await
        };
        let answer = self.watched(self.reads.call(class, &subject, call).await);
        answer.map_err(|error| to_error("load", key.id(), error))
    }

    pub(crate) async fn load_latest(
        &self,
        class: Class,
        id: &KeyId,
        up_to: Created,
    ) -> Result<Option<Latest>, Error> {
        let subject = Subject::latest(id);
        let call = |context| async move {
            let answer = self.store.load_latest(id, up_to, &context);
            self.calls.observe(Call::LoadLatest, id, &context, answer).await
        };
        let answer = self.watched(self.reads.call(class, &subject, call).await);
        answer.map_err(|error| to_error("load_latest", id, error))
    }

    /// Loads what a replica has of a version. A failure is no more than that it has nothing.
    pub(crate) async fn load_from_replica(&self, key: &KeyMeta) -> Copied {
        let load = async |context: CallContext| {
            let answer = self.store.load(key, &context);
            self.calls.observe(Call::LoadFromReplica, key, &context, answer).await
        };
        match self.watched(self.replicas.ask(load).await) {
            None => Copied::Nothing,
            Some(Ok(row)) => {
                self.replica_gauges.breaker().set(false);
                row.map_or(Copied::Nothing, Copied::Row)
            }
            // The store itself has the last word on it.
            Some(Err(error)) if error.is_of_one_key() || !error.was_asked() => Copied::Nothing,
            Some(Err(error)) => {
                let was_down = self.replica_gauges.breaker().set(true);
                if was_down { Copied::Nothing } else { Copied::Lost(error) }
            }
        }
    }

    /// Loads these versions in one call. What fails names the first of them.
    pub(crate) async fn load_many(
        &self,
        class: Class,
        keys: &[KeyMeta],
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, Error> {
        let Some(first) = keys.first() else { return Ok(Vec::new()) };
        let call = async |context: CallContext| {
            let answer = async {
                let found = self.store.load_many(keys, &context).await?;
                in_order(found, keys, |row, key| row.meta() == key)
            };
            self.calls.observe(Call::LoadMany, first, &context, answer).await
        };
        self.watched(self.reads.call_in_bulk(class, call).await)
            .map_err(|error| to_error("load_many", first.id(), error))
    }

    /// Loads the latest records of these keys in one call. What fails names the first of them.
    pub(crate) async fn load_latest_many(
        &self,
        class: Class,
        ids: &[KeyId],
        up_to: Created,
    ) -> Result<Vec<Option<Latest>>, Error> {
        let Some(first) = ids.first() else { return Ok(Vec::new()) };
        let call = async |context: CallContext| {
            let answer = async {
                let found = self.store.load_latest_many(ids, up_to, &context).await?;
                in_order(found, ids, |latest, id| latest.record.meta().id() == id)
            };
            self.calls.observe(Call::LoadLatestMany, first, &context, answer).await
        };
        self.watched(self.reads.call_in_bulk(class, call).await)
            .map_err(|error| to_error("load_latest_many", first, error))
    }

    pub(crate) async fn insert(&self, class: Class, record: &EnvelopeKeyRecord) -> Result<Insert, Error> {
        let id = record.meta().id();
        let call = |context| async move { self.insert_once(record, &context).await };
        let answer = self.watched(self.writes.call(class, &Subject::latest(id), call).await);
        answer.map_err(|error| to_error("insert", id, error))
    }

    /// Inserts the record if it is wanted at each attempt; `None` if not.
    pub(crate) async fn insert_if(
        &self,
        class: Class,
        record: &EnvelopeKeyRecord,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Option<Insert>, Error> {
        let call = |context| {
            let is_wanted = is_wanted();
            async move { if is_wanted { self.insert_once(record, &context).await.map(Some) } else { Ok(None) } }
        };
        let subject = Subject::version(record.meta());
        let answer = self.watched(self.writes.call(class, &subject, call).await);
        answer.map_err(|error| to_error("insert", record.meta().id(), error))
    }

    async fn insert_once(
        &self,
        record: &EnvelopeKeyRecord,
        context: &CallContext,
    ) -> Result<Insert, BackendError> {
        let answer = self.store.insert(record, context);
        self.calls.observe(Call::Insert, record.meta(), context, answer).await
    }

    /// Looks whether a call came to another server, before anybody sees its answer.
    fn watched<T>(&self, answer: T) -> T {
        let failovers = self.store.failovers();
        let is_more = failovers > self.failovers.load(Ordering::Relaxed)
            && failovers > self.failovers.fetch_max(failovers, Ordering::Relaxed);
        if is_more {
            (self.on_failover.0)();
        }
        answer
    }
}

/// What is to be done when the store came to another server.
struct OnFailover(Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for OnFailover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnFailover")
    }
}

/// The answers to a question for many, if each is one to its own: a key that got to another
/// partition's place would encrypt that one's data.
fn in_order<R, T>(
    found: Vec<Option<R>>,
    asked: &[T],
    fits: impl Fn(&R, &T) -> bool,
) -> Result<Vec<Option<R>>, BackendError> {
    let fits = |(row, asked): (&Option<R>, &T)| row.as_ref().is_none_or(|row| fits(row, asked));
    if found.len() == asked.len() && found.iter().zip(asked).all(fits) {
        Ok(found)
    } else {
        Err(BackendError::permanent("the metastore's answers are not those to the questions"))
    }
}

pub(crate) fn to_error(operation: &'static str, key: &KeyId, source: BackendError) -> Error {
    Error::Metastore { operation, key: key.clone(), source }
}
