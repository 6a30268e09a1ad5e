//! Close: nothing that comes after it leaves a key in the cache.

use std::sync::Arc;

use loom::future::block_on;

use super::{Bench, explore, spawn};
use crate::keyring::Keyring;
use crate::keyring::flight::{Flights, Target};
use crate::keyring::key_set::Role;

/// The factory closes while `work` is done with two keys: the first is cached, the second not yet.
fn closes_during(work: fn(&Bench, &Arc<Keyring>, [Arc<crate::key::CryptoKey>; 2])) {
    explore(move || {
        let bench = Bench::new(10);
        let keyring = bench.keyring("_IK_");
        let keys = [bench.cached(&keyring, 1), bench.key(&keyring, 2, None)];
        let weak = keys.each_ref().map(Arc::downgrade);
        let working = spawn({
            let (bench, keyring) = (Arc::clone(&bench), Arc::clone(&keyring));
            move || work(&bench, &keyring, keys)
        });
        bench.cache.close();
        working.join().unwrap();
        // A session may hold its keyring long after.
        assert_eq!((bench.cache.keys(), keyring.keys().len()), (0, 0));
        assert!(weak.iter().all(|key| key.strong_count() == 0), "a key outlives the close");
        assert_eq!(bench.orphaned(), []);
    });
}

#[test]
fn key_that_a_load_brings_after_close_does_not_stay() {
    closes_during(|bench, keyring, [_, brought]| bench.cache.add(keyring, &brought, Role::Latest));
}

#[test]
fn key_that_is_put_aside_after_close_does_not_stay() {
    closes_during(|bench, keyring, [cached, brought]| {
        bench.cache.put_aside(keyring, &cached, &brought, u64::MAX);
        bench.cache.add(keyring, &brought, Role::Latest);
    });
}

#[test]
fn keyring_that_loses_a_key_after_close_does_not_come_back() {
    closes_during(|bench, keyring, [cached, brought]| {
        bench.cache.add(keyring, &brought, Role::Latest);
        let created = cached.created();
        bench.cache.remove(keyring, |key| key.created() == created);
    });
}

#[test]
fn keyring_of_a_session_that_begins_while_the_factory_closes_stays_empty() {
    explore(|| {
        let bench = Bench::new(10);
        let begins = spawn({
            let bench = Arc::clone(&bench);
            move || {
                let keyring = bench.keyring("_IK_");
                bench.cached(&keyring, 1);
                keyring
            }
        });
        bench.cache.close();
        assert_eq!((begins.join().unwrap().keys().len(), bench.cache.keys()), (0, 0));
    });
}

/// The waiter's key is no key of the cache any more, and is told of as long as it lives.
#[test]
fn key_that_a_load_hands_over_while_the_factory_closes_is_an_orphan_or_the_waiters_own() {
    explore(|| {
        let bench = Bench::new(10);
        let keyring = bench.keyring("_IK_");
        let key = bench.key(&keyring, 1, None);
        let weak = Arc::downgrade(&key);
        let (waiter, leader) = keyring.flights().join(Target::Latest, Flights::any_generation());
        let load = spawn({
            let (bench, keyring) = (Arc::clone(&bench), Arc::clone(&keyring));
            move || {
                bench.cache.add(&keyring, &key, Role::Latest);
                leader.unwrap().complete(Ok(key));
            }
        });
        bench.cache.close();
        let brought = block_on(waiter.outcome()).unwrap().unwrap();
        load.join().unwrap();
        assert_eq!((bench.cache.keys(), keyring.keys().len()), (0, 0));
        assert_eq!(weak.strong_count(), 1, "the waiter alone holds it");
        drop(brought);
        assert_eq!((weak.strong_count(), bench.orphaned().len()), (0, 0));
    });
}
