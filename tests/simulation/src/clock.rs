//! A process's clocks: the monotonic one goes by virtual time, the wall clock is skewed and jumps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use claviger::Clock;
use tokio::time::Instant;

/// When runs begin, in Unix seconds: a whole minute.
const START: u64 = 1_700_000_040;

/// Its clones show the same time.
#[derive(Clone, Debug)]
pub(crate) struct MachineClock {
    began: Instant,
    /// How far the wall clock is ahead, in milliseconds.
    ahead: Arc<AtomicI64>,
}

impl MachineClock {
    /// A clock that is so many milliseconds ahead.
    pub(crate) fn new(ahead: i64) -> Self {
        Self { began: Instant::now(), ahead: Arc::new(AtomicI64::new(ahead)) }
    }

    /// Lets the wall clock jump, by milliseconds.
    pub(crate) fn jump(&self, by: i64) {
        // No further than a process may be apart from others for a fleet to go on.
        let most = 6 * 3_600_000;
        let ahead = self.ahead.load(Ordering::Relaxed).saturating_add(by).clamp(-most, most);
        self.ahead.store(ahead, Ordering::Relaxed);
    }
}

impl Clock for MachineClock {
    fn wall(&self) -> Duration {
        let now = Duration::from_secs(START) + self.began.elapsed();
        let ahead = self.ahead.load(Ordering::Relaxed);
        let span = Duration::from_millis(ahead.unsigned_abs());
        if ahead < 0 { now.saturating_sub(span) } else { now + span }
    }

    fn monotonic(&self) -> Duration {
        self.began.elapsed()
    }
}
