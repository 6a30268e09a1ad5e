//! What an operation waits for.
//!
//! In a forked child nobody would ever answer, and what is waited for may be locked by a thread of the
//! parent, which does not exist there. So it is neither polled nor dropped.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use claviger_memory::ForkSentinel;

use crate::BoxFuture;
use crate::error::Error;

/// A wait that ends with [`Error::Forked`] in a forked child.
///
/// What is seldom awaited lies on the heap: the futures of the hot path are small without it, and quicker
/// to poll.
pub(crate) struct Waiting<'a, T> {
    /// `None` only while it is dropped.
    awaited: Option<BoxFuture<'a, Result<T, Error>>>,
    sentinel: &'a ForkSentinel,
}

impl<'a, T> Waiting<'a, T> {
    pub(super) fn new(
        awaited: impl Future<Output = Result<T, Error>> + Send + 'a,
        sentinel: &'a ForkSentinel,
    ) -> Self {
        Self { awaited: Some(Box::pin(awaited)), sentinel }
    }
}

impl<T> Future for Waiting<'_, T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let is_forked = self.sentinel.is_forked();
        match self.awaited.as_mut().filter(|_| !is_forked) {
            Some(awaited) => awaited.as_mut().poll(context),
            None => Poll::Ready(Err(Error::Forked)),
        }
    }
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        if self.sentinel.is_forked() {
            mem::forget(self.awaited.take());
        }
    }
}
