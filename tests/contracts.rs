//! The contract suites, run on the back ends of the core, on what wraps any back end, and on one that
//! cannot tell all keys apart.

#![expect(clippy::unwrap_used, reason = "a helper fails its test by panicking")]

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use claviger::backend::is_reserved_id;
use claviger::testing::{FaultyKms, FaultyMetastore, SeededRandom};
use claviger::{
    BackendError, BoxedKms, BoxedMetastore, BoxedMetastoreAdmin, CallContext, Created, EnvelopeKeyRecord,
    InMemoryMetastore, Insert, KeyId, KeyMeta, Latest, Metastore, MetastoreAdmin, Page, Replacement,
    SecretKey, StaticKms,
};

fn static_kms() -> StaticKms {
    let master_key = SecretKey::generate(&SeededRandom::new(1)).unwrap();
    StaticKms::new(&master_key).unwrap()
}

mod in_memory {
    use super::*;
    claviger::testing::metastore_contract!(async { InMemoryMetastore::new() });
}

mod in_memory_admin {
    use super::*;
    claviger::testing::metastore_admin_contract!(async { InMemoryMetastore::new() });
}

mod in_memory_as_legacy {
    use super::*;
    claviger::testing::metastore_legacy_contract!(async { InMemoryMetastore::new() });
}

mod in_memory_admin_as_legacy {
    use super::*;
    claviger::testing::metastore_admin_legacy_contract!(async { InMemoryMetastore::new() });
}

mod folding_metastore {
    use super::*;
    claviger::testing::metastore_legacy_contract!(async { FoldingMetastore::careful() });
}

mod folding_metastore_admin {
    use super::*;
    claviger::testing::metastore_admin_legacy_contract!(async { FoldingMetastore::careful() });
}

mod arc_metastore {
    use super::*;
    claviger::testing::metastore_contract!(async { Arc::new(InMemoryMetastore::new()) });
}

mod boxed_metastore {
    use super::*;
    claviger::testing::metastore_contract!(async { BoxedMetastore::new(InMemoryMetastore::new()) });
}

mod boxed_metastore_admin {
    use super::*;
    claviger::testing::metastore_contract!(async { BoxedMetastoreAdmin::new(InMemoryMetastore::new()) });
}

mod boxed_metastore_admin_as_admin {
    use super::*;
    claviger::testing::metastore_admin_contract!(async {
        BoxedMetastoreAdmin::new(InMemoryMetastore::new())
    });
}

mod healthy_faulty_metastore {
    use super::*;
    claviger::testing::metastore_contract!(async { FaultyMetastore::new(InMemoryMetastore::new()) });
}

mod healthy_faulty_metastore_admin {
    use super::*;
    claviger::testing::metastore_admin_contract!(async { FaultyMetastore::new(InMemoryMetastore::new()) });
}

mod static_key {
    use super::*;
    claviger::testing::kms_contract!(async { static_kms() });
}

mod static_wrong_key {
    use super::*;
    claviger::testing::kms_wrong_key_contract!(async {
        let other = SecretKey::generate(&SeededRandom::new(2)).unwrap();
        (static_kms(), StaticKms::new(&other).unwrap())
    });
}

mod arc_kms {
    use super::*;
    claviger::testing::kms_contract!(async { Arc::new(static_kms()) });
}

mod boxed_kms {
    use super::*;
    claviger::testing::kms_contract!(async { BoxedKms::new(static_kms()) });
}

mod healthy_faulty_kms {
    use super::*;
    claviger::testing::kms_contract!(async { FaultyKms::new(static_kms()) });
}

/// A table whose collation takes ids for one that differ in case and in trailing blanks.
#[derive(Debug)]
struct FoldingMetastore {
    /// By folded ids.
    rows: Mutex<BTreeMap<KeyMeta, EnvelopeKeyRecord>>,
    /// Whether ids are compared again in code, as the contract demands.
    is_careful: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("taken by another key, or by none")]
struct Taken;

impl FoldingMetastore {
    fn careful() -> Self {
        Self { rows: Mutex::default(), is_careful: true }
    }

    fn careless() -> Self {
        Self { rows: Mutex::default(), is_careful: false }
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<KeyMeta, EnvelopeKeyRecord>> {
        self.rows.lock().unwrap()
    }

    fn is_of(&self, row: &EnvelopeKeyRecord, id: &KeyId) -> bool {
        if self.is_careful { row.meta().id() == id } else { folded_id(row.meta().id()) == folded_id(id) }
    }

    /// Changes the row of the key, if there is one; tells whether there is.
    fn change(&self, key: &KeyMeta, change: impl FnOnce(&mut EnvelopeKeyRecord) -> bool) -> bool {
        let mut rows = self.rows();
        rows.get_mut(&folded(key)).filter(|row| self.is_of(row, key.id())).is_some_and(change)
    }
}

fn folded(key: &KeyMeta) -> KeyMeta {
    KeyMeta::new(folded_id(key.id()), key.created())
}

fn folded_id(id: &KeyId) -> KeyId {
    KeyId::new(id.as_str().trim_end().to_lowercase())
}

impl Metastore for FoldingMetastore {
    async fn load(
        &self,
        key: &KeyMeta,
        _context: &CallContext,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        Ok(self.rows().get(&folded(key)).filter(|row| self.is_of(row, key.id())).cloned())
    }

