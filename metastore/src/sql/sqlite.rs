//! Keys in one SQLite file.

// Before those that use its macros.
#[macro_use]
mod text;

mod check;
mod fault;
mod file;
mod group;
mod statements;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use claviger::{
    BackendError, Consistency, EnvelopeKeyRecord, Insert, KeyId, KeyMeta, Metastore, MetastoreAdmin, Page,
};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Sqlite};

use crate::schema::{Admission, FindingId, SchemaReport};
use crate::sql::sqlite::fault::{backend_error, is_on_read_only_medium, opening_error};
use crate::sql::sqlite::group::Group;
use crate::sql::sqlite::statements::Write;
use crate::sql::{FoldedIds, SqlFault, check_id, check_meta};
use crate::task::to_its_end;

/// Keeps key records in one SQLite file that any number of processes of one machine share, those
/// of other Asherah implementations included.
///
/// A record is on the disk when an insert answers: the file is in WAL mode and every commit is
/// synced. What several tasks write at once is committed together, each with its own outcome. Clones
/// share one pool of connections, and may be used from several tokio runtimes.
///
/// Key ids have 1 to 255 characters and no NUL, creation times end with the year 9999; others are
/// refused with a permanent error before the file is touched. A row is found whatever text form of
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
/// [`open`](Self::open) makes it if there is none; [`check_schema`](Self::check_schema) says
/// what is wrong with one that is there, and no store starts on one that keys could be lost in.
///
#[doc = concat!("```sql\n", include_str!("../../migrations/sqlite/0001_encryption_key.sql"), "\n```")]
///
/// # The statements
/// One key version, in whatever form its time is, and what a table that folds ids takes for one that
/// has no row:
#[doc = concat!("```sql\n", load!(), ";\n\n", load_folded!(), "\n```")]
/// The latest version:
#[doc = concat!("```sql\n", load_latest!(), "\n```")]
/// Several versions, 1 000 by statement, and what is left of them in other forms:
#[doc = concat!("```sql\n", load_many!(), ";\n\n", load_many_other_forms!(), "\n```")]
/// The latest versions of several keys, likewise:
#[doc = concat!("```sql\n", load_latest_many!(), "\n```")]
/// New keys, all that wait:
#[doc = concat!("```sql\n", insert!(), "\n```")]
/// A revocation or a replaced wrapped key, which is a read and an update of each form:
#[doc = concat!("```sql\n", load_all_forms!(), ";\n\n", update!(), "\n```")]
/// Operators' calls:
#[doc = concat!("```sql\n", list!(), ";\n\n", delete!(), ";\n\n", count!(), "\n```")]
/// Writes that are not inserts alone are made between `BEGIN IMMEDIATE` and `COMMIT`.
#[derive(Clone, Debug)]
pub struct SqliteMetastore {
    pool: SqlitePool,
    /// SQLite lets one connection write at a time and makes the others poll; here they queue.
    group: Arc<Group>,
    folded_ids: FoldedIds,
}

/// How long a statement waits for other processes. Below the two seconds that the core gives a
/// store call, so that the caller learns that the file is busy.
const BUSY_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Readers do not block each other; more threads than this find no more disk.
const CONNECTIONS_MAX: u32 = 4;

