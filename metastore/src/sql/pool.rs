//! How a call uses a pooled connection: to its end, for a bounded time, and never half.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use claviger::BackendError;
use sqlx::pool::PoolConnection;
use sqlx::{Database, Pool};

use crate::sql::SqlFault;
use crate::task::in_task;

/// What a database's failures mean.
pub(crate) trait Dialect: Sized + Send + Sync + 'static {
    type Database: Database;

    /// Classifies a failure, and strips what does not belong in an error.
    fn backend_error(error: sqlx::Error) -> BackendError;

    /// Tells whether the connection is as good as before: the server answered to the end, and will
    /// not answer every other call on it in the same way.
    fn leaves_connection_good(error: &sqlx::Error) -> bool;
}

/// Why a statement brought nothing.
#[derive(Debug)]
pub(crate) enum SqlError {
    Driver(sqlx::Error),
    /// What the database answered cannot be.
    Fault(SqlFault),
}

impl From<sqlx::Error> for SqlError {
    fn from(error: sqlx::Error) -> Self {
        Self::Driver(error)
    }
}

impl From<SqlFault> for SqlError {
    fn from(fault: SqlFault) -> Self {
        Self::Fault(fault)
    }
}

impl SqlError {
    pub(crate) fn classified<D: Dialect>(self) -> BackendError {
        match self {
            Self::Driver(error) => D::backend_error(error),
            Self::Fault(fault) => fault.into(),
        }
    }
}

pub(crate) type SqlFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, SqlError>> + Send + 'a>>;

/// Runs `work` on a connection of `pool`, as a task of its own: a caller that goes away leaves it
/// to its end.
///
/// The connection goes back to the pool only after a whole answer. Otherwise, after `deadline` too,
/// it is closed: a reply still on its way would else be read as the next call's.
pub(crate) async fn with_connection<D: Dialect, T: Send + 'static>(
    pool: &Pool<D::Database>,
    deadline: Duration,
    work: impl FnOnce(&mut <D::Database as Database>::Connection) -> SqlFuture<'_, T> + Send + 'static,
) -> Result<T, BackendError> {
    let pool = pool.clone();
    in_task(async move {
        let mut lease = Lease(Some(pool.acquire().await.map_err(D::backend_error)?));
        // The lease is full until it is given back.
        let Some(connection) = lease.0.as_mut() else {
            return Err(BackendError::transient(NoAnswer(deadline)));
        };
        let Ok(answer) = tokio::time::timeout(deadline, work(connection)).await else {
            return Err(BackendError::transient(NoAnswer(deadline)));
        };
        match answer {
            Err(SqlError::Driver(error)) if !D::leaves_connection_good(&error) => {
                Err(D::backend_error(error))
            }
            answer => {
                lease.give_back();
                answer.map_err(SqlError::classified::<D>)
            }
        }
    })
    .await
}

/// A connection that is closed when dropped, unless it was given back.
struct Lease<DB: Database>(Option<PoolConnection<DB>>);

impl<DB: Database> Lease<DB> {
    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl<DB: Database> Drop for Lease<DB> {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            // Taken out of the pool and dropped: the socket is closed at once, with no farewell
            // that a dead server would keep waiting for.
            drop(connection.detach());
        }
    }
}

/// The database did not answer in time.
#[derive(Debug)]
struct NoAnswer(Duration);

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer from the database within {:?}", self.0)
    }
}

impl std::error::Error for NoAnswer {}
