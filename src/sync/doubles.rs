//! What loom lacks, made of what it has: each does what the original promises, and no more.

use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use loom::sync::atomic::{AtomicBool, AtomicUsize};
use loom::sync::{Mutex, MutexGuard};

/// arc-swap's pointer: who loads it sees all that was done before it was stored.
#[derive(Debug, Default)]
pub(crate) struct ArcSwap<T>(Mutex<Arc<T>>);

/// What was loaded.
#[derive(Debug)]
pub(crate) struct Guard<T>(T);

impl<T> ArcSwap<T> {
    pub(crate) fn load(&self) -> Guard<Arc<T>> {
        Guard(Arc::clone(&locked(&self.0)))
    }

    pub(crate) fn swap(&self, new: Arc<T>) -> Arc<T> {
        std::mem::replace(&mut *locked(&self.0), new)
    }
}

impl<T> Deref for Guard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// The standard library's: who gets the value sees all that was done before it was set.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    is_taken: AtomicBool,
    is_set: AtomicBool,
    value: std::sync::OnceLock<T>,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        let (is_taken, is_set) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { is_taken, is_set, value: std::sync::OnceLock::new() }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.is_set.load(Ordering::Acquire).then(|| self.value.get())?
    }

    /// The original waits for a setter that is at it; nobody here sets the same again and then reads.
    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        if self.is_taken.swap(true, Ordering::AcqRel) {
            return Err(value);
        }
        self.value.set(value)?;
        self.is_set.store(true, Ordering::Release);
        Ok(())
    }
}

/// tokio's, as far as it wakes all that wait: those whose future was made before, polled or not.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    calls: AtomicUsize,
    wakers: Mutex<Vec<Waker>>,
}

#[derive(Debug)]
pub(crate) struct Notified<'a> {
    notify: &'a Notify,
    calls: usize,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn notified(&self) -> Notified<'_> {
        Notified { notify: self, calls: self.calls.load(Ordering::SeqCst) }
    }

    pub(crate) fn notify_waiters(&self) {
        let wakers = {
            let mut wakers = locked(&self.wakers);
            self.calls.fetch_add(1, Ordering::SeqCst);
            std::mem::take(&mut *wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut wakers = locked(&self.notify.wakers);
        if self.notify.calls.load(Ordering::SeqCst) != self.calls {
            return Poll::Ready(());
        }
        wakers.push(context.waker().clone());
        Poll::Pending
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
