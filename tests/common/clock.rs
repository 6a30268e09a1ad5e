//! A clock for tests in which time goes by while they wait.

use std::time::Duration;

use claviger::Clock;
use claviger::testing::FixedClock;

/// When the worlds of tests begin: a whole minute, so that keys made at once are created then.
pub(crate) const START: i64 = 28_333_334 * 60;

/// A clock that goes by tokio's, which a paused runtime moves, and can be moved ahead of it.
#[derive(Clone, Debug)]
pub(crate) struct RunningClock {
    ahead: FixedClock,
    origin: tokio::time::Instant,
}

impl RunningClock {
    pub(crate) fn new() -> Self {
        Self { ahead: FixedClock::new(START.unsigned_abs()), origin: tokio::time::Instant::now() }
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.ahead.advance(by);
    }
}

impl Clock for RunningClock {
    fn wall(&self) -> Duration {
        self.ahead.wall() + self.origin.elapsed()
    }

    fn monotonic(&self) -> Duration {
        self.ahead.monotonic() + self.origin.elapsed()
    }
}
