//! What a metastore, a KMS or a user's storage answers when it cannot do its work.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

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

macro_rules! kinds {
    ($($(#[$doc:meta])+ $variant:ident => $text:literal,)+) => {
        /// What a failure is about, where the back end can tell: what an operator sees to, or which
        /// part of what was asked is at fault.
        ///
        /// The class says whether it may pass by itself, the kind says what to do if it does not.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum FailureKind {
            $($(#[$doc])+ $variant,)+
        }

        impl FailureKind {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
        }

        impl fmt::Display for FailureKind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)+ })
            }
        }
    };
}

kinds! {
    /// There is no way to it, or it is not in service: see that it runs, and to the network between.
    Unreachable => "it is out of reach",
    /// Others keep it busy, or its limits are reached: wait, or give it more.
    Busy => "it is busy",
    /// It does not know the caller, or not from there: see to user, password, token or credentials.
    Unauthenticated => "the user is not let in",
    /// The user may not do this: grant the right.
    Denied => "the user lacks a right",
    /// There is no such database: see to its name.
    NoSuchDatabase => "there is no such database",
    /// There is no such table, or it lacks a column: make it.
    NoSuchTable => "there is no such table",
    /// There is no such master key: see to its name, or make it.
    NoSuchKey => "there is no such key",
    /// The master key is disabled, or about to be deleted: enable it.
    KeyDisabled => "the key is disabled",
    /// It takes no writes: a standby, a read-only file or disk.
    ReadOnly => "it takes no writes",
    /// It has no room left: make some.
    StorageFull => "no room is left",
    /// Its disk, or another device, fails: see to it.
    Device => "a device failed",
    /// The file, or the server's disk, holds what cannot be read: restore it from a backup.
    Corrupt => "what it holds cannot be read",
    /// There is no TLS that both sides take: see to certificates and to what TLS is asked for.
    Tls => "TLS failed",
    /// What it was told at its start cannot work: see to URL, options and files.
    Settings => "its settings cannot work",
    /// The server knows no such time zone: see to its name, or load the server's zone tables.
    TimeZone => "there is no such time zone",
    /// The id of this one key is longer than the table's column: use shorter partition ids, or widen it.
    IdTooLong => "the key id is too long",
    /// The id of this one key is none that is stored: empty, with a NUL, or reserved.
    IdRefused => "the key id cannot be used",
    /// The table's encoding lacks characters of this one key's id or record: convert it to UTF-8.
    Encoding => "the key id has characters that the table lacks",
    /// The table takes this one key for another one: give its id a collation that folds nothing.
    Indistinct => "the key id is taken for another one",
    /// The table cannot hold the creation time of this one key.
    TimeNotHeld => "the creation time cannot be held",
    /// The record of this one key is longer than the table allows: widen the column.
    RecordTooLong => "the key record is too long",
    /// The server changed what it was given of this one key: set its strict mode.
    NotKept => "the key was not kept as it was given",
}

impl FailureKind {
    /// Returns `true` if one key is at fault, so that calls for others may go well.
    #[must_use]
    pub const fn is_of_one_key(self) -> bool {
        match self {
            Self::IdTooLong
            | Self::IdRefused
            | Self::Encoding
            | Self::Indistinct
            | Self::TimeNotHeld
            | Self::RecordTooLong
            | Self::NotKept => true,
            Self::Unreachable
            | Self::Busy
            | Self::Unauthenticated
            | Self::Denied
            | Self::NoSuchDatabase
            | Self::NoSuchTable
            | Self::NoSuchKey
            | Self::KeyDisabled
            | Self::ReadOnly
            | Self::StorageFull
            | Self::Device
            | Self::Corrupt
            | Self::Tls
            | Self::Settings
            | Self::TimeZone => false,
        }
    }
}

