//! What calls are about, and which go first.

use crate::record::{Created, KeyId, KeyMeta};

/// What a call is about: one version of a key, or its latest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Subject {
    pub(super) id: KeyId,
    /// `None` is the latest.
    created: Option<Created>,
}

impl Subject {
    pub(crate) fn latest(id: &KeyId) -> Self {
        Self { id: id.clone(), created: None }
    }

    pub(crate) fn version(key: &KeyMeta) -> Self {
        Self { id: key.id().clone(), created: Some(key.created()) }
    }
}

/// Which calls go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// For a key that is in use: its refresh, its replacement, and what these need.
    Check,
    /// All else.
    Load,
}
