//! What a signal leaves on the stack of the code that it interrupts.
//!
//! The kernel saves the registers there, in a frame below the red zone, and so deeper than the code
//! itself reaches.

#![expect(unsafe_code, reason = "dead stack memory")]

use std::sync::atomic::{AtomicUsize, Ordering};

use super::below::{Below, GAP_BYTES, LINES, WIPED_BYTES, fence};

/// Returns how far below the deepest that some code reaches a signal's frame may end.
pub(super) fn reach() -> usize {
    /// Zero before the system was asked.
    static REACH: AtomicUsize = AtomicUsize::new(0);
    let known = REACH.load(Ordering::Relaxed);
    if known > 0 {
        return known;
    }
    let reach = frame_bytes().map_or(REACH_MAX, |frame| frame.saturating_add(RED_ZONE_BYTES).min(REACH_MAX));
    REACH.store(reach, Ordering::Relaxed);
    reach
}

/// Returns the size of the largest frame that there can be on this processor, if the kernel tells.
#[cfg(target_os = "linux")]
fn frame_bytes() -> Option<usize> {
    Some(rustix::param::linux_minsigstksz()).filter(|bytes| *bytes > 0)
}

#[cfg(not(target_os = "linux"))]
const fn frame_bytes() -> Option<usize> {
    None
}

/// Words on the stack below some code, which show whether a signal's frame was written there: to wipe all
/// that one could reach, at each call, would cost more than all other wiping.
///
/// # Why none is missed
/// A frame goes on without a gap from a red zone below the stack pointer of the code, and so from above
/// the second probe, to its end. From its end upwards it holds, on x86-64, 48 bytes of which some are not
/// always written; 192 of general registers; 200 to 280 like the first; 416 of x87's and SSE's registers; and
/// what the processor has more, at most 2,4 KiB, or that and 8 KiB of AMX's tiles. So a frame that ends
/// - less than 240 bytes below the first probe is wiped in any case;
/// - less than 936 bytes below it has a probe among the general registers, since those of [`PLACES`] are
///   closer together than 192 bytes as far as that;
/// - deeper has one among SSE's registers, since the others are closer together than 416 bytes;
/// - too deep for that is large by AMX's tiles, which then begin above the third probe and end below it.
///
/// A register can hold the value of a probe only before the code has begun, when none holds a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probes {
    /// The address of the deepest. It is only ever compared: each look at them is through an array that
    /// lies there, and how a compiler aligns that differs from function to function.
    deepest: usize,
}

impl Probes {
    /// Writes them to the stack below code that goes so deep below the caller.
    #[inline(never)]
    pub(super) fn lay(depth: usize) -> Self {
        const { assert!(all_between_lines()) };
        let mut below = Below::<PROBED_BYTES>::uninit();
        // More than by how much the functions differ that look at this stack, and the word itself.
        let first = depth.min(WIPED_BYTES).next_multiple_of(64) + GAP_BYTES + OFFSET;
        let deepest = below.last(first + DEEPEST).cast::<u64>();
        for place in PLACES {
            // SAFETY: it is at most `DEEPEST` above the deepest, which is more than that from the end of the
            // array. All are as aligned as a word is, since the array's end is and all distances are.
            unsafe { deepest.byte_add(DEEPEST - place).write(PROBE) };
        }
        fence(deepest.cast());
        Self { deepest: deepest.addr() }
    }

    /// Returns `true` if all are as they were written.
    ///
    /// Always inlined, into what wipes: one call fewer, and none of its own stack.
    #[inline(always)]
    pub(super) fn are_intact(self, below: &mut Below<PROBED_BYTES>) -> bool {
        let start = below.last(PROBED_BYTES);
        // It counts as a write of all. What is there is what earlier calls have left, and every word is a
        // number.
        fence(start);
        let offset = self.deepest.wrapping_sub(start.addr());
        if offset > PROBED_BYTES - DEEPEST - size_of::<u64>() {
            return false;
        }
        let changes = PLACES.iter().fold(0, |changes, place| {
            // SAFETY: with its word it is in the array, since the deepest is with so much after it; it is
            // aligned as when it was written.
            changes | (unsafe { start.add(offset + DEEPEST - place).cast::<u64>().read() } ^ PROBE)
        });
        changes == 0
    }

