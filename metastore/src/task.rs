//! Calls as tasks of their own.

use claviger::BackendError;
use tokio::runtime::Handle;

/// Runs `work` as a task of its own: a caller that goes away leaves it to its end, and so never a
/// half-used connection behind.
pub(crate) async fn in_task<T: Send + 'static>(
    work: impl Future<Output = Result<T, BackendError>> + Send + 'static,
) -> Result<T, BackendError> {
    // Transient: the task ends early only when its runtime shuts down, or by a panic of the driver.
    runtime()?.spawn(work).await.map_err(BackendError::transient)?
}

/// Returns the runtime that the caller runs on.
pub(crate) fn runtime() -> Result<Handle, BackendError> {
    #[expect(clippy::map_err_ignore, reason = "it says that there is none, as the fault does")]
    Handle::try_current().map_err(|_| BackendError::permanent(NoRuntime))
}

/// The call was made outside a tokio runtime.
#[derive(Debug, thiserror::Error)]
#[error("no tokio runtime")]
pub(crate) struct NoRuntime;
