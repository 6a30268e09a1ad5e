//! T1: which key encrypts, by the age of what is known of it, and near its end.

use std::time::Duration;

use claviger::testing::{Fault, FixedClock, Operation};
use claviger::{DataRowRecord, Error, Event, Limits};

use crate::support::*;

#[tokio::test]
async fn t1_fresh_makes_no_call() {
    let world = World::new();
    world.sealed().await;
    let before = world.calls();
    world.revoke_latest(IK).await;
    world.clock.advance(DUE - SECOND);
    assert_eq!(world.encrypts_under().await, 0);
    world.landed().await;
    assert_eq!(world.calls(), before);
}

#[tokio::test]
async fn t1_due_refreshes_in_the_background_without_a_kms_call() {
    let world = World::new();
    world.sealed().await;
    let before = world.calls();
    world.clock.advance(DUE);
    assert_eq!(world.encrypts_under().await, 0);
    world.landed().await;
    let both_rows = Calls { load: 1, load_latest: 1, ..Calls::default() };
    assert_eq!(world.calls() - before, both_rows);
    world.clock.advance(DUE - SECOND);
    assert_eq!(world.encrypts_under().await, 0);
    world.landed().await;
    assert_eq!(world.calls() - before, both_rows, "fresh again");
}

#[tokio::test]
async fn t1_due_starts_one_refresh_and_waits_for_none() {
    let world = World::new();
    world.sealed().await;
    let before = world.calls();
    world.faults().always(Fault::Hang);
    world.clock.advance(STALE - SECOND);
    for _ in 0..10 {
        assert_eq!(world.encrypts_under().await, 0);
    }
    world.faults().until_hanging(1).await;
    assert_eq!(world.calls() - before, Calls { load_latest: 1, ..Calls::default() });
    world.heal();
    world.landed().await;
}

#[tokio::test]
async fn t1_due_refresh_learns_of_a_revocation() {
    for id in [IK, SK] {
        let world = World::new();
        world.sealed().await;
        world.revoke_latest(id).await;
        world.clock.advance(DUE);
        assert_eq!(world.encrypts_under().await, 0);
        world.landed().await;
        assert_eq!(world.encrypts_under().await, seconds(DUE));
    }
}

#[tokio::test(start_paused = true)]
async fn t1_due_failure_of_the_refresh_is_an_event() {
    let world = World::new();
    world.sealed().await;
    world.faults().always(DENIED);
    world.clock.advance(DUE);
    assert_eq!(world.encrypts_under().await, 0);
    world.landed().await;
    assert_eq!(world.raised(Event::RefreshFailed), 1);
    assert_eq!(world.encrypts_under().await, 0);
    world.landed().await;
    assert_eq!(world.raised(Event::RefreshFailed), 1, "asked again after a second only");
}

#[tokio::test]
async fn t1_due_skips_the_refresh_when_the_permits_are_out() {
    let limits = Limits::production().max_background_refreshes(1);
    let world = World::over(Default::default(), FixedClock::new(START.unsigned_abs()), |builder| {
        builder.limits(limits)
    });
    world.sealed().await;
    world.session_of("bob").encrypt(b"").await.unwrap();
    world.clock.advance(DUE);
    world.faults().always(Fault::Hang);
    let before = world.calls();
    world.encrypts_under().await;
    world.faults().until_hanging(1).await;
    world.session_of("bob").encrypt(b"").await.unwrap();
    tokio::task::yield_now().await;
    assert_eq!(world.calls() - before, Calls { load_latest: 1, ..Calls::default() });
    world.heal();
    world.landed().await;
}

#[tokio::test(start_paused = true)]
async fn t1_due_with_the_breaker_open_starts_no_refresh() {
    let world = World::new();
    world.sealed().await;
    world.clock.advance(DUE);
    world.faults().always(DOWN);
    for partition in ["bob", "carol"] {
        world.session_of(partition).encrypt(b"").await.unwrap_err();
    }
    assert!(world.factory.status().unwrap().metastore_down);
    assert_eq!(world.encrypts_under().await, 0);
    world.landed().await;
    assert_eq!(world.raised(Event::RefreshFailed), 0);
}