impl SqliteMetastore {
    /// Opens the file, made with mode 0600 if it is not there, and creates the table if it is not
    /// there. The folder must exist. A service that has run before is better opened with
    /// [`existing`](SqliteBuilder::existing), so that a file that was lost is not replaced by an empty one.
    ///
    /// What SQLite takes for a database in memory (`:memory:`) or for a URI (`file:…`) is refused.
    ///
    /// # Errors
    /// Permanent when the file cannot be opened or is no database, and, with
    /// [`DangerousSchema`](crate::DangerousSchema) as its source, when keys could be lost in it;
    /// transient when other processes keep it busy.
    ///
    /// # Cancel safety
    /// The file may have been made, and is as good as new.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, BackendError> {
        Self::builder().open(path).await
    }

    /// Makes the file and the table if they are not there, and opens the store: what
    /// [`open`](Self::open) does too, by the name that all stores have for it.
    ///
    /// ```
    /// use claviger_metastore::SqliteMetastore;
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), claviger::BackendError> {
    /// # let folder = tempfile::tempdir().map_err(claviger::BackendError::permanent)?;
    /// # let file = folder.path().join("keys.db");
    /// let metastore = SqliteMetastore::migrate(&file).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`open`](Self::open) does.
    ///
    /// # Cancel safety
    /// As of [`open`](Self::open).
    pub async fn migrate(path: impl AsRef<Path>) -> Result<Self, BackendError> {
        Self::builder().migrate().open(path).await
    }

    /// Uses a pool made by the caller. The file must be in WAL mode, `synchronous` must be `FULL` or
    /// `EXTRA`, and the table one that keys are not lost in. Where it may not be there,
    /// `SqliteMetastore::builder().migrate().pool(pool)` makes it.
    ///
    /// # Errors
    /// Permanent, with [`DangerousSchema`](crate::DangerousSchema) as its source, when keys could be
    /// lost; else as the database's failures are.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn new(pool: SqlitePool) -> Result<Self, BackendError> {
        Self::builder().pool(pool).await
    }

    /// The SQL that [`migrate`](Self::migrate) runs, for who keeps schemas by other means.
    pub const SCHEMA: &str = include_str!("../../migrations/sqlite/0001_encryption_key.sql");

    /// Begins a store that starts on less than all is well.
    #[must_use]
    pub const fn builder() -> SqliteBuilder {
        SqliteBuilder {
            admission: Admission { accepted: Vec::new(), read_only: false },
            makes_table: false,
            is_unchecked: false,
            is_existing: false,
            folded_ids: FoldedIds::Refused,
        }
    }

    /// Looks for what is wrong with the file and the table: a sample of its rows is read, and the
    /// right to write is tried. Nothing is changed.
    ///
    /// # Errors
    /// As the database's failures are.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn check_schema(&self) -> Result<SchemaReport, BackendError> {
        let pool = self.pool.clone();
        to_its_end(async move { check::check(&mut *connection(&pool).await?).await }).await
    }

    async fn make_table(&self) -> Result<(), BackendError> {
        let pool = self.pool.clone();
        to_its_end(async move {
            statements::create_table(&mut *connection(&pool).await?).await.map_err(backend_error)
        })
        .await
    }

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

    /// Closes the connections, once calls under way have ended. Calls made later are refused.
    ///
    /// # Cancel safety
    /// Closing goes on.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// The pool belongs to it, so that it is checked and waited for as its own.
    fn of(pool: SqlitePool, folded_ids: FoldedIds) -> Self {
        let group = Group::new(pool.clone());
        Self { pool, group, folded_ids }
    }
}

/// What a [`SqliteMetastore`] starts on.
#[derive(Clone, Debug)]
pub struct SqliteBuilder {
    admission: Admission,
    makes_table: bool,
    is_unchecked: bool,
    is_existing: bool,
    folded_ids: FoldedIds,
}

impl SqliteBuilder {
    /// Starts in spite of this dangerous finding.
    #[must_use]
    pub fn accept(mut self, finding: FindingId) -> Self {
        self.admission.accepted.push(finding);
        self
    }

    /// Opens the file for loading alone, as decrypting does; off unless set. A file that is not there is
    /// an error then, and one on a read-only file system is opened all the same, as one that nobody
    /// changes: what the log beside it (`-wal`) holds could not be read there, so there must be none.
    #[must_use]
    pub const fn read_only(mut self, on: bool) -> Self {
        self.admission.read_only = on;
        self
    }

    /// Makes the table, if there is none, before the store is opened; one that is there is left as it is.
    /// [`open`](Self::open) does so unless it is unchecked, [`pool`](Self::pool) only when told.
    #[must_use]
    pub const fn migrate(mut self) -> Self {
        self.makes_table = true;
        self
    }

