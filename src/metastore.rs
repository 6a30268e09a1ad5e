//! Where wrapped keys are kept: the traits a store implements, and the handle the core uses.

pub(crate) mod boxed;
pub(crate) mod handle;
pub(crate) mod memory;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use crate::context::CallContext;
use crate::error::BackendError;
use crate::record::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};

/// A store of wrapped keys.
///
/// Records are immutable but for their revoked flag. "Not found", "already exists" and "failed" are three
/// different answers: a store that cannot tell fails. Ids are compared byte by byte; a store whose collation
/// folds case, accents or trailing blanks compares again in code. The table may take two ids for one. Then an
/// exact version that is kept under the other id only is answered with [`BackendError::folded`]. A store that
/// was told to give it out returns a record that says so ([`EnvelopeKeyRecord::folded`]). It is never a
/// latest record. An id or a time that the store cannot hold is refused with a permanent error, never cut.
/// Rows that are no keys (`__asherah_internal_config_drift_guard_v1__:…`) are never returned, and an insert
/// under such an id ([`is_reserved_id`]) is refused likewise, as is a record whose JSON is longer than
/// [`EnvelopeKeyRecord::MAX_JSON_BYTES`]. What is refused before a server is asked says so
/// ([`BackendError::not_asked`]). A row that cannot be read, or is longer than that, is
/// [`BackendError::damaged`]: no more of it is fetched, so that no row costs a process its memory.
///
/// # Cancel safety
/// The core may drop any of these futures at any await. The store stays usable, and an insert that
/// was dropped has happened or has not.
pub trait Metastore: fmt::Debug + Send + Sync + 'static {
    /// Loads exactly this version, as new as [`CallContext::consistency`] says; `None` if there is no such
    /// record.
    fn load(
        &self,
        key: &KeyMeta,
        context: &CallContext,
    ) -> impl Future<Output = Result<Option<EnvelopeKeyRecord>, BackendError>> + Send;

    /// Loads the record with the greatest `created` that is not over `up_to`, and the one before it;
    /// `None` if the id has no such record. With [`Created::MAX`] there is no bound.
    ///
    /// It sees every insert and revocation that ended before it began.
    fn load_latest(
        &self,
        id: &KeyId,
        up_to: Created,
        context: &CallContext,
    ) -> impl Future<Output = Result<Option<Latest>, BackendError>> + Send;

    /// Loads exactly these versions, as [`load`](Self::load) does: one answer for each in the order asked, in one round trip
    /// where the store can.
    fn load_many(
        &self,
        keys: &[KeyMeta],
        context: &CallContext,
    ) -> impl Future<Output = Result<Vec<Option<EnvelopeKeyRecord>>, BackendError>> + Send;

    /// Loads the latest record of each id, as [`load_latest`](Self::load_latest) does: one answer for
    /// each in the order asked, in one round trip where the store can.
    fn load_latest_many(
        &self,
        ids: &[KeyId],
        up_to: Created,
        context: &CallContext,
    ) -> impl Future<Output = Result<Vec<Option<Latest>>, BackendError>> + Send;

    /// Inserts the record unless its `(id, created)` is taken. Atomic, and durable once it returns
    /// [`Insert::Inserted`].
    fn insert(
        &self,
        record: &EnvelopeKeyRecord,
        context: &CallContext,
    ) -> impl Future<Output = Result<Insert, BackendError>> + Send;

    /// Returns how often the store was found to be another server, or the same on another timeline. The last
    /// commits may be missing there, so the core reads its keys again. 0 for a store that has one server only
    /// or cannot tell. No I/O.
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

/// What operators do to a store. Not needed to encrypt or decrypt.
///
/// # Cancel safety
/// As of [`Metastore`]: what a dropped call was to change is changed or is not.
pub trait MetastoreAdmin: Metastore {
    /// Lists at most `limit` rows whose id begins with `prefix`: from the beginning, or on from where a page
    /// ended ([`Page::next`]). A caller that goes on until there is no next page has seen every row once that
    /// was there all the time, and no page costs more than the first. An empty prefix is that of every row.
    ///
    /// Versions of one key are neighbours, the oldest first. Ids come in the store's own order: by
    /// their bytes, by a collation, or by a hash. `after` may name a version that is gone.
    fn list(
        &self,
        prefix: &str,
        after: Option<&KeyMeta>,
        limit: usize,
        context: &CallContext,
    ) -> impl Future<Output = Result<Page, BackendError>> + Send;

    /// Marks a key version revoked, for good: there is no way back. `false` if there is no such
    /// record; a record that is revoked already is left as it is.
    fn revoke(
        &self,
        key: &KeyMeta,
        context: &CallContext,
    ) -> impl Future<Output = Result<bool, BackendError>> + Send;

    /// Replaces wrapped keys, each if its record still holds the old one: one answer for each in the order
    /// given, `true` if it was replaced. Each is a compare-and-swap of its own; what was replaced before a
    /// failure stays replaced. The revoked flag stays: a revocation made at the same time is never undone.
    fn replace_many(
        &self,
        replacements: &[Replacement],
        context: &CallContext,
    ) -> impl Future<Output = Result<Vec<bool>, BackendError>> + Send;

    /// Deletes one version of a key for good; `false` if there is no such row. What was encrypted under it
    /// cannot be decrypted any more.
    fn delete_version(
        &self,
        key: &KeyMeta,
        context: &CallContext,
    ) -> impl Future<Output = Result<bool, BackendError>> + Send;

    /// Deletes all versions of a key for good and returns how many there were. What was encrypted
    /// under them cannot be decrypted any more.
    fn delete(
        &self,
        id: &KeyId,
        context: &CallContext,
    ) -> impl Future<Output = Result<u64, BackendError>> + Send;

    /// Counts the key records.
    fn count(&self, context: &CallContext) -> impl Future<Output = Result<u64, BackendError>> + Send;
}

/// One wrapped key that is to take another's place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replacement {
    /// Whose record it is.
    pub key: KeyMeta,
    /// The wrapped key that the record must still hold.
    pub old: Arc<[u8]>,
    /// The one it is to hold.
    pub new: Arc<[u8]>,
    /// Under which key the new one is wrapped; `None` leaves what the record says.
    pub parent: Option<KeyMeta>,
}

impl Replacement {
    /// Replaces `old` by `new`; the parent stays.
    #[must_use]
    pub fn new(key: KeyMeta, old: impl Into<Arc<[u8]>>, new: impl Into<Arc<[u8]>>) -> Self {
        Self { key, old: old.into(), new: new.into(), parent: None }
    }

    /// Sets the parent, under which the new one is wrapped.
    #[must_use]
    pub fn parent(mut self, parent: KeyMeta) -> Self {
        self.parent = Some(parent);
        self
    }

    /// Returns the record as it is after the replacement; `None` if it does not hold the old wrapped key. For
    /// stores that read a record, change it and write it.
    #[must_use]
    pub fn applied_to(&self, record: &EnvelopeKeyRecord) -> Option<EnvelopeKeyRecord> {
        if **record.wrapped_key() != *self.old {
            return None;
        }
        let parent = self.parent.as_ref().or_else(|| record.parent()).cloned();
        let replaced = EnvelopeKeyRecord::new(self.key.clone(), Arc::clone(&self.new), parent);
        Some(replaced.revoked(record.is_revoked()))
    }
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

/// Returns `true` if a row's id is one of those that other Asherah implementations write beside the
/// keys, and that are no keys.
#[must_use]
pub fn is_reserved_id(id: &str) -> bool {
    id.starts_with("__asherah_internal_")
}
