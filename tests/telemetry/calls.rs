//! Calls of back ends, and what they pass through: permits, queues, breakers, retries.

use std::time::Duration;

use claviger::testing::{Fault, Operation};
use claviger::{
    CryptoPolicy, FailureClass, Limits, LockPolicy, RewrapOptions, SecretKey, StaticKms, SystemRandom,
    rewrap_system_keys,
};

use crate::support::{DENIED, DOWN, SK, World, in_world};

const CALLS: &str = "claviger_calls_total";

fn calls(world: &World, dependency: &str, operation: &str, outcome: &str) -> f64 {
    world.value(CALLS, &[("dependency", dependency), ("operation", operation), ("outcome", outcome)])
}

#[test]
fn each_call_is_counted_by_operation_and_failure_and_timed() {
    in_world(
        |builder| builder,
        async |world| {
            world.session("alice").encrypt(b"secret").await.unwrap();
            // The intermediate key's rows, the system key's.
            assert_eq!(calls(&world, "metastore_reads", "load_latest", "ok"), 2.0);
            assert_eq!(calls(&world, "metastore_writes", "insert", "ok"), 2.0);
            assert_eq!(calls(&world, "kms", "wrap_key", "ok"), 1.0);
            let failures = [
                (DOWN, "transient"),
                (DENIED, "permanent"),
                (Fault::Fail(FailureClass::Damaged), "damaged"),
                (Fault::Hang, "timeout"),
            ];
            for (number, (fault, outcome)) in failures.into_iter().enumerate() {
                world.store.faults().next(Operation::LoadLatest, fault);
                assert!(world.session(&format!("p{number}")).encrypt(b"").await.is_err());
                assert_eq!(calls(&world, "metastore_reads", "load_latest", outcome), 1.0, "{outcome}");
            }
            world.store.faults().heal();
            drop(world.factory.warm_up(["a", "b"]).await.unwrap());
            assert_eq!(calls(&world, "metastore_reads", "load_latest_many", "ok"), 1.0);
            assert_eq!(world.value("claviger_warmed_up_partitions_total", &[("result", "missing")]), 2.0);
        },
    );
    in_world(
        |builder| builder,
        async |world| {
            world.session("alice").encrypt(b"secret").await.unwrap();
            assert_eq!(world.value("claviger_call_duration_seconds", &[("outcome", "ok")]), 5.0);
        },
    );
}