    /// Starts on whatever is there, without a look at it, and without making the table unless told to
    /// [`migrate`](Self::migrate): to look at it with [`SqliteMetastore::check_schema`], or to mend it.
    #[must_use]
    pub const fn danger_unchecked(mut self) -> Self {
        self.is_unchecked = true;
        self
    }

    /// Takes a key store that is there, and makes neither file nor table: what was lost is not begun anew,
    /// without a word, while its data waits for its keys.
    ///
    /// ```
    /// # use claviger_metastore::SqliteMetastore;
    /// # async fn example() -> Result<(), claviger::BackendError> {
    /// let metastore = SqliteMetastore::builder().existing().open("/var/lib/checkout/keys.db").await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub const fn existing(mut self) -> Self {
        self.is_existing = true;
        self
    }

    /// Reads keys that the table keeps under another id, which its collation takes for the one asked
    /// for: another program may have sealed for `Alice` under the row of `alice`, and named a key that
    /// has no row of its own. Off unless set: such a load fails with
    /// [`SqlFault::FoldedId`](crate::SqlFault::FoldedId). What is read so decrypts, and never encrypts.
    #[must_use]
    pub fn folded_ids(mut self, are_read: bool) -> Self {
        self.folded_ids = are_read.into();
        self
    }

    /// Opens the file as [`SqliteMetastore::open`] does.
    ///
    /// # Errors
    /// As it does. Of a store that must be [there](Self::existing), with [`std::io::Error`] as the source when
    /// there is no file, and with [`DangerousSchema`](crate::DangerousSchema) when it is empty or lacks the
    /// table.
    ///
    /// # Cancel safety
    /// The file may have been made, and is as good as new.
    pub async fn open(self, path: impl AsRef<Path>) -> Result<SqliteMetastore, BackendError> {
        let path = path.as_ref().to_owned();
        let must_exist = self.is_existing || self.admission.read_only;
        let (must_have_table, may_write) = (self.is_existing, !self.admission.read_only);
        let (pool, writable) = to_its_end(async move {
            file::prepare(&path, must_exist)?;
            let writable = may_write || !is_on_read_only_medium(&path);
            let options = SqliteConnectOptions::new()
                .filename(&path)
                .busy_timeout(BUSY_TIMEOUT)
                .synchronous(SqliteSynchronous::Full)
                // It would write SQL text to the log.
                .disable_statement_logging();
            let options = if writable {
                enter_wal_mode(&options, must_have_table).await?;
                options
            } else if file::has_log(&path) {
                return Err(SqlFault::LogNotReadable.into());
            } else {
                options.read_only(true).immutable(true)
            };
            let pool = SqlitePoolOptions::new()
                .max_connections(CONNECTIONS_MAX)
                .acquire_timeout(BUSY_TIMEOUT)
                // Connections to a file do not go stale.
                .test_before_acquire(false)
                .idle_timeout(None)
                .max_lifetime(None)
                .connect_lazy_with(options);
            Ok((pool, writable))
        })
        .await?;
        let store = SqliteMetastore::of(pool, self.folded_ids);
        let makes_table = self.makes_table || !(self.is_unchecked || self.is_existing || !writable);
        Self { makes_table, ..self }.admit(store).await
    }

    /// Uses a pool made by the caller, as [`SqliteMetastore::new`] does.
    ///
    /// # Errors
    /// As it does.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn pool(self, pool: SqlitePool) -> Result<SqliteMetastore, BackendError> {
        let store = SqliteMetastore::of(pool, self.folded_ids);
        self.admit(store).await
    }

    async fn admit(self, store: SqliteMetastore) -> Result<SqliteMetastore, BackendError> {
        if self.makes_table {
            store.make_table().await?;
        }
        if !self.is_unchecked {
            store.check_schema().await?.admit(&self.admission).map_err(BackendError::permanent)?;
        }
        Ok(store)
    }
}

impl Metastore for SqliteMetastore {
    async fn load(
        &self,
        key: &KeyMeta,
        _consistency: Consistency,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        check_meta(key)?;
        let (pool, key, folded_ids) = (self.pool.clone(), key.clone(), self.folded_ids);
        to_its_end(async move { statements::load(&mut *connection(&pool).await?, &key, folded_ids).await })
            .await
    }

