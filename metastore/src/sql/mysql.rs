//! Keys in MySQL and MariaDB.

pub(crate) mod builder;
mod check;
mod dialect;
mod fault;
mod layout;
mod named;
mod statements;
mod texts;
mod utc;

use claviger::BackendError;

use self::statements::MysqlDialect;
use self::texts::{
    count_sql, delete_sql, delete_version_sql, holder_sql, insert_sql, list_sql, load_latest_many_sql,
    load_latest_sql, load_many_sql, load_sql, no_reserved_id, of_id, row, up_to, update_sql,
};
use crate::sql::connections::Connections;
use crate::sql::driver::Doing;
use crate::sql::store::{SqlMetastore, sql_metastore};

/// Keeps key records in a MySQL or MariaDB table that any number of processes share, those of other
/// Asherah implementations included.
///
/// Clones share one pool of connections. What the table cannot hold is refused with a permanent error
/// before the server is asked, and never cut: key ids have 1 to 255 bytes in our own table and 1 to
/// 255 characters in Asherah's, and no NUL, records at most 64 KiB of JSON; creation times end in 2038 in a
/// `TIMESTAMP` column. A row with a longer record is damaged, and the server does not send it.
///
/// ```no_run
/// use claviger_metastore::MysqlMetastore;
///
/// # async fn example(url: &str) -> Result<(), claviger::BackendError> {
/// // mysql://checkout:…@db.internal/keys?ssl-mode=VERIFY_IDENTITY&ssl-ca=/etc/ca.pem
/// let metastore = MysqlMetastore::open(url).await?;
/// # Ok(()) }
/// ```
///
/// # The table
/// [`migrate`](Self::migrate) makes `encryption_key` if there is none. One that is there is used as it
/// is, and programs may go on while an `ALTER TABLE` turns Asherah's into ours.
/// [`check_schema`](Self::check_schema) says what is wrong with it, and no store starts on a table
/// that would lose keys.
///
#[doc = concat!("```sql\n", include_str!("../../migrations/mysql/0001_encryption_key.sql"), "```")]
///
/// The columns of Asherah's own table take ids for one another that differ by case, accents or
/// trailing blanks. Here they stay apart: rows are compared byte by byte, and an insert whose place is
/// taken by another id is refused with [`SqlFault::Indistinct`](crate::SqlFault::Indistinct). Asherah
/// seals for one id under another's row, and names an id that has none: such a load fails with
/// [`SqlFault::FoldedId`](crate::SqlFault::FoldedId), or is answered for decrypting
/// ([`MysqlBuilder::folded_ids`](crate::MysqlBuilder::folded_ids)).
///
/// All programs send `created` as UTC text. In a `DATETIME` that is what is kept, whoever writes; in
/// Asherah's `TIMESTAMP` the server takes it for a time in the session's zone, so that all programs that
/// share the table must have one zone ([`MysqlBuilder::session_time_zone`](crate::MysqlBuilder::session_time_zone)). Where that zone's clocks are
/// put forward, the hour they skip cannot be stored: an insert in it is refused with
/// [`SqlFault::CreatedNotHeld`](crate::SqlFault::CreatedNotHeld).
///
/// # Connections
/// Every call ends at the deadline of its context. A call that is given up keeps its place among the connections until the
/// server has let go of it, and the server is told to end it (`KILL`); so there are never more
/// connections than are allowed, whatever hangs. A read that meets a dead connection is made again on
/// another one; a write is not, since it may have happened, and is a transient error: the factory tries
/// again. A server that was demoted and takes no more writes is such an error too, and its connection
/// is closed, so that the next leads to its successor, by another host of the URL, the host name or the
/// proxy.
///
/// A new connection that leads to another server, or another cluster, is a fail-over: the others are
/// closed, and a factory reads again what it holds. On a Galera node (`wsrep_on`) reads wait for what
/// other nodes have committed (`wsrep_sync_wait`).
///
/// Statements are prepared. Passwords of the kind `caching_sha2_password` need TLS.
///
/// # The statements
/// One key version, and on a table that folds ids what it takes for one that has no row:
#[doc = concat!("```sql\n", load_sql!(), ";\n\n", holder_sql!(), "\n```")]
/// The latest version up to a time, and the one before it. Where `created` is a `TIMESTAMP` it is compared as
/// `CAST(created AS DATETIME)`:
#[doc = concat!("```sql\n", load_latest_sql!(unzoned), "\n```")]
/// Several key versions, up to 512 by statement:
#[doc = concat!("```sql\n", load_many_sql!("?, ?, …", "?, ?, …"), "\n```")]
/// The latest versions of several keys, likewise:
#[doc = concat!("```sql\n", load_latest_many_sql!("?, ?, …", unzoned), "\n```")]
/// A new key. The version is taken if the insert violates the primary key and the row that is then looked at is
/// that version's. If that row was deleted meanwhile the insert is made again, three times at most:
#[doc = concat!("```sql\n", insert_sql!(), ";\n\n", holder_sql!(), "\n```")]
/// A revocation or a replaced wrapped key, after a read of the row. If another program changed the row meanwhile
/// it is read again, 20 times at most:
#[doc = concat!("```sql\n", update_sql!(), "\n```")]
/// Operators' calls:
#[doc = concat!(
    "```sql\n", list_sql!("id >= ? AND (id > ? OR created > ?) AND "), ";\n\n", delete_version_sql!(), ";\n\n", delete_sql!(), ";\n\n",
    count_sql!(), "\n```"
)]
#[derive(Clone)]
pub struct MysqlMetastore(SqlMetastore<Connections<MysqlDialect>>);