#[test]
fn a_call_that_nobody_waits_for_any_more_is_cancelled() {
    in_world(
        |builder| builder,
        async |world| {
            world.store.faults().always(Fault::Hang);
            let session = world.session("alice");
            tokio::select! {
                biased;
                encrypted = session.encrypt(b"") => panic!("{encrypted:?}"),
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
            assert_eq!(world.value("claviger_loads", &[("level", "intermediate")]), 1.0);
            let classes = ["check", "load"];
            let permits = |metric| {
                classes
                    .map(|class| world.value(metric, &[("dependency", "metastore_reads"), ("class", class)]))
            };
            assert_eq!(
                (permits("claviger_permits"), permits("claviger_permits_limit")),
                ([0.0, 1.0], [32.0, 64.0])
            );
            drop(world.factory.close(Duration::ZERO).await.unwrap());
            assert_eq!(calls(&world, "metastore_reads", "load_latest", "cancelled"), 1.0);
            assert_eq!((permits("claviger_permits"), world.value("claviger_loads", &[])), ([0.0, 0.0], 0.0));
            assert_eq!(world.value("claviger_loads_total", &[("outcome", "closed")]), 1.0);
        },
    );
}

#[test]
fn what_waits_for_a_permit_is_queued() {
    let narrow = |builder: claviger::SessionFactoryBuilder| {
        builder.limits(Limits::production().max_attempts(1).max_store_calls(1))
    };
    in_world(narrow, async |world| {
        world.session("alice").encrypt(b"").await.unwrap();
        world.store.faults().always(Fault::Hang);
        let sessions = ["a", "b", "c"].map(|partition| world.session(partition));
        let [a, b, c] = sessions.each_ref().map(|session| session.encrypt(b""));
        tokio::select! {
            biased;
            _ = async { tokio::join!(a, b, c) } => panic!("they hang"),
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
        let queued = || world.value("claviger_queued_calls", &[("dependency", "metastore_reads")]);
        assert_eq!(queued(), 2.0);
        world.store.faults().heal();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(queued(), 0.0);
    });
}

#[test]
fn further_attempts_are_retries() {
    let patient =
        |builder: claviger::SessionFactoryBuilder| builder.limits(Limits::production().max_attempts(3));
    in_world(patient, async |world| {
        world.store.faults().next(Operation::LoadLatest, DOWN);
        world.store.faults().next(Operation::LoadLatest, DOWN);
        world.session("alice").encrypt(b"").await.unwrap();
        assert_eq!(world.value("claviger_call_retries_total", &[("dependency", "metastore_reads")]), 2.0);
        assert_eq!(world.value("claviger_call_retries_total", &[]), 2.0);
    });
}

#[test]
fn a_breaker_is_shown_from_its_opening_to_the_next_answer() {
    in_world(
        |builder| builder,
        async |world| {
            let open = |dependency| world.value("claviger_breaker_open", &[("dependency", dependency)]);
            world.store.faults().always(DOWN);
            for number in 0..5 {
                assert_eq!(open("metastore_reads"), 0.0);
                assert!(world.session(&format!("p{number}")).encrypt(b"").await.is_err());
            }
            assert_eq!((open("metastore_reads"), world.value("claviger_breaker_open", &[])), (1.0, 1.0));
            world.store.faults().heal();
            world.clock.advance(Duration::from_secs(2));
            world.session("alice").encrypt(b"").await.unwrap();
            assert_eq!(open("metastore_reads"), 0.0);
        },
    );
}

#[test]
fn the_time_of_the_last_good_answer_is_that_of_the_clock() {
    in_world(
        |builder| builder,
        async |world| {
            let last = |dependency| {
                world.value("claviger_last_good_answer_timestamp_seconds", &[("dependency", dependency)])
            };
            assert_eq!(last("metastore_reads"), 0.0);
            world.session("alice").encrypt(b"").await.unwrap();
            let begin = 28_333_334.0 * 60.0;
            assert_eq!([last("metastore_reads"), last("metastore_writes"), last("kms")], [begin; 3]);
            world.clock.advance(Duration::from_secs(30));
            world.store.faults().next(Operation::LoadLatest, DOWN);
            assert!(world.session("bob").encrypt(b"").await.is_err());
            assert_eq!(last("metastore_reads"), begin);
            world.clock.advance(Duration::from_secs(2));
            world.session("bob").encrypt(b"").await.unwrap();
            assert_eq!((last("metastore_reads"), last("kms")), (begin + 32.0, begin));
        },
    );
}

#[test]
fn a_replicas_calls_are_told_from_the_stores() {
    let with_replicas = |builder: claviger::SessionFactoryBuilder| {
        let policy = CryptoPolicy::production().lock_policy(LockPolicy::Off).replica_reads(true);
        builder.policy(policy)
    };
    in_world(with_replicas, async |world| {
        let record = world.session("alice").encrypt(b"secret").await.unwrap();
        world.factory.session("alice").unwrap();
        // Another process's cache: nothing of alice is there.
        let other = claviger::SessionFactory::builder(world.store.clone(), world.kms.clone())
            .service("checkout")
            .product("payments")
            .policy(CryptoPolicy::production().lock_policy(LockPolicy::Off).replica_reads(true))
            .clock(world.clock.clone())
            .runtime(tokio::runtime::Handle::current())
            .build()
            .unwrap();
        other.session("alice").unwrap().decrypt(&record).await.unwrap();
        assert_eq!(calls(&world, "metastore_replica", "load", "ok"), 1.0);
    });
}

#[test]
fn a_tools_calls_count_and_are_no_factorys() {
    in_world(
        |builder| builder,
        async |world| {
            world.session("alice").encrypt(b"secret").await.unwrap();
            let new = StaticKms::new(&SecretKey::generate(&SystemRandom::new()).unwrap()).unwrap();
            let report = rewrap_system_keys(world.store.inner(), &world.kms, &new, &RewrapOptions::new())
                .await
                .unwrap();
            assert!(report.is_clean(), "{report:?}");
            assert_eq!(world.value("claviger_rewraps_total", &[("result", "rewrapped")]), 1.0);
            for (dependency, operation, outcome, count) in [
                ("metastore_reads", "list", "ok", 1.0),
                ("metastore_writes", "replace_many", "ok", 1.0),
                // The old service's, and the new one's, which proves what it wrapped.
                ("kms", "unwrap_key", "ok", 2.0),
                ("kms", "wrap_key", "ok", 2.0),
            ] {
                assert_eq!(calls(&world, dependency, operation, outcome), count, "{dependency} {operation}");
            }
            let of_tool = world.series().into_iter().filter(|series| {
                series.name == CALLS && series.labels.iter().all(|(label, _)| label != "system_key")
            });
            assert!(of_tool.map(|series| series.value).sum::<f64>() >= 4.0);
            assert_eq!(world.value(CALLS, &[("system_key", SK), ("operation", "replace_many")]), 0.0);
        },
    );
}
