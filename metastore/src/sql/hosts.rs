//! Several servers of which one will do, and the way to it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use claviger::{BackendError, FailureKind};
use tokio::time::{Instant, sleep, timeout};

use crate::sql::dialect::{Connected, Dialect, Role, Setup};
use crate::sql::driver::Doing;
use crate::sql::error::SqlError;

/// The servers of a store, in the order they are asked.
pub(crate) struct Hosts<D: Dialect> {
    options: Vec<D::Options>,
    /// Where the last session was made.
    last: AtomicUsize,
}

/// A server that is started listens after a while.
const LOOK_AGAIN_FIRST: Duration = Duration::from_millis(10);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(200);

impl<D: Dialect> Hosts<D> {
    pub(crate) const fn new(options: Vec<D::Options>) -> Self {
        Self { options, last: AtomicUsize::new(0) }
    }

    /// Returns them in the order they are asked.
    #[cfg(feature = "postgres")]
    pub(crate) fn all(&self) -> &[D::Options] {
        &self.options
    }

    /// Makes a session as [`connect_once`](Self::connect_once) does. While the servers refuse
    /// connections, or none plays the role, they are asked again until `deadline`.
    ///
    /// # Errors
    /// Why the last server that was asked did not do.
    pub(crate) async fn connect(
        &self,
        setup: &Setup,
        deadline: Duration,
    ) -> Result<Connected<D>, BackendError> {
        let until = Instant::now() + deadline;
        let mut pause = LOOK_AGAIN_FIRST;
        loop {
            let error = match self.connect_once(setup, deadline).await {
                Ok(connected) => return Ok(connected),
                Err(error) => error,
            };
            if !error.is_transient() || Instant::now() + pause >= until {
                return Err(error);
            }
            sleep(pause).await;
            pause = (pause * 2).min(LOOK_AGAIN_MAX);
        }
    }

    /// Makes a session with the first server that plays the role, beginning where the last one was
    /// made. Each is asked once, and has its share of `deadline`.
    ///
    /// # Errors
    /// Why the last server that was asked did not do.
    pub(crate) async fn connect_once(
        &self,
        setup: &Setup,
        deadline: Duration,
    ) -> Result<Connected<D>, BackendError> {
        let count = self.options.len();
        let first = self.last.load(Ordering::Relaxed);
        // One that does not answer leaves time for the others.
        let share = deadline / u32::try_from(count).unwrap_or(u32::MAX).max(1);
        let mut fault = BackendError::permanent(HostFault::None);
        for place in (first..first + count).map(|place| place % count) {
            let Some(options) = self.options.get(place) else { continue };
            match timeout(share, D::connect(options, setup)).await {
                Ok(Ok(connected)) => {
                    self.last.store(place, Ordering::Relaxed);
                    return Ok(connected);
                }
                Ok(Err(error)) => fault = error.classified_when::<D>(Doing::Connecting),
                Err(_elapsed) => {
                    fault =
                        BackendError::transient(HostFault::Silent(share)).with_kind(FailureKind::Unreachable);
                }
            }
        }
        Err(fault)
    }
}

/// Why no session was made.
#[derive(Debug, thiserror::Error)]
enum HostFault {
    #[error("no server is named")]
    None,
    #[error("no connection could be made within {0:?}")]
    Silent(Duration),
}

/// A server that does not play the role.
pub(crate) fn unfit(role: Role) -> SqlError {
    crate::sql::SqlFault::OtherRole { wanted: role.name() }.into()
}
