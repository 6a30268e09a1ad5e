//! What cannot be seen from outside: limits, and the arithmetic below the tables.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::decide::Freshness;
use super::missing::Missing;
use super::rules::{Purpose, Rules};
use crate::clock::{Moment, NANOS_PER_SECOND};
use crate::key::state::{KeyState, Trouble};
use crate::keyring::Keyring;
use crate::keyring::flight::{Flights, Target};
use crate::policy::CryptoPolicy;
use crate::record::{Created, KeyId, KeyMeta};

fn at(wall: u64, monotonic: u64) -> Moment {
    Moment { wall: wall * NANOS_PER_SECOND, monotonic: monotonic * NANOS_PER_SECOND }
}

fn version(created: i64) -> KeyMeta {
    KeyMeta::new(KeyId::new("_IK_alice_checkout_payments"), Created::new(created).unwrap())
}

#[test]
fn missing_holds_at_most_a_thousand_and_makes_room_when_they_are_old() {
    let missing = Missing::default();
    for created in 1..=1_001 {
        missing.note(version(created), at(0, 10));
    }
    assert!(missing.contains(&version(1_000), at(0, 10)));
    assert!(!missing.contains(&version(1_001), at(0, 10)), "asked again rather than remembered");
    missing.note(version(1_001), at(0, 11));
    assert!(missing.contains(&version(1_001), at(0, 11)));
    assert!(!missing.contains(&version(1), at(0, 11)), "a second is over");
}

#[test]
fn age_goes_by_the_clock_that_advanced_more() {
    let state = KeyState::default();
    state.mark_checked(at(1_000, 50), true);
    assert_eq!(state.age(at(1_010, 53)), 10 * NANOS_PER_SECOND, "suspended");
    assert_eq!(state.age(at(400, 53)), 3 * NANOS_PER_SECOND, "set back");
}

#[test]
fn older_check_changes_nothing() {
    let state = KeyState::default();
    state.mark_checked(at(1_000, 50), true);
    state.mark_checked(at(990, 40), true);
    assert_eq!(state.age(at(1_000, 50)), 0);
    for is_current in [true, false] {
        assert!(state.outlives(at(990, 40), is_current));
        assert!(state.outlives(at(1_000, 50), is_current), "in one tick of the clocks");
        assert!(!state.outlives(at(1_000, 51), is_current));
        assert!(!state.outlives(at(1_001, 50), is_current), "after a suspension");
    }
    state.invalidate();
    assert!(state.outlives(at(1_000, 50), false), "the bad read is no newer than the invalidation");
    assert!(!state.outlives(at(1_000, 50), true));
    assert!(state.outlives(at(990, 49), true));
}

#[test]
fn copy_counts_until_the_store_itself_is_read_and_never_after() {
    let state = KeyState::default();
    state.mark_read_from_replica(at(1_000, 50), true);
    assert_eq!((state.is_from_replica(), state.is_nominal(), state.is_invalidated()), (true, false, false));
    assert_eq!(state.age(at(1_000, 50)), 0);
    state.mark_read_from_replica(at(990, 40), true);
    assert_eq!(state.age(at(1_000, 50)), 0, "an older one changes nothing");
    assert!(!state.outlives(at(900, 30), true), "a copy proves nothing of a row that is gone");
    state.mark_checked(at(980, 30), true);
    assert_eq!((state.is_from_replica(), state.is_nominal()), (false, true));
    assert_eq!(state.age(at(1_000, 50)), 20 * NANOS_PER_SECOND, "it counts, though it is older");
    state.mark_read_from_replica(at(1_000, 50), true);
    assert!(state.is_nominal());
    assert_eq!(state.age(at(1_000, 50)), 20 * NANOS_PER_SECOND);
    let invalidated = KeyState::default();
    invalidated.mark_read_from_replica(at(1_000, 50), false);
    assert!(invalidated.is_invalidated() && invalidated.is_from_replica());
}

#[test]
fn check_after_the_wall_clock_was_set_back_counts() {
    let state = KeyState::default();
    state.mark_checked(at(1_000, 50), true);
    state.mark_checked(at(500, 60), true);
    assert_eq!(state.age(at(900, 60)), 400 * NANOS_PER_SECOND);
}

