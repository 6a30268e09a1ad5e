//! The core's way to the metastore: every call through a gate, every failure an [`Error`].

use super::{BoxedMetastore, Consistency, Insert, Metastore};
use crate::breaker::{Breaker, BreakerOpen};
use crate::call::{COOL_DOWN, CallError, FAILURES_MAX, Gate};
use crate::error::{BackendError, Error, FailureClass};
use crate::record::{EnvelopeKeyRecord, KeyId, KeyMeta};

/// The core's way to the metastore: every call through one gate, every failure an [`Error`].
#[derive(Debug)]
pub(crate) struct MetastoreHandle {
    store: BoxedMetastore,
    gate: Gate,
    /// Of the replicas, which may be down while the store is not.
    replicas: Breaker,
}

impl MetastoreHandle {
    pub(crate) const fn new(store: BoxedMetastore, gate: Gate) -> Self {
        Self { store, gate, replicas: Breaker::new(FAILURES_MAX, COOL_DOWN) }
    }

    pub(crate) const fn gate(&self) -> &Gate {
        &self.gate
    }

    pub(crate) async fn load(&self, key: &KeyMeta) -> Result<Option<EnvelopeKeyRecord>, Error> {
        let call = || self.store.load(key, Consistency::Strong);
        self.gate.call(call).await.map_err(|error| to_error("load", key.id(), error))
    }

    pub(crate) async fn load_latest(&self, id: &KeyId) -> Result<Option<EnvelopeKeyRecord>, Error> {
        let call = || self.store.load_latest(id);
        self.gate.call(call).await.map_err(|error| to_error("load_latest", id, error))
    }

    /// Loads what a replica has of a version. A failure is no more than that it has nothing: the store
    /// itself is asked then.
    pub(crate) async fn load_from_replica(&self, key: &KeyMeta) -> Option<EnvelopeKeyRecord> {
        self.replicas.admit(self.gate.monotonic()).ok()?;
        match self.gate.call_once(self.store.load(key, Consistency::Eventual)).await {
            // One that refuses is left alone for a while too.
            Err(CallError::Backend(error)) if error.class() != FailureClass::Damaged => {
                self.replicas.failed(self.gate.monotonic());
                None
            }
            Err(_) => None,
            Ok(record) => {
                self.replicas.succeeded();
                record
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
        if self.gate.is_open() {
            return Err(CallError::Backend(BackendError::transient(BreakerOpen)));
        }
        self.gate.call_once(call).await
    }

    pub(crate) async fn insert(&self, record: &EnvelopeKeyRecord) -> Result<Insert, Error> {
        let call = || self.store.insert(record);
        self.gate.call(call).await.map_err(|error| to_error("insert", record.meta().id(), error))
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
