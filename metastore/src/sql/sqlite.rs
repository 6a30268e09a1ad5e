//! Keys in one SQLite file.

// Before those that use its macros.
#[macro_use]
mod text;

pub(crate) mod builder;
mod check;
mod fault;
mod file;
mod group;
mod patience;
mod statements;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use claviger::{BackendError, CallContext};
use futures_util::future::try_join_all;
use sqlx::sqlite::SqlitePool;
use tokio::time::Instant;

use crate::schema::SchemaReport;
use crate::sql::FoldedIds;
use crate::sql::error::{SqlError, SqlFuture};
use crate::sql::sqlite::fault::backend_error;
use crate::sql::sqlite::group::Group;
use crate::sql::sqlite::patience::{OPENING_MAX, connection, in_time, until_free};
use crate::sql::sqlite::statements::SqliteDialect;
use crate::sql::statements::On;
use crate::sql::store::{Access, SqlMetastore, sql_metastore};
use crate::sql::write::Write;
use crate::task::to_its_end;

/// Keeps key records in one SQLite file that any number of processes of one machine share, those
/// of other Asherah implementations included.
///
/// A record is on the disk when an insert answers: the file is in WAL mode and every commit is
/// synced. What several tasks write at once is committed together, each with its own outcome. Clones
/// share one pool of connections, and may be used from several tokio runtimes.
///
/// Key ids have 1 to 255 characters and no NUL, records at most 64 KiB of JSON; others are refused with a
/// permanent error before the file is touched. A row with a longer record is damaged, and is not read. A row is found whatever text form of
/// its creation time its writer chose, and its own are written as Asherah's SQLite writers do.
///
/// ```no_run
/// use claviger_metastore::SqliteMetastore;
///
/// # async fn example() -> Result<(), claviger::BackendError> {
/// let metastore = SqliteMetastore::open("/var/lib/checkout/keys.db").await?;
/// # Ok(()) }
/// ```
///
/// # The table
/// [`migrate`](Self::migrate) makes file and table if they are not there. [`check_schema`](Self::check_schema)
/// says what is wrong with a table that is there, and no store starts on one that keys could be lost in.
///
#[doc = concat!("```sql\n", include_str!("../../migrations/sqlite/0001_encryption_key.sql"), "\n```")]
///
/// # The statements
/// One key version, in whatever form its time is, and what a table that folds ids takes for one that
/// has no row:
#[doc = concat!("```sql\n", load!(), ";\n\n", load_folded!(), "\n```")]
/// The latest version up to a time, and the one before it:
#[doc = concat!("```sql\n", load_latest!(), "\n```")]
/// Several versions, 1 000 by statement, and what is left of them in other forms:
#[doc = concat!("```sql\n", load_many!(), ";\n\n", load_many_other_forms!(), "\n```")]
/// The latest versions of several keys, likewise:
#[doc = concat!("```sql\n", load_latest_many!(), "\n```")]
/// New keys, all that wait. One that is not inserted is looked at, as by the first two statements: the version is
/// taken if that row is its own. If it was deleted meanwhile the insert is made again, three times at most:
#[doc = concat!("```sql\n", insert!(), "\n```")]
/// A revocation or a replaced wrapped key, which is a read and an update of each form, 20 times at most:
#[doc = concat!("```sql\n", load_all_forms!(), ";\n\n", update!(), "\n```")]
/// Operators' calls:
#[doc = concat!("```sql\n", list!(), ";\n\n", delete_version!(), ";\n\n", delete!(), ";\n\n", count!(), "\n```")]
/// Writes that are not inserts alone are made between `BEGIN IMMEDIATE` and `COMMIT`.
#[derive(Clone)]
pub struct SqliteMetastore(SqlMetastore<Connections>);

