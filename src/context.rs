//! What a call to a back end is told beside its question.

use std::time::Duration;

use tokio::time::Instant;

/// What a call to a metastore or a KMS is told beside its question: by when it is to end, how new the answer
/// must be, and how often it was tried.
///
/// A back end honours the deadline and has none of its own. One that asks several services divides the time
/// that is left among them ([`share`](Self::share)). The core waits a little longer than it tells, so that the
/// back end's own error, which says more, comes first.
///
/// ```
/// use std::time::Duration;
///
/// use claviger::{CallContext, Created, InMemoryMetastore, KeyId, Metastore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), claviger::BackendError> {
/// let store = InMemoryMetastore::new();
/// let id = KeyId::new("_SK_checkout_payments");
/// let context = CallContext::within(Duration::from_secs(2));
/// assert_eq!(store.load_latest(&id, Created::MAX, &context).await?, None);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallContext {
    /// When the call is to have ended. A back end that cannot answer by then fails with a transient error.
    pub deadline: Instant,
    /// How new the answer to a load of an exact version must be. Other calls do not look at it.
    pub consistency: Consistency,
    /// Which attempt at the same call this is, from 1 on.
    pub attempt: u32,
}

/// How new the answer to a load must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "stores offer these two")]
pub enum Consistency {
    /// Every write that ended before the load began is seen.
    Strong,
    /// A replica may answer. If it fails, so does the load: the caller asks again, for
    /// [`Strong`](Self::Strong).
    Eventual,
}

impl CallContext {
    /// The context of a first attempt that is to end by `deadline`, with strong consistency.
    #[must_use]
    pub const fn new(deadline: Instant) -> Self {
        Self { deadline, consistency: Consistency::Strong, attempt: 1 }
    }

    /// The context of a first attempt that begins now and may take so long, with strong consistency.
    #[must_use]
    pub fn within(time: Duration) -> Self {
        Self::new(after(Instant::now(), time))
    }

    /// Sets how new the answer to a load must be.
    #[must_use]
    pub const fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }

    /// Sets which attempt this is, from 1 on.
    #[must_use]
    pub const fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// Returns how much time is left, in whole milliseconds, rounded up. Zero once the deadline has passed.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let millis = left.as_nanos().div_ceil(1_000_000);
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// Returns the context of the next of so many calls that are made one after the other: it has an equal share
    /// of the time that is left.
    #[must_use]
    pub fn share(&self, calls: usize) -> Self {
        let calls = u32::try_from(calls).unwrap_or(u32::MAX).max(1);
        let now = Instant::now();
        Self { deadline: after(now, self.deadline.saturating_duration_since(now) / calls), ..*self }
    }
}

/// No one waits for a century: the end of time is not passed.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

fn after(begun: Instant, time: Duration) -> Instant {
    begun.checked_add(time).or_else(|| begun.checked_add(FAR)).unwrap_or(begun)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn calls_one_after_the_other_have_equal_shares_of_what_is_left() {
        let context = CallContext::within(6 * SECOND).attempt(2);
        let first = context.share(3);
        assert_eq!((first.remaining(), first.attempt), (2 * SECOND, 2));
        tokio::time::advance(SECOND).await;
        assert_eq!(context.share(2).remaining(), 2500 * SECOND / 1000);
        tokio::time::advance(9 * SECOND).await;
        assert_eq!((context.remaining(), context.share(1).remaining()), (Duration::ZERO, Duration::ZERO));
        assert!(CallContext::within(Duration::MAX).remaining() >= FAR);
    }
}
