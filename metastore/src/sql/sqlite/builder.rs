//! How a store on a file is set up, and the file opened.

use std::path::Path;
use std::time::Duration;

use claviger::BackendError;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::schema::{Admission, FindingId};
use crate::sql::sqlite::fault::{backend_error, is_on_read_only_medium, opening_error};
use crate::sql::sqlite::{SqliteMetastore, check, file, statements};
use crate::sql::{FoldedIds, SqlFault};
use crate::task::to_its_end;

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
    pub(super) const fn new() -> Self {
        Self {
            admission: Admission { accepted: Vec::new(), read_only: false },
            makes_table: false,
            is_unchecked: false,
            is_existing: false,
            folded_ids: FoldedIds::Refused,
        }
    }

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

/// Puts the file into WAL mode, which it keeps, once it has the table if it must have it.
///
/// SQLite does not wait for other processes here, whatever the busy timeout, so we do.
pub(super) async fn enter_wal_mode(
    options: &SqliteConnectOptions,
    is_existing: bool,
) -> Result<(), BackendError> {
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

/// How long a statement waits for other processes. Below the two seconds that the core gives a
/// store call, so that the caller learns that the file is busy.
const BUSY_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Readers do not block each other; more threads than this find no more disk.
pub(super) const CONNECTIONS_MAX: u32 = 4;
