//! Where wrapped keys are kept: the traits a store implements, and the handle the core uses.

pub(crate) mod admin;
mod handle;
pub(crate) mod memory;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use crate::BoxFuture;
use crate::error::BackendError;
use crate::record::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};

pub(crate) use handle::{Copied, MetastoreHandle, to_error};

/// A store of wrapped keys.
///
/// Records are immutable but for their revoked flag. "Not found", "already exists" and "failed"
/// are three different answers: a store that cannot tell fails. Ids are compared byte by byte; a
/// store whose collation folds case, accents or trailing blanks compares again in code. What it keeps
/// of an exact version under another id alone is [`BackendError::folded`], or, where it was told to give
/// that out, a record that says so ([`EnvelopeKeyRecord::folded`]); it is never a latest one. An id or a
/// time that the store cannot hold is refused with a permanent error, never cut. Rows that are no
/// keys (`__asherah_internal_config_drift_guard_v1__:…`) are never returned, and an insert under
/// such an id ([`is_reserved_id`]) is refused likewise, as is a record whose JSON is longer than
/// [`EnvelopeKeyRecord::JSON_BYTES_MAX`]. What is refused before a server is asked says so
/// ([`BackendError::not_asked`]). A row that cannot be read, or is longer than that, is
/// [`BackendError::damaged`]: no more of it is fetched, so that no row costs a process its memory.
///
/// # Cancel safety
/// The core may drop any of these futures at any await. The store stays usable, and an insert that
/// was dropped has happened or has not.
pub trait Metastore: fmt::Debug + Send + Sync + 'static {
    /// Loads exactly this version; `None` if there is no such record.
    fn load(
        &self,
        key: &KeyMeta,
        consistency: Consistency,
    ) -> impl Future<Output = Result<Option<EnvelopeKeyRecord>, BackendError>> + Send;

    /// Loads the record with the greatest `created` that is not over `up_to`, and the one before it;
    /// `None` if the id has no such record. With [`Created::MAX`] there is no bound.
    ///
    /// It sees every insert and revocation that ended before it began.
    fn load_latest(
        &self,
        id: &KeyId,
        up_to: Created,
    ) -> impl Future<Output = Result<Option<Latest>, BackendError>> + Send;

    /// Loads exactly these versions, one answer for each in the order asked, in one round trip
    /// where the store can.
    fn load_many(
        &self,
        keys: &[KeyMeta],
        consistency: Consistency,
    ) -> impl Future<Output = Result<Vec<Option<EnvelopeKeyRecord>>, BackendError>> + Send;

    /// Loads the latest record of each id, as [`load_latest`](Self::load_latest) does: one answer for
    /// each in the order asked, in one round trip where the store can.
    fn load_latest_many(
        &self,
        ids: &[KeyId],
        up_to: Created,
    ) -> impl Future<Output = Result<Vec<Option<Latest>>, BackendError>> + Send;

    /// Inserts the record unless its `(id, created)` is taken. Atomic, and durable once it returns
    /// [`Insert::Inserted`].
    fn insert(&self, record: &EnvelopeKeyRecord)
    -> impl Future<Output = Result<Insert, BackendError>> + Send;

    /// Returns how often the store came to another server, or to another timeline of one, than it
    /// had asked before: what was committed last may be missing there, so the core reads again what
    /// it holds. 0 for a store that has one server only or cannot tell. No I/O.
    fn failovers(&self) -> u64;
}

/// The latest record of a key, with the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latest {
    /// The record with the greatest `created` of those that were asked for.
    pub record: EnvelopeKeyRecord,
    /// The one with the next smaller `created`. `None` if there is none, or it cannot be read: nothing is
    /// encrypted or decrypted by it, it is only looked at for its revocation.
    pub predecessor: Option<EnvelopeKeyRecord>,
}

impl Latest {
    /// A record and the one before it.
    #[must_use]
    pub const fn new(record: EnvelopeKeyRecord, predecessor: Option<EnvelopeKeyRecord>) -> Self {
        Self { record, predecessor }
    }
}

/// What became of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "there is no third outcome")]
pub enum Insert {
    /// The record is stored.
    Inserted,
    /// The `(id, created)` was taken; nothing was changed.
    AlreadyExists,
}

/// How new the answer to a load must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "stores offer these two")]
pub enum Consistency {
    /// Every write that ended before the load began is seen.
    Strong,
    /// A replica may answer. If it fails, so does the load: the caller asks again, for
    /// [`Strong`](Self::Strong).
    Eventual,
}

/// What operators do to a store. Not needed to encrypt or decrypt.
pub trait MetastoreAdmin: Metastore {
    /// Lists at most `limit` rows: from the beginning, or on from where a page ended
    /// ([`Page::next`]). Who goes on until there is no next page has seen every row once that was
    /// there all the time, and no page is dearer than the first.
    ///
    /// Versions of one key are neighbours, the oldest first. Ids come in the store's own order: by
    /// their bytes, by a collation, or by a hash. `after` may name a version that is gone.
    fn list(
        &self,
        after: Option<&KeyMeta>,
        limit: usize,
    ) -> impl Future<Output = Result<Page, BackendError>> + Send;

    /// Marks a key version revoked, for good: there is no way back. `false` if there is no such
    /// record; a record that is revoked already is left as it is.
    fn revoke(&self, key: &KeyMeta) -> impl Future<Output = Result<bool, BackendError>> + Send;

    /// Replaces the wrapped key by `new` if the record still holds `old`; tells whether it did.
    /// Parent and revoked flag stay: a revocation made at the same time is never undone.
    fn replace_wrapped_key(
        &self,
        key: &KeyMeta,
        old: &[u8],
        new: &[u8],
    ) -> impl Future<Output = Result<bool, BackendError>> + Send;