    /// Returns how much of the end of `below` has to be wiped if they are intact.
    #[inline(always)]
    pub(super) fn wiped(self, below: &mut Below<PROBED_BYTES>) -> usize {
        let end = below.last(0).addr();
        end.wrapping_sub(self.deepest + DEEPEST - FRAME_END).next_multiple_of(LINES).min(PROBED_BYTES)
    }
}

/// Whether it is known well enough what a signal writes.
pub(super) const IS_PROBED: bool = cfg!(all(target_arch = "x86_64", target_os = "linux"));

/// How far below the first probe each one lies.
const PLACES: [usize; 12] = [0, 168, 336, 504, 672, 840, 1240, 1640, 2040, 2440, 2840, DEEPEST];

const DEEPEST: usize = 3240;

/// Returns `true` if the probes are aligned, and none lies where the compiler's own may be.
const fn all_between_lines() -> bool {
    let mut index = 0;
    while index < PLACES.len() {
        #[expect(clippy::indexing_slicing, reason = "in a constant, and below the length")]
        let place = PLACES[index];
        if (OFFSET + place).is_multiple_of(64) || !place.is_multiple_of(8) {
            return false;
        }
        index += 1;
    }
    GAP_BYTES.is_multiple_of(64) && OFFSET.is_multiple_of(8)
}

/// What a probe holds.
const PROBE: u64 = 0x6b1d_93c4_e85f_2a37;

/// The stack in which the probes lie.
pub(super) const PROBED_BYTES: usize = (WIPED_BYTES + 2 * GAP_BYTES + 64 + DEEPEST).next_multiple_of(LINES);

/// How much of a frame, from its end upwards, the general registers and what is below them take.
const FRAME_END: usize = 240;

/// How far each probe's place is off a line of the processor's cache, but for [`PLACES`].
const OFFSET: usize = 16;

/// What code may use below its stack pointer.
const RED_ZONE_BYTES: usize = 128;

/// More than any frame today, AMX's of 12 KiB too. Of a processor whose registers are larger the
/// deepest part would be left.
pub(super) const REACH_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    /// What the kernel writes to a frame in any case, as distances from its end upwards: the general registers,
    /// what is between them and those of SSE, those of SSE, and where AMX's tiles begin after them.
    fn written(gap: usize, extended: usize, tiles: usize) -> Vec<Range<usize>> {
        let sse = 240 + gap..240 + gap + 416;
        let tiles_start = sse.end + extended;
        let all = vec![48..240, sse, tiles_start..tiles_start + tiles];
        all.into_iter().filter(|range| !range.is_empty()).collect()
    }

    #[test]
    fn each_frame_that_ends_below_what_is_wiped_changes_a_probe() {
        for (gap, extended, tiles) in [200, 280]
            .into_iter()
            .flat_map(|gap| [(gap, 0, 0), (gap, 96 + 256, 0), (gap, 2400, 0), (gap, 2400, 8192)])
        {
            let written = written(gap, extended, tiles);
            let frame = written.iter().map(|range| range.end).max().unwrap();
            // It begins a red zone below code that ends where the first probe is, at the deepest.
            for end in (FRAME_END..=frame + RED_ZONE_BYTES).step_by(8) {
                let shows = |place: usize| {
                    // The probe's word lies below its place.
                    let up = (end + 8).checked_sub(place);
                    up.is_some_and(|up| written.iter().any(|range| range.start < up && up - 8 < range.end))
                };
                assert!(PLACES.into_iter().any(shows), "a frame of {frame} bytes that ends {end} below");
            }
        }
    }

    #[test]
    fn a_frame_reaches_as_far_as_the_system_says_or_the_most_that_is_wiped() {
        let reach = reach();
        assert!((RED_ZONE_BYTES + 512..=REACH_MAX).contains(&reach), "{reach}");
        assert_eq!(frame_bytes().is_some(), reach < REACH_MAX);
    }
}
