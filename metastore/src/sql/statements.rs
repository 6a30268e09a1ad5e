//! What is asked of the table, in whatever dialect.

use claviger::{BackendError, Created, EnvelopeKeyRecord, KeyId, KeyMeta};

use crate::sql::driver::Doing;
use crate::sql::error::SqlError;
use crate::sql::rows::Row;
use crate::sql::{SqlFault, check_id, checked_json};

/// The statements of one dialect, each atomic by itself, and what its failures mean.
///
/// What the rows mean is decided by [`read`](crate::sql::read) and [`write`](crate::sql::write), for all
/// dialects.
pub(crate) trait Statements: Sized + Send + Sync + 'static {
    /// What the store is called.
    const STORE: &'static str;
    /// How many keys one statement asks for.
    const ASKED_MAX: usize;

    /// A connection on which statements can be run.
    type Session: Send + 'static;
    /// What a call must know of the table that is there.
    type Table: Copy + Send + Sync + 'static;

    /// Classifies a failure, and strips what does not belong in an error.
    fn backend_error(error: sqlx::Error, doing: Doing) -> BackendError;

    /// Checks that the table can hold the id, so that the database never cuts it.
    fn check_id(_table: Self::Table, id: &KeyId) -> Result<(), SqlFault> {
        check_id(id)
    }

    /// Checks that the table can compare the place where a page begins.
    fn check_place(_table: Self::Table, _place: &KeyMeta) -> Result<(), SqlFault> {
        Ok(())
    }

    /// Makes the JSON of a record that is to be written, of a length that is read again.
    fn checked_json(_table: Self::Table, record: &EnvelopeKeyRecord) -> Result<String, SqlFault> {
        checked_json(record)
    }

    /// Looks for the row of a version.
    fn find(on: &mut On<'_, Self>, key: &KeyMeta) -> impl Answer<Found>;

    /// Looks for the rows of at most [`ASKED_MAX`](Self::ASKED_MAX) versions; one answer for each, in the
    /// order asked.
    fn find_many(on: &mut On<'_, Self>, keys: &[KeyMeta]) -> impl Answer<Vec<Found>>;

    /// Looks for the row that the table takes for a version's. Its id may be another.
    fn find_holder(on: &mut On<'_, Self>, key: &KeyMeta) -> impl Answer<Option<Row>>;

    /// Returns the last two rows of an id that are not past the time, the latest first.
    fn find_latest(on: &mut On<'_, Self>, id: &KeyId, up_to: Created) -> impl Answer<Vec<Row>>;

    /// Does the same for at most [`ASKED_MAX`](Self::ASKED_MAX) ids; one answer for each, in the order asked.
    fn find_latest_many(on: &mut On<'_, Self>, ids: &[KeyId], up_to: Created) -> impl Answer<Vec<Vec<Row>>>;

    /// Returns every row of a version: more than one where its time has more than one form.
    fn find_forms(on: &mut On<'_, Self>, key: &KeyMeta) -> impl Answer<Vec<Row>> {
        async move {
            Ok(match Self::find(on, key).await? {
                Found::Row(row) => vec![row],
                Found::Nothing | Found::HeldPerhaps => Vec::new(),
            })
        }
    }

    /// Inserts a row.
    fn insert(on: &mut On<'_, Self>, key: &KeyMeta, json: &str) -> impl Answer<Placed>;

    /// Puts `new` in the place of the record `old` of a version. Returns how many rows it changed.
    fn update(on: &mut On<'_, Self>, key: &KeyMeta, old: &[u8], new: &str) -> impl Answer<u64>;

    /// Returns at most `limit` rows whose id begins with the prefix, in the order of the primary key, from the
    /// beginning or from after a place.
    fn list(
        on: &mut On<'_, Self>,
        prefix: &str,
        after: Option<&KeyMeta>,
        limit: usize,
    ) -> impl Answer<Vec<Row>>;

    /// Deletes every row of a version. Returns how many there were.
    fn delete_version(on: &mut On<'_, Self>, key: &KeyMeta) -> impl Answer<u64>;

    /// Deletes the rows of an id. Returns how many there were.
    fn delete(on: &mut On<'_, Self>, id: &KeyId) -> impl Answer<u64>;

    /// Counts the rows that are keys.
    fn count(on: &mut On<'_, Self>) -> impl Answer<u64>;
}

/// The table, and a session by which it is reached.
pub(crate) struct On<'a, D: Statements> {
    pub(crate) session: &'a mut D::Session,
    pub(crate) table: D::Table,
}

/// What a statement answers, once it has.
pub(crate) trait Answer<T>: Future<Output = Result<T, SqlError>> + Send {}

impl<T, F: Future<Output = Result<T, SqlError>> + Send> Answer<T> for F {}

/// What was found for a version.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    Row(Row),
    #[cfg_attr(not(feature = "_server"), expect(dead_code, reason = "of a file's table more is not known"))]
    Nothing,
    /// It has no row of its own, and the table may take another's for it.
    HeldPerhaps,
}

/// What became of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    Inserted,
    /// A unique key of the table was in the way.
    Refused,
    /// The database reports no error and no row.
    Nowhere,
}

impl SqlError {
    pub(crate) fn classified<D: Statements>(self) -> BackendError {
        self.classified_when::<D>(Doing::Asking)
    }

    pub(crate) fn classified_when<D: Statements>(self, doing: Doing) -> BackendError {
        match self {
            Self::Driver(error) => D::backend_error(error, doing),
            Self::Fault(fault) => fault.into(),
            Self::Crossed => BackendError::transient(SqlFault::Crossed),
        }
    }
}