impl MysqlMetastore {
    /// Connects to the database and looks at its table. What else can be set is in
    /// [`builder`](Self::builder).
    ///
    /// # Errors
    /// As [`MysqlBuilder::open`](crate::MysqlBuilder::open) does.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn open(url: &str) -> Result<Self, BackendError> {
        Self::builder().open(url).await
    }

    /// Makes our own table if there is none, and opens the store as
    /// [`open`](Self::open) does: for installing, on an empty database. One that is there is left as it is.
    ///
    /// ```no_run
    /// use claviger_metastore::MysqlMetastore;
    ///
    /// # async fn example(keeper: &str, service: &str) -> Result<(), claviger::BackendError> {
    /// // Once, as a user who may make tables; again it does no harm.
    /// MysqlMetastore::migrate(keeper).await?.close().await;
    /// // From then on, as one who may only load and insert.
    /// let metastore = MysqlMetastore::open(service).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`MysqlBuilder::open`](crate::MysqlBuilder::open) does, and permanent, with
    /// [`SqlFault::TableNotMade`](crate::SqlFault::TableNotMade) as its source, when there is no table and
    /// the user may not make one.
    ///
    /// # Cancel safety
    /// The table was made or was not.
    pub async fn migrate(url: &str) -> Result<Self, BackendError> {
        Self::builder().migrate().open(url).await
    }

    /// The SQL that [`migrate`](Self::migrate) runs, for callers that manage schemas with other tools.
    pub const SCHEMA: &str = include_str!("../../migrations/mysql/0001_encryption_key.sql");

    /// Classifies a failure of the driver, as the store does its own: for a
    /// [`Persistence`](claviger::Persistence) over a caller's own tables.
    ///
    /// Transient is what may pass by itself: a connection that broke or could not be had in time, a
    /// server that starts, stops, was demoted or is full, a lock, a conflict with another transaction.
    /// The source is a [`DriverFault`](crate::DriverFault), which lacks the row that a constraint refused.
    ///
    /// ```
    /// use claviger_metastore::{MysqlMetastore, sqlx};
    ///
    /// assert!(MysqlMetastore::classify(sqlx::Error::PoolTimedOut).is_transient());
    /// assert!(!MysqlMetastore::classify(sqlx::Error::RowNotFound).is_transient());
    /// ```
    #[must_use]
    pub fn classify(error: sqlx::Error) -> BackendError {
        fault::backend_error(error, Doing::Asking)
    }
}

sql_metastore!(MysqlMetastore);