    async fn load_latest(&self, id: &KeyId) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        check_id(id)?;
        let (pool, id) = (self.pool.clone(), id.clone());
        to_its_end(async move { statements::load_latest(&mut *connection(&pool).await?, &id).await }).await
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        _consistency: Consistency,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        keys.iter().try_for_each(check_meta)?;
        let (pool, keys, folded_ids) = (self.pool.clone(), keys.to_vec(), self.folded_ids);
        to_its_end(
            async move { statements::load_many(&mut *connection(&pool).await?, &keys, folded_ids).await },
        )
        .await
    }

    async fn load_latest_many(&self, ids: &[KeyId]) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        ids.iter().try_for_each(check_id)?;
        let (pool, ids) = (self.pool.clone(), ids.to_vec());
        to_its_end(async move { statements::load_latest_many(&mut *connection(&pool).await?, &ids).await })
            .await
    }

    async fn insert(&self, record: &EnvelopeKeyRecord) -> Result<Insert, BackendError> {
        check_meta(record.meta())?;
        let inserted = self.group.write(Write::Insert(record.clone())).await?;
        Ok(if inserted == 0 { Insert::AlreadyExists } else { Insert::Inserted })
    }

    fn failovers(&self) -> u64 {
        0
    }
}

impl MetastoreAdmin for SqliteMetastore {
    async fn list(&self, after: Option<&KeyMeta>, limit: usize) -> Result<Page, BackendError> {
        let (pool, after) = (self.pool.clone(), after.cloned());
        to_its_end(
            async move { statements::list(&mut *connection(&pool).await?, after.as_ref(), limit).await },
        )
        .await
    }

    async fn revoke(&self, key: &KeyMeta) -> Result<bool, BackendError> {
        check_meta(key)?;
        Ok(self.group.write(Write::Revoke(key.clone())).await? > 0)
    }

    async fn replace_wrapped_key(&self, key: &KeyMeta, old: &[u8], new: &[u8]) -> Result<bool, BackendError> {
        check_meta(key)?;
        let replace = Write::Replace { key: key.clone(), old: old.into(), new: new.into() };
        Ok(self.group.write(replace).await? > 0)
    }

    async fn delete(&self, id: &KeyId) -> Result<u64, BackendError> {
        check_id(id)?;
        self.group.write(Write::Delete(id.clone())).await
    }

    async fn count(&self) -> Result<u64, BackendError> {
        let pool = self.pool.clone();
        to_its_end(async move { statements::count(&mut *connection(&pool).await?).await }).await
    }
}

async fn connection(pool: &SqlitePool) -> Result<PoolConnection<Sqlite>, BackendError> {
    pool.acquire().await.map_err(backend_error)
}

/// Puts the file into WAL mode, which it keeps, once it has the table if it must have it.
///
/// SQLite does not wait for other processes here, whatever the busy timeout, so we do.
async fn enter_wal_mode(options: &SqliteConnectOptions, is_existing: bool) -> Result<(), BackendError> {
    let opening_error = |error| opening_error(error, options.get_filename());
    let mut connection = options.connect().await.map_err(opening_error)?;
    let mut enter = async || {
        if is_existing && !check::has_table(&mut connection).await.map_err(opening_error)? {
            return Err(check::table_missing());
        }
        statements::enter_wal_mode(&mut connection).await.map_err(opening_error)
    };
    let mut waited = Duration::ZERO;
    loop {
        match enter().await {
            Err(error) if error.is_transient() && waited < BUSY_TIMEOUT => {
                tokio::time::sleep(BUSY_PAUSE).await;
                waited += BUSY_PAUSE;
            }
            answer => break answer.map(drop)?,
        }
    }
    connection.close().await.map_err(backend_error)?;
    // A file that cannot be in it, such as one that may not be written, is told of by the check.
    Ok(())
}

/// Between two tries to enter WAL mode; another process is in it within a commit or two.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests;
