//! Adoption of orphans: a key in memory is cached or listed as an orphan, and never both.

use std::sync::Arc;

use super::{Bench, explore, holds, spawn};
use crate::key::CryptoKey;
use crate::keyring::Keyring;
use crate::keyring::key_set::Role;

/// Has the key cached again, as a load does that finds it in memory.
fn load(bench: &Bench, keyring: &Arc<Keyring>, created: crate::record::Created) -> Option<Arc<CryptoKey>> {
    let is_it = |key: &CryptoKey| key.created() == created && key.meta().id() == keyring.id();
    let key = keyring.version(created).or_else(|| bench.orphans.adopt(is_it))?;
    bench.cache.add(keyring, &key, Role::Latest);
    Some(key)
}

/// Checks the account once all is quiet: the key is held, so it is cached or an orphan.
fn check(bench: &Bench, keyring: &Keyring, key: &Arc<CryptoKey>) {
    let (is_cached, orphans) = (holds(keyring, key), bench.orphaned());
    let listed = orphans.iter().filter(|orphan| *orphan == key.meta()).count();
    assert_eq!(usize::from(is_cached) + listed, 1, "cached: {is_cached}, listed: {listed}");
}

#[test]
fn key_in_use_that_is_evicted_and_loaded_again_is_in_one_place() {
    explore(|| {
        let bench = Bench::new(1);
        let (keyring, other) = (bench.keyring("_IK_a_"), bench.keyring("_IK_b_"));
        let (key, another) = (bench.cached(&keyring, 1), bench.key(&other, 1, None));
        let evicts = spawn({
            let (bench, other, another) = (Arc::clone(&bench), Arc::clone(&other), Arc::clone(&another));
            move || bench.cache.add(&other, &another, Role::Latest)
        });
        if let Some(loaded) = load(&bench, &keyring, key.created()) {
            assert!(Arc::ptr_eq(&loaded, &key));
        }
        evicts.join().unwrap();
        check(&bench, &keyring, &key);
        check(&bench, &other, &another);
        assert_eq!(bench.cache.keys(), 1);
    });
}

#[test]
fn key_in_use_whose_row_is_lost_while_a_load_brings_it_is_in_one_place() {
    explore(|| {
        let bench = Bench::new(10);
        let keyring = bench.keyring("_IK_");
        let key = bench.cached(&keyring, 1);
        let removes = spawn({
            let (bench, keyring) = (Arc::clone(&bench), Arc::clone(&keyring));
            move || bench.cache.remove(&keyring, |_| true).len()
        });
        load(&bench, &keyring, key.created());
        assert_eq!(removes.join().unwrap(), 1);
        check(&bench, &keyring, &key);
        assert_eq!(bench.cache.keys(), keyring.keys().len());
    });
}

#[test]
fn key_whose_last_user_goes_while_it_is_evicted_is_wiped_and_listed_no_more() {
    explore(|| {
        let bench = Bench::new(10);
        let keyring = bench.keyring("_IK_");
        let key = bench.cached(&keyring, 1);
        let weak = Arc::downgrade(&key);
        let user = spawn({
            let bench = Arc::clone(&bench);
            move || {
                // Else loom would not know that there is anything to try.
                assert!(bench.orphaned().len() <= 1);
                drop(key);
            }
        });
        assert_eq!(bench.cache.remove(&keyring, |_| true).len(), 1);
        user.join().unwrap();
        assert_eq!((weak.strong_count(), bench.orphaned().len()), (0, 0));
    });
}