#[tokio::test]
async fn t1_stale_parent_alone_found_revoked_is_replaced_with_the_key() {
    let world = World::new();
    world.session_of("bob").encrypt(b"makes the system key").await.unwrap();
    world.clock.advance(DUE - MINUTE);
    assert_eq!(world.encrypts_under().await, seconds(DUE - MINUTE));
    world.revoke_latest(SK).await;
    world.clock.advance(STALE - DUE + MINUTE);
    assert_eq!(world.encrypts_under().await, seconds(STALE));
    assert_eq!(world.latest_row(IK).await.parent(), Some(&meta(SK, seconds(STALE))));
}

#[tokio::test]
async fn t1_stale_uses_what_the_store_says_is_latest() {
    let world = World::new();
    world.sealed().await;
    world.revoke_latest(IK).await;
    assert_eq!(world.other_process().encrypts_under().await, 1);
    world.clock.advance(STALE);
    assert_eq!(world.encrypts_under().await, 1);
}

#[tokio::test]
async fn t1_stale_unchanged_makes_no_kms_call_and_is_fresh_again() {
    let world = World::new();
    world.sealed().await;
    let before = world.calls();
    world.clock.advance(TOO_OLD - SECOND);
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!(world.calls() - before, Calls { load: 1, load_latest: 1, ..Calls::default() });
}

#[tokio::test]
async fn t1_stale_with_none_valid_creates() {
    for id in [IK, SK] {
        let world = World::new();
        world.sealed().await;
        world.revoke_latest(id).await;
        world.clock.advance(STALE);
        assert_eq!(world.encrypts_under().await, seconds(STALE));
    }
}

