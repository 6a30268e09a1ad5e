//! What is left on the stack, seen from another thread while the first one stands still.

use std::{
    hint::{black_box, spin_loop},
    mem::MaybeUninit,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use claviger_memory::{Arena, LockPolicy, StackWipe, WIPED_BYTES, on_wiped_stack};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::process::read_memory;

#[test]
fn a_local_array_is_found_without_wiping() {
    assert!(contains(&stack_after(plant).1, &needle()));
}

#[test]
fn a_local_array_is_not_found_after_wiping() {
    assert!(!contains(&stack_after(|| on_wiped_stack(plant)).1, &needle()));
}

#[test]
fn a_local_array_is_not_found_after_a_panic() {
    let swallow = || {
        let run = || {
            on_wiped_stack(|| {
                plant();
                std::panic::resume_unwind(Box::new(()))
            })
        };
        drop(std::panic::catch_unwind(run));
    };
    assert!(!contains(&stack_after(swallow).1, &needle()));
}

#[test]
fn a_ring_key_is_found_without_wiping() {
    let (_, stack) = stack_after(|| make_and_use(&needle()));
    assert!(traces(&stack) > 2, "{} traces", traces(&stack));
}

#[test]
fn a_ring_key_is_not_found_after_wiping() {
    let (_, stack) = stack_after(|| on_wiped_stack(|| make_and_use(&needle())));
    assert_eq!(traces(&stack), 0);
}

#[test]
fn a_key_made_in_a_slot_is_in_the_slot_alone() {
    let arena = Arena::new(LockPolicy::Off);
    let slots = Mutex::new(Vec::with_capacity(2));
    let (_, stack) =
        stack_after(|| slots.lock().unwrap().push(arena.try_init(|| key_from(&needle())).unwrap()));
    assert_eq!(traces(&stack), 0);
    assert!(arena.stats().slots > 0, "no key was made");
}

#[test]
fn making_and_using_a_ring_key_reaches_at_most_two_thirds_of_what_is_wiped() {
    let (depth, _) = stack_after(|| make_and_use(&needle()));
    println!("ring reaches {depth} bytes, {WIPED_BYTES} are wiped");
    assert!(depth > 500, "nothing was measured");
    assert!(depth + depth / 2 <= WIPED_BYTES, "ring reaches {depth} bytes, {WIPED_BYTES} are wiped");
}

#[test]
fn all_of_the_promised_depth_is_wiped() {
    let (_, stack) = stack_after(|| on_wiped_stack(|| paint::<{ 2 * WIPED_BYTES + SIGNAL }>(0x3c)));
    let below = stack.len() - WIPED_BYTES;
    let deeper = &stack[below - SIGNAL - WIPED_BYTES / 2..below - SIGNAL - WIPED_BYTES / 4];
    // Not a single byte: an address on the stack may have one.
    let is_painted = |stack: &[u8]| stack.windows(8).any(|bytes| bytes == [0x3c; 8]);
    assert!(is_painted(deeper), "it was not painted below");
    assert!(!is_painted(&stack[below..]));
}

#[test]
fn a_stack_wipe_leaves_nothing_of_a_ring_key_while_it_learns_and_after() {
    static WIPE: StackWipe = StackWipe::new();
    for run in 0..40 {
        let (_, stack) = stack_after(|| WIPE.run(succeed).unwrap());
        assert_eq!(traces(&stack), 0, "run {run}");
    }
}

#[test]
fn a_stack_wipe_learns_nothing_from_runs_that_fail() {
    static WIPE: StackWipe = StackWipe::new();
    for _ in 0..40 {
        assert_eq!(WIPE.run(|| Err::<(), _>("early")), Err("early"));
    }
    for run in 0..20 {
        let (_, stack) = stack_after(|| WIPE.run(succeed).unwrap());
        assert_eq!(traces(&stack), 0, "run {run}");
    }
    let fail_late = || {
        make_and_use(&needle());
        Err::<(), _>("late")
    };
    let (_, stack) = stack_after(|| assert_eq!(WIPE.run(fail_late), Err("late")));
    assert_eq!(traces(&stack), 0);
}

#[test]
fn a_stack_wipe_wipes_after_a_panic() {
    static WIPE: StackWipe = StackWipe::new();
    for run in 0..20 {
        let panics = || {
            WIPE.run(|| -> Result<(), ()> {
                plant();
                std::panic::resume_unwind(Box::new(()))
            })
        };
        let (_, stack) = stack_after(|| drop(std::panic::catch_unwind(panics)));
        assert!(!contains(&stack, &needle()), "run {run}");
        WIPE.run(succeed).unwrap();
    }
}

#[test]
fn a_stack_wipe_goes_as_deep_as_its_code_and_no_deeper_where_that_is_optimised() {
    static WIPE: StackWipe = StackWipe::new();
    for _ in 0..20 {
        WIPE.run(succeed).unwrap();
    }
    let (depth, _) = stack_after(|| make_and_use(&needle()));
    let (_, stack) = stack_after(|| WIPE.run(succeed).unwrap());
    // Fewer zeros side by side are no wiping: the compiler's probes of the stack's pages are zeros, too.
    let wiped = stack.len() - stack.windows(64).position(|bytes| bytes == [0; 64]).unwrap();
    println!("ring reaches {depth} bytes, {wiped} were wiped");
    assert!(wiped > depth, "ring reaches {depth} bytes, {wiped} were wiped");
    let bound = if cfg!(debug_assertions) { 2 * WIPED_BYTES } else { WIPED_BYTES };
    assert!(wiped < bound, "{wiped} were wiped");
}

/// As a signal does, of which the runs that were watched knew nothing.
#[test]
fn what_is_written_below_the_depth_that_was_learned_is_wiped() {
    static WIPE: StackWipe = StackWipe::new();
    let goes_deep = AtomicBool::new(false);
    let op = || {
        let work = || {
            make_and_use(&needle());
            if goes_deep.load(Ordering::Relaxed) {
                paint::<WIPED_BYTES>(0x3c);
            }
            Ok::<_, ()>(())
        };
        WIPE.run(work).unwrap();
    };
    for _ in 0..20 {
        op();
    }
    goes_deep.store(true, Ordering::Relaxed);
    let (_, stack) = stack_after(op);
    assert!(!contains(&stack, &[0x3c; 8]));
}

#[test]
fn the_value_passes_through() {
    let text = String::from("value");
    assert_eq!(on_wiped_stack(|| text.len()), 5);
    assert_eq!(on_wiped_stack(|| [text.as_str(); 3]), ["value"; 3]);
}

#[inline(never)]
fn plant() {
    black_box(needle());
}

fn succeed() -> Result<(), ()> {
    make_and_use(&needle());
    Ok(())
}

#[inline(never)]
fn make_and_use(bytes: &[u8; 32]) {
    let key = key_from(bytes).unwrap();
    let mut data = [0x20_u8; 300];
    let nonce = || Nonce::assume_unique_for_key([1; NONCE_LEN]);
    let tag = key.seal_in_place_separate_tag(nonce(), Aad::empty(), &mut data).unwrap();
    let mut sealed = [0; 316];
    sealed[..300].copy_from_slice(&data);
    sealed[300..].copy_from_slice(tag.as_ref());
    assert_eq!(key.open_in_place(nonce(), Aad::empty(), &mut sealed).unwrap(), [0x20; 300]);
}

fn key_from(bytes: &[u8; 32]) -> Result<LessSafeKey, ring::error::Unspecified> {
    UnboundKey::new(&AES_256_GCM, bytes).map(LessSafeKey::new)
}

/// 32 bytes that are in no constant and in no other place on the stack.
#[inline(never)]
fn needle() -> [u8; 32] {
    let mut byte = black_box(0x9d_u8);
    std::array::from_fn(|_| {
        byte = byte.wrapping_mul(0x95).wrapping_add(0x3b);
        byte
    })
}

/// How many 16-byte pieces of the needle's expanded key, raw key included, `stack` holds.
fn traces(stack: &[u8]) -> usize {
    let arena = Arena::new(LockPolicy::Off);
    let slot = arena.try_init(|| key_from(&needle())).unwrap();
    let at = std::ptr::from_ref(slot.get().unwrap()).addr();
    let expanded = read_memory(at, size_of::<LessSafeKey>());
    let is_random = |piece: &&[u8]| {
        let mut bytes = piece.to_vec();
        bytes.sort_unstable();
        bytes.dedup();
        bytes.len() > 11
    };
    let pieces: Vec<_> = expanded.chunks_exact(16).filter(is_random).collect();
    assert!(pieces.len() > 20, "the key schedule has {} pieces", pieces.len());
    pieces.iter().filter(|piece| contains(stack, piece)).count()
}

fn contains(stack: &[u8], needle: &[u8]) -> bool {
    stack.windows(needle.len()).any(|window| window == needle)
}

/// Runs `op` on a painted stack. Returns how deep it reached below the frame that called it,
/// and the bytes there, the deepest first.
fn stack_after(op: impl Fn() + Sync) -> (usize, Vec<u8>) {
    let at = AtomicUsize::new(0);
    let seen = AtomicBool::new(false);
    thread::scope(|scope| {
        let worker = thread::Builder::new().stack_size(4 * PAINTED);
        let worker = worker.spawn_scoped(scope, || stand_still_after(&op, &at, &seen)).unwrap();
        while at.load(Ordering::Acquire) == 0 && !worker.is_finished() {
            thread::yield_now();
        }
        let pointer = at.load(Ordering::Acquire);
        assert_ne!(pointer, 0, "the operation panicked");
        let stack = read_memory(pointer - SCANNED, SCANNED);
        seen.store(true, Ordering::Release);
        let untouched = stack.iter().take_while(|&&byte| byte == PAINT).count();
        (stack.len() - untouched, stack)
    })
}

/// Calls `op`, tells where its stack began, and waits without calling anything else.
#[inline(never)]
fn stand_still_after(op: &(dyn Fn() + Sync), at: &AtomicUsize, seen: &AtomicBool) {
    // The first call does what is done once per process, such as asking for the CPU.
    op();
    paint::<PAINTED>(PAINT);
    op();
    let pointer: usize;
    // SAFETY: reads the stack pointer.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        std::arch::asm!("mov {}, rsp", out(reg) pointer);
        #[cfg(target_arch = "aarch64")]
        std::arch::asm!("mov {}, sp", out(reg) pointer);
    }
    at.store(pointer, Ordering::Release);
    while !seen.load(Ordering::Acquire) {
        spin_loop();
    }
}

#[inline(never)]
fn paint<const BYTES: usize>(byte: u8) {
    let mut below = MaybeUninit::<[u8; BYTES]>::uninit();
    // SAFETY: the array is ours and `BYTES` long.
    unsafe { below.as_mut_ptr().cast::<u8>().write_bytes(byte, BYTES) };
    black_box(&mut below);
}

/// As deep as a signal's frame can reach below what else is wiped, and a little.
const SIGNAL: usize = 17 * 1024;
const PAINT: u8 = 0xa5;
const PAINTED: usize = 512 * 1024;
const SCANNED: usize = PAINTED - 64 * 1024;
