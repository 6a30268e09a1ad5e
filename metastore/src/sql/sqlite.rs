//! Keys in one SQLite file.

// Before those that use its macros.
#[macro_use]
mod text;

mod builder;
mod check;
mod fault;
mod file;
mod group;
mod statements;

use std::path::Path;
use std::sync::Arc;

use claviger::{
    BackendError, Consistency, Created, EnvelopeKeyRecord, Insert, KeyId, KeyMeta, Latest, Metastore,
    MetastoreAdmin, Page,
};
use sqlx::Sqlite;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqlitePool;

use crate::schema::SchemaReport;
pub use crate::sql::sqlite::builder::SqliteBuilder;
use crate::sql::sqlite::fault::backend_error;
use crate::sql::sqlite::group::Group;
use crate::sql::sqlite::statements::Write;
use crate::sql::{FoldedIds, check_id, checked_json};
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
/// [`open`](Self::open) makes it if there is none; [`check_schema`](Self::check_schema) says
/// what is wrong with one that is there, and no store starts on one that keys could be lost in.
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
        SqliteBuilder::new()
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

impl Metastore for SqliteMetastore {
    async fn load(
        &self,
        key: &KeyMeta,
        _consistency: Consistency,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        check_id(key.id())?;
        let (pool, key, folded_ids) = (self.pool.clone(), key.clone(), self.folded_ids);
        to_its_end(async move { statements::load(&mut *connection(&pool).await?, &key, folded_ids).await })
            .await
    }

    async fn load_latest(&self, id: &KeyId, up_to: Created) -> Result<Option<Latest>, BackendError> {
        check_id(id)?;
        let (pool, id) = (self.pool.clone(), id.clone());
        to_its_end(async move { statements::load_latest(&mut *connection(&pool).await?, &id, up_to).await })
            .await
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        _consistency: Consistency,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        keys.iter().try_for_each(|key| check_id(key.id()))?;
        let (pool, keys, folded_ids) = (self.pool.clone(), keys.to_vec(), self.folded_ids);
        to_its_end(
            async move { statements::load_many(&mut *connection(&pool).await?, &keys, folded_ids).await },
        )
        .await
    }

    async fn load_latest_many(
        &self,
        ids: &[KeyId],
        up_to: Created,
    ) -> Result<Vec<Option<Latest>>, BackendError> {
        ids.iter().try_for_each(check_id)?;
        let (pool, ids) = (self.pool.clone(), ids.to_vec());
        to_its_end(
            async move { statements::load_latest_many(&mut *connection(&pool).await?, &ids, up_to).await },
        )
        .await
    }

    async fn insert(&self, record: &EnvelopeKeyRecord) -> Result<Insert, BackendError> {
        check_id(record.meta().id())?;
        checked_json(record)?;
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
        check_id(key.id())?;
        Ok(self.group.write(Write::Revoke(key.clone())).await? > 0)
    }

    async fn replace_wrapped_key(&self, key: &KeyMeta, old: &[u8], new: &[u8]) -> Result<bool, BackendError> {
        check_id(key.id())?;
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

#[cfg(test)]
mod tests;
