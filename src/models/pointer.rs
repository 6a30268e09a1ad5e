//! The latest pointer: who reads it takes no lock, who writes it loses nothing.

use std::sync::Arc;

use super::{Bench, created, explore, holds, spawn};
use crate::keyring::key_set::Role;

#[test]
fn keys_that_are_added_at_once_are_all_there_and_counted_once() {
    explore(|| {
        let bench = Bench::new(10);
        let keyring = bench.keyring("_IK_");
        let keys: Vec<_> = (1..=2).map(|number| bench.key(&keyring, number, None)).collect();
        let adds: Vec<_> = (keys.iter().cloned())
            .map(|key| {
                let (bench, keyring) = (Arc::clone(&bench), Arc::clone(&keyring));
                spawn(move || bench.cache.add(&keyring, &key, Role::Latest))
            })
            .collect();
        if let Some(key) = keyring.take_latest() {
            assert!(keys.iter().any(|added| added.created() == key.created()));
        }
        if let Some(key) = keyring.take_version(created(2)) {
            assert_eq!(key.created(), created(2));
        }
        adds.into_iter().for_each(|add| add.join().unwrap());
        assert!(keys.iter().all(|key| holds(&keyring, key)));
        assert_eq!((bench.cache.keys(), keyring.keys().len()), (2, 2));
    });
}

/// A key whose row holds other bytes by now goes on decrypting, and nobody that finds it does encrypt.
#[test]
fn key_that_its_row_holds_no_more_is_not_taken_for_usable() {
    explore(|| {
        let bench = Bench::new(10);
        let keyring = bench.keyring("_IK_");
        let (old, new) = (bench.cached(&keyring, 1), bench.key(&keyring, 2, None));
        let load = spawn({
            let (bench, keyring, old, new) =
                (Arc::clone(&bench), Arc::clone(&keyring), Arc::clone(&old), Arc::clone(&new));
            move || {
                bench.cache.put_aside(&keyring, &old, &new, u64::MAX);
                bench.cache.add(&keyring, &new, Role::Latest);
            }
        });
        // It is in one place or the other all the time: data under it can be read.
        let is_cached = holds(&keyring, &old);
        let formers = keyring.formers(old.created(), super::second(0));
        assert!(is_cached || formers.iter().any(|former| Arc::ptr_eq(former, &old)));
        // Whoever finds it put aside finds it unusable, however it came by the key.
        assert!(formers.is_empty() || old.is_unusable());
        load.join().unwrap();
        assert!(keyring.take_latest().is_some_and(|latest| latest.created() == new.created()));
        assert_eq!((bench.cache.keys(), keyring.keys().len()), (2, 2));
    });
}

#[test]
fn loads_of_one_version_share_what_is_known_of_it() {
    explore(|| {
        let bench = Bench::new(10);
        let keyring = bench.keyring("_IK_");
        let learns = spawn({
            let keyring = Arc::clone(&keyring);
            move || {
                let state = keyring.state(created(1));
                state.mark_revoked(1);
                state
            }
        });
        let state = keyring.state(created(1));
        let learned = learns.join().unwrap();
        assert!(Arc::ptr_eq(&state, &learned) && state.is_revoked());
    });
}
