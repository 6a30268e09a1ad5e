//! How a store on a file is set up, and the file opened.

use std::path::Path;
use std::time::Duration;

use claviger::{BackendError, CallContext};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::schema::{Admission, FindingId};
use crate::sql::sqlite::fault::{backend_error, is_on_read_only_medium, opening_error};
use crate::sql::sqlite::file::Missing;
use crate::sql::sqlite::patience::{BUSY_WAIT, OPENING_MAX};
use crate::sql::sqlite::{Connections, SqliteMetastore, check, file, statements};
use crate::sql::store::{Access as _, SqlMetastore};
use crate::sql::{FoldedIds, SqlFault};
use crate::task::to_its_end;

/// Sets up a [`SqliteMetastore`].
///
/// ```
/// # use claviger_metastore::SqliteMetastore;
/// # async fn example() -> Result<(), claviger::BackendError> {
/// // A service that only decrypts.
/// let metastore = SqliteMetastore::builder().read_only(true).open("/var/lib/checkout/keys.db").await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct SqliteBuilder {
    admission: Admission,
    makes_table: bool,
    is_unchecked: bool,
    folded_ids: FoldedIds,
}

impl SqliteMetastore {
    /// Returns a builder for a store with settings of its own.
    pub fn builder() -> SqliteBuilder {
        SqliteBuilder::default()
    }
}

impl SqliteBuilder {
    /// Starts in spite of this dangerous finding.
    pub fn accept(mut self, finding: FindingId) -> Self {
        self.admission.accepted.push(finding);
        self
    }

    /// Opens the file for loading alone, as decrypting does; off unless set. No file is made then, and one
    /// on a read-only file system is opened all the same, as one that nobody changes: what the log beside it
    /// (`-wal`) holds could not be read there, so there must be none.
    pub const fn read_only(mut self, on: bool) -> Self {
        self.admission.read_only = on;
        self
    }

    /// Makes the file and our own table, if they are not there, before the store is opened; what is there is
    /// left as it is. The file gets mode 0600. Its folder must exist.
    ///
    /// It is for installing, and for a program that brings its own key store. Any number of programs may do it
    /// at once.
    pub const fn migrate(mut self) -> Self {
        self.makes_table = true;
        self
    }

    /// Starts without a look at what is wrong with the file and the table: to find it out with
    /// [`SqliteMetastore::check_schema`], or to mend it.
    pub const fn danger_unchecked(mut self) -> Self {
        self.is_unchecked = true;
        self
    }

    /// Reads keys that the table keeps under another id, which its collation takes for the one asked
    /// for: another program may have sealed for `Alice` under the row of `alice`, and named a key that
    /// has no row of its own. Off unless set: such a load fails with
    /// [`SqlFault::FoldedId`](crate::SqlFault::FoldedId). What is read so decrypts, and never encrypts.
    pub fn folded_ids(mut self, are_read: bool) -> Self {
        self.folded_ids = are_read.into();
        self
    }

    /// Opens the file and looks at its table.
    ///
    /// What SQLite takes for a database in memory (`:memory:`) or for a URI (`file:…`) is refused.
    ///
    /// # Errors
    /// Permanent when the file cannot be opened or is no database, with [`std::io::Error`] as its source when
    /// it is not there, and with [`DangerousSchema`](crate::DangerousSchema) when it lacks the table or keys
    /// could be lost in it; transient when other processes keep it busy.
    ///
    /// # Cancel safety
    /// Nothing is changed; after [`migrate`](Self::migrate), the file may have been made without its table,
    /// and is as good as new.
    pub async fn open(self, path: impl AsRef<Path>) -> Result<SqliteMetastore, BackendError> {
        let path = path.as_ref().to_owned();
        let may_write = !self.admission.read_only;
        let missing = match (self.makes_table, may_write) {
            (true, true) => Missing::IsMade,
            (true, false) => Missing::LacksFile,
            (false, _) if self.is_unchecked || self.admission.accepted.contains(&FindingId::TableMissing) => {
                Missing::LacksFile
            }
            (false, _) => Missing::LacksTable,
        };
        let pool = to_its_end(async move {
            file::prepare(&path, missing)?;
            let options = SqliteConnectOptions::new()
                .filename(&path)
                .busy_timeout(BUSY_WAIT)
                .synchronous(SqliteSynchronous::Full)
                // It would write SQL text to the log.
                .disable_statement_logging();
            let options = if may_write || !is_on_read_only_medium(&path) {
                enter_wal_mode(&options, missing).await?;
                options
            } else if file::has_log(&path) {
                return Err(SqlFault::LogNotReadable.into());
            } else {
                options.read_only(true).immutable(true)
            };
            Ok(SqlitePoolOptions::new()
                .max_connections(CONNECTIONS_MAX)
                .acquire_timeout(ACQUIRE_MAX)
                // Connections to a file do not go stale.
                .test_before_acquire(false)
                .idle_timeout(None)
                .max_lifetime(None)
                .connect_lazy_with(options))
        })
        .await?;
        self.open_with(pool).await
    }

    /// Uses a pool made by the caller, and looks at the table. The file must be in WAL mode, and `synchronous`
    /// must be `FULL` or `EXTRA`. [`migrate`](Self::migrate) makes the table.
    ///
    /// # Errors
    /// Permanent, with [`DangerousSchema`](crate::DangerousSchema) as its source, when there is no table or
    /// keys could be lost; transient when other processes keep the file busy.
    ///
    /// # Cancel safety
    /// Nothing is changed, but that the table may have been made.
    pub async fn open_with(self, pool: SqlitePool) -> Result<SqliteMetastore, BackendError> {
        let connections = Connections::new(pool, self.folded_ids);
        if self.makes_table {
            connections.make_table().await?;
        }
        if !self.is_unchecked {
            connections
                .report(CallContext::within(OPENING_MAX))
                .await?
                .admit(&self.admission)
                .map_err(BackendError::permanent)?;
        }
        Ok(SqliteMetastore(SqlMetastore(connections)))
    }
}

/// Puts the file into WAL mode, which it keeps, unless what is missing keeps it from being used.
///
/// SQLite does not wait for other processes here, whatever the busy timeout, so we do.
pub(super) async fn enter_wal_mode(
    options: &SqliteConnectOptions,
    missing: Missing,
) -> Result<(), BackendError> {
    let opening_error = |error| opening_error(error, options.get_filename());
    let mut connection = options.connect().await.map_err(opening_error)?;
    let mut enter = async || {
        if missing == Missing::LacksTable
            && !check::has_table(&mut connection).await.map_err(opening_error)?
        {
            return Err(check::table_missing());
        }
        statements::enter_wal_mode(&mut connection).await.map_err(opening_error)
    };
    let mut waited = Duration::ZERO;
    loop {
        match enter().await {
            Err(error) if error.is_transient() && waited < OPENING_MAX => {
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

/// Longer than any call waits for a connection: its own deadline ends that.
const ACQUIRE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Readers do not block each other; more threads than this find no more disk.
pub(super) const CONNECTIONS_MAX: u32 = 4;
