//! Stack below a frame, and how much of it is wiped.

#![expect(unsafe_code, reason = "dead stack memory, and fences")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256i, _mm256_setzero_si256, _mm256_store_si256};
use std::{arch::asm, mem::MaybeUninit};

/// How deep [`on_wiped_stack`](crate::on_wiped_stack) wipes: half as much again as ring 0.17 and what calls it were seen
/// to reach in making an AES-256-GCM key, sealing and opening.
///
/// On x86-64 making and using a key alone reaches 3.1 KiB at `opt-level` 3 with link-time
/// optimisation, 4.2 KiB at `"z"`, 5.2 KiB without link-time optimisation, and 19.3 KiB
/// unoptimised, where each move of the 544-byte key is a copy of its own; a whole encrypt with
/// link-time optimisation reaches 4.5 KiB. `debug_assertions` stands for the last, which needs
/// more and may cost more. A crate cannot see its `opt-level`: a program that turns
/// the assertions off but does not optimise gets less than it needs.
pub const WIPED_BYTES: usize = if cfg!(debug_assertions) { 48 * 1024 } else { 8 * 1024 };

/// More than the return address, saved registers and padding of `wipe_below`, and in unoptimised
/// code than the red zone that a sanitizer puts there.
pub(super) const GAP_BYTES: usize = if cfg!(debug_assertions) { 1024 } else { 128 };

/// How many bytes are wiped at once: some lines of the processor's cache.
pub(super) const LINES: usize = 256;

/// Stack that earlier calls from the same frame have used, or later ones will.
///
/// The compiler probes each page of it, so that a stack too small for it ends in the guard page and
/// never beyond.
#[repr(align(64))]
pub(super) struct Below<const BYTES: usize>(pub(super) MaybeUninit<[u8; BYTES]>);

impl<const BYTES: usize> Below<BYTES> {
    #[inline]
    pub(super) const fn uninit() -> Self {
        Self(MaybeUninit::uninit())
    }

    /// Returns where the last `bytes` begin; all, if there are not so many.
    #[inline]
    pub(super) fn last(&mut self, bytes: usize) -> *mut u8 {
        let start = self.0.as_mut_ptr().cast::<u8>();
        // SAFETY: at most `BYTES` from the start of an array of as many.
        unsafe { start.add(BYTES.saturating_sub(bytes)) }
    }

    /// Zeroes the last `bytes`, which are a multiple of [`LINES`] and no more than there are.
    #[inline]
    pub(super) fn zero_by_memset(&mut self, bytes: usize) {
        let start = self.last(bytes);
        // SAFETY: `bytes` from there on are the end of the array, which is ours.
        unsafe { start.write_bytes(0, bytes) };
        fence(start);
    }

    /// As [`zero_by_memset`](Self::zero_by_memset).
    ///
    /// At these sizes the C library's `memset` uses `rep stos`, which is as fast by itself, but nothing
    /// that comes after it can begin meanwhile. Plain stores do not stand in the way.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx")]
    pub(super) fn zero_by_avx(&mut self, bytes: usize) {
        const VECTORS: usize = LINES / size_of::<__m256i>();
        let start = self.last(bytes);
        let zero = _mm256_setzero_si256();
        for lines in (0..bytes).step_by(LINES) {
            // SAFETY: `bytes` from `start` on are the end of the array, which is ours. They are a
            // multiple of `LINES`, as the array's length is, so that each vector lies within and is
            // aligned as the array is.
            unsafe {
                let lines = start.add(lines).cast::<__m256i>();
                for vector in 0..VECTORS {
                    _mm256_store_si256(lines.add(vector), zero);
                }
                // Else the compiler makes a `memset` of the loop.
                fence(lines.cast());
            }
        }
    }
}

/// Makes the compiler believe that the memory behind `start` is read here.
#[inline]
pub(crate) fn fence(start: *const u8) {
    // SAFETY: no instruction is emitted. Without `nomem` the block counts as reading and
    // writing all memory whose address it may know, so that no earlier store is dropped.
    unsafe { asm!("/* {0} */", in(reg) start, options(nostack, preserves_flags)) };
}
