//! How a call uses a pooled connection: to its end, for a bounded time, and never half.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use claviger::BackendError;
use sqlx::pool::PoolConnection;
use sqlx::{Database, Pool};

use crate::sql::SqlFault;
use crate::task::to_its_end;

/// What a database's failures mean.
pub(crate) trait Dialect: Sized + Send + Sync + 'static {
    type Database: Database;

    /// Classifies a failure, and strips what does not belong in an error.
    fn backend_error(error: sqlx::Error) -> BackendError;

    /// Tells whether the connection is as good as before: the server answered to the end, and will
    /// not answer every other call on it in the same way.
    fn leaves_connection_good(error: &sqlx::Error) -> bool;
}

pub(crate) type ConnectionOf<D> = <<D as Dialect>::Database as Database>::Connection;

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

/// Runs `work` on a connection of `pool`, to its end also when its caller goes away. `deadline` bounds
/// it all, the wait for a connection too.
///
/// The connection goes back to the pool only after a whole answer. Otherwise, after `deadline` too,
/// it is closed: a reply still on its way would else be read as the next call's.
pub(crate) async fn with_connection<D: Dialect, T: Send + 'static>(
    pool: &Pool<D::Database>,
    deadline: Duration,
    work: impl FnOnce(&mut ConnectionOf<D>) -> SqlFuture<'_, T> + Send + 'static,
) -> Result<T, BackendError> {
    let pool = pool.clone();
    to_its_end(async move {
        let attempt = async { attempt::<D, T>(&pool, deadline, work).await.map_err(Failure::into_error) };
        in_time(deadline, attempt).await
    })
    .await
}

/// Runs `work`, which only reads, as [`with_connection`] does, and once more for each connection that
/// turns out to be dead: after the server was restarted every pooled one is.
pub(crate) async fn with_live_connection<D: Dialect, T: Send + 'static>(
    pool: &Pool<D::Database>,
    deadline: Duration,
    work: impl Fn(&mut ConnectionOf<D>) -> SqlFuture<'_, T> + Send + Sync + 'static,
) -> Result<T, BackendError> {
    let pool = pool.clone();
    to_its_end(async move {
        let attempts = async {
            for _ in 0..pool.options().get_max_connections() {
                match attempt::<D, T>(&pool, deadline, &work).await {
                    Err(Failure::ConnectionLost(_)) => {}
                    answer => return answer.map_err(Failure::into_error),
                }
            }
            // None of those that were pooled is left, so this one is new.
            attempt::<D, T>(&pool, deadline, &work).await.map_err(Failure::into_error)
        };
        in_time(deadline, attempts).await
    })
    .await
}

async fn in_time<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, BackendError>>,
) -> Result<T, BackendError> {
    tokio::time::timeout(deadline, work)
        .await
        .unwrap_or_else(|_| Err(BackendError::transient(NoAnswer(deadline))))
}

enum Failure {
    ConnectionLost(BackendError),
    Other(BackendError),
}

impl Failure {
    fn into_error(self) -> BackendError {
        match self {
            Self::ConnectionLost(error) | Self::Other(error) => error,
        }
    }
}

async fn attempt<D: Dialect, T>(
    pool: &Pool<D::Database>,
    deadline: Duration,
    work: impl FnOnce(&mut ConnectionOf<D>) -> SqlFuture<'_, T>,
) -> Result<T, Failure> {
    let connection = pool.acquire().await.map_err(|error| Failure::Other(D::backend_error(error)))?;
    let mut lease = Lease(Some(connection));
    let answer = match lease.0.as_mut() {
        Some(connection) => work(connection).await,
        // The lease is full until it is given back.
        None => Err(sqlx::Error::PoolClosed.into()),
    };
    match answer {
        Err(SqlError::Driver(error)) if !D::leaves_connection_good(&error) => {
            Err(Failure::ConnectionLost(D::backend_error(error)))
        }
        answer => {
            lease.give_back(deadline);
            answer.map_err(|error| Failure::Other(error.classified::<D>()))
        }
    }
}

/// A connection that is closed when dropped, unless it was given back.
struct Lease<DB: Database>(Option<PoolConnection<DB>>);

impl<DB: Database> Lease<DB> {
    fn give_back(mut self, deadline: Duration) {
        if let Some(mut connection) = self.0.take() {
            // The pool asks the server for a sign of life first. That wait is no caller's, and
            // without an end it would keep the place in the pool of a connection that is half open.
            tokio::spawn(tokio::time::timeout(deadline, connection.return_to_pool()));
        }
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
