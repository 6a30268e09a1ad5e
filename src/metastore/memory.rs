//! A metastore in memory, for tests, examples and trying things out.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::context::CallContext;
use crate::error::{BackendError, FailureKind};
use crate::metastore::{Insert, Latest, Metastore, MetastoreAdmin, Page, Replacement, is_reserved_id};
use crate::record::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};

/// Keeps key records in memory. They are gone with the last clone.
///
/// It takes the ids that every store takes, so that what works here works there: 1 to 255 bytes of
/// UTF-8, which is what our MySQL table holds, no NUL, and none that is reserved; and records of at most 64
/// KiB. Others are refused
/// with a permanent error whose source is an [`InMemoryFault`].
#[derive(Clone)]
pub struct InMemoryMetastore {
    rows: Arc<Mutex<BTreeMap<KeyMeta, EnvelopeKeyRecord>>>,
    id_bytes_max: usize,
}

/// What a key id may have on the strictest store.
const ID_BYTES_MAX: usize = 255;

/// What is wrong with a key id or a record. It is the `source()` of a permanent [`BackendError`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InMemoryFault {
    /// It has no characters.
    #[error("key id is empty")]
    IdEmpty,
    /// It does not fit everywhere.
    #[error("key id of {bytes} bytes is over the limit of {limit}")]
    IdTooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// It holds a NUL character, at which some databases end a text.
    #[error("key id contains NUL")]
    IdHasNul,
    /// It is one of those under which other implementations keep what is no key.
    #[error("key id is reserved")]
    IdReserved,
    /// The record is longer than stores take.
    #[error("key record of {length} bytes is over the limit of {limit}")]
    RecordTooLong {
        /// How long it is.
        length: usize,
        /// How long it may be.
        limit: usize,
    },
}

impl Default for InMemoryMetastore {
    fn default() -> Self {
        Self { rows: Arc::default(), id_bytes_max: ID_BYTES_MAX }
    }
}

impl InMemoryMetastore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many bytes a key id may have, 255 unless set: for a caller that is going to use a store which takes
    /// more. PostgreSQL and SQLite take 255 characters of up to four bytes, DynamoDB 2 048 bytes.
    ///
    /// ```
    /// use claviger::InMemoryMetastore;
    ///
    /// let metastore = InMemoryMetastore::new().id_bytes_max(2_048);
    /// ```
    #[must_use]
    pub const fn id_bytes_max(mut self, bytes: usize) -> Self {
        self.id_bytes_max = bytes;
        self
    }

    fn check(&self, id: &KeyId) -> Result<(), BackendError> {
        let (text, limit) = (id.as_str(), self.id_bytes_max);
        let (fault, kind) = match text.len() {
            0 => (InMemoryFault::IdEmpty, FailureKind::IdRefused),
            bytes if bytes > limit => (InMemoryFault::IdTooLong { bytes, limit }, FailureKind::IdTooLong),
            _ if text.contains('\0') => (InMemoryFault::IdHasNul, FailureKind::IdRefused),
            _ if is_reserved_id(text) => (InMemoryFault::IdReserved, FailureKind::IdRefused),
            _ => return Ok(()),
        };
        Err(BackendError::permanent(fault).with_kind(kind).not_asked())
    }

    fn check_record(&self, record: &EnvelopeKeyRecord) -> Result<(), BackendError> {
        self.check(record.meta().id())?;
        let (length, limit) = (record.json_bytes(), EnvelopeKeyRecord::MAX_JSON_BYTES);
        if length > limit {
            let fault = InMemoryFault::RecordTooLong { length, limit };
            return Err(BackendError::permanent(fault).with_kind(FailureKind::RecordTooLong).not_asked());
        }
        Ok(())
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
        _context: &CallContext,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        self.check(key.id())?;
        Ok(self.rows().get(key).cloned())
    }

    async fn load_latest(
        &self,
        id: &KeyId,
        up_to: Created,
        _context: &CallContext,
    ) -> Result<Option<Latest>, BackendError> {
        self.check(id)?;
        Ok(latest(&self.rows(), id, up_to))
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        _context: &CallContext,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        keys.iter().try_for_each(|key| self.check(key.id()))?;
        let rows = self.rows();
        Ok(keys.iter().map(|key| rows.get(key).cloned()).collect())
    }

    async fn load_latest_many(
        &self,
        ids: &[KeyId],
        up_to: Created,
        _context: &CallContext,
    ) -> Result<Vec<Option<Latest>>, BackendError> {
        ids.iter().try_for_each(|id| self.check(id))?;
        let rows = self.rows();
        Ok(ids.iter().map(|id| latest(&rows, id, up_to)).collect())
    }

    async fn insert(
        &self,
        record: &EnvelopeKeyRecord,
        _context: &CallContext,
    ) -> Result<Insert, BackendError> {
        self.check_record(record)?;
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
    async fn list(
        &self,
        prefix: &str,
        after: Option<&KeyMeta>,
        limit: usize,
        _context: &CallContext,
    ) -> Result<Page, BackendError> {
        let first = KeyMeta::new(KeyId::new(prefix), Created::MIN);
        let from = after.filter(|after| **after >= first).map_or(Bound::Included(&first), Bound::Excluded);
        let rows = self.rows();
        let rest = rows.range::<KeyMeta, _>((from, Bound::Unbounded));
        let rest = rest.take_while(|(key, _)| key.id().as_str().starts_with(prefix));
        let mut rest = rest.map(|(_, record)| record.clone());
        let records: Vec<_> = rest.by_ref().take(limit).collect();
        let next = rest.next().and_then(|_| records.last().map(|last| last.meta().clone()));
        Ok(Page::new(records, Vec::new(), next))
    }

    async fn revoke(&self, key: &KeyMeta, _context: &CallContext) -> Result<bool, BackendError> {
        let mut rows = self.rows();
        let Some(record) = rows.get_mut(key) else { return Ok(false) };
        *record = record.clone().revoked(true);
        Ok(true)
    }

    async fn replace_many(
        &self,
        replacements: &[Replacement],
        _context: &CallContext,
    ) -> Result<Vec<bool>, BackendError> {
        let mut rows = self.rows();
        let replaced = replacements.iter().map(|replacement| {
            let Some(record) = rows.get_mut(&replacement.key) else { return false };
            let Some(replaced) = replacement.applied_to(record) else { return false };
            *record = replaced;
            true
        });
        Ok(replaced.collect())
    }

    async fn delete_version(&self, key: &KeyMeta, _context: &CallContext) -> Result<bool, BackendError> {
        Ok(self.rows().remove(key).is_some())
    }

    async fn delete(&self, id: &KeyId, _context: &CallContext) -> Result<u64, BackendError> {
        let mut rows = self.rows();
        let keys: Vec<KeyMeta> =
            rows.range(versions_of(id, Created::MAX)).map(|(key, _)| key.clone()).collect();
        for key in &keys {
            rows.remove(key);
        }
        Ok(keys.len() as u64)
    }

    async fn count(&self, _context: &CallContext) -> Result<u64, BackendError> {
        Ok(self.rows().len() as u64)
    }
}

