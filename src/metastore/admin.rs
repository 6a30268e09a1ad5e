//! The metastore of an operator whose type was chosen at run time.

use std::fmt;
use std::sync::Arc;

use super::{BoxedMetastore, Consistency, DynMetastore, Insert, Latest, Metastore, MetastoreAdmin, Page};
use crate::BoxFuture;
use crate::error::BackendError;
use crate::record::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};

/// A metastore whose type was chosen at run time, with what operators do to it.
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
    /// Hides the type of `metastore`.
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
        consistency: Consistency,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        self.0.load_dyn(key, consistency).await
    }

    async fn load_latest(&self, id: &KeyId, up_to: Created) -> Result<Option<Latest>, BackendError> {
        self.0.load_latest_dyn(id, up_to).await
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        consistency: Consistency,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        self.0.load_many_dyn(keys, consistency).await
    }

    async fn load_latest_many(
        &self,
        ids: &[KeyId],
        up_to: Created,
    ) -> Result<Vec<Option<Latest>>, BackendError> {
        self.0.load_latest_many_dyn(ids, up_to).await
    }

    async fn insert(&self, record: &EnvelopeKeyRecord) -> Result<Insert, BackendError> {
        self.0.insert_dyn(record).await
    }

    fn failovers(&self) -> u64 {
        self.0.failovers_dyn()
    }
}

impl MetastoreAdmin for BoxedMetastoreAdmin {
    async fn list(&self, after: Option<&KeyMeta>, limit: usize) -> Result<Page, BackendError> {
        self.0.list_dyn(after, limit).await
    }

    async fn revoke(&self, key: &KeyMeta) -> Result<bool, BackendError> {
        self.0.revoke_dyn(key).await
    }

    async fn replace_wrapped_key(&self, key: &KeyMeta, old: &[u8], new: &[u8]) -> Result<bool, BackendError> {
        self.0.replace_wrapped_key_dyn(key, old, new).await
    }

    async fn delete(&self, id: &KeyId) -> Result<u64, BackendError> {
        self.0.delete_dyn(id).await
    }

    async fn count(&self) -> Result<u64, BackendError> {
        self.0.count_dyn().await
    }
}

/// The twin of [`MetastoreAdmin`] that can be a trait object. Written once, here.
trait DynMetastoreAdmin: DynMetastore + fmt::Debug + Send + Sync {
    fn list_dyn<'a>(
        &'a self,
        after: Option<&'a KeyMeta>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, BackendError>>;

    fn revoke_dyn<'a>(&'a self, key: &'a KeyMeta) -> BoxFuture<'a, Result<bool, BackendError>>;

    fn replace_wrapped_key_dyn<'a>(
        &'a self,
        key: &'a KeyMeta,
        old: &'a [u8],
        new: &'a [u8],
    ) -> BoxFuture<'a, Result<bool, BackendError>>;

    fn delete_dyn<'a>(&'a self, id: &'a KeyId) -> BoxFuture<'a, Result<u64, BackendError>>;

    fn count_dyn(&self) -> BoxFuture<'_, Result<u64, BackendError>>;
}

impl<M: MetastoreAdmin> DynMetastoreAdmin for M {
    fn list_dyn<'a>(
        &'a self,
        after: Option<&'a KeyMeta>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, BackendError>> {
        Box::pin(self.list(after, limit))
    }

    fn revoke_dyn<'a>(&'a self, key: &'a KeyMeta) -> BoxFuture<'a, Result<bool, BackendError>> {
        Box::pin(self.revoke(key))
    }

    fn replace_wrapped_key_dyn<'a>(
        &'a self,
        key: &'a KeyMeta,
        old: &'a [u8],
        new: &'a [u8],
    ) -> BoxFuture<'a, Result<bool, BackendError>> {
        Box::pin(self.replace_wrapped_key(key, old, new))
    }

    fn delete_dyn<'a>(&'a self, id: &'a KeyId) -> BoxFuture<'a, Result<u64, BackendError>> {
        Box::pin(self.delete(id))
    }

    fn count_dyn(&self) -> BoxFuture<'_, Result<u64, BackendError>> {
        Box::pin(self.count())
    }
}
