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
        // A wall clock before 1970 is a broken one; zero makes every key expired-proof but
        // creatable ones are refused, since `Created` is never zero.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }
}
