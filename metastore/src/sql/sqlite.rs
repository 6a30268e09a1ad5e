//! Keys in one SQLite file.

mod fault;
mod statements;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use claviger::{
    BackendError, Consistency, EnvelopeKeyRecord, Insert, KeyId, KeyMeta, Metastore, MetastoreAdmin, Page,
};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Sqlite, SqliteConnection};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::sql::sqlite::fault::backend_error;
use crate::sql::{SqlFault, check_id, check_meta};
use crate::task::in_task;

/// Keeps key records in one SQLite file that any number of processes of one machine share, those
/// of other Asherah implementations included.
///
/// A record is on the disk when an insert answers: the file is in WAL mode and every commit is
/// synced. Clones share one pool of connections.
///
/// Key ids have 1 to 255 characters and no NUL, creation times end with the year 9999; others are
/// refused with a permanent error before the file is touched. A row is found whatever text form of
/// its creation time its writer chose, and its own are written as Asherah's SQLite writers do.
/// Clones may be used from several tokio runtimes.
///
/// ```no_run
/// use claviger_metastore::SqliteMetastore;
///
/// # async fn example() -> Result<(), claviger::BackendError> {
/// let metastore = SqliteMetastore::open("/var/lib/checkout/keys.db").await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SqliteMetastore {
    pool: SqlitePool,
    /// SQLite lets one connection write at a time and makes the others poll; here they queue.
    writer: Arc<Mutex<()>>,
}

/// How long a statement waits for other processes. Below the two seconds that the core gives a
/// store call, so that the caller learns that the file is busy.
const BUSY_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Readers do not block each other; more threads than this find no more disk.
const CONNECTIONS_MAX: u32 = 4;

impl SqliteMetastore {
    /// Opens the file, made with mode 0600 if it is not there, and creates the table if it is not
    /// there. The folder must exist.
    ///
    /// # Errors
    /// Permanent when the file cannot be opened or is no database, transient when other processes
    /// keep it busy.
    ///
    /// # Cancel safety
    /// The file may have been made, and is as good as new.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, BackendError> {
        let path = path.as_ref().to_owned();
        in_task(async move {
            create_private(&path).map_err(BackendError::permanent)?;
            let options = SqliteConnectOptions::new()
                .filename(&path)
                .busy_timeout(BUSY_TIMEOUT)
                .synchronous(SqliteSynchronous::Full)
                // It would write SQL text to the log.
                .disable_statement_logging();
            enter_wal_mode(&options).await?;
            let pool = SqlitePoolOptions::new()
                .max_connections(CONNECTIONS_MAX)
                .acquire_timeout(BUSY_TIMEOUT)
                // Connections to a file do not go stale.
                .test_before_acquire(false)
                .idle_timeout(None)
                .max_lifetime(None)
                .connect_lazy_with(options);
            let store = Self { pool, writer: Arc::default() };
            store.migrate().await?;
            Ok(store)
        })
        .await
    }

    /// Uses a pool made by the caller, after a look at one of its connections: the file must be in
    /// WAL mode and `synchronous` must be `FULL` or `EXTRA`. Call [`migrate`](Self::migrate) if the
    /// table may not be there.
    ///
    /// # Errors
    /// Permanent, with [`SqlFault::NotDurable`] as its source, when commits are not durable; else
    /// as the database's failures are.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn new(pool: SqlitePool) -> Result<Self, BackendError> {
        let store = Self { pool, writer: Arc::default() };
        let pool = store.pool.clone();
        in_task(async move { check_durable(&mut *connection(&pool).await?).await }).await?;
        Ok(store)
    }

    /// Creates the table if it is not there.
    ///
    /// # Errors
    /// As the database's failures are.
    ///
    /// # Cancel safety
    /// The table was created or was not.
    pub async fn migrate(&self) -> Result<(), BackendError> {
        let (pool, turn) = self.writing().await;
        in_task(async move {
            let _turn = turn;
            statements::create_table(&mut *connection(&pool).await?).await.map_err(backend_error)
        })
        .await
    }

    /// Closes the connections, once calls under way have ended. Calls made later are refused.
    ///
    /// # Cancel safety
    /// Closing goes on.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Waits for this process's turn to write. Who goes away while waiting leaves the queue.
    async fn writing(&self) -> (SqlitePool, OwnedMutexGuard<()>) {
        (self.pool.clone(), Arc::clone(&self.writer).lock_owned().await)
    }
}

impl Metastore for SqliteMetastore {
    async fn load(
        &self,
        key: &KeyMeta,
        _consistency: Consistency,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        check_meta(key)?;
        let (pool, key) = (self.pool.clone(), key.clone());
        in_task(async move { statements::load(&mut *connection(&pool).await?, &key).await }).await
    }