/// A failure of a metastore, a KMS or a user's storage, classified by the back end.
///
/// Its `Display` names the class only; what happened is in `source()`. Whoever builds one strips
/// passwords and connection strings from the source first, and sees to it that no text of it, or of
/// what is behind it, holds a key id: what a database says of a statement may quote what it was sent.
///
/// ```
/// use claviger::{BackendError, FailureKind};
///
/// let error = BackendError::permanent("no right to insert").with_kind(FailureKind::Denied);
/// assert_eq!(error.kind(), Some(FailureKind::Denied));
/// ```
#[derive(Clone)]
pub struct BackendError {
    class: FailureClass,
    kind: Option<FailureKind>,
    was_asked: bool,
    source: Arc<dyn StdError + Send + Sync>,
}

impl BackendError {
    /// Wraps a failure that may pass by itself.
    pub fn transient(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(FailureClass::Transient, source)
    }

    /// Wraps a failure that will not pass by itself. In doubt, a failure is permanent.
    pub fn permanent(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(FailureClass::Permanent, source)
    }

    /// Wraps the finding that what is stored cannot be what was written: a row that cannot be read,
    /// a wrapped key that does not authenticate.
    pub fn damaged(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(FailureClass::Damaged, source)
    }

    /// Wraps the finding that the table keeps the key version under another id only, which its collation
    /// takes for the one asked for.
    pub fn folded(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(FailureClass::Folded, source)
    }

    /// Wraps a failure of this class.
    pub fn new(class: FailureClass, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { class, kind: None, was_asked: true, source: Arc::from(source.into()) }
    }

    /// Says what the failure is about, if that is known.
    #[must_use]
    pub fn with_kind(mut self, kind: impl Into<Option<FailureKind>>) -> Self {
        self.kind = kind.into();
        self
    }

    /// Says that the back end refused by itself, and asked nobody: no database, no service. Such a
    /// refusal tells nothing of whether those are up.
    ///
    /// ```
    /// use claviger::BackendError;
    ///
    /// assert!(BackendError::permanent("refused by the server").was_asked());
    /// assert!(!BackendError::permanent("no such key id").not_asked().was_asked());
    /// ```
    #[must_use]
    pub const fn not_asked(mut self) -> Self {
        self.was_asked = false;
        self
    }

    /// Returns `true` if what stands behind the back end was asked, as far as it said.
    #[must_use]
    pub const fn was_asked(&self) -> bool {
        self.was_asked
    }

    /// Returns the class the back end chose.
    #[must_use]
    pub const fn class(&self) -> FailureClass {
        self.class
    }

    /// Returns what the failure is about, if the back end could tell.
    #[must_use]
    pub const fn kind(&self) -> Option<FailureKind> {
        self.kind
    }

    /// Returns `true` if the same call may succeed later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self.class, FailureClass::Transient)
    }

    /// Returns `true` if one key or its row is at fault, so that calls for others may go well: it is
    /// damaged, or nothing that this table can hold. Of a KMS, which is asked for few keys, a damaged
    /// one more often means that another key wrapped it.
    #[must_use]
    pub const fn is_of_one_key(&self) -> bool {
        match self.class {
            FailureClass::Damaged | FailureClass::Folded => true,
            FailureClass::Permanent => match self.kind {
                Some(kind) => kind.is_of_one_key(),
                None => false,
            },
            FailureClass::Transient => false,
        }
    }
}

impl fmt::Debug for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendError")
            .field("class", &self.class)
            .field("kind", &self.kind)
            .field("was_asked", &self.was_asked)
            .field("source", &self.source)
            .finish()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_and_what_a_table_cannot_hold_are_of_one_key_and_no_outage_is() {
        assert!(BackendError::damaged("x").is_of_one_key());
        assert!(!BackendError::permanent("x").is_of_one_key());
        for &kind in FailureKind::ALL {
            let is_of_one_key = kind as usize >= FailureKind::IdTooLong as usize;
            assert_eq!(BackendError::permanent("x").with_kind(kind).is_of_one_key(), is_of_one_key, "{kind}");
            assert!(!BackendError::transient("x").with_kind(kind).is_of_one_key(), "{kind}");
        }
    }
}
