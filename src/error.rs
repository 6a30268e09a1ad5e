//! What can go wrong, told apart by what the caller can do about it.

mod backend;
mod chain;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use claviger_memory::{InitError, MemoryError};

pub use backend::{BackendError, FailureClass, FailureKind};
pub use chain::ErrorChain;

use crate::aead::{Refused, Unauthenticated};
use crate::random::RandomError;
use crate::record::{KeyId, KeyMeta, MalformedRecord};

/// What a factory or session answers when it cannot do its work.
///
/// No variant holds key bytes, plaintext or connection strings. A key id holds the partition that it
/// is of, which may be an e-mail address: it is in a field, for [`key_id`](Self::key_id), and no part
/// of the text that `Display` shows of an error or of its sources. It is `Clone` since one failed load
/// answers all callers that waited for it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The factory's configuration cannot work.
    #[error("invalid configuration: {reason}")]
    #[non_exhaustive]
    InvalidConfig {
        /// What to change.
        reason: Arc<str>,
    },
    /// The partition id cannot be used in a key id.
    #[error("invalid partition: it {reason}")]
    #[non_exhaustive]
    InvalidPartition {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A stored record cannot be read.
    #[error("cannot read the stored record")]
    MalformedRecord(#[from] MalformedRecord),
    /// A stored key record names a parent that cannot be its own.
    #[error("key names a parent that is not its own")]
    #[non_exhaustive]
    ForeignParent {
        /// The key whose record it is.
        key: KeyMeta,
    },
    /// The record was sealed for another partition, service or product.
    #[error("record belongs to another partition")]
    ForeignRecord,
    /// Forged, damaged, or sealed under another key: it is not said which.
    #[error("authentication failed")]
    Authentication,
    /// The cipher refused a key or a plaintext: one of 64 GiB, where the limits allow that.
    #[error("cannot seal the data")]
    Cipher,
    /// The metastore has no such key version.
    #[error("key not found")]
    KeyNotFound(KeyMeta),
    /// The key was revoked and the policy denies decrypting under it.
    #[error("key is revoked")]
    KeyRevoked(KeyMeta),
    /// The payload is over the configured limit.
    #[error("payload of {bytes} bytes is over the limit of {max_bytes}")]
    #[non_exhaustive]
    TooLarge {
        /// How long the payload is.
        bytes: usize,
        /// How long it may be.
        max_bytes: usize,
    },
    /// The metastore failed.
    #[error("metastore {operation} failed")]
    #[non_exhaustive]
    Metastore {
        /// The trait's method.
        operation: &'static str,
        /// The key id it was asked for.
        key: KeyId,
        /// What the back end said.
        source: BackendError,
    },
    /// The KMS failed.
    #[error("KMS {operation} failed")]
    #[non_exhaustive]
    Kms {
        /// The trait's method.
        operation: &'static str,
        /// The system key it was asked for.
        key: KeyMeta,
        /// What the back end said.
        source: BackendError,
    },
    /// The store refuses the insert since the key exists, and does not find it. Its table cannot tell ids
    /// apart.
    #[error("the metastore holds the key but does not return it")]
    IndistinctKey(KeyMeta),
    /// Other writers created the same key again and again.
    #[error("creation of the key kept losing the race")]
    CreationRace(KeyId),
    /// This machine's clock says that a key which was made a moment ago lies more than a day ahead.
    #[error("the clock of this machine was set back: it says a time long before the key was made")]
    ClockSkew(KeyMeta),
    /// This machine's clock says the beginning of 1970, or a time before. No key can be made then.
    #[error("the clock of this machine is not set: it says the beginning of 1970, or a time before")]
    #[non_exhaustive]
    ClockNotSet {
        /// The key that was to be made.
        key: KeyId,
    },
    /// The random number generator failed.
    #[error("cannot generate key material")]
    Random(#[from] RandomError),
    /// Protected memory could not be had.
    #[error("cannot keep key material in protected memory")]
    Memory(#[from] MemoryError),
    /// The operation did not end in time.
    #[error("operation did not end within its deadline of {after:?} ({limit}){}", waiting_for(*.dependency))]
    #[non_exhaustive]
    Deadline {
        /// The limit, by its name in [`Limits`](crate::Limits).
        limit: &'static str,
        /// How long it took.
        after: Duration,
        /// The key that it needed.
        key: KeyId,
        /// What the load of the key waited for at the end, if for either.
        dependency: Option<Dependency>,
    },
    /// Too many others wait for keys, or too many of this partition's records named versions that are not
    /// there.
    #[error("too much at once: {limit} is {max}{}", waiting_for(*.dependency))]
    #[non_exhaustive]
    Overloaded {
        /// The limit, by its name in [`Limits`](crate::Limits).
        limit: &'static str,
        /// What it is set to.
        max: usize,
        /// The key that the operation needed.
        key: KeyId,
        /// What they wait for, if for either.
        dependency: Option<Dependency>,
    },
    /// The task that loaded the key went away with its runtime, or a plug-in panicked in it.
    #[error("key load was interrupted{}", waiting_for(*.dependency))]
    #[non_exhaustive]
    Interrupted {
        /// The key that was loaded; `None` if the factory was being closed.
        key: Option<KeyId>,
        /// What the load waited for at the end, if for either.
        dependency: Option<Dependency>,
    },
    /// The thread that keys are loaded on could not be started.
    #[error("cannot start the thread that keys are loaded on")]
    NoRuntime(#[source] Arc<std::io::Error>),
    /// The user's own storage failed, in [`Session::store`](crate::Session::store) or
    /// [`load`](crate::Session::load).
    #[error("persistence {operation} failed")]
    #[non_exhaustive]
    Persistence {
        /// The trait's method.
        operation: &'static str,
        /// What the storage said.
        source: BackendError,
    },
    /// This process was forked from the one that built the factory: build a new one.
    #[error("factory belongs to the parent process")]
    Forked,
    /// The factory was closed.
    #[error("factory is closed")]
    Closed,
}

/// What a factory depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dependency {
    /// The metastore.
    Metastore,
    /// The key management service.
    Kms,
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metastore => "metastore",
            Self::Kms => "KMS",
        })
    }
}