    async fn load_latest(
        &self,
        id: &KeyId,
        up_to: Created,
        _context: &CallContext,
    ) -> Result<Option<Latest>, BackendError> {
        let rows = self.rows();
        let of_id = rows.values().filter(|row| self.is_of(row, id) && row.meta().created() <= up_to);
        let mut versions: Vec<_> = of_id.cloned().collect();
        versions.sort_by_key(|row| row.meta().created());
        Ok(versions.pop().map(|latest| Latest::new(latest, versions.pop())))
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        context: &CallContext,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        let mut records = Vec::new();
        for key in keys {
            records.push(self.load(key, context).await?);
        }
        Ok(records)
    }

    async fn load_latest_many(
        &self,
        ids: &[KeyId],
        up_to: Created,
        context: &CallContext,
    ) -> Result<Vec<Option<Latest>>, BackendError> {
        let mut records = Vec::new();
        for id in ids {
            records.push(self.load_latest(id, up_to, context).await?);
        }
        Ok(records)
    }

    async fn insert(
        &self,
        record: &EnvelopeKeyRecord,
        _context: &CallContext,
    ) -> Result<Insert, BackendError> {
        let id = record.meta().id().as_str();
        let is_too_long = id.len() > 2_048 || record.to_json().len() > EnvelopeKeyRecord::MAX_JSON_BYTES;
        if is_reserved_id(id) || is_too_long {
            return Err(BackendError::permanent(Taken).not_asked());
        }
        match self.rows().entry(folded(record.meta())) {
            Entry::Vacant(place) => {
                place.insert(record.clone());
                Ok(Insert::Inserted)
            }
            Entry::Occupied(row) if row.get().meta() != record.meta() => Err(BackendError::permanent(Taken)),
            Entry::Occupied(_) => Ok(Insert::AlreadyExists),
        }
    }

    fn failovers(&self) -> u64 {
        0
    }
}

impl MetastoreAdmin for FoldingMetastore {
    async fn list(
        &self,
        prefix: &str,
        after: Option<&KeyMeta>,
        limit: usize,
        _context: &CallContext,
    ) -> Result<Page, BackendError> {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(folded(after)));
        let starts = |id: &str| {
            if self.is_careful {
                id.starts_with(prefix)
            } else {
                id.to_lowercase().starts_with(&prefix.to_lowercase())
            }
        };
        let rows = self.rows();
        let rows = rows.range((from, Bound::Unbounded)).map(|(_, row)| row);
        let records: Vec<_> =
            rows.filter(|row| starts(row.meta().id().as_str())).take(limit).cloned().collect();
        let next = records.last().map(|last| last.meta().clone());
        Ok(Page::new(records, Vec::new(), next))
    }

    async fn revoke(&self, key: &KeyMeta, _context: &CallContext) -> Result<bool, BackendError> {
        Ok(self.change(key, |row| {
            *row = row.clone().revoked(true);
            true
        }))
    }

    async fn replace_many(
        &self,
        replacements: &[Replacement],
        _context: &CallContext,
    ) -> Result<Vec<bool>, BackendError> {
        let replaced = replacements.iter().map(|replacement| {
            self.change(&replacement.key, |row| {
                let replaced = replacement.applied_to(row);
                let is_old = replaced.is_some();
                *row = replaced.unwrap_or_else(|| row.clone());
                is_old
            })
        });
        Ok(replaced.collect())
    }

    async fn delete_version(&self, key: &KeyMeta, _context: &CallContext) -> Result<bool, BackendError> {
        let mut rows = self.rows();
        let is_there = rows.get(&folded(key)).is_some_and(|row| self.is_of(row, key.id()));
        Ok(is_there && rows.remove(&folded(key)).is_some())
    }

    async fn delete(&self, id: &KeyId, _context: &CallContext) -> Result<u64, BackendError> {
        let mut rows = self.rows();
        let before = rows.len();
        rows.retain(|_, row| !self.is_of(row, id));
        Ok((before - rows.len()) as u64)
    }

    async fn count(&self, _context: &CallContext) -> Result<u64, BackendError> {
        Ok(self.rows().len() as u64)
    }
}

/// A clause that nothing breaks proves nothing.
#[tokio::test]
async fn a_store_that_gives_one_key_for_another_breaks_every_clause_about_it() {
    macro_rules! assert_broken {
        ($($suite:ident::$clause:ident)*) => {$(
            let broken = tokio::spawn(async {
                claviger::testing::$suite::$clause(&FoldingMetastore::careless()).await;
            });
            assert!(broken.await.is_err_and(|error| error.is_panic()), stringify!($clause));
        )*};
    }
    assert_broken! {
        metastore::ids_that_differ_in_case_are_two
        metastore::ids_that_differ_in_trailing_blanks_are_two
        metastore::ids_that_differ_in_case_are_two_or_refused
        metastore::ids_that_differ_in_trailing_blanks_are_two_or_refused
        metastore::load_many_tells_lookalikes_apart
        metastore::load_many_tells_lookalikes_apart_or_refuses
        metastore::load_latest_many_tells_lookalikes_apart
        metastore::load_latest_many_tells_lookalikes_apart_or_refuses
        metastore_admin::list_tells_lookalikes_apart
        metastore_admin::revoke_leaves_lookalikes_alone
        metastore_admin::revoke_leaves_lookalikes_alone_or_refuses
        metastore_admin::replace_leaves_lookalikes_alone
        metastore_admin::replace_leaves_lookalikes_alone_or_refuses
        metastore_admin::delete_leaves_lookalikes_alone
        metastore_admin::delete_leaves_lookalikes_alone_or_refuses
        metastore_admin::delete_version_leaves_lookalikes_alone
        metastore_admin::delete_version_leaves_lookalikes_alone_or_refuses
    }
}
