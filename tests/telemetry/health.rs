//! Health: degraded from the first failed call on, down when nothing more can be had, and back.

use std::time::Duration;

use claviger::testing::{Fault, Operation, call};
use claviger::{
    BackendError, CallContext, FailureClass, HealthReason, HealthState, Invalidation, InvalidationSource,
    KeyId, KeyMeta, MetastoreAdmin as _, Way,
};

use crate::support::{DENIED, DOWN, HOUR, World, in_world};

/// The state, and the reasons as they are serialised.
fn health(world: &World) -> (HealthState, Vec<String>) {
    let health = world.factory.status().unwrap().health();
    let said = |reason: &HealthReason| serde_json::to_string(reason).unwrap();
    let reasons = health.reasons.iter().map(said).collect();
    assert_eq!(world.value("claviger_health", &[]), f64::from(health.state as u8));
    (health.state, reasons)
}

fn failing(dependency: &str, failures: u32) -> String {
    format!(r#"{{"reason":"dependency_failing","dependency":"{dependency}","failures":{failures}}}"#)
}

fn down(dependency: &str) -> String {
    format!(r#"{{"reason":"dependency_down","dependency":"{dependency}"}}"#)
}

#[test]
fn degraded_at_the_first_failed_call_down_with_the_breaker_and_well_with_the_next_answer() {
    in_world(
        |builder| builder,
        async |world| {
            world.session("alice").encrypt(b"").await.unwrap();
            assert_eq!(health(&world), (HealthState::Ok, vec![]));
            world.store.faults().always(DOWN);
            for failures in 1..5 {
                assert!(world.session(&format!("p{failures}")).encrypt(b"").await.is_err());
                assert_eq!(
                    health(&world),
                    (HealthState::Degraded, vec![failing("metastore_reads", failures)])
                );
            }
            assert!(world.session("p5").encrypt(b"").await.is_err());
            assert_eq!(health(&world), (HealthState::Down, vec![down("metastore_reads")]));
            world.store.faults().heal();
            world.clock.advance(Duration::from_secs(2));
            world.session("bob").encrypt(b"").await.unwrap();
            assert_eq!(health(&world), (HealthState::Ok, vec![]));
        },
    );
}

#[test]
fn without_its_kms_a_factory_is_down_only_if_it_has_no_system_key() {
    for has_system_key in [false, true] {
        in_world(
            |builder| builder,
            async |world| {
                if has_system_key {
                    world.session("alice").encrypt(b"").await.unwrap();
                }
                world.kms.faults().always(DOWN);
                // Each call is the first of a process that has the key to unwrap.
                for _ in 0..5 {
                    world.clock.advance(Duration::from_secs(2));
                    if has_system_key {
                        world.clock.advance(100 * 24 * HOUR);
                    }
                    drop(world.session("bob").encrypt(b"").await);
                }
                let (state, reasons) = health(&world);
                assert_eq!(reasons, [down("kms")]);
                let expected = if has_system_key { HealthState::Degraded } else { HealthState::Down };
                assert_eq!(state, expected);
            },
        );
    }
}

#[test]
fn a_refusal_and_a_timeout_are_failures_and_a_damaged_row_is_not() {
    for (fault, is_failure) in
        [(DENIED, true), (Fault::Hang, true), (Fault::Fail(FailureClass::Damaged), false)]
    {
        in_world(
            |builder| builder,
            async |world| {
                world.store.faults().next(Operation::LoadLatest, fault);
                assert!(world.session("alice").encrypt(b"").await.is_err());
                world.store.faults().heal();
                let expected = if is_failure {
                    (HealthState::Degraded, vec![failing("metastore_reads", 1)])
                } else {
                    (HealthState::Ok, vec![])
                };
                assert_eq!(health(&world), expected, "{fault:?}");
            },
        );
    }
}

#[test]
fn lost_rows_lost_sources_and_the_end_are_reasons() {
    in_world(
        |builder| builder.invalidations(Broken),
        async |world| {
            assert_eq!(health(&world), (HealthState::Ok, vec![]), "no source is asked yet");
            let record = world.session("alice").encrypt(b"").await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let lost = r#"{"reason":"sources_lost","sources":1}"#.to_owned();
            assert_eq!(health(&world), (HealthState::Degraded, vec![lost.clone()]));
            assert_eq!(world.value("claviger_invalidation_sources", &[]), 1.0);
            assert_eq!(world.value("claviger_invalidation_sources_connected", &[]), 0.0);
            let key = KeyMeta::new(KeyId::new("_IK_alice_checkout_payments"), record.parent_created());
            assert!(world.store.inner().delete_version(&key, &call()).await.unwrap());
            world.factory.invalidate(key.id()).unwrap();
            assert!(world.session("alice").decrypt(&record).await.is_err());
            let rows = r#"{"reason":"rows_lost","rows":1}"#.to_owned();
            assert_eq!(health(&world), (HealthState::Degraded, vec![lost, rows]));
            assert_eq!(world.value("claviger_lost_rows", &[]), 1.0);
            drop(world.factory.close(Duration::from_secs(1)).await.unwrap());
            let (state, reasons) = health(&world);
            assert_eq!(state, HealthState::Down);
            assert!(reasons.contains(&r#"{"reason":"closed"}"#.to_owned()), "{reasons:?}");
        },
    );
}

#[test]
fn a_source_that_answers_is_connected_and_its_messages_are_counted() {
    in_world(
        |builder| builder.invalidations(OneMessage(true)),
        async |world| {
            world.session("alice").encrypt(b"").await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(health(&world), (HealthState::Ok, vec![]));
            assert_eq!(world.value("claviger_invalidation_sources_connected", &[]), 1.0);
            assert_eq!(world.value("claviger_invalidations_total", &[("message", "everything")]), 1.0);
        },
    );
}

#[test]
fn ways_are_named_as_the_label_has_them() {
    let names: Vec<_> = Way::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["metastore_reads", "metastore_writes", "metastore_replica", "kms"]);
}

#[derive(Debug)]
struct Broken;

impl InvalidationSource for Broken {
    async fn next(&mut self, _context: &CallContext) -> Result<Invalidation, BackendError> {
        Err(BackendError::transient("down"))
    }
}

#[derive(Debug)]
struct OneMessage(bool);

impl InvalidationSource for OneMessage {
    async fn next(&mut self, _context: &CallContext) -> Result<Invalidation, BackendError> {
        if std::mem::take(&mut self.0) {
            return Ok(Invalidation::Everything);
        }
        std::future::pending().await
    }
}
