//! The metastore refuses inserts, or does not answer them, and reads as ever: what needs no insert goes
//! on as if nothing were amiss.

use std::sync::Arc;
use std::time::Duration;

use claviger::testing::{Fault, FixedClock, Operation};
use claviger::{DataRowRecord, Event, Limits};

use crate::support::*;

const PARTITIONS: usize = 120;

fn name(number: usize) -> String {
    format!("customer-{number}")
}

/// A process with a small cache over a store in which many partitions have keys and a record each.
async fn settled(clock: &RunningClock) -> (World, Vec<DataRowRecord>) {
    let home_clock = clock.clone();
    let home = World::over(Default::default(), FixedClock::new(0), |builder| builder.clock(home_clock));
    let mut records = Vec::new();
    for number in 0..PARTITIONS {
        records.push(home.session_of(&name(number)).encrypt(b"secret").await.unwrap());
    }
    let world = World::over(home.store.inner().clone(), FixedClock::new(0), |builder| {
        // Half of them must be loaded again and again.
        builder.limits(room_for(60)).clock(clock.clone())
    });
    (world, records)
}

/// Uses the partitions for a while, many at once; each twentieth operation is for a new one. Returns how
/// many of those were answered.
async fn busy(world: World, records: &Arc<Vec<DataRowRecord>>, span: Duration) -> (World, usize) {
    let (world, until) = (Arc::new(world), tokio::time::Instant::now() + span);
    let tasks: Vec<_> = (0..40)
        .map(|task: usize| {
            let (world, records) = (Arc::clone(&world), Arc::clone(records));
            tokio::spawn(async move {
                let (mut made, mut step) = (0, task * 7);
                while tokio::time::Instant::now() < until {
                    step += 1;
                    let number = (step * 31 + task) % PARTITIONS;
                    let session = world.session_of(&name(number));
                    if step % 20 == 0 {
                        let new = world.session_of(&format!("new-{until:?}-{task}-{step}"));
                        made += usize::from(new.encrypt(b"").await.is_ok());
                    } else if step % 2 == 0 {
                        session.encrypt(b"").await.expect("an existing key encrypts");
                    } else {
                        session.decrypt(&records[number]).await.expect("an existing key decrypts");
                    }
                    tokio::time::sleep(SECOND / 5).await;
                }
                made
            })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        made += task.await.unwrap();
    }
    (Arc::into_inner(world).expect("all tasks ended"), made)
}

#[tokio::test(start_paused = true)]
async fn inserts_that_fail_or_hang_never_keep_an_existing_key_from_its_work() {
    for fault in [DOWN, Fault::Hang] {
        let clock = RunningClock::new();
        let (world, records) = settled(&clock).await;
        let records = Arc::new(records);
        // Some are warm, and at the end of the test their checks are overdue.
        let (world, made) = busy(world, &records, SECOND).await;
        assert!(made > 0);
        world.faults().always_for(Operation::Insert, fault);
        let (world, made) = busy(world, &records, 20 * SECOND).await;
        assert_eq!(made, 0, "no key can be made");
        let status = world.factory.status().unwrap();
        assert!(status.metastore_read_only && !status.metastore_down, "{fault:?}");
        clock.advance(STALE);
        let before = world.faults().calls_of(Operation::Insert);
        let (world, _) = busy(world, &records, 10 * SECOND).await;
        let asked = world.faults().calls_of(Operation::Insert) - before;
        assert!((1..=12).contains(&asked), "a probe a second: {asked}");
        assert_eq!(world.raised(Event::Stale), 0, "reads are answered in time");
        world.faults().heal();
        tokio::time::sleep(2 * SECOND).await;
        world.session_of("new").encrypt(b"").await.unwrap();
        assert!(!world.factory.status().unwrap().metastore_read_only);
        let (_, made) = busy(world, &records, SECOND).await;
        assert!(made > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn inserts_have_half_the_permits_and_one_at_least() {
    for (calls_max, inserts_max) in [(8, 4), (1, 1)] {
        let limits = Limits::default().max_store_calls(calls_max);
        let world = World::over(Default::default(), FixedClock::new(START.unsigned_abs()), |builder| {
            builder.limits(limits)
        });
        let (record, _) = world.sealed().await;
        world.faults().always_for(Operation::Insert, Fault::Hang);
        let encrypts: Vec<_> = (0..20).map(|number| spawn_encrypt(world.session_of(&name(number)))).collect();
        world.faults().until_hanging(inserts_max).await;
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.faults().hanging(), inserts_max);
        world.clock.advance(STALE);
        world.decrypts(&record).await;
        assert_eq!(world.encrypts_under().await, 0);
        assert_eq!(world.raised(Event::Stale), 0);
        world.heal();
        for encrypt in encrypts {
            encrypt.await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn inserts_that_are_refused_are_not_waited_for_by_an_expired_key() {
    let world = World::new();
    world.sealed().await;
    world.clock.advance(LIFE - SECOND);
    world.faults().always_for(Operation::Insert, DOWN);
    for partition in ["bob", "carol"] {
        world.session_of(partition).encrypt(b"").await.unwrap_err();
    }
    assert!(world.factory.status().unwrap().metastore_read_only);
    // Checked just before its end.
    world.encrypts_under().await;
    world.landed().await;
    let before = world.calls();
    world.clock.advance(SECOND + SECOND / 2);
    for partition in ["bob", "carol"] {
        world.session_of(partition).encrypt(b"").await.unwrap_err();
    }
    let asked = world.calls() - before;
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!(world.calls() - before, asked, "at once, with no call");
    assert_eq!(world.raised(Event::ExpiredKeyUsed), 1);
}

/// A key near its end is replaced in the background, and who has none cached meanwhile waits for that.
#[tokio::test(start_paused = true)]
async fn inserts_that_fail_in_a_rotation_fail_nobody_else() {
    for fault in [DOWN, DENIED] {
        let home = World::new();
        home.sealed().await;
        home.session_of("bob").encrypt(b"").await.unwrap();
        home.clock.advance(LIFE - HOUR);
        let world = World::over(home.store.inner().clone(), home.clock.clone(), |builder| {
            builder.limits(room_for(1))
        });
        world.faults().next(Operation::Insert, Fault::Hang);
        world.faults().always_for(Operation::Insert, fault);
        let session = world.session();
        session.encrypt(b"loads it").await.unwrap();
        session.encrypt(b"begins the rotation").await.unwrap();
        world.faults().until_hanging(1).await;
        world.session_of("bob").encrypt(b"takes the place").await.unwrap();
        let record = session.encrypt(b"waits for the rotation").await.unwrap();
        assert_eq!(created(&record), 0);
        assert!(world.raised(Event::RefreshFailed) >= 1);
        let before = world.calls();
        for _ in 0..20 {
            session.encrypt(b"").await.unwrap();
            world.landed().await;
        }
        assert_eq!(world.calls(), before, "it is not tried again at once");
    }
}
