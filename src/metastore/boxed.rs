//! Stores that are chosen at run time, and shared ones.

use std::fmt;
use std::sync::Arc;

use super::{Insert, Latest, Metastore, MetastoreAdmin, Page, Replacement};
use crate::BoxFuture;
use crate::context::CallContext;
use crate::error::BackendError;
use crate::record::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};

impl<M: Metastore> Metastore for Arc<M> {
    async fn load(
        &self,
        key: &KeyMeta,
        context: &CallContext,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        (**self).load(key, context).await
    }

    async fn load_latest(
        &self,
        id: &KeyId,
        up_to: Created,
        context: &CallContext,
    ) -> Result<Option<Latest>, BackendError> {
        (**self).load_latest(id, up_to, context).await
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        context: &CallContext,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        (**self).load_many(keys, context).await
    }

    async fn load_latest_many(
        &self,
        ids: &[KeyId],
        up_to: Created,
        context: &CallContext,
    ) -> Result<Vec<Option<Latest>>, BackendError> {
        (**self).load_latest_many(ids, up_to, context).await
    }

    async fn insert(
        &self,
        record: &EnvelopeKeyRecord,
        context: &CallContext,
    ) -> Result<Insert, BackendError> {
        (**self).insert(record, context).await
    }

    fn failovers(&self) -> u64 {
        (**self).failovers()
    }
}

impl<M: MetastoreAdmin> MetastoreAdmin for Arc<M> {
    async fn list(
        &self,
        prefix: &str,
        after: Option<&KeyMeta>,
        limit: usize,
        context: &CallContext,
    ) -> Result<Page, BackendError> {
        (**self).list(prefix, after, limit, context).await
    }

    async fn revoke(&self, key: &KeyMeta, context: &CallContext) -> Result<bool, BackendError> {
        (**self).revoke(key, context).await
    }

    async fn replace_many(
        &self,
        replacements: &[Replacement],
        context: &CallContext,
    ) -> Result<Vec<bool>, BackendError> {
        (**self).replace_many(replacements, context).await
    }

    async fn delete_version(&self, key: &KeyMeta, context: &CallContext) -> Result<bool, BackendError> {
        (**self).delete_version(key, context).await
    }

    async fn delete(&self, id: &KeyId, context: &CallContext) -> Result<u64, BackendError> {
        (**self).delete(id, context).await
    }

    async fn count(&self, context: &CallContext) -> Result<u64, BackendError> {
        (**self).count(context).await
    }
}

/// A metastore chosen at run time.
#[derive(Clone, Debug)]
pub struct BoxedMetastore(Arc<dyn DynMetastore>);

impl BoxedMetastore {
    /// Boxes a metastore.
    pub fn new(metastore: impl Metastore) -> Self {
        Self(Arc::new(metastore))
    }
}

impl Metastore for BoxedMetastore {
    async fn load(
        &self,
        key: &KeyMeta,
        context: &CallContext,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        self.0.load_dyn(key, context).await
    }

    async fn load_latest(
        &self,
        id: &KeyId,
        up_to: Created,
        context: &CallContext,
    ) -> Result<Option<Latest>, BackendError> {
        self.0.load_latest_dyn(id, up_to, context).await
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        context: &CallContext,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        self.0.load_many_dyn(keys, context).await
    }

    async fn load_latest_many(
        &self,
        ids: &[KeyId],
        up_to: Created,
        context: &CallContext,
    ) -> Result<Vec<Option<Latest>>, BackendError> {
        self.0.load_latest_many_dyn(ids, up_to, context).await
    }

    async fn insert(
        &self,
        record: &EnvelopeKeyRecord,
        context: &CallContext,
    ) -> Result<Insert, BackendError> {
        self.0.insert_dyn(record, context).await
    }

    fn failovers(&self) -> u64 {
        self.0.failovers_dyn()
    }
}

