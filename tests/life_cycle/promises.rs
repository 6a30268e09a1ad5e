//! T6: what follows from the tables, in scripted scenarios.

use std::collections::HashMap;
use std::time::Duration;

use claviger::testing::{Fault, FixedClock, Operation, call};
use claviger::{DataRowRecord, Event, FailureClass, KeyMeta, Metastore, MetastoreAdmin};

use crate::support::*;

/// A world whose clock goes by tokio's.
fn running() -> (World, RunningClock) {
    let clock = RunningClock::new();
    let builders = clock.clone();
    let world = World::over(Default::default(), FixedClock::new(0), |builder| builder.clock(builders));
    (world, clock)
}

#[tokio::test]
async fn suspended_machine_ages_keys() {
    let world = World::new();
    let (record, _) = world.sealed().await;
    world.revoke_latest(IK).await;
    world.clock.suspend(STALE);
    assert_ne!(world.encrypts_under().await, 0);
    world.delete(SK).await;
    world.clock.suspend(STALE);
    world.decrypt_error(&record).await;
}

#[tokio::test]
async fn wall_clock_set_back_neither_ages_keys_nor_keeps_them_fresh() {
    let world = World::new();
    world.sealed().await;
    let before = world.calls();
    world.clock.set_wall_back(10 * HOUR);
    world.clock.advance(DUE - SECOND);
    assert_eq!(world.encrypts_under().await, 0);
    world.landed().await;
    assert_eq!(world.calls(), before);
    world.revoke_latest(IK).await;
    world.clock.advance(STALE - DUE + SECOND);
    assert_eq!(world.encrypts_under().await, 1);
}

#[tokio::test]
async fn suspension_is_seen_though_the_wall_clock_was_set_back_before() {
    let world = World::new();
    world.sealed().await;
    world.clock.set_wall_back(10 * HOUR);
    world.clock.advance(STALE);
    // Checked by the clock that was set back.
    assert_eq!(world.encrypts_under().await, 0);
    world.revoke_latest(IK).await;
    world.clock.suspend(STALE);
    assert_eq!(world.encrypts_under().await, 1);
}

#[tokio::test(start_paused = true)]
async fn hung_store_costs_a_warm_operation_refresh_wait_once_a_second() {
    for decrypts in [false, true] {
        let (world, clock) = running();
        let (record, _) = world.sealed().await;
        clock.advance(STALE);
        world.faults().always(Fault::Hang);
        let begun = tokio::time::Instant::now();
        let mut waits = Vec::new();
        while begun.elapsed() < 20 * SECOND {
            let asked = tokio::time::Instant::now();
            if decrypts {
                world.decrypts(&record).await;
            } else {
                assert_eq!(world.encrypts_under().await, 0);
            }
            if !asked.elapsed().is_zero() {
                assert!(asked.elapsed() <= SECOND / 5, "{:?}", asked.elapsed());
                waits.push(asked);
            }
            tokio::time::sleep(SECOND / 100).await;
        }
        assert!(waits.windows(2).all(|pair| pair[1] - pair[0] >= SECOND), "{waits:?}");
        assert!(waits.len() > 2);
    }
}

