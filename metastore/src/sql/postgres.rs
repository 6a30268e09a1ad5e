//! Keys in PostgreSQL.

pub(crate) mod builder;
mod check;
mod dialect;
mod fault;
pub(crate) mod invalidations;
mod pooler;
mod session;
mod statements;
mod texts;

use claviger::BackendError;

use self::statements::PostgresDialect;
use self::texts::{
    count_sql, delete_sql, delete_version_sql, durably, holder_sql, insert_sql, latest_two, list_sql,
    load_latest_many_sql, load_latest_sql, load_many_sql, load_sql, no_reserved_id, of_asked, of_id, record,
    row_id, seconds, update_sql,
};
use crate::sql::connections::Connections;
use crate::sql::driver::Doing;
use crate::sql::store::{SqlMetastore, sql_metastore};

/// Keeps key records in a PostgreSQL table that any number of processes share, those of other
/// Asherah implementations included.
///
/// Clones share one pool of connections. Key ids have 1 to 255 characters and no NUL, records at most 64 KiB
/// of JSON; others are refused with a permanent error before the database is asked. A row with a longer record
/// is damaged, and the server does not send it.
///
/// ```no_run
/// use claviger_metastore::PostgresMetastore;
///
/// # async fn example(url: &str) -> Result<(), claviger::BackendError> {
/// // postgres://checkout:…@db.internal/keys?sslmode=verify-full
/// let metastore = PostgresMetastore::open(url).await?;
/// # Ok(()) }
/// ```
///
/// # The table
/// [`migrate`](Self::migrate) makes `encryption_key` if there is none. One that is there is used as
/// it is: `id` may be `VARCHAR` or `TEXT`, `created` may be `TIMESTAMP` or `TIMESTAMPTZ`, and
/// `key_record` may be `TEXT`, `VARCHAR`, `JSON` or `JSONB`. [`check_schema`](Self::check_schema) says
/// what is wrong with it, and no store starts on a table that would lose keys. The columns' types are
/// looked at once: programs are to be started again after an `ALTER TABLE`.
///
#[doc = concat!("```sql\n", include_str!("../../migrations/postgres/0001_encryption_key.sql"), "```")]
///
/// # Connections
/// Every call ends at the deadline of its context. A call that is given up keeps its place among the connections until the
/// server has let go of it, and the server is told to end it; so there are never more connections than
/// are allowed, whatever hangs. A read that meets a dead connection is made again on another one; a
/// write is not, since it may have happened, and is a transient error: the factory tries again. A
/// server that was demoted and takes no more writes is such an error too, and its connection is closed,
/// so that the next leads to its successor, by another host of the URL, the host name or the pooler.
///
/// A new connection that leads to another server, or to another timeline of one, is a fail-over: the
/// others are closed, and a factory reads again what it holds.
///
/// Statements are prepared. A pooler that shares connections and not the names of statements
/// **destroys keys** of programs that trust it, since a load can run as a `DELETE`; it is found out at
/// the start, and refused. See [`PostgresBuilder::open`](crate::PostgresBuilder::open) for `prepared-statements=off`.
///
/// # The statements
/// Each has a tag for its first parameter, does nothing for another one, and returns it; an answer
/// without it is not believed. Where `created` is a `TIMESTAMP`, `to_timestamp(…)` is followed by
/// `AT TIME ZONE 'UTC'`, so that the session's time zone never has a part in it. One key version:
#[doc = concat!("```sql\n", load_sql!(""), "\n```")]
/// The latest version before a time, and the one before it:
#[doc = concat!("```sql\n", load_latest_sql!(""), "\n```")]
/// Several key versions, 10 000 by statement:
#[doc = concat!("```sql\n", load_many_sql!(""), "\n```")]
/// The latest versions of several keys, likewise:
#[doc = concat!("```sql\n", load_latest_many_sql!(""), "\n```")]
/// A new key. The version is taken if the insert violates the primary key and the row that is then looked at is
/// that version's. If that row was deleted meanwhile the insert is made again, three times at most. On a table
/// that folds ids the same look finds what it takes for a version that has no row:
#[doc = concat!("```sql\n", insert_sql!(""), ";\n\n", holder_sql!(""), "\n```")]
/// A revocation or a replaced wrapped key, after a read of the row. If another program changed the row meanwhile
/// it is read again, 20 times at most:
#[doc = concat!("```sql\n", update_sql!(""), "\n```")]
/// Operators' calls:
#[doc = concat!("```sql\n", list_sql!(""), ";\n\n", delete_version_sql!(""), ";\n\n", delete_sql!(), ";\n\n", count_sql!(), "\n```")]
#[derive(Clone)]
pub struct PostgresMetastore(SqlMetastore<Connections<PostgresDialect>>);

