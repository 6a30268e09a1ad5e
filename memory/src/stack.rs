//! Wiping: of bytes, and of the stack that a computation has used.

#![expect(unsafe_code, reason = "fences and dead stack memory")]

use std::{arch::asm, mem::MaybeUninit};

/// Runs `f`, then wipes the stack below the caller as deep as `f` can have reached.
///
/// # What it promises
/// [`WIPED_BYTES`] below the caller's frame are zeroed after `f` has returned or
/// unwound. That is measured: deep enough for making an AES-256-GCM key and sealing or
/// opening with it, with room to spare. What `f` leaves deeper, on the heap or in another
/// thread is not wiped.
///
/// The value of `f`, and what `f` captured by value, pass through the caller's frame,
/// which is **not** wiped: neither may hold a secret. Capture keys by reference and let
/// [`Arena::try_init`](crate::Arena::try_init) make keys in place.
///
/// ```
/// let sum = claviger_memory::on_wiped_stack(|| 2 + 2);
/// assert_eq!(sum, 4);
/// ```
#[inline]
pub fn on_wiped_stack<R>(f: impl FnOnce() -> R) -> R {
    on_stack_wiped_to::<R, _, WIPED_BYTES>(f)
}

/// As [`on_wiped_stack`], but wipes `BYTES`.
#[inline]
pub(crate) fn on_stack_wiped_to<R, F: FnOnce() -> R, const BYTES: usize>(f: F) -> R {
    // Wiped by `drop`, so that a panic in `f` is followed by it too.
    let _wiper = Wiper::<BYTES>;
    below_gap(f)
}

/// Wipes `bytes`, also if nothing reads them afterwards.
///
/// ```
/// let mut key = [7_u8; 32];
/// claviger_memory::wipe(&mut key);
/// assert_eq!(key, [0; 32]);
/// ```
#[inline]
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    fence(bytes.as_ptr());
}

struct Wiper<const BYTES: usize>;

impl<const BYTES: usize> Drop for Wiper<BYTES> {
    #[inline]
    fn drop(&mut self) {
        wipe_below::<BYTES>();
    }
}

/// Calls `f` some bytes further down than [`wipe_below`] is called, whose own return
/// address and saved registers cover the first bytes that this frame would use.
#[inline(never)]
fn below_gap<R>(f: impl FnOnce() -> R) -> R {
    let gap = MaybeUninit::<[u8; GAP_BYTES]>::uninit();
    fence(gap.as_ptr().cast());
    let value = call(f);
    fence(gap.as_ptr().cast());
    value
}

/// Keeps the frame of `f` below that of [`below_gap`].
#[inline(never)]
fn call<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// Overwrites the stack that earlier calls from the same frame have used.
///
/// The compiler probes each page of the array, so that a stack too small for it ends in
/// the guard page and never beyond.
#[inline(never)]
fn wipe_below<const BYTES: usize>() {
    let mut below = MaybeUninit::<[u8; BYTES]>::uninit();
    let start = below.as_mut_ptr().cast::<u8>();
    // SAFETY: the array is ours and `BYTES` long.
    unsafe { start.write_bytes(0, BYTES) };
    fence(start);
}

/// Makes the compiler believe that the memory behind `start` is read here.
#[inline]
pub(crate) fn fence(start: *const u8) {
    // SAFETY: no instruction is emitted. Without `nomem` the block counts as reading and
    // writing all memory whose address it may know, so that no earlier store is dropped.
    unsafe { asm!("/* {0} */", in(reg) start, options(nostack, preserves_flags)) };
}

/// How deep [`on_wiped_stack`] wipes: half as much again as ring 0.17 and what calls it were seen
/// to reach in making an AES-256-GCM key, sealing and opening.
///
/// On x86-64 making and using a key alone reaches 3.1 KiB at `opt-level` 3 with link-time
/// optimisation, 4.2 KiB at `"z"`, 5.2 KiB without link-time optimisation, and 19.3 KiB
/// unoptimised, where each move of the 544-byte key is a copy of its own; a whole encrypt with
/// link-time optimisation reaches 4.9 KiB. `debug_assertions` stands for the last, which needs
/// more and may cost more. A crate cannot see its `opt-level`: who turns the assertions off
/// but does not optimise gets less than he needs.
pub const WIPED_BYTES: usize = if cfg!(debug_assertions) { 48 * 1024 } else { 8 * 1024 };

/// How deep the stack is wiped after a key was made for keeping, which is rare.
pub(crate) const WIPED_BYTES_INIT: usize = 2 * WIPED_BYTES;

/// More than the return address, saved registers and padding of [`wipe_below`], and than the
/// red zone that a sanitizer puts there.
const GAP_BYTES: usize = 512;
