//! What is known of a key version besides its bytes.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::clock::{Moment, NANOS_PER_SECOND};

/// What is known of one key version, shared by all who hold the key or one wrapped under it.
#[derive(Debug, Default)]
pub(crate) struct KeyState {
    /// [`REVOKED`] and [`LOST`]. Neither is ever taken back.
    flags: AtomicU8,
    checked_wall: AtomicU64,
    checked_monotonic: AtomicU64,
    trouble: Trouble,
}

const REVOKED: u8 = 1;
const LOST: u8 = 2;

impl KeyState {
    /// Notes a good read of the key's row that began at `begun`. An older read than one noted
    /// already changes nothing.
    pub(crate) fn mark_checked(&self, begun: Moment) {
        // By the clock that never goes back: a wall clock that was set back would else leave a
        // check in the future, which hides the next suspension of the machine. Whoever reads
        // between the two stores takes the key for older than it is.
        if self.checked_monotonic.fetch_max(begun.monotonic, Ordering::Relaxed) <= begun.monotonic {
            self.checked_wall.store(begun.wall, Ordering::Relaxed);
        }
    }

    /// Tells whether a good read is known that began with `begun` or later. Clocks tick coarsely: of
    /// two reads in one tick the good one counts, and the next refresh decides.
    pub(crate) fn was_checked_since(&self, begun: Moment) -> bool {
        let monotonic = self.checked_monotonic.load(Ordering::Relaxed);
        let wall = self.checked_wall.load(Ordering::Relaxed);
        (monotonic, wall) >= (begun.monotonic, begun.wall)
    }

    /// Marks the key revoked, for as long as this state is known.
    pub(crate) fn mark_revoked(&self) {
        self.flags.fetch_or(REVOKED, Ordering::Relaxed);
    }

    pub(crate) fn is_revoked(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & REVOKED != 0
    }

    /// Marks the key's row gone: what is encrypted under it from now on could never be decrypted.
    pub(crate) fn mark_lost(&self) {
        self.flags.fetch_or(LOST, Ordering::Relaxed);
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & LOST != 0
    }

    /// Tells whether the key is revoked or lost.
    pub(crate) fn is_barred(&self) -> bool {
        self.flags.load(Ordering::Relaxed) != 0
    }

    /// Returns how long ago the row was read, in nanoseconds, by the clock that advanced more.
    pub(crate) fn age(&self, now: Moment) -> u64 {
        let wall = now.wall.saturating_sub(self.checked_wall.load(Ordering::Relaxed));
        let monotonic = now.monotonic.saturating_sub(self.checked_monotonic.load(Ordering::Relaxed));
        wall.max(monotonic)
    }

    /// Returns the trouble that refreshes of this version met.
    pub(crate) const fn trouble(&self) -> &Trouble {
        &self.trouble
    }
}

/// When a refresh last failed or took too long.
///
/// In monotonic nanoseconds, and in the lowest bit whether for good; 0 since the last good one.
#[derive(Debug, Default)]
pub(crate) struct Trouble(AtomicU64);

impl Trouble {
    /// Notes that a refresh failed or took too long; `in_passing` if that may pass by itself.
    pub(crate) fn note(&self, now: Moment, in_passing: bool) {
        // The lowest bit is the kind; two nanoseconds are exact enough.
        self.0.store((now.monotonic & !1).max(2) | u64::from(!in_passing), Ordering::Relaxed);
    }

    /// Notes that a refresh succeeded.
    pub(crate) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Tells whether the last refresh failed or took too long.
    pub(crate) fn is_any(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Tells whether a refresh failed or took too long within the last second.
    pub(crate) fn is_recent(&self, now: Moment) -> bool {
        let trouble = self.0.load(Ordering::Relaxed);
        trouble != 0 && now.monotonic.saturating_sub(trouble & !1) < NANOS_PER_SECOND
    }

    /// Tells whether that was the case, and may have passed since.
    pub(crate) fn is_recent_in_passing(&self, now: Moment) -> bool {
        self.is_recent(now) && self.0.load(Ordering::Relaxed) & 1 == 0
    }
}
