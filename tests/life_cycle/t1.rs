//! T1: which key encrypts when there is none, or none that is fit.

use std::time::Duration;

use claviger::testing::{Fault, Operation};
use claviger::{Error, Event, FailureClass, Limits};

use crate::support::*;

#[tokio::test]
async fn t1_absent_loads_or_creates() {
    let world = World::new();
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!(world.calls(), Calls { load: 0, load_latest: 2, insert: 2, wrap: 1, unwrap: 0 });

    let other = world.other_process();
    other.clock.advance(MINUTE);
    assert_eq!(other.encrypts_under().await, 0);
    assert_eq!(other.calls(), Calls { load: 1, load_latest: 1, insert: 0, wrap: 0, unwrap: 1 });
}

#[tokio::test(start_paused = true)]
async fn t1_absent_failure_is_an_error_and_is_not_remembered() {
    let world = World::new();
    world.faults().always(DOWN);
    assert!(world.encrypt_error().await.is_retryable());
    world.clock.advance(SECOND);
    world.faults().always(DENIED);
    assert!(!world.encrypt_error().await.is_retryable());
    world.heal();
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!(world.row_times(IK).await, [0]);
}

#[tokio::test]
async fn t1_absent_the_flights_key_is_checked_valid() {
    let home = World::new();
    let (record, _) = home.sealed().await;
    let world = home.other_process();
    // The flight has read that the key is valid, and waits for its parent.
    world.faults().next(Operation::Load, Fault::Hang);
    let encrypt = spawn_encrypt(world.session());
    world.faults().until_hanging(1).await;
    // Meanwhile a decrypt of the same key learns that it is revoked.
    world.revoke_latest(IK).await;
    let decrypt = tokio::spawn({
        let (session, record) = (world.session(), record.clone());
        async move { session.decrypt(&record).await }
    });
    while world.calls_for(Operation::Load, IK) == 0 {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    world.faults().release();
    assert_eq!(created(&encrypt.await.unwrap().unwrap()), 1, "the known revoked key is not used");
    decrypt.await.unwrap().unwrap();
}

/// A world whose key was just learned to be revoked, by reading a record.
async fn known_revoked(id: &str) -> World {
    let world = World::new();
    let (record, _) = world.sealed().await;
    world.revoke_latest(id).await;
    world.clock.advance(STALE);
    world.decrypts(&record).await;
    world
}

#[tokio::test]
async fn t1_revoked_is_replaced() {
    let world = known_revoked(IK).await;
    assert_eq!(world.encrypts_under().await, seconds(STALE));
    assert_eq!(world.row_times(SK).await, [0], "under the same system key");
}

#[tokio::test]
async fn t1_revoked_parent_is_replaced_with_the_key() {
    let world = known_revoked(SK).await;
    assert_eq!(world.encrypts_under().await, seconds(STALE));
    assert_eq!(world.row_times(SK).await, [0, seconds(STALE)]);
    let parent = world.latest_row(IK).await.parent().cloned();
    assert_eq!(parent, Some(meta(SK, seconds(STALE))));
}

#[tokio::test(start_paused = true)]
async fn t1_revoked_is_never_used_whatever_fails() {
    for id in [IK, SK] {
        for fault in [DOWN, DENIED, Fault::Hang, Fault::LoseReply(FailureClass::Transient)] {
            for operation in [Operation::LoadLatest, Operation::Insert] {
                let world = known_revoked(id).await;
                world.faults().always_for(operation, fault);
                world.kms.faults().always(fault);
                let error = world.encrypt_error().await;
                assert_eq!(error.is_retryable(), fault != DENIED, "{id} {operation:?} {fault:?}: {error}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn t1_revocation_learned_by_a_refresh_that_fails_counts() {
    for id in [IK, SK] {
        for fault in [DOWN, DENIED] {
            let world = World::new();
            world.sealed().await;
            world.revoke_latest(id).await;
            world.faults().always_for(Operation::Insert, fault);
            world.clock.advance(STALE);
            assert_eq!(world.encrypt_error().await.is_retryable(), fault == DOWN);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn t1_revocation_learned_by_a_slow_refresh_waits_for_the_new_key() {
    for id in [IK, SK] {
        let world = World::new();
        world.sealed().await;
        world.revoke_latest(id).await;
        world.faults().always_for(Operation::Insert, Fault::Delay(SECOND / 2));
        world.clock.advance(STALE);
        assert_eq!(world.encrypts_under().await, seconds(STALE));
    }
}

/// The store's latest key is two versions later, under a system key that the KMS does not unwrap; so the cached one
/// is all there is, and it or its parent was revoked.
#[tokio::test(start_paused = true)]
async fn t1_stale_revocation_is_learned_though_the_latest_key_cannot_be_had() {
    for revoked in [IK, SK] {
        for fault in [DOWN, DENIED, Fault::Hang] {
            let world = World::new();
            world.sealed().await;
            let system_key = world.latest_row(SK).await;
            world.revoke_latest(SK).await;
            for _ in 0..2 {
                world.revoke_latest(IK).await;
                world.other_process().sealed().await;
            }
            if revoked == IK {
                world.put(system_key).await;
            } else {
                let first = world.rows(IK).await.swap_remove(0);
                world.put(first.revoked(false)).await;
            }
            world.kms.faults().always(fault);
            // The check of the cached key takes longer than the KMS to fail.
            world.faults().always_for(Operation::Load, Fault::Delay(SECOND / 20));
            world.clock.advance(STALE);
            let error = world.encrypt_error().await;
            assert_eq!(error.is_retryable(), fault != DENIED, "{revoked} {fault:?}: {error}");
        }
    }
}

/// The system key was evicted, and the KMS, which would have to unwrap it again, is down.
#[tokio::test(start_paused = true)]
async fn t1_revocation_of_a_parent_that_is_not_cached_is_learned_though_the_kms_is_down() {
    let world = World::with((policy(), Limits::production().max_system_keys(1)));
    world.sealed().await;
    world.other_process().session_of("cold").encrypt(b"").await.unwrap();
    let system_key = world.latest_row(SK).await;
    world.revoke_latest(SK).await;
    world.other_process().session_of("bob").encrypt(b"").await.unwrap();
    world.session_of("bob").encrypt(b"").await.unwrap();
    world.put(system_key.clone()).await;
    world.kms.faults().always(DOWN);
    world.clock.advance(STALE);
    loop {
        world.session_of("cold").encrypt(b"").await.unwrap_err();
        if world.factory.status().unwrap().kms_down {
            break;
        }
        world.clock.advance(SECOND);
    }
    world.put(system_key.revoked(true)).await;
    let error = world.encrypt_error().await;
    assert!(error.is_retryable(), "{error}");
}

/// A world whose key ended a second ago and was checked `checked_before_end` before its end.
async fn expired(checked_before_end: Duration) -> World {
    let world = World::new();
    let (record, _) = world.sealed().await;
    world.clock.advance(LIFE - checked_before_end);
    world.decrypts(&record).await;
    world.clock.advance(checked_before_end + SECOND);
    world
}

#[tokio::test]
async fn t1_exactly_at_the_boundary_a_key_is_still_valid() {
    let world = World::new();
    let (record, _) = world.sealed().await;
    world.clock.advance(LIFE - MINUTE);
    world.decrypts(&record).await;
    world.clock.advance(MINUTE);
    world.faults().always_for(Operation::Insert, DENIED);
    let before = world.calls();
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!(world.calls(), before, "nothing is waited for");
    world.clock.advance(Duration::from_nanos(1));
    assert!(matches!(world.encrypt_error().await, Error::Metastore { operation: "insert", .. }));
}

#[tokio::test]
async fn t1_expired_is_replaced_and_waited_for() {
    let world = expired(MINUTE).await;
    assert_eq!(world.encrypts_under().await, seconds(LIFE));
    assert_eq!(world.row_times(SK).await, [0, seconds(LIFE)]);
    assert_eq!(world.raised(Event::ExpiredKeyUsed), 0);
}

#[tokio::test]
async fn t1_expired_parent_is_replaced_with_the_key() {
    let world = World::new();
    world.session_of("bob").encrypt(b"makes the system key").await.unwrap();
    world.clock.advance(50 * DAY);
    let (record, created) = world.sealed().await;
    assert_eq!((created, world.row_times(SK).await), (seconds(50 * DAY), vec![0]));
    world.clock.advance(40 * DAY - MINUTE);
    world.decrypts(&record).await;
    world.clock.advance(2 * MINUTE);
    let now = seconds(LIFE + MINUTE);
    assert_eq!(world.encrypts_under().await, now);
    assert_eq!(world.row_times(SK).await, [0, now]);
    assert_eq!(world.latest_row(IK).await.parent(), Some(&meta(SK, now)));
}

#[tokio::test(start_paused = true)]
async fn t1_expired_transient_failure_uses_the_cached_key() {
    for operation in [Operation::LoadLatest, Operation::Insert] {
        let world = expired(MINUTE).await;
        world.faults().always_for(operation, DOWN);
        assert_eq!(world.encrypts_under().await, 0);
        assert_eq!(world.raised(Event::ExpiredKeyUsed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn t1_expired_kms_outage_uses_the_cached_key() {
    let world = expired(MINUTE).await;
    world.kms.faults().always(DOWN);
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!(world.raised(Event::ExpiredKeyUsed), 1);
}

#[tokio::test(start_paused = true)]
async fn t1_expired_no_answer_within_refresh_wait_uses_the_cached_key() {
    let world = expired(MINUTE).await;
    world.faults().always(Fault::Hang);
    let begun = tokio::time::Instant::now();
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!(begun.elapsed(), SECOND / 5);
    assert_eq!(world.raised(Event::ExpiredKeyUsed), 1);
}

#[tokio::test(start_paused = true)]
async fn t1_expired_that_just_failed_is_not_waited_for_again() {
    let world = expired(MINUTE).await;
    world.faults().always(DOWN);
    world.encrypts_under().await;
    let before = world.calls();
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!(world.calls(), before, "less than a second ago");
    world.heal();
    world.clock.advance(SECOND);
    assert_eq!(world.encrypts_under().await, seconds(LIFE));
}

#[tokio::test]
async fn t1_expired_denied_insert_is_an_error() {
    let world = expired(MINUTE).await;
    world.faults().always_for(Operation::Insert, DENIED);
    for _ in 0..3 {
        let error = world.encrypt_error().await;
        assert!(matches!(error, Error::Metastore { operation: "insert", .. }), "{error}");
        assert!(!error.is_retryable());
    }
    assert_eq!(world.raised(Event::ExpiredKeyUsed), 0);
}

#[tokio::test(start_paused = true)]
async fn t1_expired_goes_on_until_max_stale_encrypt_after_its_end() {
    let world = expired(MINUTE).await;
    world.faults().always(DOWN);
    world.clock.advance(HOUR - SECOND);
    assert_eq!(world.encrypts_under().await, 0);
    world.clock.advance(SECOND);
    assert!(world.encrypt_error().await.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn t1_expired_goes_on_until_its_check_is_too_old() {
    let world = expired(90 * MINUTE).await;
    world.faults().always(DOWN);
    world.clock.advance(30 * MINUTE - SECOND);
    assert_eq!(world.encrypts_under().await, 0);
    world.clock.advance(SECOND);
    assert!(world.encrypt_error().await.is_retryable());
}

/// A world whose keys are good for four wraps: they are counted in lots that double, as 1, 3, 3, 7.
fn four_wraps() -> World {
    World::with(policy().max_wraps_per_key(6))
}

async fn wrap(world: &World, times: usize) {
    for _ in 0..times {
        assert_eq!(world.encrypts_under().await, 0);
    }
}

#[tokio::test]
async fn t1_exhausted_is_replaced() {
    let world = four_wraps();
    wrap(&world, 4).await;
    assert_eq!(world.encrypts_under().await, 1);
    assert_eq!(world.row_times(SK).await, [0], "under the same system key");
}

#[tokio::test(start_paused = true)]
async fn t1_exhausted_transient_failure_uses_the_cached_key_up_to_twice_the_limit() {
    let world = four_wraps();
    wrap(&world, 4).await;
    world.faults().always(DOWN);
    wrap(&world, 4).await;
    assert_eq!(world.raised(Event::ExpiredKeyUsed), 4);
    assert!(world.encrypt_error().await.is_retryable());
    world.heal();
    world.clock.advance(SECOND);
    assert_eq!(world.encrypts_under().await, 1);
}

#[tokio::test(start_paused = true)]
async fn t1_exhausted_no_answer_within_refresh_wait_uses_the_cached_key() {
    let world = four_wraps();
    wrap(&world, 4).await;
    world.faults().always(Fault::Hang);
    let begun = tokio::time::Instant::now();
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!(begun.elapsed(), SECOND / 5);
    assert_eq!(world.raised(Event::ExpiredKeyUsed), 1);
}

#[tokio::test(start_paused = true)]
async fn t1_exhausted_and_too_old_is_an_error() {
    let world = four_wraps();
    wrap(&world, 4).await;
    world.faults().always(DOWN);
    world.clock.advance(TOO_OLD - SECOND);
    assert_eq!(world.encrypts_under().await, 0);
    world.clock.advance(SECOND);
    assert!(world.encrypt_error().await.is_retryable());
}

#[tokio::test]
async fn t1_exhausted_denied_insert_is_an_error() {
    let world = four_wraps();
    wrap(&world, 4).await;
    world.faults().always_for(Operation::Insert, DENIED);
    assert!(!world.encrypt_error().await.is_retryable());
}

#[tokio::test]
async fn t1_exhausted_is_replaced_also_when_only_its_parents_check_is_due() {
    let world = four_wraps();
    world.session_of("bob").encrypt(b"makes the system key").await.unwrap();
    world.clock.advance(DUE - MINUTE);
    let at = seconds(DUE - MINUTE);
    for _ in 0..4 {
        assert_eq!(world.encrypts_under().await, at);
    }
    world.clock.advance(2 * MINUTE);
    assert_eq!(world.encrypts_under().await, seconds(DUE + MINUTE));
}

/// The row is read for another end: to see whether a later one stands in the way.
#[tokio::test(start_paused = true)]
async fn t1_revocation_read_by_the_look_for_rows_of_the_future_counts() {
    let world = World::new();
    world.sealed().await;
    world.revoke_latest(IK).await;
    world.clock.advance(STALE);
    world.faults().next(Operation::LoadLatestMany, Fault::Delay(SECOND));
    assert_ne!(world.encrypts_under().await, 0);
    world.revoke_latest(IK).await;
    tokio::time::sleep(2 * SECOND).await;
    world.faults().always(DOWN);
    world.encrypt_error().await;
}