/// A metastore with its operators' calls, chosen at run time.
///
/// ```
/// use claviger::{BoxedMetastore, BoxedMetastoreAdmin, InMemoryMetastore};
///
/// let admin = BoxedMetastoreAdmin::new(InMemoryMetastore::new());
/// // What a factory takes, on the same store.
/// let store = BoxedMetastore::from(admin.clone());
/// ```
#[derive(Clone, Debug)]
pub struct BoxedMetastoreAdmin(Arc<dyn DynMetastoreAdmin>);

impl BoxedMetastoreAdmin {
    /// Boxes a metastore.
    pub fn new(metastore: impl MetastoreAdmin) -> Self {
        Self(Arc::new(metastore))
    }
}

impl From<BoxedMetastoreAdmin> for BoxedMetastore {
    fn from(admin: BoxedMetastoreAdmin) -> Self {
        Self(admin.0)
    }
}

impl Metastore for BoxedMetastoreAdmin {
    async fn load(
        &self,
        key: &KeyMeta,
        context: &CallContext,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        self.0.load_dyn(key, context).await
    }

    async fn load_latest(
        &self,
        id: &KeyId,
        up_to: Created,
        context: &CallContext,
    ) -> Result<Option<Latest>, BackendError> {
        self.0.load_latest_dyn(id, up_to, context).await
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        context: &CallContext,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        self.0.load_many_dyn(keys, context).await
    }

    async fn load_latest_many(
        &self,
        ids: &[KeyId],
        up_to: Created,
        context: &CallContext,
    ) -> Result<Vec<Option<Latest>>, BackendError> {
        self.0.load_latest_many_dyn(ids, up_to, context).await
    }

    async fn insert(
        &self,
        record: &EnvelopeKeyRecord,
        context: &CallContext,
    ) -> Result<Insert, BackendError> {
        self.0.insert_dyn(record, context).await
    }

    fn failovers(&self) -> u64 {
        self.0.failovers_dyn()
    }
}

impl MetastoreAdmin for BoxedMetastoreAdmin {
    async fn list(
        &self,
        prefix: &str,
        after: Option<&KeyMeta>,
        limit: usize,
        context: &CallContext,
    ) -> Result<Page, BackendError> {
        self.0.list_dyn(prefix, after, limit, context).await
    }

    async fn revoke(&self, key: &KeyMeta, context: &CallContext) -> Result<bool, BackendError> {
        self.0.revoke_dyn(key, context).await
    }

    async fn replace_many(
        &self,
        replacements: &[Replacement],
        context: &CallContext,
    ) -> Result<Vec<bool>, BackendError> {
        self.0.replace_many_dyn(replacements, context).await
    }

    async fn delete_version(&self, key: &KeyMeta, context: &CallContext) -> Result<bool, BackendError> {
        self.0.delete_version_dyn(key, context).await
    }

    async fn delete(&self, id: &KeyId, context: &CallContext) -> Result<u64, BackendError> {
        self.0.delete_dyn(id, context).await
    }

    async fn count(&self, context: &CallContext) -> Result<u64, BackendError> {
        self.0.count_dyn(context).await
    }
}

type Answer<'a, T> = BoxFuture<'a, Result<T, BackendError>>;

trait DynMetastore: fmt::Debug + Send + Sync {
    fn load_dyn<'a>(
        &'a self,
        key: &'a KeyMeta,
        context: &'a CallContext,
    ) -> Answer<'a, Option<EnvelopeKeyRecord>>;

    fn load_latest_dyn<'a>(
        &'a self,
        id: &'a KeyId,
        up_to: Created,
        context: &'a CallContext,
    ) -> Answer<'a, Option<Latest>>;

    fn load_many_dyn<'a>(
        &'a self,
        keys: &'a [KeyMeta],
        context: &'a CallContext,
    ) -> Answer<'a, Vec<Option<EnvelopeKeyRecord>>>;

    fn load_latest_many_dyn<'a>(
        &'a self,
        ids: &'a [KeyId],
        up_to: Created,
        context: &'a CallContext,
    ) -> Answer<'a, Vec<Option<Latest>>>;

    fn insert_dyn<'a>(
        &'a self,
        record: &'a EnvelopeKeyRecord,
        context: &'a CallContext,
    ) -> Answer<'a, Insert>;

    fn failovers_dyn(&self) -> u64;
}