fn latest(rows: &BTreeMap<KeyMeta, EnvelopeKeyRecord>, id: &KeyId, up_to: Created) -> Option<Latest> {
    let mut versions = rows.range(versions_of(id, up_to)).rev().map(|(_, record)| record.clone());
    Some(Latest::new(versions.next()?, versions.next()))
}

fn versions_of(id: &KeyId, up_to: Created) -> (Bound<KeyMeta>, Bound<KeyMeta>) {
    let at = |created| KeyMeta::new(id.clone(), created);
    (Bound::Included(at(Created::MIN)), Bound::Included(at(up_to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(store: &InMemoryMetastore, id: &str) -> Option<InMemoryFault> {
        let error = store.check(&KeyId::new(id)).err()?;
        assert_eq!(error.class(), crate::error::FailureClass::Permanent);
        std::error::Error::source(&error).and_then(|source| source.downcast_ref()).cloned()
    }

    #[test]
    fn ids_are_those_that_every_store_takes() {
        let store = InMemoryMetastore::new();
        for id in ["a".to_owned(), "x".repeat(255), "\u{e9}".repeat(127), "\u{1f600}".repeat(63)] {
            assert_eq!(refused(&store, &id), None, "{id}");
        }
        let too_long = |bytes| Some(InMemoryFault::IdTooLong { bytes, limit: 255 });
        assert_eq!(refused(&store, &"x".repeat(256)), too_long(256));
        assert_eq!(refused(&store, &"\u{e9}".repeat(128)), too_long(256));
        assert_eq!(refused(&store, &"\u{1f600}".repeat(64)), too_long(256));
        assert_eq!(refused(&store, ""), Some(InMemoryFault::IdEmpty));
        assert_eq!(refused(&store, "a\0"), Some(InMemoryFault::IdHasNul));
        assert_eq!(refused(&store, "__asherah_internal_x"), Some(InMemoryFault::IdReserved));
    }

    #[test]
    fn the_limit_can_be_set() {
        let store = InMemoryMetastore::new().id_bytes_max(2_048);
        assert_eq!(refused(&store, &"x".repeat(2_048)), None);
        assert!(refused(&store, &"x".repeat(2_049)).is_some());
    }
}