#[tokio::test(start_paused = true)]
async fn t6_outage_is_bridged_and_recovered_from() {
    for fault in [DOWN, Fault::Hang] {
        let (world, clock) = running();
        let (record, _) = world.sealed().await;
        // Checked only just within the interval.
        clock.advance(STALE - SECOND);
        world.outage(fault);
        let begun = tokio::time::Instant::now();
        while begun.elapsed() <= 24 * HOUR {
            if begun.elapsed() <= HOUR {
                assert_eq!(world.encrypts_under().await, 0, "{:?} into the outage", begun.elapsed());
            }
            world.decrypts(&record).await;
            tokio::time::sleep(7 * MINUTE).await;
        }
        tokio::time::sleep(2 * HOUR).await;
        world.session().decrypt(&record).await.unwrap_err();
        world.session().encrypt(b"").await.unwrap_err();
        world.heal();
        tokio::time::sleep(SECOND).await;
        world.decrypts(&record).await;
        assert_eq!(world.encrypts_under().await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn t6_outage_keeps_the_keys_of_idle_partitions() {
    let (world, _clock) = running();
    let (record, _) = world.sealed().await;
    world.session_of("bob").encrypt(b"").await.unwrap();
    world.outage(DOWN);
    let begun = tokio::time::Instant::now();
    let mut dice = Dice(1);
    while begun.elapsed() < 20 * HOUR {
        // Others notice the outage, now and then.
        drop(world.session_of("bob").encrypt(b"").await);
        tokio::time::sleep(Duration::from_secs(dice.roll(600))).await;
    }
    world.decrypts(&record).await;
}

#[tokio::test(start_paused = true)]
async fn idle_keys_are_dropped_and_parents_of_keys_in_use_are_not() {
    let (_, clock) = running();
    // Idle for two hours is long before the next check of a key in use.
    let world = World::over(Default::default(), FixedClock::new(0), |builder| {
        let policy = policy().revoke_check_interval(12 * HOUR);
        builder.policy(policy).clock(clock.clone())
    });
    world.sealed().await;
    world.session_of("bob").encrypt(b"").await.unwrap();
    for _ in 0..48 {
        tokio::time::sleep(HOUR / 2).await;
        world.encrypts_under().await;
    }
    let status = world.factory.status().unwrap();
    assert_eq!((status.intermediate_keys, status.system_keys), (1, 1), "bob's was dropped");
    assert_eq!(world.calls().unwrap, 0, "checks found nothing changed");
    tokio::time::sleep(3 * HOUR).await;
    let status = world.factory.status().unwrap();
    assert_eq!((status.intermediate_keys, status.system_keys, status.memory.slots), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn idle_keys_whose_refreshes_fail_are_kept_until_they_are_of_no_use() {
    let (world, clock) = running();
    world.sealed().await;
    clock.advance(STALE);
    world.faults().next(Operation::LoadLatest, DENIED);
    assert_eq!(world.encrypts_under().await, 0);
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < 27 * HOUR {
        // The store is well otherwise.
        world.session_of("bob").encrypt(b"").await.unwrap();
        tokio::time::sleep(30 * MINUTE).await;
        let expected = if begun.elapsed() < 25 * HOUR { Some(2) } else { None };
        let keys = world.factory.status().unwrap().intermediate_keys;
        assert!(expected.is_none_or(|expected| keys == expected), "{keys} after {:?}", begun.elapsed());
    }
    assert_eq!(world.factory.status().unwrap().intermediate_keys, 1);
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    /// Returns a number below `sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

const PARTITIONS: [&str; 3] = ["alice", "bob", "carol"];

/// When each key was revoked, seen from the store.
#[derive(Default)]
struct Revocations(HashMap<KeyMeta, tokio::time::Instant>);

impl Revocations {
    async fn revoke_something(&mut self, world: &World, dice: &mut Dice) {
        let rows = world.store.inner().list("", None, usize::MAX, &call()).await.unwrap().records;
        let row = &rows[usize::try_from(dice.roll(rows.len() as u64)).unwrap()];
        world.store.inner().revoke(row.meta(), &call()).await.unwrap();
        self.0.entry(row.meta().clone()).or_insert_with(tokio::time::Instant::now);
    }

    /// Returns for how long the key or its parent has been revoked.
    async fn age(&self, world: &World, key: &KeyMeta) -> Duration {
        let row = world
            .store
            .inner()
            .load(key, &call().consistency(claviger::Consistency::Strong))
            .await
            .unwrap()
            .unwrap();
        let revoked = [Some(key), row.parent()].into_iter().flatten().filter_map(|key| self.0.get(key));
        revoked.map(tokio::time::Instant::elapsed).max().unwrap_or_default()
    }
}

/// One of the operations of a busy service, some of them vain.
async fn busy(world: &World, dice: &mut Dice, records: &mut Vec<(usize, DataRowRecord)>) -> Option<KeyMeta> {
    let partition = usize::try_from(dice.roll(3)).unwrap();
    let session = world.session_of(PARTITIONS[partition]);
    let any = usize::try_from(dice.roll(records.len().max(1) as u64)).unwrap();
    match (dice.roll(4), records.get(any)) {
        (0, Some((owner, record))) => {
            drop(world.session_of(PARTITIONS[*owner]).decrypt(record).await);
            None
        }
        (1, Some((owner, record))) => {
            let created = record.parent_created().unix_seconds();
            let vain = record.to_json().replacen(&format!("{created}}}"), &format!("{}}}", created - 7), 1);
            drop(world.session_of(PARTITIONS[*owner]).decrypt_json(vain.as_bytes()).await);
            None
        }
        _ => {
            let record = session.encrypt(b"secret").await.ok()?;
            let key = record.parent().unwrap().clone();
            records.push((partition, record));
            Some(key)
        }
    }
}

#[tokio::test(start_paused = true)]
async fn t6_revocation_bound_under_load() {
    for seed in 0..2 {
        let (world, _clock) = running();
        let (mut dice, mut revocations, mut records) = (Dice(seed), Revocations::default(), Vec::new());
        for step in 0..1_500 {
            if let Some(key) = busy(&world, &mut dice, &mut records).await {
                let age = revocations.age(&world, &key).await;
                assert!(age <= HOUR + 10 * SECOND, "{key}, revoked {age:?} ago, in step {step} of {seed}");
            }
            if dice.roll(60) == 0 {
                revocations.revoke_something(&world, &mut dice).await;
            }
            tokio::time::sleep(Duration::from_secs(dice.roll(90))).await;
        }
        assert!(revocations.0.len() > 10 && records.len() > 500);
        assert_eq!(world.raised(Event::RowLost), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn t6_nothing_is_lost_and_no_revoked_key_outlives_its_bound_whatever_fails() {
    let faults = [
        DOWN,
        DENIED,
        Fault::LoseReply(FailureClass::Transient),
        Fault::LoseReply(FailureClass::Permanent),
        Fault::Hang,
        Fault::HangReply,
        Fault::Delay(SECOND / 3),
    ];
    for seed in 0..3 {
        let (world, clock) = running();
        let (mut dice, mut revocations, mut records) = (Dice(seed), Revocations::default(), Vec::new());
        for step in 0..800 {
            match dice.roll(40) {
                0 => world.faults().always(faults[usize::try_from(dice.roll(7)).unwrap()]),
                1 => world.kms.faults().always(faults[usize::try_from(dice.roll(7)).unwrap()]),
                2..6 => {
                    let operation = [Operation::Load, Operation::LoadLatest, Operation::Insert][step % 3];
                    world.faults().next(operation, faults[usize::try_from(dice.roll(7)).unwrap()]);
                }
                6..9 => world.heal(),
                9 if !records.is_empty() => revocations.revoke_something(&world, &mut dice).await,
                10 if dice.roll(20) == 0 => clock.advance(LIFE + DAY),
                _ => {}
            }
            if let Some(key) = busy(&world, &mut dice, &mut records).await {
                let age = revocations.age(&world, &key).await;
                assert!(
                    age <= 2 * HOUR + 20 * SECOND,
                    "{key}, revoked {age:?} ago, in step {step} of {seed}"
                );
            }
            tokio::time::sleep(Duration::from_secs(dice.roll(120))).await;
        }
        assert!(records.len() > 100, "{}", records.len());
        let cold = world.other_process();
        for (partition, record) in &records {
            let session = cold.session_of(PARTITIONS[*partition]);
            assert_eq!(*session.decrypt(record).await.unwrap(), *b"secret");
        }
        world.heal();
        tokio::time::sleep(SECOND).await;
        for (partition, record) in &records {
            world.session_of(PARTITIONS[*partition]).decrypt(record).await.unwrap();
        }
        for event in [Event::Tampered, Event::KeyChanged, Event::Unrevoked, Event::RowLost] {
            assert_eq!(world.raised(event), 0, "{event} is a false alarm");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t6_processes_converge_on_one_row() {
    let home = World::new();
    let barrier = std::sync::Arc::new(tokio::sync::Barrier::new(8));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (process, barrier) = (home.other_process(), std::sync::Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                let (record, _) = process.sealed().await;
                (process, record)
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.push(task.await.unwrap());
    }
    assert_eq!((home.row_times(SK).await, home.row_times(IK).await), (vec![0], vec![0]));
    for (process, _) in &all {
        for (_, record) in &all {
            process.decrypts(record).await;
        }
    }
}
