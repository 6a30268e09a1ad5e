//! The record that a metastore keeps: a wrapped key.

use std::fmt;
use std::sync::Arc;

use super::id::{KeyId, KeyMeta};

/// A wrapped key with its meta and its parent's meta: what the metastore stores.
///
/// A record never changes but for [`is_revoked`](Self::is_revoked). Its JSON form does not hold
/// the id, which is the store's key.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvelopeKeyRecord {
    pub(super) meta: KeyMeta,
    pub(super) revoked: bool,
    pub(super) wrapped_key: Arc<[u8]>,
    pub(super) parent: Option<KeyMeta>,
    kept_under: Option<KeyId>,
}

impl EnvelopeKeyRecord {
    /// How many bytes the JSON of a record may have, 64 KiB: stores neither write nor read more. A wrapped key
    /// of 48 KiB less a few hundred bytes fits.
    pub const MAX_JSON_BYTES: usize = 65_536;

    /// Builds the record of a key that is not revoked.
    ///
    /// `parent` is the system key that wraps an intermediate key, `None` for a system key, which
    /// the KMS wraps.
    pub fn new(meta: KeyMeta, wrapped_key: impl Into<Arc<[u8]>>, parent: Option<KeyMeta>) -> Self {
        Self { meta, revoked: false, wrapped_key: wrapped_key.into(), parent, kept_under: None }
    }

    /// Returns the record with the revoked flag set as told.
    #[must_use]
    pub const fn revoked(mut self, revoked: bool) -> Self {
        self.revoked = revoked;
        self
    }

    /// Says that the row which holds the record has this other id, which its table takes for the one
    /// asked for. Such a record serves decrypts only.
    #[must_use]
    pub fn folded(mut self, kept_under: KeyId) -> Self {
        self.kept_under = Some(kept_under);
        self
    }

    /// Returns the id of the row, if it is another one than the record was asked for by.
    #[must_use]
    pub const fn kept_under(&self) -> Option<&KeyId> {
        self.kept_under.as_ref()
    }

    /// Returns the name of the key version this record holds.
    #[must_use]
    pub const fn meta(&self) -> &KeyMeta {
        &self.meta
    }

    /// Returns `true` if an operator has withdrawn the key.
    #[must_use]
    pub const fn is_revoked(&self) -> bool {
        self.revoked
    }

    /// Returns the wrapped key, as the parent key or the KMS made it.
    #[must_use]
    pub const fn wrapped_key(&self) -> &Arc<[u8]> {
        &self.wrapped_key
    }

    /// Returns the system key that wraps this key, `None` if the KMS does.
    #[must_use]
    pub const fn parent(&self) -> Option<&KeyMeta> {
        self.parent.as_ref()
    }
}

impl fmt::Debug for EnvelopeKeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvelopeKeyRecord")
            .field("meta", &self.meta)
            .field("revoked", &self.revoked)
            .field("wrapped_key", &format_args!("[{} bytes]", self.wrapped_key.len()))
            .field("parent", &self.parent)
            .field("kept_under", &self.kept_under)
            .finish()
    }
}