/// The end of a message.
fn waiting_for(dependency: Option<Dependency>) -> String {
    dependency.map(|dependency| format!("; it waited for the {dependency}")).unwrap_or_default()
}

impl Error {
    /// Returns `true` if the same call may succeed later with nothing changed by the caller.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Metastore { source, .. } | Self::Kms { source, .. } | Self::Persistence { source, .. } => {
                source.is_transient()
            }
            Self::Random(_)
            | Self::Memory(_)
            | Self::CreationRace(_)
            | Self::Deadline { .. }
            | Self::Interrupted { .. }
            | Self::NoRuntime(_)
            | Self::Overloaded { .. } => true,
            Self::InvalidConfig { .. }
            | Self::InvalidPartition { .. }
            | Self::MalformedRecord(_)
            | Self::ForeignParent { .. }
            | Self::ForeignRecord
            | Self::Authentication
            | Self::Cipher
            | Self::KeyNotFound(_)
            | Self::KeyRevoked(_)
            | Self::TooLarge { .. }
            | Self::IndistinctKey(_)
            | Self::ClockSkew(_)
            | Self::ClockNotSet { .. }
            | Self::Forked
            | Self::Closed => false,
        }
    }

    /// Returns `true` if the store keeps the key under another id only.
    pub(crate) const fn is_folded(&self) -> bool {
        matches!(self, Self::Metastore { source, .. } if matches!(source.class(), FailureClass::Folded))
    }

    /// Returns the id of the key that could not be had, if the failure is about one. It holds the
    /// partition, as the caller gave it.
    #[must_use]
    pub const fn key_id(&self) -> Option<&KeyId> {
        match self {
            Self::ForeignParent { key }
            | Self::KeyNotFound(key)
            | Self::KeyRevoked(key)
            | Self::Kms { key, .. }
            | Self::IndistinctKey(key)
            | Self::ClockSkew(key) => Some(key.id()),
            Self::Metastore { key, .. }
            | Self::CreationRace(key)
            | Self::Deadline { key, .. }
            | Self::Overloaded { key, .. }
            | Self::ClockNotSet { key } => Some(key),
            Self::Interrupted { key, .. } => key.as_ref(),
            Self::InvalidConfig { .. }
            | Self::InvalidPartition { .. }
            | Self::MalformedRecord(_)
            | Self::ForeignRecord
            | Self::Authentication
            | Self::Cipher
            | Self::TooLarge { .. }
            | Self::Random(_)
            | Self::Memory(_)
            | Self::NoRuntime(_)
            | Self::Persistence { .. }
            | Self::Forked
            | Self::Closed => None,
        }
    }

    /// Returns `true` if what is stored was found to be damaged or forged.
    pub(crate) const fn is_damage(&self) -> bool {
        match self {
            Self::Authentication => true,
            Self::Metastore { source, .. } | Self::Kms { source, .. } => {
                matches!(source.class(), FailureClass::Damaged)
            }
            _ => false,
        }
    }

    /// The same failure of a call for many keys, told of this one.
    pub(crate) fn about(self, id: &KeyId) -> Self {
        match self {
            Self::Metastore { operation, source, .. } => {
                Self::Metastore { operation, key: id.clone(), source }
            }
            Self::Interrupted { dependency, .. } => Self::interrupted(id, dependency),
            Self::Deadline { limit, after, dependency, .. } => {
                Self::Deadline { limit, after, key: id.clone(), dependency }
            }
            other => other,
        }
    }

    pub(crate) fn interrupted(key: &KeyId, dependency: impl Into<Option<Dependency>>) -> Self {
        Self::Interrupted { key: Some(key.clone()), dependency: dependency.into() }
    }

    pub(crate) fn no_runtime(error: std::io::Error) -> Self {
        Self::NoRuntime(Arc::new(error))
    }

    pub(crate) fn invalid_config(reason: impl Into<Arc<str>>) -> Self {
        Self::InvalidConfig { reason: reason.into() }
    }
}

impl From<Unauthenticated> for Error {
    fn from(Unauthenticated: Unauthenticated) -> Self {
        Self::Authentication
    }
}

impl From<Refused> for Error {
    fn from(Refused: Refused) -> Self {
        Self::Cipher
    }
}

impl From<InitError<Refused>> for Error {
    fn from(error: InitError<Refused>) -> Self {
        match error {
            InitError::Memory(error) => Self::Memory(error),
            InitError::Make(refused) => refused.into(),
        }
    }
}

#[cfg(test)]
mod tests;
