//! What a forked child finds.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use claviger_memory::{Arena, ForkSentinel, InitError, LockPolicy, MemoryError, SLOT_BYTES, Stats};

use crate::{
    process::{alone, fork, read_memory, refuse},
    slots::{address, slot_of},
};

#[test]
fn a_child_is_told_that_the_slot_is_wiped() {
    let arena = Arena::new(LockPolicy::Prefer);
    let slot = slot_of(&arena, [0x77_u8; SLOT_BYTES]);
    fork(|| assert!(slot.get().is_err()));
    assert_eq!(slot.get(), Ok(&[0x77; SLOT_BYTES]));
}

#[test]
fn a_child_reads_zeros_where_the_key_was() {
    let arena = Arena::new(LockPolicy::Prefer);
    let slot = slot_of(&arena, [0x77_u8; SLOT_BYTES]);
    let at = address(&slot);
    assert!(read_memory(at, SLOT_BYTES).iter().all(|&byte| byte == 0x77));
    fork(|| assert_eq!(read_memory(at, SLOT_BYTES + 8), [0; SLOT_BYTES + 8]));
}

#[test]
fn a_sentinel_knows_a_child_and_a_grandchild() {
    let sentinel = ForkSentinel::new().unwrap();
    assert!(!sentinel.is_forked());
    fork(|| {
        assert!(sentinel.is_forked());
        let own = ForkSentinel::new().unwrap();
        assert!(!own.is_forked());
        fork(|| assert!(sentinel.is_forked() && own.is_forked()));
    });
    assert!(!sentinel.is_forked());
}

#[test]
fn dropping_in_a_child_harms_neither_process() {
    let arena = Arena::new(LockPolicy::Prefer);
    let slots: Vec<_> = (0..100).map(|i| slot_of(&arena, [i; 40])).collect();
    let mut held = Some((arena.clone(), slots));
    fork(|| drop(held.take()));
    let (_, slots) = held.unwrap();
    assert!(slots.iter().enumerate().all(|(i, slot)| slot.get() == Ok(&[i; 40])));
    assert_eq!(arena.stats().slots, 100);
}

#[test]
fn the_parents_arena_makes_no_key_in_a_child() {
    let arena = Arena::new(LockPolicy::Prefer);
    let _slot = slot_of(&arena, 1_u8);
    fork(|| {
        let refused = arena.try_init(|| -> Result<u8, ()> { panic!("a key was made") });
        assert_eq!(refused.unwrap_err(), InitError::Memory(MemoryError::Forked));
        assert_eq!(arena.stats(), Stats::default());
    });
}

#[test]
fn a_key_made_while_the_process_forks_is_refused_in_the_child() {
    let arena = Arena::new(LockPolicy::Prefer);
    let mut child = 0;
    let made = arena.try_init(|| {
        // SAFETY: as in `process::fork`; this child ends by `_exit` below.
        child = unsafe { libc::fork() };
        Ok::<_, ()>([0x42_u8; 32])
    });
    if child == 0 {
        let is_refused = made.is_err_and(|error| error == InitError::Memory(MemoryError::Forked));
        // SAFETY: ends this process only.
        unsafe { libc::_exit(i32::from(!is_refused)) };
    }
    let mut status = -1;
    // SAFETY: `status` outlives the call.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((status, made.unwrap().get()), (0, Ok(&[0x42; 32])));
}

#[test]
fn a_new_arena_works_in_a_child() {
    let _parents = slot_of(&Arena::new(LockPolicy::Prefer), 1_u8);
    fork(|| {
        let arena = Arena::new(LockPolicy::Prefer);
        let slots: Vec<_> = (0..100).map(|i| slot_of(&arena, i)).collect();
        assert!(slots.iter().enumerate().all(|(i, slot)| slot.get() == Ok(&i)));
        drop(slots);
        assert_eq!((arena.stats().slots, arena.stats().regions), (0, 1));
    });
}

/// A child that waited for the arena's mutex, held at the fork by a thread that it does not
/// have, would hang until its alarm.
#[test]
fn a_child_of_a_busy_arena_does_not_wait_for_its_lock() {
    let arena = Arena::new(LockPolicy::Off);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stopping = StopWhenDropped(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                drop((0..40).map(|i| slot_of(&arena, i)).collect::<Vec<_>>());
            }
        });
        for _ in 0..200 {
            let mut slot = Some(slot_of(&arena, 1_u8));
            fork(|| {
                drop(slot.take());
                assert!(arena.try_init(|| Ok::<_, ()>(2_u8)).is_err());
                assert_eq!(arena.stats(), Stats::default());
            });
        }
    });
}

/// Ends the other thread also when an assertion fails, since the scope waits for it.
struct StopWhenDropped<'a>(&'a AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn without_wipe_on_fork_a_child_is_known_by_its_process_id() {
    alone("fork::without_wipe_on_fork_a_child_is_known_by_its_process_id", || {
        refuse(libc::SYS_madvise, Some((2, libc::MADV_WIPEONFORK.cast_unsigned().into())), libc::EINVAL);
        let arena = Arena::new(LockPolicy::Prefer);
        let mut slot = Some(slot_of(&arena, [0x77_u8; 64]));
        let neighbour = slot_of(&arena, 1_u8);
        let sentinel = ForkSentinel::new().unwrap();
        assert!(arena.stats().fork_wipe_refused && !sentinel.is_forked());
        let at = address(slot.as_ref().unwrap());
        fork(|| {
            assert!(sentinel.is_forked());
            assert!(slot.as_ref().unwrap().get().is_err() && neighbour.get().is_err());
            assert!(arena.try_init(|| Ok::<_, ()>(2_u8)).is_err());
            drop(slot.take());
            assert_eq!(read_memory(at, 64), [0; 64], "the child's copy");
        });
        assert_eq!(slot.unwrap().get(), Ok(&[0x77; 64]));
    });
}
