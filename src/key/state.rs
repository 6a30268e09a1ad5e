//! What is known of a key version besides its bytes.

use std::sync::atomic::Ordering;

use crate::clock::{Moment, NANOS_PER_SECOND};
use crate::sync::{AtomicU8, AtomicU64};

/// What is known of one key version, shared by all that hold the key or one wrapped under it.
#[derive(Debug)]
pub(crate) struct KeyState {
    /// [`REVOKED`], [`ROW_MISSING`] and [`COPY`], which are never taken back, [`INVALIDATED`], [`FROM_REPLICA`] and
    /// [`FOLDED`].
    flags: AtomicU8,
    checked_wall: AtomicU64,
    checked_monotonic: AtomicU64,
    /// When the loss was noted.
    missing_since: AtomicU64,
    /// The generation in which the revocation was learned.
    revoked_since: AtomicU64,
    trouble: Trouble,
}

const REVOKED: u8 = 1;
const ROW_MISSING: u8 = 2;
/// No read is known that began after the last word that the row changed; nor is one in the beginning.
const INVALIDATED: u8 = 4;
/// What is known was read from a replica, which may lag behind: good for decrypting only.
const FROM_REPLICA: u8 = 8;
/// The row has another id, which the table takes for this one: good for decrypting only.
const FOLDED: u8 = 16;

/// The key is another version's too: good for decrypting only.
const COPY: u8 = 32;

impl Default for KeyState {
    fn default() -> Self {
        Self {
            flags: AtomicU8::new(INVALIDATED),
            checked_wall: AtomicU64::default(),
            checked_monotonic: AtomicU64::default(),
            missing_since: AtomicU64::default(),
            revoked_since: AtomicU64::default(),
            trouble: Trouble::default(),
        }
    }
}

impl KeyState {
    /// Notes a good read of the key's row that began at `begun`. An older read than one noted
    /// already changes nothing. It ends an invalidation if it `is_current`: it began after that.
    ///
    /// Its keyring calls it under its lock, so that an invalidation that comes meanwhile stays.
    pub(crate) fn mark_checked(&self, begun: Moment, is_current: bool) {
        // By the clock that never goes back: a wall clock that was set back would else leave a
        // check in the future, which hides the next suspension of the machine.
        let checked = self.checked_monotonic.load(Ordering::Relaxed);
        if checked <= begun.monotonic || self.is_from_replica() {
            self.set_checked(begun);
        }
        self.flags.fetch_and(
            if is_current { !(INVALIDATED | FROM_REPLICA) } else { !FROM_REPLICA },
            Ordering::Relaxed,
        );
    }

    /// Notes a good read from a replica, as [`mark_checked`](Self::mark_checked) does one from the
    /// store itself. Where the store itself was read, it changes nothing.
    pub(crate) fn mark_read_from_replica(&self, begun: Moment, is_current: bool) {
        let checked = self.checked_monotonic.load(Ordering::Relaxed);
        let is_unknown = checked == 0 && self.checked_wall.load(Ordering::Relaxed) == 0;
        if is_unknown || (self.is_from_replica() && checked <= begun.monotonic) {
            // In this order nobody takes it for more than it is.
            self.flags.fetch_or(FROM_REPLICA, Ordering::Relaxed);
            self.set_checked(begun);
            if is_current {
                self.flags.fetch_and(!INVALIDATED, Ordering::Relaxed);
            }
        }
    }

    /// Whoever reads between the two stores takes the key for older than it is. Whoever reads one of them finds
    /// what was noted of the key before.
    fn set_checked(&self, begun: Moment) {
        self.checked_monotonic.store(begun.monotonic, Ordering::Release);
        self.checked_wall.store(begun.wall, Ordering::Release);
    }

    /// Returns `true` if the row is known from a replica only.
    pub(crate) fn is_from_replica(&self) -> bool {
        self.has(FROM_REPLICA)
    }

    /// Returns `true` if a good read is known that a bad one, which began at `begun`, does not refute.
    /// Clocks tick coarsely: of two reads in one tick the good one counts, and the next refresh
    /// decides; but the bad one if only that one `is_current`.
    pub(crate) fn outlives(&self, begun: Moment, is_current: bool) -> bool {
        if self.is_from_replica() {
            return false;
        }
        let monotonic = self.checked_monotonic.load(Ordering::Relaxed);
        let wall = self.checked_wall.load(Ordering::Relaxed);
        let (checked, begun) = ((monotonic, wall), (begun.monotonic, begun.wall));
        if is_current && self.is_invalidated() { checked > begun } else { checked >= begun }
    }