    async fn load_latest(&self, id: &KeyId) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        check_id(id)?;
        let (pool, id) = (self.pool.clone(), id.clone());
        in_task(async move { statements::load_latest(&mut *connection(&pool).await?, &id).await }).await
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        _consistency: Consistency,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        keys.iter().try_for_each(check_meta)?;
        let (pool, keys) = (self.pool.clone(), keys.to_vec());
        in_task(async move {
            let mut connection = connection(&pool).await?;
            let mut records = Vec::with_capacity(keys.len());
            for key in &keys {
                records.push(statements::load(&mut connection, key).await?);
            }
            Ok(records)
        })
        .await
    }

    async fn load_latest_many(&self, ids: &[KeyId]) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        ids.iter().try_for_each(check_id)?;
        let (pool, ids) = (self.pool.clone(), ids.to_vec());
        in_task(async move {
            let mut connection = connection(&pool).await?;
            let mut records = Vec::with_capacity(ids.len());
            for id in &ids {
                records.push(statements::load_latest(&mut connection, id).await?);
            }
            Ok(records)
        })
        .await
    }

    async fn insert(&self, record: &EnvelopeKeyRecord) -> Result<Insert, BackendError> {
        check_meta(record.meta())?;
        let record = record.clone();
        let (pool, turn) = self.writing().await;
        in_task(async move {
            let _turn = turn;
            statements::insert(&mut *connection(&pool).await?, &record).await
        })
        .await
    }
}

impl MetastoreAdmin for SqliteMetastore {
    async fn list(&self, after: Option<&KeyMeta>, limit: usize) -> Result<Page, BackendError> {
        let (pool, after) = (self.pool.clone(), after.cloned());
        in_task(async move { statements::list(&mut *connection(&pool).await?, after.as_ref(), limit).await })
            .await
    }

    async fn revoke(&self, key: &KeyMeta) -> Result<bool, BackendError> {
        check_meta(key)?;
        let key = key.clone();
        let (pool, turn) = self.writing().await;
        in_task(async move {
            let _turn = turn;
            let revoke =
                |record: &EnvelopeKeyRecord| (!record.is_revoked()).then(|| record.clone().revoked(true));
            let rows = statements::rewrite(&mut *connection(&pool).await?, &key, revoke).await?;
            Ok(rows.found > 0)
        })
        .await
    }

    async fn replace_wrapped_key(&self, key: &KeyMeta, old: &[u8], new: &[u8]) -> Result<bool, BackendError> {
        check_meta(key)?;
        let (key, old, new): (_, Arc<[u8]>, Arc<[u8]>) = (key.clone(), old.into(), new.into());
        let (pool, turn) = self.writing().await;
        in_task(async move {
            let _turn = turn;
            let replace = |record: &EnvelopeKeyRecord| {
                (*record.wrapped_key() == old).then(|| {
                    let (meta, parent) = (record.meta().clone(), record.parent().cloned());
                    EnvelopeKeyRecord::new(meta, Arc::clone(&new), parent).revoked(record.is_revoked())
                })
            };
            let rows = statements::rewrite(&mut *connection(&pool).await?, &key, replace).await?;
            Ok(rows.changed > 0)
        })
        .await
    }

    async fn delete(&self, id: &KeyId) -> Result<u64, BackendError> {
        check_id(id)?;
        let id = id.clone();
        let (pool, turn) = self.writing().await;
        in_task(async move {
            let _turn = turn;
            statements::delete(&mut *connection(&pool).await?, &id).await
        })
        .await
    }

    async fn count(&self) -> Result<u64, BackendError> {
        let pool = self.pool.clone();
        in_task(async move { statements::count(&mut *connection(&pool).await?).await }).await
    }
}

async fn connection(pool: &SqlitePool) -> Result<PoolConnection<Sqlite>, BackendError> {
    pool.acquire().await.map_err(backend_error)
}

/// Creates the file for its owner alone. SQLite gives its side files the same mode.
fn create_private(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Puts the file into WAL mode, which it keeps.
///
/// SQLite does not wait for other processes here, whatever the busy timeout, so we do.
async fn enter_wal_mode(options: &SqliteConnectOptions) -> Result<(), BackendError> {
    let mut connection = options.connect().await.map_err(backend_error)?;
    let mut waited = Duration::ZERO;
    let mode = loop {
        match statements::enter_wal_mode(&mut connection).await.map_err(backend_error) {
            Err(error) if error.is_transient() && waited < BUSY_TIMEOUT => {
                tokio::time::sleep(BUSY_PAUSE).await;
                waited += BUSY_PAUSE;
            }
            answer => break answer?,
        }
    };
    connection.close().await.map_err(backend_error)?;
    if mode == "wal" { Ok(()) } else { Err(not_durable("journal_mode", mode)) }
}

/// Between two tries to enter WAL mode; another process is in it within a commit or two.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

async fn check_durable(connection: &mut SqliteConnection) -> Result<(), BackendError> {
    let mode = statements::journal_mode(connection).await.map_err(backend_error)?;
    if mode != "wal" {
        return Err(not_durable("journal_mode", mode));
    }
    let synchronous = statements::synchronous(connection).await.map_err(backend_error)?;
    if synchronous < SYNCHRONOUS_FULL {
        return Err(not_durable("synchronous", synchronous.to_string()));
    }
    Ok(())
}

/// What `PRAGMA synchronous` answers for `FULL`; `EXTRA` is 3.
const SYNCHRONOUS_FULL: i64 = 2;

fn not_durable(setting: &'static str, value: String) -> BackendError {
    SqlFault::NotDurable { setting, value }.into()
}

#[cfg(test)]
mod tests;
