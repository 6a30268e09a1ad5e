//! What can go wrong, told apart by what the caller can do about it.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use claviger_memory::MemoryError;

use crate::random::RandomError;
use crate::record::{KeyId, KeyMeta, MalformedRecord};

/// What a factory or session answers when it cannot do its work.
///
/// No variant holds key bytes, plaintext or connection strings. It is `Clone` since one failed
/// load answers all callers that waited for it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The factory's configuration cannot work.
    #[error("invalid configuration: {reason}")]
    InvalidConfig {
        /// What to change.
        reason: Arc<str>,
    },
    /// The partition id cannot be used in a key id.
    #[error("invalid partition: it {reason}")]
    InvalidPartition {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A stored record cannot be read.
    #[error("cannot read the stored record")]
    MalformedRecord(#[from] MalformedRecord),
    /// A stored key record names a parent that cannot be its own.
    #[error("key {key} names a parent that is not its own")]
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
    /// The metastore has no such key version.
    #[error("key {0} not found")]
    KeyNotFound(KeyMeta),
    /// The key was revoked and the policy denies decrypting under it.
    #[error("key {0} is revoked")]
    KeyRevoked(KeyMeta),
    /// The payload is over the configured limit.
    #[error("payload of {bytes} bytes is over the limit of {bytes_max}")]
    TooLarge {
        /// How long the payload is.
        bytes: usize,
        /// How long it may be.
        bytes_max: usize,
    },
    /// The metastore failed.
    #[error("metastore {operation} failed for key {key}")]
    Metastore {
        /// The trait's method.
        operation: &'static str,
        /// The key id it was asked for.
        key: KeyId,
        /// What the back end said.
        source: BackendError,
    },
    /// The KMS failed.
    #[error("KMS {operation} failed for key {key}")]
    Kms {
        /// The trait's method.
        operation: &'static str,
        /// The system key it was asked for.
        key: KeyMeta,
        /// What the back end said.
        source: BackendError,
    },
    /// The store says that a key exists and does not give it out: a table that cannot tell ids
    /// apart.
    #[error("the metastore holds key {0} but does not return it")]
    IndistinctKey(KeyMeta),
    /// Other writers created the same key again and again.
    #[error("creation of key {0} kept losing the race")]
    CreationRace(KeyId),
    /// A latest key lies so far in the future that replacing it is refused.
    #[error("key {0} was created in the future; check the clocks")]
    ClockSkew(KeyMeta),
    /// The random number generator failed.
    #[error("cannot generate key material")]
    Random(#[from] RandomError),
    /// Protected memory could not be had.
    #[error("cannot keep key material in protected memory")]
    Memory(#[from] MemoryError),
    /// The operation did not end in time.
    #[error("operation did not end within {0:?}")]
    Deadline(Duration),
    /// Too much work is already waiting.
    #[error("too many calls are waiting")]
    Overloaded,
    /// The task that loaded the key went away with its runtime, or a plug-in panicked in it.
    #[error("key load was interrupted")]
    Interrupted,
    /// The thread that keys are loaded on could not be started.
    #[error("cannot start the thread that keys are loaded on")]
    NoRuntime(#[source] Arc<std::io::Error>),
    /// The user's own storage failed, in [`Session::store`](crate::Session::store) or
    /// [`load`](crate::Session::load).
    #[error("persistence {operation} failed")]
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

impl Error {
    /// Tells whether the same call may succeed later with nothing changed by the caller.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Metastore { source, .. } | Self::Kms { source, .. } | Self::Persistence { source, .. } => {
                source.is_transient()
            }
            Self::Random(_)
            | Self::Memory(_)
            | Self::CreationRace(_)
            | Self::Deadline(_)
            | Self::Interrupted
            | Self::NoRuntime(_)
            | Self::Overloaded => true,
            Self::InvalidConfig { .. }
            | Self::InvalidPartition { .. }
            | Self::MalformedRecord(_)
            | Self::ForeignParent { .. }
            | Self::ForeignRecord
            | Self::Authentication
            | Self::KeyNotFound(_)
            | Self::KeyRevoked(_)
            | Self::TooLarge { .. }
            | Self::IndistinctKey(_)
            | Self::ClockSkew(_)
            | Self::Forked
            | Self::Closed => false,
        }
    }

    /// Tells whether the store keeps the key under another id only.
    pub(crate) const fn is_folded(&self) -> bool {
        matches!(self, Self::Metastore { source, .. } if matches!(source.class(), FailureClass::Folded))
    }

    /// Tells whether what is stored was found to be damaged or forged.
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
            other => other,
        }
    }

    pub(crate) fn invalid_config(reason: impl Into<Arc<str>>) -> Self {
        Self::InvalidConfig { reason: reason.into() }
    }
}

/// Whether a back end's failure may pass by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureClass {
    /// The same call may succeed later: network, throttling, fail-over.
    Transient,
    /// It will not: denied, misconfigured.
    Permanent,
    /// What is stored is damaged or forged. It will not pass either, and raises an alarm.
    Damaged,
    /// The store keeps the key version under another id only, which its table takes for the one asked
    /// for. It will not pass either.
    Folded,
}

/// A failure of a metastore, a KMS or a user's storage, classified by the one who knows.
///
/// Its `Display` names the class only; what happened is in `source()`. Whoever builds one strips
/// passwords and connection strings from the source first.
#[derive(Clone)]
pub struct BackendError {
    class: FailureClass,
    source: Arc<dyn StdError + Send + Sync>,
}

impl BackendError {
    /// Wraps a failure that may pass by itself.
    pub fn transient(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { class: FailureClass::Transient, source: Arc::from(source.into()) }
    }

    /// Wraps a failure that will not pass by itself. In doubt, a failure is permanent.
    pub fn permanent(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { class: FailureClass::Permanent, source: Arc::from(source.into()) }
    }

    /// Wraps the finding that what is stored cannot be what was written: a row that cannot be read,
    /// a wrapped key that does not authenticate.
    pub fn damaged(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { class: FailureClass::Damaged, source: Arc::from(source.into()) }
    }

    /// Wraps the finding that the table keeps the key version under another id only, which its collation
    /// takes for the one asked for.
    pub fn folded(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { class: FailureClass::Folded, source: Arc::from(source.into()) }
    }

    /// Returns the class the back end chose.
    #[must_use]
    pub const fn class(&self) -> FailureClass {
        self.class
    }

    /// Tells whether the same call may succeed later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self.class, FailureClass::Transient)
    }
}

impl fmt::Debug for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendError").field("class", &self.class).field("source", &self.source).finish()
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.class {
            FailureClass::Transient => "back end is unavailable",
            FailureClass::Permanent => "back end refused",
            FailureClass::Damaged => "stored key record is damaged",
            FailureClass::Folded => "key is kept under another id",
        })
    }
}

impl StdError for BackendError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

/// Shows an error with all its causes, outermost first, in one line: for logs and messages.
///
/// ```
/// use claviger::{BackendError, ErrorChain};
///
/// let error = BackendError::transient(std::io::Error::other("reset"));
/// assert!(ErrorChain::new(&error).to_string().ends_with(": reset"));
/// ```
#[derive(Clone, Copy)]
pub struct ErrorChain<'a>(&'a dyn StdError);

impl<'a> ErrorChain<'a> {
    /// Shows `error`.
    #[must_use]
    pub const fn new(error: &'a dyn StdError) -> Self {
        Self(error)
    }
}

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0, f)
    }
}
