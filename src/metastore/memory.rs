//! A metastore in memory, for tests, examples and trying things out.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{BackendError, FailureKind};
use crate::metastore::{Consistency, Insert, Metastore, MetastoreAdmin, Page, is_reserved_id};
use crate::record::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};

/// Keeps key records in memory. They are gone with the last clone.
#[derive(Clone, Default)]
pub struct InMemoryMetastore {
    rows: Arc<Mutex<BTreeMap<KeyMeta, EnvelopeKeyRecord>>>,
}

impl InMemoryMetastore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<KeyMeta, EnvelopeKeyRecord>> {
        // A panic while the lock was held leaves the map whole: each use is one map operation.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for InMemoryMetastore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemoryMetastore").field("records", &self.rows().len()).finish()
    }
}

impl Metastore for InMemoryMetastore {
    async fn load(
        &self,
        key: &KeyMeta,
        _consistency: Consistency,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        Ok(self.rows().get(key).cloned())
    }

    async fn load_latest(&self, id: &KeyId) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        Ok(latest(&self.rows(), id))
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        _consistency: Consistency,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        let rows = self.rows();
        Ok(keys.iter().map(|key| rows.get(key).cloned()).collect())
    }

    async fn load_latest_many(&self, ids: &[KeyId]) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        let rows = self.rows();
        Ok(ids.iter().map(|id| latest(&rows, id)).collect())
    }

    async fn insert(&self, record: &EnvelopeKeyRecord) -> Result<Insert, BackendError> {
        let id = record.meta().id();
        if is_reserved_id(id.as_str()) {
            return Err(BackendError::permanent(ReservedId).with_kind(FailureKind::IdRefused));
        }
        match self.rows().entry(record.meta().clone()) {
            Entry::Occupied(_) => Ok(Insert::AlreadyExists),
            Entry::Vacant(place) => {
                place.insert(record.clone());
                Ok(Insert::Inserted)
            }
        }
    }

    fn failovers(&self) -> u64 {
        0
    }
}

impl MetastoreAdmin for InMemoryMetastore {
    async fn list(&self, after: Option<&KeyMeta>, limit: usize) -> Result<Page, BackendError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.rows();
        let mut rest = rows.range::<KeyMeta, _>((from, Bound::Unbounded)).map(|(_, record)| record.clone());
        let records: Vec<_> = rest.by_ref().take(limit).collect();
        let next = rest.next().and_then(|_| records.last().map(|last| last.meta().clone()));
        Ok(Page::new(records, Vec::new(), next))
    }

    async fn revoke(&self, key: &KeyMeta) -> Result<bool, BackendError> {
        let mut rows = self.rows();
        let Some(record) = rows.get_mut(key) else { return Ok(false) };
        *record = record.clone().revoked(true);
        Ok(true)
    }

    async fn replace_wrapped_key(&self, key: &KeyMeta, old: &[u8], new: &[u8]) -> Result<bool, BackendError> {
        let mut rows = self.rows();
        let Some(record) = rows.get_mut(key).filter(|record| **record.wrapped_key() == *old) else {
            return Ok(false);
        };
        let revoked = record.is_revoked();
        *record = EnvelopeKeyRecord::new(key.clone(), new, record.parent().cloned()).revoked(revoked);
        Ok(true)
    }

    async fn delete(&self, id: &KeyId) -> Result<u64, BackendError> {
        let mut rows = self.rows();
        let keys: Vec<KeyMeta> = rows.range(versions_of(id)).map(|(key, _)| key.clone()).collect();
        for key in &keys {
            rows.remove(key);
        }
        Ok(keys.len() as u64)
    }

    async fn count(&self) -> Result<u64, BackendError> {
        Ok(self.rows().len() as u64)
    }
}

/// The id is one of those under which other implementations keep what is no key.
#[derive(Debug, thiserror::Error)]
#[error("key id is reserved")]
struct ReservedId;

fn latest(rows: &BTreeMap<KeyMeta, EnvelopeKeyRecord>, id: &KeyId) -> Option<EnvelopeKeyRecord> {
    rows.range(versions_of(id)).next_back().map(|(_, record)| record.clone())
}

fn versions_of(id: &KeyId) -> (Bound<KeyMeta>, Bound<KeyMeta>) {
    let at = |created| KeyMeta::new(id.clone(), created);
    (Bound::Included(at(Created::MIN)), Bound::Included(at(Created::MAX)))
}
