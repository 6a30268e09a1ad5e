//! Slots: their values, their wiping, their reuse, and the arena's account of them.

use std::{convert::Infallible, sync::Arc, thread};

use claviger_memory::{Arena, InitError, LockPolicy, SLOT_ALIGN, SLOT_BYTES, Slot};
use proptest::{collection::vec, prelude::*};

use crate::process::{areas, read_memory};

pub(crate) fn slot_of<T: Send + Sync + 'static>(arena: &Arena, value: T) -> Slot<T> {
    arena.try_init(|| Ok::<_, Infallible>(value)).unwrap()
}

pub(crate) fn address<T>(slot: &Slot<T>) -> usize {
    std::ptr::from_ref(slot.get().unwrap()).addr()
}

#[test]
fn a_new_arena_has_no_memory() {
    assert_eq!(Arena::new(LockPolicy::Require).stats(), Default::default());
}

#[test]
fn a_ring_key_fits_a_slot() {
    assert!(size_of::<ring::aead::LessSafeKey>() <= SLOT_BYTES);
    assert!(align_of::<ring::aead::LessSafeKey>() <= SLOT_ALIGN);
}

#[test]
fn the_largest_value_is_kept_whole_and_aligned() {
    #[repr(align(64))]
    struct Aligned([u8; SLOT_BYTES / 64 * 64]);
    let arena = Arena::new(LockPolicy::Prefer);
    let large: [u8; SLOT_BYTES] = std::array::from_fn(|i| i.to_le_bytes()[0]);
    let slots = [slot_of(&arena, large), slot_of(&arena, large)];
    let aligned = slot_of(&arena, Aligned([3; _]));
    assert!(slots.iter().all(|slot| slot.get() == Ok(&large)));
    assert_eq!(aligned.get().unwrap().0, [3; _]);
    assert_eq!(address(&aligned) % SLOT_ALIGN, 0);
}

#[test]
fn a_dropped_slot_is_zeroed_with_its_canary() {
    let arena = Arena::new(LockPolicy::Prefer);
    let neighbour = slot_of(&arena, [0x11_u8; SLOT_BYTES]);
    let slot = slot_of(&arena, [0x5a_u8; SLOT_BYTES]);
    let at = address(&slot);
    let stride = at - address(&neighbour);
    let before = read_memory(at, stride);
    assert!(before[..SLOT_BYTES].iter().all(|&byte| byte == 0x5a));
    assert!(before[SLOT_BYTES..].iter().any(|&byte| byte != 0), "no canary");
    drop(slot);
    assert_eq!(read_memory(at, stride), vec![0; stride]);
    assert_eq!(neighbour.get(), Ok(&[0x11; SLOT_BYTES]));
}

#[test]
fn a_freed_slot_is_used_again() {
    let arena = Arena::new(LockPolicy::Prefer);
    let first = slot_of(&arena, 1_u64);
    let at = address(&first);
    drop(first);
    let second = slot_of(&arena, 2_u64);
    assert_eq!((address(&second), second.get()), (at, Ok(&2)));
}

#[test]
fn a_failed_make_gives_its_error_and_its_slot_back() {
    let arena = Arena::new(LockPolicy::Prefer);
    let failed = arena.try_init(|| Err::<u8, _>("no key"));
    assert_eq!(failed.unwrap_err(), InitError::Make("no key"));
    assert_eq!(arena.stats().slots, 0);
}

#[test]
fn a_panicking_make_gives_its_slot_back() {
    let arena = Arena::new(LockPolicy::Prefer);
    let in_thread = arena.clone();
    let panicked = thread::spawn(move || in_thread.try_init::<u8, ()>(|| panic!("on purpose"))).join();
    assert!(panicked.is_err());
    assert_eq!(arena.stats().slots, 0);
    assert_eq!(slot_of(&arena, 5_u8).get(), Ok(&5));
}

#[test]
fn a_slot_outlives_its_arena() {
    let slot = slot_of(&Arena::new(LockPolicy::Prefer), [9_u8; 32]);
    assert_eq!(slot.get(), Ok(&[9; 32]));
}

#[test]
fn debug_shows_no_content() {
    let slot = slot_of(&Arena::new(LockPolicy::Off), *b"sesame");
    assert_eq!(format!("{slot:?}"), "Slot([REDACTED])");
}

#[test]
fn many_keys_take_few_mappings_and_give_them_back() {
    const KEYS: usize = 200_000;
    let arena = Arena::new(LockPolicy::Off);
    let before = areas().len();
    let slots: Vec<_> = (0..KEYS).map(|i| slot_of(&arena, i)).collect();
    let added = areas().len() - before;
    // A million may take a tenth of the kernel's limit of 65530 mappings.
    assert!(added * (1_000_000 / KEYS) < 6553, "{added} mappings for {KEYS} keys");
    assert!(slots.iter().enumerate().all(|(i, slot)| slot.get() == Ok(&i)));
    drop(slots);
    let stats = arena.stats();
    assert_eq!((stats.slots, stats.regions), (0, 1));
    assert_eq!(stats.mapped_bytes, baseline().mapped_bytes);
}

#[test]
fn threads_share_an_arena_without_mixing_values() {
    let arena = Arena::new(LockPolicy::Prefer);
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let arena = &arena;
            scope.spawn(move || churn(arena, thread));
        }
    });
    assert_eq!((arena.stats().slots, arena.stats().mapped_bytes), (0, baseline().mapped_bytes));
}

fn churn(arena: &Arena, thread: u64) {
    let mut random = thread + 1;
    let mut held: Vec<(u64, Slot<[u64; 60]>)> = Vec::new();
    for step in 0..20_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pick = usize::try_from(random >> 33).unwrap();
        if pick.is_multiple_of(2) && held.len() < 300 || held.is_empty() {
            let value = thread << 32 | step;
            held.push((value, slot_of(arena, [value; 60])));
        } else {
            let (value, slot) = held.swap_remove(pick % held.len());
            assert_eq!(slot.get(), Ok(&[value; 60]));
        }
    }
    assert!(held.iter().all(|(value, slot)| slot.get() == Ok(&[*value; 60])));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// `Some` allocates, `None` frees one that the number picks.
    #[test]
    fn the_account_is_right_after_any_sequence(steps in vec((any::<bool>(), any::<prop::sample::Index>()), 1..600)) {
        let arena = Arena::new(LockPolicy::Prefer);
        let mut model: Vec<(usize, Arc<Slot<[usize; 70]>>)> = Vec::new();
        for (step, (allocate, pick)) in steps.into_iter().enumerate() {
            if allocate || model.is_empty() {
                model.push((step, Arc::new(slot_of(&arena, [step; 70]))));
            } else {
                model.swap_remove(pick.index(model.len()));
            }
            let stats = arena.stats();
            prop_assert_eq!(stats.slots, model.len());
            prop_assert!(stats.locked_bytes + stats.unlocked_bytes < stats.mapped_bytes);
            prop_assert!(stats.mapped_bytes <= baseline().mapped_bytes * (4 + model.len() / 4));
        }
        for (value, slot) in &model {
            prop_assert_eq!(slot.get(), Ok(&[*value; 70]));
        }
        drop(model);
        prop_assert_eq!((arena.stats().slots, arena.stats().mapped_bytes), (0, baseline().mapped_bytes));
    }
}

/// What an arena keeps after its first slot was dropped.
fn baseline() -> claviger_memory::Stats {
    let arena = Arena::new(LockPolicy::Off);
    drop(slot_of(&arena, 0_u8));
    arena.stats()
}
