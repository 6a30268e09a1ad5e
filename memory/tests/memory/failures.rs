//! Each system call refused, and what comes of it.

use std::sync::atomic::{AtomicUsize, Ordering};

use claviger_memory::{Arena, ForkSentinel, InitError, LockPolicy, MemoryError, Stats};

use crate::{
    process::{alone, refuse, set_limit},
    slots::slot_of,
};

#[test]
fn a_refused_mmap_makes_no_key_and_keeps_the_others() {
    alone("failures::a_refused_mmap_makes_no_key_and_keeps_the_others", || {
        let arena = Arena::new(LockPolicy::Off);
        let made = AtomicUsize::new(0);
        let make = || {
            made.fetch_add(1, Ordering::Relaxed);
            Ok::<_, ()>(7_u64)
        };
        let mut slots = Vec::with_capacity(1000);
        slots.push(arena.try_init(make).unwrap());
        set_limit(libc::RLIMIT_AS, Some(0));
        let fresh = Arena::new(LockPolicy::Off).try_init(|| Ok::<u8, ()>(1)).map(drop);
        let sentinel = ForkSentinel::new().map(drop);
        let refused = loop {
            match arena.try_init(make) {
                Ok(slot) if slots.len() < 1000 => slots.push(slot),
                other => break other.map(drop),
            }
        };
        set_limit(libc::RLIMIT_AS, None);
        let is_map =
            |error| matches!(error, InitError::Memory(MemoryError::Map(os)) if os.code() == libc::ENOMEM);
        assert!(is_map(refused.unwrap_err()));
        assert!(is_map(fresh.unwrap_err()));
        assert!(matches!(sentinel, Err(MemoryError::Map(_))));
        assert_eq!((made.into_inner(), arena.stats().slots), (slots.len(), slots.len()));
        assert!(slots.iter().all(|slot| slot.get() == Ok(&7)));
        assert_eq!(slot_of(&arena, 8).get(), Ok(&8));
    });
}

#[test]
fn a_refused_mprotect_makes_no_key() {
    alone("failures::a_refused_mprotect_makes_no_key", || {
        let arena = Arena::new(LockPolicy::Off);
        drop(slot_of(&arena, 1_u8));
        let before = arena.stats();
        refuse(libc::SYS_mprotect, Some((2, 3)), libc::ENOMEM);
        let mut held = Vec::with_capacity(100);
        let refused = loop {
            match arena.try_init(|| Ok::<_, ()>(1_u8)) {
                Ok(slot) if held.len() < 100 => held.push(slot),
                other => break other.map(drop),
            }
        };
        let is_guard =
            |error: &MemoryError| matches!(error, MemoryError::Guard(os) if os.code() == libc::ENOMEM);
        assert!(matches!(refused, Err(InitError::Memory(error)) if is_guard(&error)));
        assert!(is_guard(&ForkSentinel::new().unwrap_err()));
        drop(held);
        assert_eq!(arena.stats(), before);
    });
}

#[test]
fn a_refused_mlock_stops_require_only() {
    alone("failures::a_refused_mlock_stops_require_only", || {
        refuse(libc::SYS_mlock, None, libc::EPERM);
        let error = only_prefer_goes_on(|stats| stats.lock_refused && stats.locked_bytes == 0);
        assert!(matches!(error, MemoryError::Lock(os) if os.code() == libc::EPERM), "{error:?}");
    });
}

#[test]
fn a_refused_dump_exclusion_stops_require_only() {
    alone("failures::a_refused_dump_exclusion_stops_require_only", || {
        refuse(libc::SYS_madvise, Some((2, libc::MADV_DONTDUMP.cast_unsigned().into())), libc::EINVAL);
        let error = only_prefer_goes_on(|stats| stats.dump_exclusion_refused && !stats.lock_refused);
        assert!(matches!(error, MemoryError::ExcludeFromDumps(os) if os.code() == libc::EINVAL), "{error:?}");
    });
}

#[test]
fn a_refused_fork_wipe_stops_require_only() {
    alone("failures::a_refused_fork_wipe_stops_require_only", || {
        refuse(libc::SYS_madvise, Some((2, libc::MADV_WIPEONFORK.cast_unsigned().into())), libc::EINVAL);
        let error = only_prefer_goes_on(|stats| stats.fork_wipe_refused && !stats.lock_refused);
        assert!(matches!(error, MemoryError::WipeOnFork(os) if os.code() == libc::EINVAL), "{error:?}");
    });
}

/// A region that the system will not take back stays, is counted, and is used again.
#[test]
fn a_refused_munmap_keeps_the_region_in_use() {
    alone("failures::a_refused_munmap_keeps_the_region_in_use", || {
        let arena = Arena::new(LockPolicy::Off);
        let fill = || (0..100_u64).map(|i| slot_of(&arena, i)).collect::<Vec<_>>();
        let slots = fill();
        let full = arena.stats();
        assert!(full.regions > 2);
        // By their lengths, so that the rest of the process goes on.
        for data_bytes in [16 * 1024, 32 * 1024] {
            refuse(libc::SYS_munmap, Some((1, data_bytes + 2 * 4096)), libc::ENOMEM);
        }
        drop(slots);
        assert_eq!(arena.stats(), with_slots(full, 0));
        let slots = fill();
        assert_eq!(arena.stats(), full);
        assert!(slots.iter().zip(0..).all(|(slot, i)| slot.get() == Ok(&i)));
        drop((slots, arena));
    });
}

/// Asserts that `Prefer` and `Off` work and say so, and returns what stopped `Require`.
fn only_prefer_goes_on(says_so: impl Fn(&Stats) -> bool) -> MemoryError {
    let arena = Arena::new(LockPolicy::Prefer);
    let slots: Vec<_> = (0..100_u64).map(|i| slot_of(&arena, i)).collect();
    assert!(slots.iter().zip(0..).all(|(slot, i)| slot.get() == Ok(&i)));
    assert!(says_so(&arena.stats()), "{:?}", arena.stats());
    assert_eq!(slot_of(&Arena::new(LockPolicy::Off), 1).get(), Ok(&1));

    let strict = Arena::new(LockPolicy::Require);
    let refused = strict.try_init(|| -> Result<u8, ()> { panic!("a key was made") });
    assert_eq!(strict.stats(), Stats::default());
    match refused {
        Err(InitError::Memory(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn with_slots(mut stats: Stats, slots: usize) -> Stats {
    stats.slots = slots;
    stats
}
