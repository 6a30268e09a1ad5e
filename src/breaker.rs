//! A circuit breaker: a dependency that is down is left alone, and asked once a while.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Refuses calls to a dependency that keeps failing, but for one probe at a time.
///
/// A back end has one for each of its parts, such as a region. Time is an argument, by a clock that never goes back.
#[derive(Debug)]
pub struct Breaker {
    failures_max: u32,
    cool_down: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Duration,
    },
    /// One probe is under way; should it never come back, the next may go at this time.
    Probing {
        until: Duration,
    },
}

/// The dependency is taken to be down; the call was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("circuit breaker is open")]
#[non_exhaustive]
pub struct BreakerOpen;

impl Breaker {
    /// Opens after `failures_max` failures in a row and lets one probe through each `cool_down`.
    #[must_use]
    pub const fn new(failures_max: u32, cool_down: Duration) -> Self {
        Self { failures_max, cool_down, state: Mutex::new(State::Closed { failures: 0 }) }
    }

    /// Asks to make a call.
    ///
    /// Whoever is admitted calls [`succeeded`](Self::succeeded), [`failed`](Self::failed) or
    /// [`not_asked`](Self::not_asked); one that never does, since it was cancelled, holds up the next probe
    /// for one cool-down.
    ///
    /// # Errors
    /// [`BreakerOpen`] while the dependency is taken to be down.
    pub fn admit(&self, now: Duration) -> Result<(), BreakerOpen> {
        let mut state = self.state();
        match *state {
            State::Closed { .. } => Ok(()),
            State::Open { until } | State::Probing { until } if now < until => Err(BreakerOpen),
            State::Open { .. } | State::Probing { .. } => {
                *state = State::Probing { until: now + self.cool_down };
                Ok(())
            }
        }
    }

    /// Returns `true` if a call would be refused.
    #[must_use]
    pub fn is_open(&self, now: Duration) -> bool {
        match *self.state() {
            State::Closed { .. } => false,
            State::Open { until } | State::Probing { until } => now < until,
        }
    }

    /// Notes that the dependency answered.
    pub fn succeeded(&self) {
        *self.state() = State::Closed { failures: 0 };
    }

    /// Notes that the dependency did not answer, or said that it cannot now.
    pub fn failed(&self, now: Duration) {
        let mut state = self.state();
        let failures = match *state {
            State::Closed { failures } => failures.saturating_add(1),
            State::Open { .. } | State::Probing { .. } => self.failures_max,
        };
        *state = if failures >= self.failures_max {
            State::Open { until: now + self.cool_down }
        } else {
            State::Closed { failures }
        };
    }

    /// Notes that the call came to nobody, since it was refused on the way: that tells nothing of the
    /// dependency, and the next probe may go at once.
    pub fn not_asked(&self, now: Duration) {
        let mut state = self.state();
        if let State::Probing { .. } = *state {
            *state = State::Open { until: now };
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn call_that_came_to_nobody_tells_nothing() {
        let breaker = Breaker::new(1, SECOND);
        breaker.not_asked(at(0));
        assert!(!breaker.is_open(at(0)));
        breaker.failed(at(0));
        breaker.not_asked(at(1));
        assert!(breaker.is_open(at(999)), "no probe was under way");
        assert!(breaker.admit(at(1_000)).is_ok());
        breaker.not_asked(at(1_010));
        assert!(breaker.admit(at(1_010)).is_ok(), "the probe is still to be made");
        assert!(breaker.admit(at(1_011)).is_err(), "it is open still");
    }

    #[test]
    fn opens_after_failures_in_a_row_only() {
        let breaker = Breaker::new(3, SECOND);
        breaker.failed(at(0));
        breaker.failed(at(1));
        breaker.succeeded();
        breaker.failed(at(2));
        breaker.failed(at(3));
        assert_eq!(breaker.admit(at(4)), Ok(()));
        breaker.failed(at(5));
        assert_eq!(breaker.admit(at(6)), Err(BreakerOpen));
        assert!(breaker.is_open(at(6)));
    }

    #[test]
    fn a_dead_dependency_gets_one_probe_a_second() {
        let breaker = Breaker::new(1, SECOND);
        breaker.failed(at(0));
        let mut probes = 0;
        for millisecond in 0..10_000 {
            if breaker.admit(at(millisecond)).is_ok() {
                probes += 1;
                breaker.failed(at(millisecond));
            }
        }
        assert_eq!(probes, 9);
    }

    #[test]
    fn a_probe_that_never_comes_back_holds_up_one_cool_down() {
        let breaker = Breaker::new(1, SECOND);
        breaker.failed(at(0));
        assert_eq!(breaker.admit(at(1000)), Ok(()));
        assert_eq!(breaker.admit(at(1001)), Err(BreakerOpen));
        assert_eq!(breaker.admit(at(2000)), Ok(()));
    }

    #[test]
    fn a_good_probe_closes_it() {
        let breaker = Breaker::new(1, SECOND);
        breaker.failed(at(0));
        assert_eq!(breaker.admit(at(1000)), Ok(()));
        breaker.succeeded();
        assert_eq!(breaker.admit(at(1001)), Ok(()));
        assert!(!breaker.is_open(at(1001)));
    }
}
