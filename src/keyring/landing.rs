//! Where a load's outcome comes for all that wait for it.

use crate::sync::{Notify, OnceLock};

/// One outcome for any number of waiters, which are woken in the order in which they came.
///
/// `tokio::sync::watch` wakes them in an order that it draws: a run could not be repeated from its seed.
#[derive(Debug)]
pub(crate) struct Landing<T> {
    /// Without a value once the load went away.
    outcome: OnceLock<Option<T>>,
    landed: Notify,
}

impl<T> Default for Landing<T> {
    fn default() -> Self {
        Self { outcome: OnceLock::new(), landed: Notify::new() }
    }
}

impl<T: Clone> Landing<T> {
    /// Hands over the outcome, or that there is none; only the first counts.
    pub(crate) fn land(&self, outcome: Option<T>) {
        if self.outcome.set(outcome).is_ok() {
            self.landed.notify_waiters();
        }
    }

    /// Waits for the outcome. `None` if the load went away.
    ///
    /// # Cancel safety
    /// Leaving early harms nobody.
    pub(crate) async fn outcome(&self) -> Option<T> {
        loop {
            let landed = self.landed.notified();
            if let Some(outcome) = self.outcome.get() {
                return outcome.clone();
            }
            landed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn waiters_are_woken_in_the_order_in_which_they_came() {
        let (landing, woken) = (Arc::<Landing<u32>>::default(), Arc::<Mutex<Vec<usize>>>::default());
        let mut waiters = Vec::new();
        for number in 0..100 {
            let (landing, woken) = (Arc::clone(&landing), Arc::clone(&woken));
            waiters.push(tokio::spawn(async move {
                let outcome = landing.outcome().await;
                woken.lock().unwrap().push(number);
                outcome
            }));
            tokio::task::yield_now().await;
        }
        landing.land(Some(7));
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), Some(7));
        }
        assert!(woken.lock().unwrap().iter().copied().eq(0..100));
    }

    #[tokio::test]
    async fn the_first_outcome_counts_for_those_before_it_and_after() {
        let landing = Arc::<Landing<u32>>::default();
        let early = tokio::spawn({
            let landing = Arc::clone(&landing);
            async move { landing.outcome().await }
        });
        tokio::task::yield_now().await;
        landing.land(None);
        landing.land(Some(1));
        assert_eq!((early.await.unwrap(), landing.outcome().await), (None, None));
    }
}
