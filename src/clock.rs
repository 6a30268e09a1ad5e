//! Time as an argument, so that it can be set.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where a factory takes the time from.
///
/// Key expiry goes by the wall clock. How long ago a key was checked goes by the clock that has
/// advanced more: the monotonic one stops while a machine is suspended, the wall clock can be set
/// back.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Returns the time since the Unix epoch.
    fn wall(&self) -> Duration;

    /// Returns the time since some fixed moment; it never goes back.
    fn monotonic(&self) -> Duration;
}

/// The operating system's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// The operating system's clocks, the monotonic one counted from now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one clock that reads the system's")]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one clock that reads the system's")]
    fn wall(&self) -> Duration {
        // A clock set before 1970 reads as 1970: a key cannot be created then, since `Created` is
        // never zero.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// One reading of both clocks, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) wall: u64,
    pub(crate) monotonic: u64,
}

impl Moment {
    pub(crate) fn now(clock: &dyn Clock) -> Self {
        Self { wall: nanos(clock.wall()), monotonic: nanos(clock.monotonic()) }
    }

    /// Returns the wall clock's whole seconds.
    pub(crate) const fn unix_seconds(self) -> i64 {
        // 2^64 ns are 1.8 * 10^10 s, far within an i64.
        (self.wall / NANOS_PER_SECOND).cast_signed()
    }
}

pub(crate) const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Returns the duration in nanoseconds, at most `u64::MAX` (the year 2554).
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
