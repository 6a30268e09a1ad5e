//! Gauges that cannot be forgotten: what raised one lowers it when it goes.

use std::sync::atomic::{AtomicBool, Ordering};

use metrics::Gauge;

/// One more, as long as it lives.
#[derive(Debug)]
pub(crate) struct Raised(Gauge);

impl Raised {
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.increment(1);
        Self(gauge.clone())
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

/// A yes or no that a gauge shows.
#[derive(Debug)]
pub(crate) struct Flag {
    is_set: AtomicBool,
    gauge: Gauge,
}

impl Flag {
    pub(crate) const fn new(gauge: Gauge) -> Self {
        Self { is_set: AtomicBool::new(false), gauge }
    }

    /// Sets it and returns what it was.
    pub(crate) fn set(&self, is_set: bool) -> bool {
        let was_set = self.is_set.swap(is_set, Ordering::AcqRel);
        match (was_set, is_set) {
            (false, true) => self.gauge.increment(1),
            (true, false) => self.gauge.decrement(1),
            _ => {}
        }
        was_set
    }

    pub(crate) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }
}

impl Drop for Flag {
    fn drop(&mut self) {
        self.set(false);
    }
}
