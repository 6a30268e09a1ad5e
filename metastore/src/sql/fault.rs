//! What is wrong with a key or a row, and how much of each is read and written.

use std::sync::Arc;

use claviger::backend::is_reserved_id;
use claviger::{
    BackendError, Created, EnvelopeKeyRecord, FailureClass, FailureKind, KeyId, KeyMeta, MalformedRecord,
};

use crate::sql::driver::DriverFault;

/// What is wrong with a key or a row, found by us and not by the database.
///
/// It is the `source()` of a [`BackendError`], whose kind says what it is about. Key ids are in fields,
/// and no part of what `Display` shows.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqlFault {
    /// The key id has no characters.
    #[error("key id is empty")]
    IdEmpty,
    /// The key id does not fit the column.
    #[error("key id of {chars} characters is over the limit of {ID_CHARS_MAX}")]
    IdTooLong {
        /// How long it is.
        chars: usize,
    },
    /// The key id does not fit the column of the table that is there.
    #[error("key id of {length} {unit} is over the column's limit of {limit}")]
    IdOverColumn {
        /// How long it is.
        length: u64,
        /// How long it may be.
        limit: u64,
        /// What is counted.
        unit: &'static str,
    },
    /// The key id, or that of its parent, has characters that the column's encoding lacks.
    #[error("column {column} lacks characters of the key's record")]
    CharactersNotHeld {
        /// Which column.
        column: &'static str,
        /// The key id.
        key: KeyId,
    },
    /// The key record does not fit the column of the table that is there, or is over 64 KiB.
    #[error("key record of length {length} is over the limit of {limit}")]
    RecordTooLong {
        /// How long it is.
        length: u64,
        /// How long it may be.
        limit: u64,
    },
    /// The key id holds a NUL character, at which some databases end a text.
    #[error("key id contains NUL")]
    IdHasNul,
    /// The key id is one of those under which Asherah keeps what is not a key.
    #[error("key id is reserved")]
    IdReserved(KeyId),
    /// The table takes the key for another that is there: its collation folds their ids, or its
    /// time column their times.
    #[error("the table cannot tell the key from another that it holds")]
    Indistinct(KeyMeta),
    /// The table keeps the key version under another id only, which its collation takes for the one
    /// asked for: another program's record of it is read with the builder's `folded_ids`.
    #[error(
        "the table keeps the key under another id, which it takes for the one asked for; folded_ids reads it"
    )]
    FoldedId {
        /// The key version that was asked for.
        key: KeyMeta,
        /// The id that the row has.
        kept_under: KeyId,
    },
    /// A row's id is no UTF-8, and so no key's.
    #[error("the id of a row is not UTF-8")]
    IdUnreadable,
    /// A row's id is longer than any that a server takes, and so no key's.
    #[error("the id of a row is over {LISTED_ID_BYTES_MAX} bytes")]
    RowIdTooLong,
    /// A row's key record is longer than any record, so that the statement did not return it.
    #[error("the key record of a row is over the limit of {RECORD_BYTES_MAX} bytes")]
    RecordTooLarge(KeyMeta),
    /// The column's type ends before the creation time, or its zone's clocks skip it.
    #[error("the table cannot hold the creation time {0}")]
    CreatedNotHeld(Created),
    /// The server changed what it was given instead of refusing it; the insert was taken back.
    #[error("the server changed what it was given of the key: it is not in strict mode")]
    NotKept(KeyMeta),
    /// A row's `created` is no time that any known writer writes.
    #[error("a row of the key has an unreadable creation time")]
    CreatedUnreadable(KeyId),
    /// A row's key record cannot be read, or contradicts the row.
    #[error("the row of the key cannot be read")]
    RowMalformed {
        /// The key version the row is of.
        key: KeyMeta,
        /// What is wrong with it.
        source: MalformedRecord,
    },
    /// The database took the insert and kept no row: a trigger or a rule of the table is in the way.
    #[error("the database kept no row of the key; a trigger or a rule must have taken it")]
    InsertSwallowed(KeyMeta),
    /// The server answered another statement than the one that was sent: a pooler shares its
    /// connections, and the names of statements with them.
    #[error("the answer is not to the statement that was sent: {SHARED_NAMES}")]
    Crossed,
    /// The server did not know the statement that was sent, or took it for another one.
    #[error("the server took the statement for another one: {SHARED_NAMES}")]
    CrossedBy(#[source] DriverFault),
    /// The server is not what the URL asks for, and neither is any other of those it names.
    #[error("no server that was reached is {wanted}")]
    OtherRole {
        /// What it is to be.
        wanted: &'static str,
    },
    /// The file cannot be used since its folder cannot be written, where SQLite keeps its log.
    #[error("the folder of the file cannot be written, and SQLite keeps its log beside the file")]
    FolderNotWritable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The name is one that SQLite takes for a database in memory, or for a URI that may say so.
    #[error(
        "SQLite takes the name for a database in memory or for a URI, and not for a file: name a file, with ./ before it if it is called so; a store that forgets its keys is InMemoryMetastore"
    )]
    NameOfNoFile,
    /// The file is gone or empty and its log is there, which SQLite deletes when it begins the file anew.
    #[error(
        "the file is gone or empty, and its log (-wal) is there, which may hold keys: restore the file beside it, or move the log away"
    )]
    LogWithoutFile,
    /// There is no table, and the user may not make one.
    #[error("the table is not there, and the user may not make it")]
    TableNotMade(#[source] DriverFault),
    /// The file is on a read-only file system, and the log beside it holds what is not in it yet.
    #[error(
        "the file is on a read-only file system, and the log beside it (-wal) holds what is not in it yet: copy \
         both to where they can be written"
    )]
    LogNotReadable,
    /// Others kept changing the row, so that no change of ours could be made on top of theirs.
    #[error("the row of the key kept being changed by others")]
    Contended(KeyMeta),
}

