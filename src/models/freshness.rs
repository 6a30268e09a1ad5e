//! Whoever takes a key for fresh knows what made it so.

use super::{Bench, created, explore, second, spawn};
use crate::key::CryptoKey;
use crate::keys::decide::{Fitness, Freshness, VersionFacts};
use crate::keys::rules::Rules;
use crate::policy::{CryptoPolicy, RevokedDecrypt};
use std::sync::Arc;

/// When all keys were checked an interval ago.
const LATER: u64 = 60 * 60;
/// A generation before all others.
const OLD: u64 = 0;

fn rules() -> Rules {
    Rules::new(&CryptoPolicy::production().revoked_decrypt(RevokedDecrypt::Deny))
}

/// A check of a key, or of its parent, finds it revoked while `ask` looks whether the key may be used.
fn revoked_meanwhile(of_parent: bool, ask: fn(&Rules, &CryptoKey) -> bool) {
    explore(move || {
        let bench = Bench::new(10);
        let (system, keyring) = (bench.keyring("_SK_"), bench.keyring("_IK_"));
        let parent = bench.key(&system, 1, None);
        let key = bench.key(&keyring, 1, Some(&parent));
        let checked = if of_parent { &parent } else { &key };
        let (generation, later) = (keyring.flights().take_generation(), second(LATER));
        system.mark_checked(parent.state(), second(0), generation);
        keyring.mark_checked(key.state(), second(0), generation);
        let other = if of_parent { &key } else { &parent };
        keyring.mark_checked(other.state(), later, generation);
        let check = spawn({
            let (keyring, state) = (if of_parent { system } else { keyring }, Arc::clone(checked.state()));
            move || {
                state.mark_revoked(generation);
                keyring.mark_checked(&state, later, generation);
            }
        });
        assert!(!ask(&rules(), &key), "it is used as if it were fresh and not revoked");
        check.join().unwrap();
        assert!(key.is_revoked() && key.age(later) == 0);
    });
}

#[test]
fn key_that_a_check_finds_revoked_never_looks_fresh_and_fit_to_an_encrypt() {
    for of_parent in [false, true] {
        revoked_meanwhile(of_parent, |rules, key| rules.is_ready(key, second(LATER)));
        revoked_meanwhile(of_parent, |rules, key| {
            let facts = rules.latest_facts(key, second(LATER));
            facts.fitness == Fitness::Fit && facts.freshness == Freshness::Fresh
        });
    }
}

#[test]
fn key_that_a_check_finds_revoked_never_looks_fresh_and_admitted_to_a_decrypt() {
    for of_parent in [false, true] {
        revoked_meanwhile(of_parent, |rules, key| rules.is_ready_to_decrypt(key, second(LATER)));
        revoked_meanwhile(of_parent, |rules, key| {
            let facts = rules.version_facts(key, second(LATER));
            facts == VersionFacts::Cached { freshness: Freshness::Fresh, is_revoked: false }
        });
    }
}

#[test]
fn system_key_that_a_check_finds_revoked_never_wraps_as_if_it_were_fresh() {
    revoked_meanwhile(false, |rules, key| rules.may_wrap(key, second(LATER)));
}

#[test]
fn key_known_from_a_replica_alone_never_encrypts() {
    explore(|| {
        let bench = Bench::new(10);
        let keyring = bench.keyring("_IK_");
        let key = bench.key(&keyring, 1, None);
        let generation = keyring.flights().take_generation();
        let read = spawn({
            let (keyring, key) = (Arc::clone(&keyring), Arc::clone(&key));
            move || keyring.mark_read_from_replica(key.state(), second(LATER), generation)
        });
        let (rules, now) = (rules(), second(LATER));
        assert!(!rules.is_ready(&key, now));
        assert_eq!(rules.latest_facts(&key, now).freshness, Freshness::TooOld);
        assert!(!key.state().is_checked_after(second(1)));
        read.join().unwrap();
        assert!(rules.is_ready_to_decrypt(&key, now));
    });
}

#[test]
fn word_of_a_change_outlives_every_load_that_began_before_it() {
    explore(|| {
        let bench = Bench::new(10);
        let keyring = bench.keyring("_IK_");
        let key = bench.cached(&keyring, 1);
        let before = keyring.flights().take_generation();
        let load = spawn({
            let (keyring, key) = (Arc::clone(&keyring), Arc::clone(&key));
            move || keyring.mark_checked(key.state(), second(LATER), before)
        });
        let word = spawn({
            let bench = Arc::clone(&bench);
            move || bench.cache.invalidate("_IK_")
        });
        let rules = rules();
        // A load that begins after the word ends it; one that began before does not.
        load.join().unwrap();
        word.join().unwrap();
        assert!(key.is_invalidated() && !rules.is_ready(&key, second(LATER)));
        let after = keyring.flights().take_generation();
        keyring.mark_checked(key.state(), second(LATER), after);
        assert!(!key.is_invalidated() && rules.is_ready(&key, second(LATER)));
    });
}

#[test]
fn word_of_a_change_is_heeded_while_a_load_that_began_before_it_ends() {
    explore(|| {
        let bench = Bench::new(10);
        let keyring = bench.keyring("_IK_");
        let key = bench.cached(&keyring, 1);
        let before = keyring.flights().take_generation();
        keyring.mark_checked(key.state(), second(0), before);
        let load = spawn({
            let (keyring, key) = (Arc::clone(&keyring), Arc::clone(&key));
            move || keyring.mark_checked(key.state(), second(LATER), before)
        });
        keyring.invalidate();
        let rules = rules();
        assert!(rules.is_due(&key, second(LATER)));
        assert!(!rules.is_ready(&key, second(LATER)));
        assert!(!rules.is_ready_to_decrypt(&key, second(LATER)));
        load.join().unwrap();
    });
}

/// Reads race, and the younger one counts; whoever looks in between takes the key for older than it is.
#[test]
fn of_two_checks_the_later_one_counts_and_no_age_is_too_small() {
    explore(|| {
        let bench = Bench::new(10);
        let keyring = bench.keyring("_IK_");
        let key = bench.cached(&keyring, 1);
        let generation = keyring.flights().take_generation();
        keyring.mark_checked(key.state(), second(0), generation);
        let checks = [10, 20].map(|begun| {
            let (keyring, key) = (Arc::clone(&keyring), Arc::clone(&key));
            spawn(move || keyring.mark_checked(key.state(), second(begun), generation))
        });
        let age = key.age(second(30));
        assert!(age >= second(10).monotonic);
        checks.into_iter().for_each(|check| check.join().unwrap());
        assert_eq!(key.age(second(30)), second(10).monotonic);
    });
}

#[test]
fn load_that_began_before_a_revocation_was_learned_is_not_told_that_it_was_known() {
    explore(|| {
        let bench = Bench::new(10);
        let state = bench.keyring("_IK_").state(created(1));
        let learns = spawn({
            let state = Arc::clone(&state);
            move || state.mark_revoked(5)
        });
        assert!(!state.was_revoked_before(OLD + 3));
        learns.join().unwrap();
        assert!(state.was_revoked_before(6) && !state.was_revoked_before(5));
    });
}