impl SqliteMetastore {
    /// Opens the file and looks at its table. Both must be there: of a key store that was lost nothing is
    /// begun anew, while its data waits for its keys. What else can be set is in [`builder`](Self::builder).
    ///
    /// # Errors
    /// As [`SqliteBuilder::open`](crate::SqliteBuilder::open) does.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, BackendError> {
        Self::builder().open(path).await
    }

    /// Makes the file and our own table if they are not there, and opens the store as [`open`](Self::open)
    /// does: for installing, and for a program that brings its own key store. What is there is left as it is.
    ///
    /// ```
    /// use claviger_metastore::SqliteMetastore;
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), claviger::BackendError> {
    /// # let folder = tempfile::tempdir().map_err(claviger::BackendError::permanent)?;
    /// # let file = folder.path().join("keys.db");
    /// // Once; again it does no harm.
    /// SqliteMetastore::migrate(&file).await?.close().await;
    /// // From then on.
    /// let metastore = SqliteMetastore::open(&file).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`SqliteBuilder::open`](crate::SqliteBuilder::open) does.
    ///
    /// # Cancel safety
    /// The file may have been made without its table, and is as good as new.
    pub async fn migrate(path: impl AsRef<Path>) -> Result<Self, BackendError> {
        Self::builder().migrate().open(path).await
    }

    /// Uses a pool made by the caller, and looks at the table.
    ///
    /// # Errors
    /// As [`SqliteBuilder::open_with`](crate::SqliteBuilder::open_with) does.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn new(pool: SqlitePool) -> Result<Self, BackendError> {
        Self::builder().open_with(pool).await
    }

    /// The SQL that [`migrate`](Self::migrate) runs, for callers that manage schemas with other tools.
    pub const SCHEMA: &str = include_str!("../../migrations/sqlite/0001_encryption_key.sql");

    /// Classifies a failure of the driver, as the store does its own: for a
    /// [`Persistence`](claviger::Persistence) over a caller's own tables.
    ///
    /// Transient is what may pass by itself: a file that others are writing, a disk that is full or
    /// fails, a connection that could not be had in time.
    ///
    /// ```
    /// use claviger_metastore::{SqliteMetastore, sqlx};
    ///
    /// assert!(SqliteMetastore::classify(sqlx::Error::PoolTimedOut).is_transient());
    /// assert!(!SqliteMetastore::classify(sqlx::Error::RowNotFound).is_transient());
    /// ```
    #[must_use]
    pub fn classify(error: sqlx::Error) -> BackendError {
        backend_error(error)
    }
}

sql_metastore!(SqliteMetastore);

/// The connections of a store and of its clones with its file.
#[derive(Clone)]
struct Connections {
    pool: SqlitePool,
    /// SQLite lets one connection write at a time and makes the others poll; here they queue.
    group: Arc<Group>,
    folded_ids: FoldedIds,
}

impl Connections {
    /// The pool belongs to it, so that it is checked and waited for as its own.
    fn new(pool: SqlitePool, folded_ids: FoldedIds) -> Self {
        Self { group: Group::new(pool.clone()), pool, folded_ids }
    }

    async fn make_table(&self) -> Result<(), BackendError> {
        let pool = self.pool.clone();
        to_its_end(async move {
            let deadline = Instant::now() + OPENING_MAX;
            statements::create_table(&mut *connection(&pool, deadline).await?).await.map_err(backend_error)
        })
        .await
    }
}

impl Access for Connections {
    type Dialect = SqliteDialect;

    fn folded_ids(&self) -> FoldedIds {
        self.folded_ids
    }

    /// There is one file, whatever may be read of another.
    async fn read<T: Send + 'static>(
        &self,
        context: CallContext,
        work: impl Fn(On<'_, SqliteDialect>) -> SqlFuture<'_, T> + Clone + Send + Sync + 'static,
    ) -> Result<T, BackendError> {
        let pool = self.pool.clone();
        let read = to_its_end(async move {
            until_free(context.deadline, async || {
                let mut connection = connection(&pool, context.deadline).await?;
                let on = On { session: &mut *connection, table: () };
                work(on).await.map_err(SqlError::classified::<SqliteDialect>)
            })
            .await
        });
        in_time(context, read).await
    }

    async fn write(&self, context: CallContext, writes: Vec<Write>) -> Result<Vec<u64>, BackendError> {
        // In the queue together, so that they share a commit.
        let writes = writes.into_iter().map(|write| self.group.write(context.deadline, write));
        in_time(context, try_join_all(writes)).await
    }

    async fn report(&self, context: CallContext) -> Result<SchemaReport, BackendError> {
        let pool = self.pool.clone();
        let report =
            to_its_end(async move { check::check(&mut *connection(&pool, context.deadline).await?).await });
        in_time(context, report).await
    }

    fn failovers(&self) -> u64 {
        0
    }

    async fn close(&self) {
        self.pool.close().await;
    }

    fn debug(&self, fields: &mut fmt::DebugStruct<'_, '_>) {
        fields.field("pool", &self.pool).field("group", &self.group);
    }
}

#[cfg(test)]
mod tests;