impl SqlFault {
    fn class(&self) -> FailureClass {
        match self {
            Self::RowMalformed { .. }
            | Self::RecordTooLarge(_)
            | Self::CreatedUnreadable(_)
            | Self::IdUnreadable
            | Self::RowIdTooLong => FailureClass::Damaged,
            Self::Contended(_) | Self::OtherRole { .. } => FailureClass::Transient,
            Self::FoldedId { .. } => FailureClass::Folded,
            _ => FailureClass::Permanent,
        }
    }

    fn kind(&self) -> Option<FailureKind> {
        Some(match self {
            Self::IdEmpty | Self::IdHasNul | Self::IdReserved(_) => FailureKind::IdRefused,
            Self::IdTooLong { .. } | Self::IdOverColumn { .. } => FailureKind::IdTooLong,
            Self::CharactersNotHeld { .. } => FailureKind::Encoding,
            Self::RecordTooLong { .. } => FailureKind::RecordTooLong,
            Self::CreatedNotHeld(_) => FailureKind::TimeNotHeld,
            Self::Indistinct(_) => FailureKind::Indistinct,
            Self::NotKept(_) => FailureKind::NotKept,
            Self::OtherRole { .. } => FailureKind::Unreachable,
            Self::FolderNotWritable(_) | Self::TableNotMade(_) => FailureKind::Denied,
            Self::NameOfNoFile => FailureKind::Settings,
            Self::LogNotReadable => FailureKind::ReadOnly,
            Self::Contended(_) => FailureKind::Busy,
            Self::IdUnreadable
            | Self::RowIdTooLong
            | Self::RecordTooLarge(_)
            | Self::CreatedUnreadable(_)
            | Self::RowMalformed { .. }
            | Self::InsertSwallowed(_)
            | Self::FoldedId { .. }
            | Self::LogWithoutFile
            | Self::Crossed
            | Self::CrossedBy(_) => return None,
        })
    }

    /// Returns `true` if the call was refused for what it was given, before any statement was sent.
    const fn is_refused_here(&self) -> bool {
        matches!(
            self,
            Self::IdEmpty
                | Self::IdTooLong { .. }
                | Self::IdOverColumn { .. }
                | Self::IdHasNul
                | Self::IdReserved(_)
                | Self::CharactersNotHeld { .. }
                | Self::RecordTooLong { .. }
        )
    }
}

impl From<SqlFault> for BackendError {
    fn from(fault: SqlFault) -> Self {
        let (kind, is_refused_here) = (fault.kind(), fault.is_refused_here());
        let error = Self::new(fault.class(), fault).with_kind(kind);
        if is_refused_here { error.not_asked() } else { error }
    }
}

/// What brings an answer to another statement.
const SHARED_NAMES: &str = "a pooler shares server connections, and prepared statements with them, as \
     PgBouncer does in transaction and statement mode unless max_prepared_statements is set; use \
     prepared-statements=off";

/// How many characters a key id may have, as Asherah's tables have it.
pub(crate) const ID_CHARS_MAX: usize = 255;

/// How many bytes of a record's JSON are read and written. The statements say the same number.
pub(crate) const RECORD_BYTES_MAX: usize = EnvelopeKeyRecord::MAX_JSON_BYTES;

/// How many bytes of a row's id are read: more than the index of any server takes. The statements say the
/// same number.
pub(crate) const LISTED_ID_BYTES_MAX: usize = 2_048;

macro_rules! unfold {
    () => {
        "Copy each row under every id that records name, into a table that compares bytes, by the statements under \
         `Ids that fold` in docs/metastores.md: to change the column alone parts all records from their keys but \
         those of one id."
    };
}

/// What mends a table that folds ids. Its column alone is not to be changed.
#[cfg(feature = "postgres")]
pub(crate) const UNFOLD: &str = unfold!();

/// The same where [`FoldedIds::Served`] helps until then.
pub(crate) const UNFOLD_OR_READ: &str = concat!(
    unfold!(),
    " Until then folded_ids (--folded-ids on the command line) reads what other programs sealed so."
);

/// Checks that the table can hold the id, so that the database never cuts it.
pub(crate) fn check_id(id: &KeyId) -> Result<(), SqlFault> {
    let text = id.as_str();
    if text.is_empty() {
        return Err(SqlFault::IdEmpty);
    }
    let chars = text.chars().count();
    if chars > ID_CHARS_MAX {
        return Err(SqlFault::IdTooLong { chars });
    }
    if text.contains('\0') {
        return Err(SqlFault::IdHasNul);
    }
    if is_reserved_id(text) {
        return Err(SqlFault::IdReserved(id.clone()));
    }
    Ok(())
}

/// Makes the JSON of a record that is to be written, of a length that is read again.
pub(crate) fn checked_json(record: &EnvelopeKeyRecord) -> Result<String, SqlFault> {
    let json = record.to_json();
    if json.len() > RECORD_BYTES_MAX {
        return Err(SqlFault::RecordTooLong { length: json.len() as u64, limit: RECORD_BYTES_MAX as u64 });
    }
    Ok(json)
}
