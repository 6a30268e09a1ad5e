//! Wiping: of bytes, and of the stack that a computation has used.

#![expect(unsafe_code, reason = "fences and dead stack memory")]

mod below;
mod registers;
mod signal;

use std::sync::atomic::{AtomicUsize, Ordering};

pub use self::below::WIPED_BYTES;
pub(crate) use self::below::fence;
use self::{
    below::{Below, GAP_BYTES, LINES},
    signal::{PROBED_BYTES, Probes},
};

/// Runs `f`, then wipes the stack below the caller as deep as `f` can have reached.
///
/// # What it promises
/// [`WIPED_BYTES`] below the caller's frame are zeroed after `f` has returned or
/// unwound. That is measured: deep enough for making an AES-256-GCM key and sealing or
/// opening with it, with room to spare. So is what the frame of a signal that interrupts `f` reaches
/// below that, 16 KiB at most. On x86-64 registers are cleared. What `f` leaves deeper, on the heap or in
/// another thread is not wiped. For work done often there is [`StackWipe`].
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
    on_stack_wiped_to::<R, _, { WIPED_BYTES + signal::REACH_MAX }>(f)
}

/// As [`on_wiped_stack`], but wipes all that a signal can reach below `MAX` less
/// [`signal::REACH_MAX`].
#[inline]
pub(crate) fn on_stack_wiped_to<R, F: FnOnce() -> R, const MAX: usize>(f: F) -> R {
    // Wiped by `drop`, so that a panic in `f` is followed by it too.
    let _wiper = Wiper::<MAX>(MAX - signal::REACH_MAX + signal::reach());
    below_gap(f)
}

/// Runs one piece of code again and again, each time on a stack that is wiped afterwards, and
/// only as deep as that code was seen to reach.
///
/// How deep that is depends on how the whole program was compiled, by more than a factor of two.
/// So the first runs are watched: they begin on a painted stack, where the paint that is left
/// afterwards tells the depth. They wipe all of it; from then on it is the greatest depth
/// seen and a little, and more only where a signal was seen to have left its frame.
///
/// It lies in a `static` beside the code that it runs. What [`on_wiped_stack`] says of `f` holds
/// here too.
///
/// ```
/// use claviger_memory::StackWipe;
///
/// static ADDING: StackWipe = StackWipe::new();
/// assert_eq!(ADDING.run(|| Ok::<_, ()>(2 + 2)), Ok(4));
/// ```
#[derive(Debug)]
pub struct StackWipe {
    /// The greatest depth seen.
    depth: AtomicUsize,
    runs_to_watch: AtomicUsize,
}

impl StackWipe {
    /// A piece of code of which nothing is known.
    #[expect(clippy::new_without_default, reason = "it is made in a constant")]
    #[must_use]
    pub const fn new() -> Self {
        Self { depth: AtomicUsize::new(0), runs_to_watch: AtomicUsize::new(RUNS_TO_WATCH) }
    }

    /// Runs `f`, then wipes the stack below the caller as deep as this code reaches.
    ///
    /// A run that fails teaches nothing, since it may have ended early.
    ///
    /// # Errors
    /// Those of `f`.
    #[inline]
    pub fn run<T, E>(&self, f: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        if self.runs_to_watch.load(Ordering::Acquire) > 0 {
            return self.run_watched(f);
        }
        let depth = self.depth.load(Ordering::Relaxed);
        if signal::IS_PROBED {
            let _wiper = ProbedWiper(Probes::lay(depth));
            below_gap(f)
        } else {
            let _wiper = Wiper::<WIPED_BYTES_MAX>(depth + depth / 16 + signal::reach());
            below_gap(f)
        }
    }

    #[inline(never)]
    fn run_watched<T, E>(&self, f: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let _wiper = Wiper::<WIPED_BYTES_MAX>(WIPED_BYTES + signal::reach());
        // They stand for unoptimised code, on which the tools are run that look for reads of dead
        // stack: it learns nothing, and all of its runs come here.
        if cfg!(debug_assertions) {
            return below_gap(f);
        }
        paint_below();
        let value = below_gap(f)?;
        self.learn(painted_below());
        Ok(value)
    }

