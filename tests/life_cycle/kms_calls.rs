//! How often the KMS, slow and dear, is asked.

use std::sync::Arc;

use claviger::testing::{Fault, FixedClock};
use claviger::{DataRowRecord, InMemoryMetastore};
use tokio::task::JoinSet;

use crate::support::{DUE, MINUTE, SECOND, START, World};

const TASKS: usize = 64;

/// A store with a few partitions' keys, and a record of each.
async fn populated() -> (World, Vec<(String, DataRowRecord)>) {
    let world = World::new();
    let mut records = Vec::new();
    for partition in ["alice", "bob", "carol", "dave"] {
        let record = world.session_of(partition).encrypt(b"secret").await.unwrap();
        records.push((partition.to_owned(), record));
    }
    (world, records)
}

/// Reads, writes of partitions there are and writes of new ones, all at once.
async fn storm(world: Arc<World>, records: &[(String, DataRowRecord)]) {
    let mut tasks = JoinSet::new();
    for (task, (partition, record)) in records.iter().cycle().take(TASKS).cloned().enumerate() {
        let world = Arc::clone(&world);
        tasks.spawn(async move {
            match task % 3 {
                0 => drop(world.session_of(&partition).decrypt(&record).await.unwrap()),
                1 => drop(world.session_of(&partition).encrypt(b"more").await.unwrap()),
                _ => drop(world.session_of(&format!("new-{task}")).encrypt(b"first").await.unwrap()),
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn kms_is_asked_once_by_64_tasks_on_a_cold_factory() {
    let (home, records) = populated().await;
    // In whichever order the questions arrive at store and KMS.
    for (store, kms) in [(0, 20), (20, 0), (5, 20), (20, 5)] {
        let cold = Arc::new(home.other_process());
        cold.store.faults().always(Fault::Delay(MINUTE / 60_000 * store));
        cold.kms.faults().always(Fault::Delay(MINUTE / 60_000 * kms));
        storm(Arc::clone(&cold), &records).await;
        let calls = cold.calls();
        assert_eq!((calls.wrap, calls.unwrap), (0, 1), "store {store} ms, KMS {kms} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn kms_is_asked_once_by_reads_and_writes_that_meet_at_any_step() {
    let (home, records) = populated().await;
    let (partition, record) = &records[0];
    for head_start in 0..60 {
        let cold = Arc::new(home.other_process());
        cold.store.faults().always(Fault::Delay(SECOND / 100));
        cold.kms.faults().always(Fault::Delay(SECOND / 50));
        let read = async { cold.session_of(partition).decrypt(record).await.unwrap() };
        let write = async {
            tokio::time::sleep(SECOND / 1000 * head_start).await;
            cold.session_of("new").encrypt(b"").await.unwrap()
        };
        tokio::join!(read, write);
        assert_eq!(cold.calls().unwrap, 1, "head start of {head_start} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn kms_is_asked_once_by_each_of_64_cold_factories() {
    let (home, records) = populated().await;
    let factories: Vec<_> = (0..64).map(|_| Arc::new(home.other_process())).collect();
    let mut tasks = JoinSet::new();
    for factory in &factories {
        let (factory, records) = (Arc::clone(factory), records.clone());
        tasks.spawn(async move { storm(factory, &records).await });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!(factories.iter().map(|factory| factory.kms_calls()).sum::<usize>(), 64);
}

#[tokio::test(start_paused = true)]
async fn kms_is_asked_once_by_64_tasks_on_an_empty_store() {
    let clock = FixedClock::new(START.unsigned_abs());
    let world = Arc::new(World::over(InMemoryMetastore::new(), clock, |builder| builder));
    world.kms.faults().always(Fault::Delay(SECOND / 50));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let world = Arc::clone(&world);
        tasks.spawn(async move { world.session_of(&format!("p{task}")).encrypt(b"").await.unwrap() });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!((world.calls().wrap, world.calls().unwrap), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn kms_is_not_asked_on_a_warm_path_nor_by_a_refresh_that_finds_nothing_changed() {
    let (home, records) = populated().await;
    let world = Arc::new(home.other_process());
    storm(Arc::clone(&world), &records).await;
    let (before, reads) = (world.kms_calls(), world.faults().calls());
    for (partition, record) in &records {
        world.session_of(partition).encrypt(b"more").await.unwrap();
        world.session_of(partition).decrypt(record).await.unwrap();
    }
    assert_eq!((world.kms_calls(), world.faults().calls()), (before, reads), "a warm path");
    world.clock.advance(DUE);
    for (partition, record) in &records {
        world.session_of(partition).encrypt(b"more").await.unwrap();
        world.session_of(partition).decrypt(record).await.unwrap();
    }
    while world.factory.status().unwrap().loads > 0 {
        tokio::time::sleep(SECOND / 100).await;
    }
    assert!(world.faults().calls() > reads, "a refresh reads the rows");
    assert_eq!(world.kms_calls(), before, "a refresh that finds nothing changed");
}