trait DynMetastoreAdmin: DynMetastore {
    fn list_dyn<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a KeyMeta>,
        limit: usize,
        context: &'a CallContext,
    ) -> Answer<'a, Page>;

    fn revoke_dyn<'a>(&'a self, key: &'a KeyMeta, context: &'a CallContext) -> Answer<'a, bool>;

    fn replace_many_dyn<'a>(
        &'a self,
        replacements: &'a [Replacement],
        context: &'a CallContext,
    ) -> Answer<'a, Vec<bool>>;

    fn delete_version_dyn<'a>(&'a self, key: &'a KeyMeta, context: &'a CallContext) -> Answer<'a, bool>;

    fn delete_dyn<'a>(&'a self, id: &'a KeyId, context: &'a CallContext) -> Answer<'a, u64>;

    fn count_dyn<'a>(&'a self, context: &'a CallContext) -> Answer<'a, u64>;
}

impl<M: Metastore> DynMetastore for M {
    fn load_dyn<'a>(
        &'a self,
        key: &'a KeyMeta,
        context: &'a CallContext,
    ) -> Answer<'a, Option<EnvelopeKeyRecord>> {
        Box::pin(self.load(key, context))
    }

    fn load_latest_dyn<'a>(
        &'a self,
        id: &'a KeyId,
        up_to: Created,
        context: &'a CallContext,
    ) -> Answer<'a, Option<Latest>> {
        Box::pin(self.load_latest(id, up_to, context))
    }

    fn load_many_dyn<'a>(
        &'a self,
        keys: &'a [KeyMeta],
        context: &'a CallContext,
    ) -> Answer<'a, Vec<Option<EnvelopeKeyRecord>>> {
        Box::pin(self.load_many(keys, context))
    }

    fn load_latest_many_dyn<'a>(
        &'a self,
        ids: &'a [KeyId],
        up_to: Created,
        context: &'a CallContext,
    ) -> Answer<'a, Vec<Option<Latest>>> {
        Box::pin(self.load_latest_many(ids, up_to, context))
    }

    fn insert_dyn<'a>(
        &'a self,
        record: &'a EnvelopeKeyRecord,
        context: &'a CallContext,
    ) -> Answer<'a, Insert> {
        Box::pin(self.insert(record, context))
    }

    fn failovers_dyn(&self) -> u64 {
        self.failovers()
    }
}

impl<M: MetastoreAdmin> DynMetastoreAdmin for M {
    fn list_dyn<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a KeyMeta>,
        limit: usize,
        context: &'a CallContext,
    ) -> Answer<'a, Page> {
        Box::pin(self.list(prefix, after, limit, context))
    }

    fn revoke_dyn<'a>(&'a self, key: &'a KeyMeta, context: &'a CallContext) -> Answer<'a, bool> {
        Box::pin(self.revoke(key, context))
    }

    fn replace_many_dyn<'a>(
        &'a self,
        replacements: &'a [Replacement],
        context: &'a CallContext,
    ) -> Answer<'a, Vec<bool>> {
        Box::pin(self.replace_many(replacements, context))
    }

    fn delete_version_dyn<'a>(&'a self, key: &'a KeyMeta, context: &'a CallContext) -> Answer<'a, bool> {
        Box::pin(self.delete_version(key, context))
    }

    fn delete_dyn<'a>(&'a self, id: &'a KeyId, context: &'a CallContext) -> Answer<'a, u64> {
        Box::pin(self.delete(id, context))
    }

    fn count_dyn<'a>(&'a self, context: &'a CallContext) -> Answer<'a, u64> {
        Box::pin(self.count(context))
    }
}