impl PostgresMetastore {
    /// Connects to the database and looks at its table. What else can be set is in
    /// [`builder`](Self::builder).
    ///
    /// # Errors
    /// As [`PostgresBuilder::open`](crate::PostgresBuilder::open) does.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn open(url: &str) -> Result<Self, BackendError> {
        Self::builder().open(url).await
    }

    /// Makes our own table, with the trigger that tells of revocations, if there is none, and opens the store as
    /// [`open`](Self::open) does: for installing, on an empty database. One that is there is left as it is.
    ///
    /// ```no_run
    /// use claviger_metastore::PostgresMetastore;
    ///
    /// # async fn example(keeper: &str, service: &str) -> Result<(), claviger::BackendError> {
    /// // Once, as a user who may make tables; again it does no harm.
    /// PostgresMetastore::migrate(keeper).await?.close().await;
    /// // From then on, as one who may only load and insert.
    /// let metastore = PostgresMetastore::open(service).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`PostgresBuilder::open`](crate::PostgresBuilder::open) does, and permanent, with
    /// [`SqlFault::TableNotMade`](crate::SqlFault::TableNotMade) as its source, when there is no table and
    /// the user may not make one.
    ///
    /// # Cancel safety
    /// The table was made or was not.
    pub async fn migrate(url: &str) -> Result<Self, BackendError> {
        Self::builder().migrate().open(url).await
    }

    /// The SQL that [`migrate`](Self::migrate) runs, for callers that manage schemas with other tools.
    pub const SCHEMA: &str = concat!(
        include_str!("../../migrations/postgres/0001_encryption_key.sql"),
        "\n",
        include_str!("../../migrations/postgres/0002_notify.sql")
    );

    /// Returns the statements that calls run, by their tags: on our own table first, then on Asherah's.
    pub fn statements() -> impl Iterator<Item = (&'static str, &'static str)> {
        [&texts::OF_TIMESTAMPTZ, &texts::OF_TIMESTAMP]
            .into_iter()
            .flat_map(|texts| texts.all().map(|statement| (statement.tag, statement.sql)))
    }

    /// Classifies a failure of the driver, as the store does its own: for a
    /// [`Persistence`](claviger::Persistence) over a caller's own tables.
    ///
    /// Transient is what may pass by itself: a connection that broke or could not be had in time, a
    /// server that starts, stops, was demoted or is full, a lock, a conflict with another transaction.
    /// The source is a [`DriverFault`](crate::DriverFault), which lacks the row that a constraint refused.
    ///
    /// ```
    /// use claviger_metastore::{PostgresMetastore, sqlx};
    ///
    /// assert!(PostgresMetastore::classify(sqlx::Error::PoolTimedOut).is_transient());
    /// assert!(!PostgresMetastore::classify(sqlx::Error::RowNotFound).is_transient());
    /// ```
    #[must_use]
    pub fn classify(error: sqlx::Error) -> BackendError {
        fault::backend_error(error, Doing::Asking)
    }
}

sql_metastore!(PostgresMetastore);
