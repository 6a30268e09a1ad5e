//! Operations are counted by how they ended, and the cache's answers with them.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use claviger::testing::{Fault, Operation};
use claviger::{CryptoPolicy, DataRowRecord, Error, Limits, LockPolicy, RevokedDecrypt};

use crate::support::{DOWN, HOUR, World, in_world};

const OPERATIONS: &str = "claviger_operations_total";
const DURATION: &str = "claviger_operation_duration_seconds";
const LOOKUPS: &str = "claviger_cache_lookups_total";

fn operations(world: &World, operation: &str, outcome: &str) -> f64 {
    world.value(OPERATIONS, &[("operation", operation), ("outcome", outcome)])
}

fn lookups(world: &World, operation: &str) -> [f64; 3] {
    ["hit", "stale", "miss"]
        .map(|result| world.value(LOOKUPS, &[("operation", operation), ("result", result)]))
}

#[test]
fn warm_operations_are_all_counted_and_one_in_1024_is_timed() {
    in_world(
        |builder| builder,
        async |world| {
            let session = world.session("alice");
            let record = session.encrypt(b"secret").await.unwrap();
            for _ in 0..3_000 {
                session.encrypt(b"secret").await.unwrap();
                session.decrypt(&record).await.unwrap();
            }
            assert!(session.try_encrypt(b"secret").unwrap().is_some());
            assert!(session.try_decrypt(&record).unwrap().is_some());
            session.decrypt_json(record.to_json()).await.unwrap();
            assert_eq!(operations(&world, "encrypt", "ok"), 3_002.0);
            assert_eq!(operations(&world, "decrypt", "ok"), 3_002.0);
            assert_eq!(
                (lookups(&world, "encrypt"), lookups(&world, "decrypt")),
                ([3_001.0, 0.0, 1.0], [3_002.0, 0.0, 0.0])
            );
        },
    );
    in_world(
        |builder| builder,
        async |world| {
            let session = world.session("alice");
            for _ in 0..=3_000 {
                session.encrypt(b"secret").await.unwrap();
            }
            let series = world.series();
            let timed = |path: &str| -> f64 {
                let is_it = |labels: &[(String, String)]| labels.contains(&("path".into(), path.into()));
                series
                    .iter()
                    .filter(|one| one.name == DURATION && is_it(&one.labels))
                    .map(|one| one.value)
                    .sum()
            };
            assert_eq!((timed("warm"), timed("cold")), (3.0, 1.0));
        },
    );
}

/// The counts are told by the operations themselves, at most a second late, and by a task of the factory.
#[test]
fn warm_operations_are_reported_without_anybody_asking_for_a_status() {
    in_world(
        |builder| builder,
        async |world| {
            let session = world.session("alice");
            session.encrypt(b"secret").await.unwrap();
            world.clock.advance(Duration::from_secs(2));
            session.encrypt(b"secret").await.unwrap();
            session.encrypt(b"secret").await.unwrap();
            assert_eq!(world.value_now(OPERATIONS, &[("outcome", "ok")]), 2.0, "the last is not told yet");
            tokio::time::sleep(Duration::from_secs(6)).await;
            assert_eq!(world.value_now(OPERATIONS, &[("outcome", "ok")]), 3.0);
        },
    );
}

#[test]
fn each_failure_is_counted_under_its_name() {
    let strict = |builder: claviger::SessionFactoryBuilder| {
        let policy =
            CryptoPolicy::production().lock_policy(LockPolicy::Off).revoked_decrypt(RevokedDecrypt::Deny);
        let deadline = Duration::from_secs(1);
        let limits = Limits::production().max_attempts(1).max_payload_bytes(100).operation_deadline(deadline);
        builder.policy(policy).limits(limits)
    };
    in_world(strict, async |world| {
        let (alice, bob) = (world.session("alice"), world.session("bob"));
        let record = alice.encrypt(b"secret").await.unwrap();
        let altered = {
            let mut json = record.to_json();
            let at = json.find("\"Data\":\"").unwrap() + 8;
            let other = if &json[at..=at] == "A" { "B" } else { "A" };
            json.replace_range(at..=at, other);
            DataRowRecord::from_json(json.as_bytes()).unwrap()
        };
        let outcomes: [(&str, &str, Result<(), Error>); 6] = [
            ("encrypt", "too_large", alice.encrypt(&[0; 101]).await.map(drop)),
            ("decrypt", "authentication", alice.decrypt(&altered).await.map(drop)),
            ("decrypt", "foreign_record", bob.decrypt(&record).await.map(drop)),
            ("decrypt", "malformed_record", alice.decrypt_json("{}").await.map(drop)),
            ("encrypt", "metastore", {
                world.store.faults().next(Operation::LoadLatest, DOWN);
                bob.encrypt(b"").await.map(drop)
            }),
            ("encrypt", "deadline", {
                world.store.faults().always(Fault::Hang);
                let deadline = world.session("carol").encrypt(b"").await.map(drop);
                world.store.faults().heal();
                deadline
            }),
        ];
        for (operation, outcome, result) in outcomes {
            assert!(result.is_err(), "{operation} {outcome}");
            assert_eq!(operations(&world, operation, outcome), 1.0, "{operation} {outcome}: {result:?}");
        }
        drop(world.factory.close(Duration::ZERO).await.unwrap());
        assert!(matches!(alice.encrypt(b"").await, Err(Error::Closed)));
        assert_eq!(operations(&world, "encrypt", "closed"), 1.0);
    });
}

#[test]
fn an_operation_whose_caller_leaves_is_cancelled() {
    in_world(
        |builder| builder,
        async |world| {
            world.store.faults().always(Fault::Hang);
            let session = world.session("alice");
            {
                let mut encrypt = pin!(session.encrypt(b"secret"));
                let polled =
                    std::future::poll_fn(|context| Poll::Ready(encrypt.as_mut().poll(context))).await;
                assert!(polled.is_pending());
                assert_eq!(world.value("claviger_waiting_operations", &[]), 1.0);
            }
            assert_eq!(operations(&world, "encrypt", "cancelled"), 1.0);
            assert_eq!(world.value("claviger_waiting_operations", &[]), 0.0);
            assert_eq!(world.value("claviger_waiting_operations_limit", &[]), 20_000.0);
            world.store.faults().heal();
        },
    );
}

#[test]
fn a_key_that_is_checked_before_it_is_used_is_stale_in_the_cache() {
    in_world(
        |builder| builder,
        async |world| {
            let session = world.session("alice");
            let record = session.encrypt(b"secret").await.unwrap();
            world.clock.advance(HOUR);
            session.encrypt(b"secret").await.unwrap();
            world.clock.advance(HOUR);
            session.decrypt(&record).await.unwrap();
            assert_eq!(
                (lookups(&world, "encrypt"), lookups(&world, "decrypt")),
                ([0.0, 1.0, 1.0], [0.0, 1.0, 0.0])
            );
            assert_eq!(operations(&world, "encrypt", "ok") + operations(&world, "decrypt", "ok"), 3.0);
        },
    );
}