#[test]
fn freshness_begins_and_ends_at_its_boundaries() {
    let rules = Rules::new(&CryptoPolicy::production());
    let minute = 60 * NANOS_PER_SECOND;
    for (age, encrypt, decrypt) in [
        (0, Freshness::Fresh, Freshness::Fresh),
        (48 * minute - 1, Freshness::Fresh, Freshness::Fresh),
        (48 * minute, Freshness::Due, Freshness::Due),
        (60 * minute - 1, Freshness::Due, Freshness::Due),
        (60 * minute, Freshness::Stale, Freshness::Stale),
        (120 * minute, Freshness::Stale, Freshness::Stale),
        (120 * minute + 1, Freshness::TooOld, Freshness::Stale),
        (25 * 60 * minute, Freshness::TooOld, Freshness::Stale),
        (25 * 60 * minute + 1, Freshness::TooOld, Freshness::TooOld),
    ] {
        assert_eq!(rules.freshness_at(age, Purpose::Encrypt), encrypt, "{age}");
        assert_eq!(rules.freshness_at(age, Purpose::Decrypt), decrypt, "{age}");
    }
}

#[test]
fn keys_are_replaced_between_95_and_99_percent_of_their_life_each_in_its_own_time() {
    let rules = Rules::new(&CryptoPolicy::production().expire_after(Duration::from_secs(1_000)));
    let replaced_from: BTreeSet<_> = (0..1_000)
        .map(|number| {
            let life = rules.life(&KeyMeta::new(KeyId::new(format!("key {number}")), Created::MIN));
            assert_eq!(life.expires, 1_001 * NANOS_PER_SECOND);
            life.replace_from
        })
        .collect();
    let (first, last) = (*replaced_from.first().unwrap(), *replaced_from.last().unwrap());
    assert!((951 * NANOS_PER_SECOND..952 * NANOS_PER_SECOND).contains(&first), "{first}");
    assert!(last < 991 * NANOS_PER_SECOND && last > 990 * NANOS_PER_SECOND, "{last}");
    assert!(replaced_from.len() > 500);
}

#[test]
fn trouble_is_recent_for_a_second_and_any_until_cleared() {
    let trouble = Trouble::default();
    assert!(!trouble.is_any() && !trouble.is_recent(at(0, 0)));
    trouble.note(at(0, 5), true);
    assert!(trouble.is_recent(at(0, 5)) && trouble.is_recent_in_passing(at(0, 5)));
    assert!(trouble.is_any() && !trouble.is_recent(at(0, 6)));
    trouble.note(at(0, 7), false);
    assert!(trouble.is_recent(at(0, 7)) && !trouble.is_recent_in_passing(at(0, 7)));
    trouble.clear();
    assert!(!trouble.is_any());
}

#[test]
fn invalidation_ends_with_a_read_of_a_flight_that_began_later_in_the_same_tick_too() {
    let keyring = Arc::new(Keyring::new(KeyId::new("_IK_alice_checkout_payments"), std::sync::Weak::new()));
    let state = keyring.state(Created::MIN);
    assert!(state.is_invalidated(), "nothing is known yet");
    let (_waiter, early) = keyring.flights().join(Target::Latest, Flights::any_generation());
    let early = early.unwrap();
    keyring.mark_checked(&state, at(0, 10), early.generation());
    assert!(!state.is_invalidated());
    keyring.invalidate();
    keyring.mark_checked(&state, at(0, 10), early.generation());
    assert!(state.is_invalidated());
    assert_eq!(state.age(at(0, 10)), 0, "for how long it may go on counts from its last good read");
    let unknown = keyring.state(Created::MAX);
    keyring.mark_checked(&unknown, at(0, 10), early.generation());
    assert!(unknown.is_invalidated(), "also a version that nobody knew when the word came");
    let (_waiter, late) = keyring.flights().join(Target::Version(Created::MIN), Flights::any_generation());
    let late = late.unwrap();
    keyring.mark_checked(&state, at(0, 10), late.generation());
    keyring.mark_checked(&state, at(0, 9), early.generation());
    assert!(!state.is_invalidated(), "a late result never overwrites a newer one");
}

#[test]
fn keyring_loses_what_a_read_did_not_find_unless_it_was_learned_later() {
    let keyring = Keyring::new(KeyId::new("_IK_alice_checkout_payments"), std::sync::Weak::new());
    let [old, inserted, kept] = [1, 2, 3].map(|created| keyring.state(Created::new(created).unwrap()));
    old.mark_checked(at(0, 10), true);
    inserted.mark_checked(at(0, 30), true);
    keyring.mark_rows_missing(at(0, 20), at(0, 40), 1, |created, _| created.unix_seconds() < 3);
    assert_eq!(
        [old.is_row_missing(), inserted.is_row_missing(), kept.is_row_missing()],
        [true, false, false]
    );
    assert!(old.is_unusable() && !old.is_revoked());
}