    /// Deletes all versions of a key for good and returns how many there were. What was encrypted
    /// under them cannot be decrypted any more.
    fn delete(&self, id: &KeyId) -> impl Future<Output = Result<u64, BackendError>> + Send;

    /// Counts the key records.
    fn count(&self) -> impl Future<Output = Result<u64, BackendError>> + Send;
}

/// A part of a store's rows.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Page {
    /// The rows that could be read.
    pub records: Vec<EnvelopeKeyRecord>,
    /// Those that could not.
    pub damaged: Vec<DamagedRow>,
    /// Where the next page begins; `None` after the last one. The page it begins may be empty.
    pub next: Option<KeyMeta>,
}

impl Page {
    /// A page of these rows.
    #[must_use]
    pub const fn new(
        records: Vec<EnvelopeKeyRecord>,
        damaged: Vec<DamagedRow>,
        next: Option<KeyMeta>,
    ) -> Self {
        Self { records, damaged, next }
    }
}

/// A row that cannot be read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DamagedRow {
    /// Whose key it would hold; what is not UTF-8 in it is replaced.
    pub id: KeyId,
    /// When that key was created, if the row says so.
    pub created: Option<Created>,
    /// What is wrong with it.
    pub error: BackendError,
}

impl DamagedRow {
    /// A row of this key that cannot be read.
    #[must_use]
    pub const fn new(id: KeyId, created: Option<Created>, error: BackendError) -> Self {
        Self { id, created, error }
    }
}

/// Tells whether a row's id is one of those that other Asherah implementations write beside the
/// keys, and that are no keys.
#[must_use]
pub fn is_reserved_id(id: &str) -> bool {
    id.starts_with("__asherah_internal_")
}

impl<M: Metastore> Metastore for Arc<M> {
    async fn load(
        &self,
        key: &KeyMeta,
        consistency: Consistency,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        (**self).load(key, consistency).await
    }

    async fn load_latest(&self, id: &KeyId, up_to: Created) -> Result<Option<Latest>, BackendError> {
        (**self).load_latest(id, up_to).await
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        consistency: Consistency,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        (**self).load_many(keys, consistency).await
    }

    async fn load_latest_many(
        &self,
        ids: &[KeyId],
        up_to: Created,
    ) -> Result<Vec<Option<Latest>>, BackendError> {
        (**self).load_latest_many(ids, up_to).await
    }

    async fn insert(&self, record: &EnvelopeKeyRecord) -> Result<Insert, BackendError> {
        (**self).insert(record).await
    }

    fn failovers(&self) -> u64 {
        (**self).failovers()
    }
}

/// A metastore whose type was chosen at run time.
#[derive(Clone, Debug)]
pub struct BoxedMetastore(Arc<dyn DynMetastore>);

impl BoxedMetastore {
    /// Hides the type of `metastore`.
    pub fn new(metastore: impl Metastore) -> Self {
        Self(Arc::new(metastore))
    }
}

impl Metastore for BoxedMetastore {
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

/// The twin of [`Metastore`] that can be a trait object. Written once, here.
trait DynMetastore: fmt::Debug + Send + Sync {
    fn load_dyn<'a>(
        &'a self,
        key: &'a KeyMeta,
        consistency: Consistency,
    ) -> BoxFuture<'a, Result<Option<EnvelopeKeyRecord>, BackendError>>;

    fn load_latest_dyn<'a>(
        &'a self,
        id: &'a KeyId,
        up_to: Created,
    ) -> BoxFuture<'a, Result<Option<Latest>, BackendError>>;

    fn load_many_dyn<'a>(
        &'a self,
        keys: &'a [KeyMeta],
        consistency: Consistency,
    ) -> BoxFuture<'a, Result<Vec<Option<EnvelopeKeyRecord>>, BackendError>>;

    fn load_latest_many_dyn<'a>(
        &'a self,
        ids: &'a [KeyId],
        up_to: Created,
    ) -> BoxFuture<'a, Result<Vec<Option<Latest>>, BackendError>>;

    fn insert_dyn<'a>(&'a self, record: &'a EnvelopeKeyRecord)
    -> BoxFuture<'a, Result<Insert, BackendError>>;

    fn failovers_dyn(&self) -> u64;
}

impl<M: Metastore> DynMetastore for M {
    fn load_dyn<'a>(
        &'a self,
        key: &'a KeyMeta,
        consistency: Consistency,
    ) -> BoxFuture<'a, Result<Option<EnvelopeKeyRecord>, BackendError>> {
        Box::pin(self.load(key, consistency))
    }

    fn load_latest_dyn<'a>(
        &'a self,
        id: &'a KeyId,
        up_to: Created,
    ) -> BoxFuture<'a, Result<Option<Latest>, BackendError>> {
        Box::pin(self.load_latest(id, up_to))
    }

    fn load_many_dyn<'a>(
        &'a self,
        keys: &'a [KeyMeta],
        consistency: Consistency,
    ) -> BoxFuture<'a, Result<Vec<Option<EnvelopeKeyRecord>>, BackendError>> {
        Box::pin(self.load_many(keys, consistency))
    }

    fn load_latest_many_dyn<'a>(
        &'a self,
        ids: &'a [KeyId],
        up_to: Created,
    ) -> BoxFuture<'a, Result<Vec<Option<Latest>>, BackendError>> {
        Box::pin(self.load_latest_many(ids, up_to))
    }

    fn insert_dyn<'a>(
        &'a self,
        record: &'a EnvelopeKeyRecord,
    ) -> BoxFuture<'a, Result<Insert, BackendError>> {
        Box::pin(self.insert(record))
    }

    fn failovers_dyn(&self) -> u64 {
        self.failovers()
    }
}