#[tokio::test(start_paused = true)]
async fn t1_stale_failure_uses_the_cached_key() {
    for fault in [DOWN, DENIED] {
        let world = World::new();
        world.sealed().await;
        world.clock.advance(STALE);
        world.faults().always(fault);
        assert_eq!(world.encrypts_under().await, 0);
        assert_eq!(world.raised(Event::Stale), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn t1_stale_no_answer_within_refresh_wait_uses_the_cached_key() {
    let world = World::new();
    world.sealed().await;
    world.clock.advance(STALE);
    world.faults().always(Fault::Hang);
    let begun = tokio::time::Instant::now();
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!(begun.elapsed(), SECOND / 5);
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!(begun.elapsed(), SECOND / 5, "at once, for the next second");
    assert_eq!(world.raised(Event::Stale), 2);
}

#[tokio::test(start_paused = true)]
async fn t1_stale_failed_less_than_a_second_ago_is_at_once() {
    let world = World::new();
    world.sealed().await;
    world.clock.advance(STALE);
    world.faults().always(DENIED);
    assert_eq!(world.encrypts_under().await, 0);
    let before = world.calls();
    world.clock.advance(SECOND - Duration::from_nanos(2));
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!(world.calls(), before);
    world.clock.advance(Duration::from_nanos(2));
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!(world.calls() - before, Calls { load_latest: 1, ..Calls::default() });
}

#[tokio::test(start_paused = true)]
async fn t1_stale_with_the_breaker_open_is_at_once() {
    let world = World::new();
    world.sealed().await;
    world.clock.advance(STALE);
    world.faults().always(DOWN);
    for partition in ["bob", "carol"] {
        world.session_of(partition).encrypt(b"").await.unwrap_err();
    }
    assert!(world.factory.status().unwrap().metastore_down);
    let before = world.calls();
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!(world.calls(), before);
}

#[tokio::test(start_paused = true)]
async fn t1_stale_ends_at_interval_and_max_stale_encrypt() {
    let world = World::new();
    world.sealed().await;
    world.faults().always(DOWN);
    world.clock.advance(TOO_OLD - SECOND);
    assert_eq!(world.encrypts_under().await, 0);
    world.clock.advance(SECOND);
    assert!(world.encrypt_error().await.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn t1_too_old_waits_for_the_flight() {
    let world = World::new();
    world.sealed().await;
    world.clock.advance(TOO_OLD);
    world.faults().always(Fault::Delay(SECOND));
    assert_eq!(world.encrypts_under().await, 0);
}

#[tokio::test(start_paused = true)]
async fn t1_too_old_waits_up_to_the_operations_deadline() {
    let world = World::new();
    world.sealed().await;
    world.clock.advance(TOO_OLD);
    world.faults().always_for(Operation::LoadLatest, Fault::Hang);
    let begun = tokio::time::Instant::now();
    assert!(world.encrypt_error().await.is_retryable());
    assert!(begun.elapsed() <= 10 * SECOND && begun.elapsed() > SECOND, "{:?}", begun.elapsed());
    world.heal();
    world.clock.advance(SECOND);
    assert_eq!(world.encrypts_under().await, 0);
}

#[tokio::test]
async fn t1_from_95_percent_replaced_in_background_sk_first() {
    let world = World::new();
    world.sealed().await;
    world.clock.advance(LIFE / 100 * 95 - SECOND);
    world.encrypts_under().await;
    assert_eq!(world.encrypts_under().await, 0);
    world.landed().await;
    assert_eq!(world.row_times(IK).await, [0], "not before 95 %");

    // The last possible moment of the jitter.
    world.clock.advance(LIFE / 100 * 4);
    world.encrypts_under().await;
    world.landed().await;
    let before = world.faults().calls();
    assert_eq!(world.encrypts_under().await, 0, "nobody waits");
    world.landed().await;
    let now = seconds(LIFE / 100 * 99) / 60 * 60;
    let now = if seconds(LIFE / 100 * 99) % 60 == 0 { now - 60 } else { now };
    assert_eq!((world.row_times(SK).await, world.row_times(IK).await), (vec![0, now], vec![0, now]));
    assert_eq!(world.latest_row(IK).await.parent(), Some(&meta(SK, now)));
    let log = world.faults().log();
    let inserts: Vec<_> = log[before..].iter().filter(|call| call.operation == Operation::Insert).collect();
    assert!(
        inserts.len() == 2 && inserts[0].key.starts_with(SK) && inserts[1].key.starts_with(IK),
        "{inserts:?}"
    );
    assert_eq!(world.encrypts_under().await, now);
}

#[tokio::test]
async fn t1_from_95_percent_the_moment_is_jittered_per_key() {
    let world = World::new();
    let partitions: Vec<_> = (0..20).map(|number| format!("customer-{number}")).collect();
    world.session_of("first").encrypt(b"makes the system key").await.unwrap();
    world.clock.advance(DAY);
    for partition in &partitions {
        world.session_of(partition).encrypt(b"").await.unwrap();
    }
    // A system key that has just been made, so that the partitions' own jitter shows.
    world.revoke_latest(SK).await;
    world.clock.advance(HOUR);
    for partition in &partitions {
        world.session_of(partition).encrypt(b"").await.unwrap();
    }
    let replaced_at = |percent: u32| LIFE / 100 * percent;
    world.clock.advance(replaced_at(97));
    for partition in &partitions {
        for _ in 0..2 {
            world.session_of(partition).encrypt(b"").await.unwrap();
            world.landed().await;
        }
    }
    let mut replaced = 0;
    for partition in &partitions {
        replaced += usize::from(world.rows(&format!("_IK_{partition}_checkout_payments")).await.len() == 3);
    }
    assert!((1..20).contains(&replaced), "some now, some later: {replaced}");
}

#[tokio::test]
async fn t1_from_95_percent_replaced_also_when_checked_on_every_call() {
    let world = World::with(policy().revoke_check_interval(Duration::ZERO));
    world.sealed().await;
    world.clock.advance(LIFE / 100 * 99);
    world.encrypts_under().await;
    assert_eq!(world.encrypts_under().await, 0, "nobody waits");
    world.landed().await;
    assert_ne!(world.encrypts_under().await, 0);
}

#[tokio::test(start_paused = true)]
async fn t1_from_95_percent_failure_of_the_replacement_harms_nobody() {
    let world = World::new();
    world.sealed().await;
    world.clock.advance(LIFE / 100 * 99);
    world.encrypts_under().await;
    world.landed().await;
    world.faults().always_for(Operation::Insert, DENIED);
    for _ in 0..5 {
        assert_eq!(world.encrypts_under().await, 0);
        world.landed().await;
        world.clock.advance(STALE);
    }
    assert!(world.raised(Event::RefreshFailed) > 0);
    assert_eq!(world.raised(Event::Stale), 0, "the checks go on");
}

#[tokio::test]
async fn t1_lost_row_is_not_used_while_no_other_can_be_created() {
    for id in [IK, SK] {
        let world = World::new();
        world.sealed().await;
        world.delete(id).await;
        world.clock.advance(STALE);
        world.faults().always_for(Operation::Insert, DENIED);
        world.encrypt_error().await;
        world.clock.advance(SECOND);
        world.encrypt_error().await;
        world.heal();
        world.clock.advance(SECOND);
        let (record, created) = world.sealed().await;
        assert_ne!(created, 0);
        world.other_process().decrypts(&record).await;
    }
}

#[tokio::test]
async fn t1_lost_latest_row_is_not_used_though_an_older_one_is_left() {
    let world = World::new();
    world.sealed().await;
    world.revoke_latest(IK).await;
    let older = world.latest_row(IK).await;
    world.clock.advance(STALE);
    assert_eq!(world.encrypts_under().await, seconds(STALE));
    world.delete(IK).await;
    world.put(older).await;
    world.clock.advance(STALE);
    world.faults().always_for(Operation::Insert, DENIED);
    world.encrypt_error().await;
    world.heal();
    assert_eq!(world.encrypts_under().await, seconds(2 * STALE));
}

#[tokio::test]
async fn t1_other_versions_trouble_does_not_keep_the_latest_from_being_checked() {
    let world = World::new();
    let (record, _) = world.sealed().await;
    let text = record.to_json().replace(&START.to_string(), &(START - 60).to_string());
    let of_no_key = DataRowRecord::from_json(text.as_bytes()).unwrap();
    world.revoke_latest(IK).await;
    world.clock.advance(DUE);
    for _ in 0..3 {
        assert!(matches!(world.decrypt_error(&of_no_key).await, Error::KeyNotFound(_)));
        world.clock.advance(SECOND);
    }
    assert!(matches!(world.decrypt_error(&of_no_key).await, Error::KeyNotFound(_)));
    assert_eq!(world.encrypts_under().await, 0);
    world.landed().await;
    assert_ne!(world.encrypts_under().await, 0, "it was checked in the background");
}

/// Refreshes fail or hang, in the background first and time and again: no key lives a second longer for that.
#[tokio::test(start_paused = true)]
async fn s2_8_background_work_that_fails_extends_no_bound() {
    for fault in [DOWN, DENIED, Fault::Hang] {
        let world = World::new();
        let (record, _) = world.sealed().await;
        world.outage(fault);
        world.clock.advance(DUE);
        for _minute in DUE.as_secs() / 60..TOO_OLD.as_secs() / 60 {
            assert_eq!(world.encrypts_under().await, 0, "{fault:?}");
            world.decrypts(&record).await;
            world.clock.advance(MINUTE);
        }
        assert!(world.raised(Event::RefreshFailed) > 0 || fault == Fault::Hang, "{fault:?}");
        assert_eq!(world.encrypts_under().await, 0, "{fault:?}");
        world.clock.advance(SECOND);
        assert_eq!(world.encrypt_error().await.is_retryable(), fault != DENIED, "{fault:?}");
    }
}
