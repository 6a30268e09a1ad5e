//! How long is waited for a file that other processes keep busy.

use std::time::Duration;

use claviger::{BackendError, CallContext, FailureKind};
use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqlitePool};
use tokio::time::{Instant, timeout_at};

use crate::sql::sqlite::fault::backend_error;

/// How long SQLite itself waits for other processes, on connections of ours. Then we look at the time.
pub(super) const BUSY_WAIT: Duration = Duration::from_millis(100);

/// How long opening waits for other processes.
pub(super) const OPENING_MAX: Duration = Duration::from_secs(10);

/// The file did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer from the file within {0:?}")]
struct NoAnswer(Duration);

/// Waits for the answer to a call as long as it may take.
///
/// # Cancel safety
/// As of the call.
pub(super) async fn in_time<T>(
    context: CallContext,
    call: impl Future<Output = Result<T, BackendError>>,
) -> Result<T, BackendError> {
    let within = context.remaining();
    timeout_at(context.deadline, call).await.unwrap_or_else(|_elapsed| {
        Err(BackendError::transient(NoAnswer(within)).with_kind(FailureKind::Busy))
    })
}

/// Makes the call again while others keep the file busy, until the deadline.
pub(super) async fn until_free<T, F>(
    deadline: Instant,
    mut call: impl FnMut() -> F,
) -> Result<T, BackendError>
where
    F: Future<Output = Result<T, BackendError>>,
{
    loop {
        match call().await {
            Err(error) if error.kind() == Some(FailureKind::Busy) && Instant::now() < deadline => {
                // SQLite has waited; a pool that has no connection has not.
                tokio::task::yield_now().await;
            }
            answer => return answer,
        }
    }
}

/// Waits for a connection until the deadline, or as long as a caller's own pool lets it.
pub(super) async fn connection(
    pool: &SqlitePool,
    deadline: Instant,
) -> Result<PoolConnection<Sqlite>, BackendError> {
    let connection = timeout_at(deadline, pool.acquire()).await;
    connection.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(backend_error)
}
