//! Time as an argument, so that it can be set.

use std::fmt;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

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
///
/// On Linux they are the coarse ones, which move a few milliseconds at a time: a key's age is
/// counted in seconds, and they cost a fifth of the exact ones.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SystemClock;

impl SystemClock {
    /// The operating system's clocks.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> Duration {
        read(WALL)
    }

    fn monotonic(&self) -> Duration {
        read(MONOTONIC)
    }
}

#[cfg(target_os = "linux")]
const WALL: ClockId = ClockId::RealtimeCoarse;
#[cfg(target_os = "linux")]
const MONOTONIC: ClockId = ClockId::MonotonicCoarse;
#[cfg(not(target_os = "linux"))]
const WALL: ClockId = ClockId::Realtime;
#[cfg(not(target_os = "linux"))]
const MONOTONIC: ClockId = ClockId::Monotonic;

fn read(clock: ClockId) -> Duration {
    // A clock set before 1970 reads as 1970: a key cannot be created then, since `Created` is
    // never zero.
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
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
    // Not by `as_nanos`, whose 128 bits cost the hot path some nanoseconds.
    duration.as_secs().saturating_mul(NANOS_PER_SECOND).saturating_add(duration.subsec_nanos().into())
}
