//! The registry: an id has one keyring at a time, whoever lets go of the last one.

use std::sync::Arc;

use super::{Bench, explore, spawn};

#[test]
fn keyring_that_is_made_while_the_last_one_goes_stays_known() {
    explore(|| {
        let bench = Bench::new(10);
        let old = bench.keyring("_IK_");
        let goes = spawn({
            let bench = Arc::clone(&bench);
            move || {
                // Else loom would not know that there is anything to try.
                bench.cache.invalidate("_IK_other_");
                drop(old);
            }
        });
        let keyring = bench.keyring("_IK_");
        goes.join().unwrap();
        assert!(Arc::ptr_eq(&keyring, &bench.keyring("_IK_")));
        bench.cached(&keyring, 1);
        assert_eq!(bench.cache.keys(), 1);
    });
}

#[test]
fn sessions_that_begin_at_once_share_a_keyring() {
    explore(|| {
        let bench = Bench::new(10);
        let other = spawn({
            let bench = Arc::clone(&bench);
            move || bench.keyring("_IK_")
        });
        let own = bench.keyring("_IK_");
        assert!(Arc::ptr_eq(&own, &other.join().unwrap()));
    });
}
