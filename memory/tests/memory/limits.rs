//! The usual container: 64 KiB of lockable memory and no right to more.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use claviger_memory::{Arena, InitError, LockPolicy, MemoryError};
use tracing::{Event, Metadata, Subscriber, span};

use crate::{
    process::{alone, set_limit},
    slots::slot_of,
};

#[test]
fn prefer_uses_the_limit_up_and_goes_on() {
    alone("limits::prefer_uses_the_limit_up_and_goes_on", || {
        allow_locking(64 * 1024);
        let arena = Arena::new(LockPolicy::Prefer);
        let slots: Vec<_> = (0..2000_u64).map(|i| slot_of(&arena, i)).collect();
        assert!(slots.iter().zip(0..).all(|(slot, i)| slot.get() == Ok(&i)));
        let stats = arena.stats();
        assert!(stats.lock_refused);
        assert_eq!(stats.locked_bytes, 64 * 1024, "{stats:?}");
        assert!(stats.unlocked_bytes > 1_000_000, "{stats:?}");
    });
}

#[test]
fn require_uses_the_limit_up_and_stops() {
    alone("limits::require_uses_the_limit_up_and_stops", || {
        allow_locking(64 * 1024);
        let arena = Arena::new(LockPolicy::Require);
        let mut slots = Vec::new();
        let error = loop {
            match arena.try_init(|| Ok::<_, ()>(7_u64)) {
                Ok(slot) if slots.len() < 1000 => slots.push(slot),
                Ok(_) => panic!("nothing was refused"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, InitError::Memory(MemoryError::Lock(_))), "{error:?}");
        assert_eq!((arena.stats().locked_bytes, arena.stats().unlocked_bytes), (64 * 1024, 0));
        assert!(slots.len() > 100 && slots.iter().all(|slot| slot.get() == Ok(&7)));
        slots.truncate(10);
        assert_eq!(slot_of(&arena, 8).get(), Ok(&8), "room again");
    });
}

/// After two regions of 16 KiB the next would have 32, for which 56 has no room.
#[test]
fn a_region_too_large_for_the_limit_is_made_smaller() {
    alone("limits::a_region_too_large_for_the_limit_is_made_smaller", || {
        allow_locking(56 * 1024);
        let arena = Arena::new(LockPolicy::Require);
        let slots: Vec<_> = (0..80).map(|i| slot_of(&arena, i)).collect();
        assert_eq!((slots.len(), arena.stats().locked_bytes), (80, 48 * 1024));
        assert!(!arena.stats().lock_refused);
    });
}

#[test]
fn a_later_region_is_locked_once_the_limit_allows() {
    alone("limits::a_later_region_is_locked_once_the_limit_allows", || {
        allow_locking(0);
        let arena = Arena::new(LockPolicy::Prefer);
        let mut slots: Vec<_> = (0..20).map(|i| slot_of(&arena, i)).collect();
        assert_eq!((arena.stats().locked_bytes, arena.stats().lock_refused), (0, true));
        set_limit(libc::RLIMIT_MEMLOCK, None);
        slots.extend((20..40).map(|i| slot_of(&arena, i)));
        assert!(arena.stats().locked_bytes > 0 && arena.stats().lock_refused, "{:?}", arena.stats());
    });
}

#[test]
fn a_refused_lock_is_logged_once() {
    alone("limits::a_refused_lock_is_logged_once", || {
        allow_locking(0);
        let warnings = Arc::new(AtomicUsize::new(0));
        let arena = Arena::new(LockPolicy::Prefer);
        let seen = Warnings { count: Arc::clone(&warnings), arena: arena.clone() };
        let slots = tracing::subscriber::with_default(seen, || -> Vec<_> {
            (0..1000_u64).map(|i| slot_of(&arena, i)).collect()
        });
        assert!(arena.stats().regions > 3);
        assert_eq!((slots.len(), warnings.load(Ordering::Relaxed)), (1000, 1));
    });
}

/// Counts warnings, and asks the arena for its stats meanwhile, as a subscriber may.
struct Warnings {
    count: Arc<AtomicUsize>,
    arena: Arena,
}

impl Subscriber for Warnings {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        assert_eq!(*event.metadata().level(), tracing::Level::WARN);
        assert!(self.arena.stats().lock_refused);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Takes away the right to lock more than `bytes`, and asserts that it is gone.
fn allow_locking(bytes: usize) {
    set_limit(libc::RLIMIT_MEMLOCK, Some(bytes as u64));
    // SAFETY: changes this thread's user only, and memory of its own. These are system calls,
    // not libc's: the one would change all threads, and a sanitizer makes the other do nothing.
    unsafe {
        if libc::geteuid() == 0 {
            assert_eq!(libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534), 0);
        }
        let more = bytes + 4096;
        let pages = libc::mmap(
            std::ptr::null_mut(),
            more,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_eq!(
            libc::syscall(libc::SYS_mlock, pages, more),
            -1,
            "this process may still lock {more} bytes"
        );
        if bytes > 0 {
            assert_eq!(
                libc::syscall(libc::SYS_mlock, pages, bytes),
                0,
                "this process may not even lock {bytes} bytes"
            );
        }
        assert_eq!(libc::munmap(pages, more), 0);
    }
}
