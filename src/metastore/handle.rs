//! The core's way to the metastore: every call through a gate, every failure an [`Error`].

use std::sync::atomic::{AtomicBool, Ordering};

use super::{BoxedMetastore, Consistency, Insert, Metastore};
use crate::breaker::BreakerOpen;
use crate::call::{CallError, Gate};
use crate::error::{BackendError, Error, FailureClass};
use crate::record::{EnvelopeKeyRecord, KeyId, KeyMeta};

/// The core's way to the metastore. Reads, inserts and replicas have a gate each, so that what fails
/// or hangs in one neither closes another nor takes its permits.
#[derive(Debug)]
pub(crate) struct MetastoreHandle {
    store: BoxedMetastore,
    reads: Gate,
    writes: Gate,
    replicas: Gate,
    replica_is_down: AtomicBool,
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
    pub(crate) const fn new(store: BoxedMetastore, reads: Gate, writes: Gate, replicas: Gate) -> Self {
        Self { store, reads, writes, replicas, replica_is_down: AtomicBool::new(false) }
    }

    pub(crate) const fn reads(&self) -> &Gate {
        &self.reads
    }

    pub(crate) const fn writes(&self) -> &Gate {
        &self.writes
    }

    /// Tells whether the replica did not answer the last time it was asked.
    pub(crate) fn replica_is_down(&self) -> bool {
        self.replica_is_down.load(Ordering::Relaxed)
    }

    pub(crate) async fn load(&self, key: &KeyMeta) -> Result<Option<EnvelopeKeyRecord>, Error> {
        let call = || self.store.load(key, Consistency::Strong);
        self.reads.call(call).await.map_err(|error| to_error("load", key.id(), error))
    }

    pub(crate) async fn load_latest(&self, id: &KeyId) -> Result<Option<EnvelopeKeyRecord>, Error> {
        let call = || self.store.load_latest(id);
        self.reads.call(call).await.map_err(|error| to_error("load_latest", id, error))
    }

    /// Loads what a replica has of a version. A failure is no more than that it has nothing.
    pub(crate) async fn load_from_replica(&self, key: &KeyMeta) -> Copied {
        match self.replicas.ask(self.store.load(key, Consistency::Eventual)).await {
            None => Copied::Nothing,
            Some(Ok(row)) => {
                self.replica_is_down.store(false, Ordering::Relaxed);
                row.map_or(Copied::Nothing, Copied::Row)
            }
            Some(Err(error)) if error.class() == FailureClass::Damaged => Copied::Nothing,
            Some(Err(error)) => {
                let was_down = self.replica_is_down.swap(true, Ordering::Relaxed);
                if was_down { Copied::Nothing } else { Copied::Lost(error) }
            }
        }
    }

    /// Loads these versions in one call. What fails names the first of them.
    pub(crate) async fn load_many(&self, keys: &[KeyMeta]) -> Result<Vec<Option<EnvelopeKeyRecord>>, Error> {
        let Some(first) = keys.first() else { return Ok(Vec::new()) };
        let call = async {
            let found = self.store.load_many(keys, Consistency::Strong).await?;
            in_order(found, keys, |row, key| row.meta() == key)
        };
        self.in_bulk(call).await.map_err(|error| to_error("load_many", first.id(), error))
    }

    /// Loads the latest records of these keys in one call. What fails names the first of them.
    pub(crate) async fn load_latest_many(
        &self,
        ids: &[KeyId],
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, Error> {
        let Some(first) = ids.first() else { return Ok(Vec::new()) };
        let call = async {
            let found = self.store.load_latest_many(ids).await?;
            in_order(found, ids, |row, id| row.meta().id() == id)
        };
        self.in_bulk(call).await.map_err(|error| to_error("load_latest_many", first, error))
    }

    /// Makes a call for many, once: who makes it asks for fewer next.
    async fn in_bulk<T>(&self, call: impl Future<Output = Result<T, BackendError>>) -> Result<T, CallError> {
        if self.reads.is_open() {
            return Err(CallError::Backend(BackendError::transient(BreakerOpen)));
        }
        self.reads.call_once(call).await
    }

    pub(crate) async fn insert(&self, record: &EnvelopeKeyRecord) -> Result<Insert, Error> {
        let call = || self.store.insert(record);
        self.writes.call(call).await.map_err(|error| to_error("insert", record.meta().id(), error))
    }
}

/// The answers to a question for many, if each is one to its own: a key that got to another
/// partition's place would encrypt that one's data.
fn in_order<T>(
    found: Vec<Option<EnvelopeKeyRecord>>,
    asked: &[T],
    fits: impl Fn(&EnvelopeKeyRecord, &T) -> bool,
) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
    let fits =
        |(row, asked): (&Option<EnvelopeKeyRecord>, &T)| row.as_ref().is_none_or(|row| fits(row, asked));
    if found.len() == asked.len() && found.iter().zip(asked).all(fits) {
        Ok(found)
    } else {
        Err(BackendError::permanent("the metastore's answers are not those to the questions"))
    }
}

pub(crate) fn to_error(operation: &'static str, key: &KeyId, error: CallError) -> Error {
    match error {
        CallError::Backend(source) => Error::Metastore { operation, key: key.clone(), source },
        CallError::Overloaded => Error::Overloaded,
    }
}
