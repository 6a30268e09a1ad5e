//! Hand-over of a load: each that asks gets an answer that is young enough, one load runs at a time, and no
//! waiter is forgotten.

use std::sync::Arc;

use loom::future::block_on;
use loom::sync::Mutex;
use loom::sync::atomic::{AtomicUsize, Ordering};

use super::{Bench, explore, spawn};
use crate::key::CryptoKey;
use crate::keyring::Keyring;
use crate::keyring::flight::{Flights, Leader, MinGeneration, Target};

/// A store with one row, and those that load it.
struct Store {
    row: Mutex<usize>,
    loads: AtomicUsize,
    keys: [Arc<CryptoKey>; 2],
    keyring: Arc<Keyring>,
}

impl Store {
    fn new() -> Arc<Self> {
        let bench = Bench::new(10);
        let keyring = bench.keyring("_IK_");
        let keys = [1, 2].map(|number| bench.key(&keyring, number, None));
        Arc::new(Self { row: Mutex::new(0), loads: AtomicUsize::new(0), keys, keyring })
    }

    fn flights(&self) -> &Arc<Flights> {
        self.keyring.flights()
    }

    /// Asks for the row until there is an answer, as an operation does; returns which key it is.
    fn ask(&self, min_generation: MinGeneration) -> usize {
        loop {
            let (waiter, leader) = self.flights().join(Target::Latest, min_generation);
            if let Some(leader) = leader {
                self.lead(leader);
            }
            if let Some(outcome) = block_on(waiter.outcome()) {
                let key = outcome.unwrap();
                return self.keys.iter().position(|held| Arc::ptr_eq(held, &key)).unwrap();
            }
        }
    }

    fn lead(&self, leader: Leader) {
        assert_eq!(self.loads.fetch_add(1, Ordering::SeqCst), 0, "two loads at once");
        let row = *self.row.lock().unwrap();
        self.loads.fetch_sub(1, Ordering::SeqCst);
        leader.complete(Ok(Arc::clone(self.keys.get(row).unwrap())));
    }
}

#[test]
fn those_that_ask_at_once_are_all_answered_and_one_load_runs_at_a_time() {
    explore(|| {
        let store = Store::new();
        let others = [(); 2].map(|()| {
            let store = Arc::clone(&store);
            spawn(move || store.ask(Flights::any_generation()))
        });
        assert!(others.into_iter().all(|other| other.join().unwrap() == 0));
        assert_eq!(store.flights().under_way(), 0);
    });
}

#[test]
fn load_whose_task_goes_away_is_taken_over_by_one_that_waits() {
    explore(|| {
        let store = Store::new();
        let (_waiter, leader) = store.flights().join(Target::Latest, Flights::any_generation());
        let aborted = spawn(move || drop(leader));
        assert_eq!(store.ask(Flights::any_generation()), 0);
        aborted.join().unwrap();
        assert_eq!(store.flights().under_way(), 0);
    });
}

#[test]
fn question_is_not_answered_by_a_load_that_began_before_it() {
    explore(|| {
        let store = Store::new();
        let other = spawn({
            let store = Arc::clone(&store);
            move || store.ask(Flights::any_generation())
        });
        *store.row.lock().unwrap() = 1;
        assert_eq!(store.ask(store.flights().next_generation()), 1);
        other.join().unwrap();
    });
}

#[test]
fn question_after_an_invalidation_is_not_answered_by_a_load_that_began_before_it() {
    explore(|| {
        let store = Store::new();
        let other = spawn({
            let store = Arc::clone(&store);
            move || store.ask(Flights::any_generation())
        });
        *store.row.lock().unwrap() = 1;
        store.keyring.invalidate();
        assert_eq!(store.ask(store.flights().current_generation()), 1);
        other.join().unwrap();
    });
}

/// A load leaves the list before its outcome is there.
#[test]
fn who_has_an_answer_and_asks_anew_begins_a_new_load() {
    explore(|| {
        let store = Store::new();
        let (waiter, leader) = store.flights().join(Target::Latest, Flights::any_generation());
        let load = spawn({
            let store = Arc::clone(&store);
            move || store.lead(leader.unwrap())
        });
        assert!(block_on(waiter.outcome()).is_some());
        let (_waiter, leader) = store.flights().join(Target::Latest, Flights::any_generation());
        let leader = leader.expect("the load that has landed is still joined");
        load.join().unwrap();
        // What is left of the old load does not end the new one.
        assert!(store.flights().is_under_way(Target::Latest));
        drop(leader);
        assert_eq!(store.flights().under_way(), 0);
    });
}