    /// `left` bytes of paint were left. Where that cannot be, the stack is not what it seems, as
    /// with a sanitizer's: then all is wiped ever after.
    fn learn(&self, left: usize) {
        let is_plausible = (1..WIPED_BYTES - GAP_BYTES).contains(&left);
        let depth = if is_plausible { WIPED_BYTES - left } else { WIPED_BYTES };
        self.depth.fetch_max(depth, Ordering::Relaxed);
        // Several threads may count the same run; below zero it must not go. Whoever reads zero reads a
        // depth too.
        let runs = self.runs_to_watch.load(Ordering::Relaxed);
        self.runs_to_watch.store(runs.saturating_sub(1), Ordering::Release);
    }
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

/// Wipes so many bytes of the stack when dropped, at most `MAX`.
struct Wiper<const MAX: usize>(usize);

impl<const MAX: usize> Drop for Wiper<MAX> {
    #[inline]
    fn drop(&mut self) {
        registers::clear();
        wipe_below::<MAX>(self.0);
    }
}

/// Wipes the stack down to some probes when dropped, and more if a signal has left something below them.
struct ProbedWiper(Probes);

impl Drop for ProbedWiper {
    #[inline]
    fn drop(&mut self) {
        // First, so that no signal from here on writes anything of worth.
        registers::clear();
        if !wipe_to(self.0) {
            wipe_below::<WIPED_BYTES_MAX>(WIPED_BYTES_MAX);
        }
    }
}

/// Calls `f` some bytes further down than [`wipe_below`] is called, whose own return
/// address and saved registers cover the first bytes that this frame would use.
#[inline(never)]
fn below_gap<R>(f: impl FnOnce() -> R) -> R {
    let mut gap = Below::<GAP_BYTES>::uninit();
    fence(gap.last(GAP_BYTES));
    let value = call(f);
    fence(gap.last(GAP_BYTES));
    value
}

/// Keeps the frame of `f` below that of [`below_gap`].
#[inline(never)]
fn call<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// Overwrites the first `bytes` of the stack below the caller, at most `MAX`.
///
/// Always inlined: a frame of its own would add to what [`GAP_BYTES`] has to make room for.
#[inline(always)]
fn wipe_below<const MAX: usize>(bytes: usize) {
    const { assert!(MAX.is_multiple_of(LINES)) };
    let bytes = bytes.next_multiple_of(LINES).min(MAX);
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx") {
        // SAFETY: the processor has AVX.
        unsafe { wipe_below_by_avx::<MAX>(bytes) };
        return;
    }
    wipe_below_by_memset::<MAX>(bytes);
}

/// Overwrites the stack below the caller down to the first probe, and so much more that no signal's frame
/// that ends there is left. Returns `true` if all probes were intact.
#[inline(always)]
fn wipe_to(probes: Probes) -> bool {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx") {
        // SAFETY: the processor has AVX.
        return unsafe { wipe_to_by_avx(probes) };
    }
    wipe_to_by_memset(probes)
}

#[inline(never)]
fn wipe_to_by_memset(probes: Probes) -> bool {
    let mut below = Below::<PROBED_BYTES>::uninit();
    let are_intact = probes.are_intact(&mut below);
    let bytes = probes.wiped(&mut below);
    below.zero_by_memset(bytes);
    are_intact
}

#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx")]
fn wipe_to_by_avx(probes: Probes) -> bool {
    let mut below = Below::<PROBED_BYTES>::uninit();
    let are_intact = probes.are_intact(&mut below);
    let bytes = probes.wiped(&mut below);
    below.zero_by_avx(bytes);
    are_intact
}

#[inline(never)]
fn wipe_below_by_memset<const MAX: usize>(bytes: usize) {
    Below::<MAX>::uninit().zero_by_memset(bytes);
}

#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx")]
fn wipe_below_by_avx<const MAX: usize>(bytes: usize) {
    Below::<MAX>::uninit().zero_by_avx(bytes);
}

/// Covers all that [`wipe_below`] could wipe with [`PAINT`].
#[inline(never)]
fn paint_below() {
    let mut below = Below::<WIPED_BYTES>::uninit();
    let start = below.last(WIPED_BYTES);
    // SAFETY: the array is ours and `WIPED_BYTES` long.
    unsafe { start.write_bytes(PAINT, WIPED_BYTES) };
    fence(start);
}

/// Returns how many bytes of paint are left, from the deep end on. Zeros count too: the probes of the
/// pages write some, and they are no secret.
#[inline(never)]
fn painted_below() -> usize {
    let mut below = Below::<WIPED_BYTES>::uninit();
    fence(below.last(WIPED_BYTES));
    // SAFETY: the fence counts as a write of the whole array. What it holds is what earlier calls
    // have left there, and every byte is a `u8`.
    let bytes = unsafe { below.0.assume_init_ref() };
    bytes.iter().take_while(|byte| matches!(**byte, PAINT | 0)).count()
}

/// How deep the stack is wiped after a key was made for keeping, which is rare.
pub(crate) const WIPED_BYTES_INIT: usize = 2 * WIPED_BYTES + signal::REACH_MAX;

/// The most that is wiped after a run.
const WIPED_BYTES_MAX: usize = WIPED_BYTES + WIPED_BYTES / 16 + signal::REACH_MAX;

/// How many good runs a [`StackWipe`] watches.
const RUNS_TO_WATCH: usize = 16;

/// What a stack is painted with: neither zero nor what data is often filled with.
const PAINT: u8 = 0xb7;
