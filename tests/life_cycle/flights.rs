//! Storms, isolation and abandonment: one flight per key however many ask, and none that waits for
//! another's.

use std::sync::Arc;
use std::time::Duration;

use claviger::testing::{Fault, Operation};
use claviger::{DataRowRecord, Limits, Session};
use tokio::sync::Barrier;

use crate::support::*;

const TASKS: usize = 64;

/// Encrypts in many tasks at once, after all have started.
async fn encrypt_at_once(sessions: Vec<Session>) -> Vec<DataRowRecord> {
    let barrier = Arc::new(Barrier::new(sessions.len()));
    let tasks: Vec<_> = sessions
        .into_iter()
        .map(|session| {
            let barrier = Arc::clone(&barrier);
            tokio::spawn(async move {
                barrier.wait().await;
                session.encrypt(b"secret").await
            })
        })
        .collect();
    let mut records = Vec::new();
    for task in tasks {
        records.push(task.await.unwrap().unwrap());
    }
    records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn flights_storm_on_a_new_partition_is_one_creation() {
    let world = World::new();
    let records = encrypt_at_once((0..TASKS).map(|_| world.session()).collect()).await;
    assert_eq!(world.calls_for(Operation::LoadLatest, IK), 1);
    assert_eq!(world.calls(), Calls { load: 0, load_latest: 2, insert: 2, wrap: 1, unwrap: 0 });
    assert_eq!(world.row_times(IK).await, [0]);
    for record in records {
        world.decrypts(&record).await;
    }
}

/// Many that look for one key and find none: no caller can tell a look from a load.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s0_9_storm_of_ten_thousand_on_a_new_partition_is_one_creation() {
    let world = World::new();
    let records = encrypt_at_once((0..10_000).map(|_| world.session()).collect()).await;
    assert_eq!([Operation::LoadLatest, Operation::Insert].map(|call| world.calls_for(call, IK)), [1, 1]);
    assert_eq!(world.calls(), Calls { load: 0, load_latest: 2, insert: 2, wrap: 1, unwrap: 0 });
    assert!(records.iter().all(|record| created(record) == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s0_9_storm_of_ten_thousand_new_partitions_with_four_tasks_each_makes_each_key_once() {
    const PARTITIONS: usize = 10_000;
    let limits = Limits::production().max_cold_operations(4 * PARTITIONS).max_waiting_calls(PARTITIONS);
    let world = World::with((policy(), limits));
    let sessions: Vec<_> =
        (0..PARTITIONS).map(|number| world.session_of(&format!("customer-{number}"))).collect();
    encrypt_at_once((0..4).flat_map(|_| sessions.clone()).collect()).await;
    let calls = Calls { load: 0, load_latest: PARTITIONS + 1, insert: PARTITIONS + 1, wrap: 1, unwrap: 0 };
    assert_eq!(world.calls(), calls);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn flights_storm_on_a_populated_store_is_one_unwrap() {
    let home = World::new();
    home.sealed().await;
    let world = home.other_process();
    encrypt_at_once((0..TASKS).map(|_| world.session()).collect()).await;
    assert_eq!(world.calls(), Calls { load: 1, load_latest: 1, insert: 0, wrap: 0, unwrap: 1 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn flights_storm_of_new_partitions_makes_one_system_key() {
    let world = World::new();
    let sessions = (0..TASKS).map(|number| world.session_of(&format!("customer-{number}"))).collect();
    encrypt_at_once(sessions).await;
    assert_eq!(
        world.calls(),
        Calls { load: 0, load_latest: TASKS + 1, insert: TASKS + 1, wrap: 1, unwrap: 0 }
    );
    assert_eq!(world.row_times(SK).await, [0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn flights_storm_of_decrypts_is_one_load() {
    let home = World::new();
    let (record, _) = home.sealed().await;
    let world = home.other_process();
    let barrier = Arc::new(Barrier::new(TASKS));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (session, record, barrier) = (world.session(), record.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                session.decrypt(&record).await.map(drop)
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(world.calls(), Calls { load: 2, load_latest: 0, insert: 0, wrap: 0, unwrap: 1 });
}

#[tokio::test]
async fn flights_system_key_is_refreshed_once_for_many() {
    let world = World::new();
    let sessions: Vec<_> = (0..TASKS).map(|number| world.session_of(&format!("customer-{number}"))).collect();
    encrypt_at_once(sessions.clone()).await;
    for age in [DUE, STALE, TOO_OLD] {
        world.clock.advance(age);
        world.faults().reset();
        let before = world.calls();
        encrypt_at_once(sessions.clone()).await;
        world.landed().await;
        let expected = if age == DUE { 16 } else { TASKS };
        assert_eq!(
            world.calls() - before,
            Calls { load: 1, load_latest: expected, ..Calls::default() },
            "{age:?}"
        );
        // Those that found no permit for the background.
        for session in &sessions {
            session.encrypt(b"").await.unwrap();
            world.landed().await;
        }
        assert_eq!(
            world.calls() - before,
            Calls { load: 1, load_latest: TASKS, ..Calls::default() },
            "{age:?}"
        );
    }
}

#[tokio::test]
async fn flights_parents_row_alone_is_read_when_it_alone_is_due() {
    let world = World::new();
    world.session_of("bob").encrypt(b"makes the system key").await.unwrap();
    world.clock.advance(DUE - MINUTE);
    world.sealed().await;
    world.clock.advance(MINUTE);
    world.faults().reset();
    let before = world.calls();
    world.encrypts_under().await;
    world.landed().await;
    assert_eq!(world.calls() - before, Calls { load: 1, ..Calls::default() });
    world.encrypts_under().await;
    world.landed().await;
    assert_eq!(world.calls() - before, Calls { load: 1, ..Calls::default() });
}

#[tokio::test]
async fn flights_of_other_partitions_do_not_wait_for_a_hung_one() {
    let world = World::new();
    world.session_of("bob").encrypt(b"").await.unwrap();
    world.faults().next(Operation::LoadLatest, Fault::Hang);
    let hung = spawn_encrypt(world.session());
    world.faults().until_hanging(1).await;
    world.session_of("bob").encrypt(b"").await.unwrap();
    world.session_of("carol").encrypt(b"").await.unwrap();
    assert!(!hung.is_finished());
    world.faults().release();
    hung.await.unwrap().unwrap();
}

#[tokio::test]
async fn flights_hung_old_version_does_not_block_encrypts_nor_other_versions() {
    let home = World::new();
    let (first, _) = home.sealed().await;
    home.revoke_latest(IK).await;
    let (second, _) = home.other_process().sealed().await;
    for cached in [false, true] {
        let world = home.other_process();
        if cached {
            world.decrypts(&first).await;
            world.decrypts(&second).await;
            world.encrypts_under().await;
            world.clock.advance(TOO_OLD_TO_DECRYPT);
        }
        world.faults().next(Operation::Load, Fault::Hang);
        let hung = tokio::spawn({
            let (session, record) = (world.session(), first.clone());
            async move { session.decrypt(&record).await.map(drop) }
        });
        world.faults().until_hanging(1).await;
        assert_eq!(world.encrypts_under().await, 1);
        world.decrypts(&second).await;
        assert!(!hung.is_finished());
        world.faults().release();
        hung.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn s1_9_caller_that_goes_away_leaves_a_row_that_the_next_call_uses() {
    for hung in [Operation::LoadLatest, Operation::Insert] {
        for fault in [Fault::Hang, Fault::HangReply] {
            let world = World::new();
            world.session_of("bob").encrypt(b"makes the system key").await.unwrap();
            world.faults().next(hung, fault);
            {
                let (session, mut encrypt);
                session = world.session();
                encrypt = Box::pin(session.encrypt(b"secret"));
                assert!(polled_once(&mut encrypt).await.is_none());
                world.faults().until_hanging(1).await;
            }
            world.faults().release();
            world.landed().await;
            assert_eq!(world.row_times(IK).await, [0], "{hung:?} {fault:?}");
            let before = world.calls();
            let (record, created) = world.sealed().await;
            assert_eq!((created, world.calls()), (0, before), "the key is cached");
            world.other_process().decrypts(&record).await;
        }
    }
}

#[tokio::test]
async fn flights_leave_nothing_behind_of_waiters_that_go_away() {
    let world = World::new();
    world.faults().next(Operation::LoadLatest, Fault::Hang);
    let waiters: Vec<_> = (0..TASKS).map(|_| spawn_encrypt(world.session())).collect();
    world.faults().until_hanging(1).await;
    for waiter in &waiters {
        waiter.abort();
    }
    for waiter in waiters {
        assert!(waiter.await.unwrap_err().is_cancelled());
    }
    world.faults().release();
    world.landed().await;
    let status = world.factory.status().unwrap();
    assert_eq!((status.intermediate_keys, status.system_keys, status.orphans.len()), (1, 1, 0));
    assert_eq!(status.memory.slots, 2);
}

#[tokio::test]
async fn interval_0_checks_on_every_call() {
    let world = World::with(policy().revoke_check_interval(Duration::ZERO));
    let (record, _) = world.sealed().await;
    for _ in 0..3 {
        let before = world.calls();
        world.encrypts_under().await;
        assert_eq!(world.calls() - before, Calls { load: 1, load_latest: 1, ..Calls::default() });
        let before = world.calls();
        world.decrypts(&record).await;
        assert_eq!(world.calls() - before, Calls { load: 2, ..Calls::default() });
    }
    world.revoke_latest(IK).await;
    assert_eq!(world.encrypts_under().await, 1);
    world.revoke_latest(SK).await;
    assert_eq!(world.encrypts_under().await, 2);
}

#[tokio::test]
async fn interval_0_counts_only_a_flight_begun_after_the_call() {
    let world = World::with(policy().revoke_check_interval(Duration::ZERO));
    world.sealed().await;
    // This flight has read that the key is valid.
    world.faults().next(Operation::LoadLatest, Fault::HangReply);
    let early = spawn_encrypt(world.session());
    world.faults().until_hanging(1).await;
    world.revoke_latest(IK).await;
    let late: Vec<_> = (0..TASKS).map(|_| spawn_encrypt(world.session())).collect();
    tokio::task::yield_now().await;
    let before = world.calls_for(Operation::LoadLatest, IK);
    world.faults().release();
    assert_eq!(created(&early.await.unwrap().unwrap()), 0);
    for task in late {
        assert_eq!(created(&task.await.unwrap().unwrap()), 1);
    }
    assert_eq!(world.calls_for(Operation::LoadLatest, IK) - before, 1, "one flight for all who came late");
}

#[tokio::test]
async fn interval_0_counts_only_a_parents_read_begun_after_the_call() {
    let world = World::with(policy().revoke_check_interval(Duration::ZERO));
    let (record, _) = world.sealed().await;
    world.faults().at(world.faults().calls() as u64 + 2, Fault::HangReply);
    let session = world.session();
    let early = tokio::spawn(async move { session.decrypt(&record).await.map(drop) });
    world.faults().until_hanging(1).await;
    world.revoke_latest(SK).await;
    let late = spawn_encrypt(world.session());
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    world.faults().release();
    early.await.unwrap().unwrap();
    assert_eq!(created(&late.await.unwrap().unwrap()), 1);
}
