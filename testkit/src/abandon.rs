//! Calls that are given up.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

/// Polls a call at most so many times, with others' work in between, and drops it. Returns what it came to,
/// if it was done by then.
pub async fn abandon<F: Future>(call: F, polls: usize) -> Option<F::Output> {
    let mut call = pin!(call);
    for _ in 0..polls {
        if let Poll::Ready(output) = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}
