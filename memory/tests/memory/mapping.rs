//! The pages around and under the slots.

use claviger_memory::{Arena, LockPolicy};

use crate::{
    process::{READY, area_of, areas, dies_by_sigsegv},
    slots::{address, slot_of},
};

#[test]
fn regions_are_locked_not_dumped_and_wiped_on_fork() {
    let arena = Arena::new(LockPolicy::Require);
    let slots: Vec<_> = (0..200).map(|i| slot_of(&arena, i)).collect();
    assert!(arena.stats().regions > 2);
    for slot in &slots {
        let area = area_of(slot.get().unwrap());
        assert_eq!(area.permissions, "rw-p");
        for flag in ["lo", "dd", "wf"] {
            assert!(area.flags.iter().any(|have| have == flag), "{flag} is not in {area:?}");
        }
    }
    let stats = arena.stats();
    assert!(stats.locked_bytes > 0 && stats.unlocked_bytes == 0 && !stats.lock_refused);
}

#[test]
fn off_locks_nothing_and_keeps_the_rest() {
    let arena = Arena::new(LockPolicy::Off);
    let slot = slot_of(&arena, 1_u8);
    let flags = area_of(slot.get().unwrap()).flags;
    assert!(!flags.contains(&"lo".into()));
    assert!(flags.contains(&"dd".into()) && flags.contains(&"wf".into()), "{flags:?}");
    assert_eq!((arena.stats().locked_bytes, arena.stats().lock_refused), (0, false));
}

#[test]
fn guard_pages_lie_on_both_sides() {
    let slot = slot_of(&Arena::new(LockPolicy::Prefer), 1_u8);
    let data = area_of(slot.get().unwrap());
    assert_eq!(data.start, address(&slot), "the first slot begins the pages");
    let areas = areas();
    let before = areas.iter().find(|area| area.end == data.start).unwrap();
    let after = areas.iter().find(|area| area.start == data.end).unwrap();
    assert_eq!((&*before.permissions, &*after.permissions), ("---p", "---p"));
}

#[test]
fn reading_before_a_region_is_a_segmentation_fault() {
    dies_by_sigsegv("mapping::reading_before_a_region_is_a_segmentation_fault", || {
        touch(|start, _| start - 1)
    });
}

#[test]
fn reading_after_a_region_is_a_segmentation_fault() {
    dies_by_sigsegv("mapping::reading_after_a_region_is_a_segmentation_fault", || touch(|_, end| end));
}

/// Reads the first and last byte of a region, then the byte that `place` picks.
fn touch(place: impl FnOnce(usize, usize) -> usize) {
    let slot = slot_of(&Arena::new(LockPolicy::Prefer), 1_u8);
    let data = area_of(slot.get().unwrap());
    let read = |address: usize| {
        // SAFETY: mapped for the first two calls; the third is what the test is about.
        std::hint::black_box(unsafe { std::ptr::with_exposed_provenance::<u8>(address).read_volatile() })
    };
    read(data.start);
    read(data.end - 1);
    println!("\n{READY}");
    read(place(data.start, data.end));
}