    /// Returns `true` if a good read from the store itself is known that began after this moment.
    pub(crate) fn is_checked_after(&self, moment: Moment) -> bool {
        self.checked_monotonic.load(Ordering::Acquire) > moment.monotonic && !self.is_from_replica()
    }

    /// Notes that the row may have changed since it was read last.
    pub(crate) fn invalidate(&self) {
        self.flags.fetch_or(INVALIDATED, Ordering::Relaxed);
    }

    /// Returns `true` if no read is known that began after the last word that the row changed.
    pub(crate) fn is_invalidated(&self) -> bool {
        self.has(INVALIDATED)
    }

    /// Marks the key revoked, for as long as this state is known; that was learned in this generation. `true` if
    /// it is news.
    pub(crate) fn mark_revoked(&self, generation: u64) -> bool {
        if !self.is_revoked() {
            self.revoked_since.store(generation, Ordering::Relaxed);
        }
        self.flags.fetch_or(REVOKED, Ordering::Release) & REVOKED == 0
    }

    /// Returns `true` if the key was known to be revoked before loads of this generation began.
    pub(crate) fn was_revoked_before(&self, generation: u64) -> bool {
        self.flags.load(Ordering::Acquire) & REVOKED != 0
            && self.revoked_since.load(Ordering::Relaxed) < generation
    }

    pub(crate) fn is_revoked(&self) -> bool {
        self.has(REVOKED)
    }

    /// Marks the key's row gone: what is encrypted under it from now on could never be decrypted. Its
    /// keyring calls it under its lock.
    pub(crate) fn mark_row_missing(&self, now: Moment) {
        self.missing_since.fetch_max(now.monotonic, Ordering::Relaxed);
        self.flags.fetch_or(ROW_MISSING, Ordering::Relaxed);
    }

    /// Returns `true` if the row was found gone before `begun`: a read that began then and finds it says
    /// that it is back.
    pub(crate) fn is_row_missing_before(&self, begun: Moment) -> bool {
        self.is_row_missing() && self.missing_since.load(Ordering::Relaxed) < begun.monotonic
    }

    /// Returns `true` if the row was found gone by then.
    pub(crate) fn is_row_missing_by(&self, moment: Moment) -> bool {
        self.is_row_missing() && self.missing_since.load(Ordering::Relaxed) <= moment.monotonic
    }

    pub(crate) fn is_row_missing(&self) -> bool {
        self.has(ROW_MISSING)
    }

    /// Notes whether the row that was read has another id.
    pub(crate) fn set_folded(&self, is_folded: bool) {
        if is_folded {
            self.flags.fetch_or(FOLDED, Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!FOLDED, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_folded(&self) -> bool {
        self.has(FOLDED)
    }

    /// Notes that the key is another version's too; `true` if that is news.
    pub(crate) fn mark_copy(&self) -> bool {
        self.flags.fetch_or(COPY, Ordering::Relaxed) & COPY == 0
    }

    pub(crate) fn is_copy(&self) -> bool {
        self.has(COPY)
    }

    /// Returns `true` if the key is revoked or lost, another id's, or another version's.
    pub(crate) fn is_unusable(&self) -> bool {
        self.has(REVOKED | ROW_MISSING | FOLDED | COPY)
    }

    /// Returns `true` if nothing speaks against using the key, but for its age.
    pub(crate) fn is_nominal(&self) -> bool {
        self.flags.load(Ordering::Relaxed) == 0
    }

    fn has(&self, flags: u8) -> bool {
        self.flags.load(Ordering::Relaxed) & flags != 0
    }

    /// Returns how long ago the row was read, in nanoseconds, by the clock that advanced more. What that read
    /// found is known to whoever asks for it after.
    pub(crate) fn age(&self, now: Moment) -> u64 {
        let wall = now.wall.saturating_sub(self.checked_wall.load(Ordering::Acquire));
        let monotonic = now.monotonic.saturating_sub(self.checked_monotonic.load(Ordering::Acquire));
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

    /// Returns `true` if the last refresh failed or took too long.
    pub(crate) fn is_any(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Returns `true` if a refresh failed or took too long within the last second.
    pub(crate) fn is_recent(&self, now: Moment) -> bool {
        let trouble = self.0.load(Ordering::Relaxed);
        trouble != 0 && now.monotonic.saturating_sub(trouble & !1) < NANOS_PER_SECOND
    }

    /// Returns `true` if that was the case, and may have passed since.
    pub(crate) fn is_recent_in_passing(&self, now: Moment) -> bool {
        self.is_recent(now) && self.0.load(Ordering::Relaxed) & 1 == 0
    }
}
