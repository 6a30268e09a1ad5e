//! Calls that go on when their callers go away.

use std::pin::Pin;
use std::task::{Context, Poll};

use claviger::BackendError;
use tokio::runtime::Handle;

/// Runs `work` to its end: a caller that goes away in the middle leaves the rest to a task, and so
/// never a half-used connection behind.
///
/// It is not a task from the beginning, since the way to another thread and back would cost a load
/// from a near-by database a third of its time. So a caller that neither goes on nor goes away holds
/// up the call, its deadline included.
pub(crate) async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, BackendError>> + Send + 'static,
) -> Result<T, BackendError> {
    Work { rest: Some(Box::pin(work)), runtime: runtime()? }.await
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

/// It is made where it is polled, so that what is dropped has begun.
struct Work<F: Future<Output: Send> + Send + 'static> {
    /// `None` once it has ended.
    rest: Option<Pin<Box<F>>>,
    runtime: Handle,
}

impl<F: Future<Output: Send> + Send + 'static> Future for Work<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // The caller may be polled by other means than the runtime whose timer it uses.
        let runtime = self.runtime.clone();
        let _entered = runtime.enter();
        // Taken out, so that nothing is left to go on with after a panic.
        let Some(mut rest) = self.rest.take() else { return Poll::Pending };
        let polled = rest.as_mut().poll(context);
        if polled.is_pending() {
            self.rest = Some(rest);
        }
        polled
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for Work<F> {
    fn drop(&mut self) {
        if let Some(rest) = self.rest.take() {
            self.runtime.spawn(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;

    use tokio::sync::oneshot;

    use super::*;

    fn poll<F: Future>(call: Pin<&mut F>) -> Poll<F::Output> {
        call.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn work_goes_on_when_its_caller_goes_away() {
        let (go, gone) = oneshot::channel::<()>();
        let (done, was_done) = oneshot::channel();
        let mut call = Box::pin(to_its_end(async move {
            gone.await.map_err(BackendError::transient)?;
            Ok(done.send("done").is_ok())
        }));
        assert!(poll(call.as_mut()).is_pending());
        drop(call);
        go.send(()).unwrap();
        assert_eq!(was_done.await, Ok("done"));
    }

    #[tokio::test]
    async fn work_that_nobody_waited_for_is_not_begun() {
        let (begun, was_begun) = oneshot::channel();
        drop(to_its_end(async move {
            begun.send("begun").unwrap();
            Ok(())
        }));
        assert!(was_begun.await.is_err());
    }

    #[test]
    fn work_is_polled_within_its_runtime_by_whatever_polls_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut call = pin!(to_its_end(async { Ok(Handle::try_current().is_ok()) }));
        assert!(matches!(poll(call.as_mut()), Poll::Ready(Err(_))), "there is no runtime to go on in");
        let mut late = Box::pin(Work {
            rest: Some(Box::pin(async { Handle::try_current().is_ok() })),
            runtime: runtime.handle().clone(),
        });
        assert_eq!(poll(late.as_mut()), Poll::Ready(true));
    }

    #[tokio::test]
    async fn a_panic_leaves_nothing_to_go_on_with() {
        let mut call = Box::pin(to_its_end::<()>(async { panic!("of the driver") }));
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll(call.as_mut())));
        assert!(polled.is_err());
        drop(call);
        tokio::task::yield_now().await;
    }
}
