//! Credentials that take longer to come than a call waits.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Lets a load of credentials go on when the call that began it goes away, for the next call to find.
///
/// A call is dropped at its deadline, when another region is quicker, or by whoever made it. Were the
/// load that it waits for dropped as well, a provider that takes longer would be asked again and again
/// and never answer.
#[derive(Debug)]
pub struct SharedCredentialLoad {
    provider: SharedCredentialsProvider,
    begun: Mutex<Option<Load>>,
}

#[derive(Debug)]
struct Load {
    since: Instant,
    task: JoinHandle<provider::Result>,
}

/// How old a load that nobody waited for may be: credentials end, and an outage's error is no news.
const KEPT: Duration = Duration::from_secs(60);

impl SharedCredentialLoad {
    /// Has loads from this provider go on.
    pub const fn new(provider: SharedCredentialsProvider) -> Self {
        Self { provider, begun: Mutex::new(None) }
    }

    /// As [`new`](Self::new), to be given to a client.
    pub fn shared(provider: SharedCredentialsProvider) -> SharedCredentialsProvider {
        SharedCredentialsProvider::new(Self::new(provider))
    }

    /// Takes over the load that another call left, or begins one.
    fn load(&self) -> Load {
        self.begun().take().filter(|load| load.since.elapsed() < KEPT).unwrap_or_else(|| {
            let provider = self.provider.clone();
            let task = tokio::spawn(async move { provider.provide_credentials().await });
            Load { since: Instant::now(), task }
        })
    }

    fn begun(&self) -> MutexGuard<'_, Option<Load>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProvideCredentials for SharedCredentialLoad {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async move {
            let mut waiting = Waiting { of: self, load: None };
            let loaded = (&mut waiting.load.insert(self.load()).task).await;
            waiting.load = None;
            loaded.unwrap_or_else(|interrupted| Err(CredentialsError::provider_error(interrupted)))
        })
    }
}

/// A call that waits for a load; one that goes away leaves it to the next.
struct Waiting<'a> {
    of: &'a SharedCredentialLoad,
    load: Option<Load>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(load) = self.load.take() {
            *self.of.begun() = Some(load);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Waker};

    use aws_credential_types::Credentials;
    use aws_credential_types::credential_fn::provide_credentials_fn;
    use tokio::sync::Semaphore;

    use super::*;

    /// A provider that answers when it is let, however often it is asked.
    #[derive(Clone, Debug)]
    struct Slow {
        let_go: Arc<Semaphore>,
        asked: Arc<AtomicUsize>,
    }

    fn slow() -> (Slow, SharedCredentialLoad) {
        let slow = Slow { let_go: Arc::new(Semaphore::new(0)), asked: Arc::default() };
        let provider = slow.clone();
        let provider = provide_credentials_fn(move || {
            let Slow { let_go, asked } = provider.clone();
            async move {
                asked.fetch_add(1, Ordering::SeqCst);
                let_go.acquire().await.unwrap().forget();
                Err(CredentialsError::not_loaded_no_source())
            }
        });
        (slow, SharedCredentialLoad::new(SharedCredentialsProvider::new(provider)))
    }

    async fn begin_and_drop(enduring: &SharedCredentialLoad) {
        let mut call = pin!(enduring.provide_credentials());
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        // The load is a task of its own, and needs its turn.
        tokio::task::yield_now().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_that_was_left_serves_the_next_call_once() {
        let (slow, enduring) = slow();
        for _ in 0..3 {
            begin_and_drop(&enduring).await;
        }
        slow.let_go.add_permits(2);
        assert!(enduring.provide_credentials().await.is_err());
        assert_eq!(slow.asked.load(Ordering::SeqCst), 1);
        assert!(enduring.provide_credentials().await.is_err());
        assert_eq!(slow.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_that_was_left_long_ago_is_begun_again() {
        let (slow, enduring) = slow();
        begin_and_drop(&enduring).await;
        tokio::time::advance(KEPT).await;
        slow.let_go.add_permits(2);
        assert!(enduring.provide_credentials().await.is_err());
        assert_eq!(slow.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_provider_that_panics_is_an_error() {
        #[derive(Debug)]
        struct Broken;

        impl ProvideCredentials for Broken {
            fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
            where
                Self: 'a,
            {
                future::ProvideCredentials::new(async { panic!("of the provider") })
            }
        }

        let enduring = SharedCredentialLoad::new(SharedCredentialsProvider::new(Broken));
        let answer: Result<Credentials, _> = enduring.provide_credentials().await;
        assert!(matches!(answer, Err(CredentialsError::ProviderError(_))));
    }
}
