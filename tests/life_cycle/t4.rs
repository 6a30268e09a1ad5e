//! T4: the bump rule. A key that replaces another sorts after it.

use std::sync::Arc;
use std::time::Duration;

use claviger::testing::{Fault, FixedClock, Operation};
use claviger::{EnvelopeKeyRecord, Error, Event, KeyId};

use crate::support::*;

#[tokio::test]
async fn t4_created_is_now_rounded_down() {
    for (precision, created) in [(1, 7_199), (60, 7_140), (3_600, 3_600)] {
        let midnight = START - START % 86_400 - START;
        let world = World::with(policy().creation_precision(Duration::from_secs(precision)));
        world.clock.advance(Duration::from_secs((86_400 + midnight + 7_199).unsigned_abs()));
        assert_eq!(world.encrypts_under().await, 86_400 + midnight + created, "{precision}");
    }
}

#[tokio::test]
async fn t4_same_precision_window_bumps_by_a_second() {
    let world = World::new();
    for expected in 0..5 {
        let other = world.other_process();
        other.clock.advance(SECOND);
        assert_eq!(other.encrypts_under().await, expected);
        other.revoke_latest(IK).await;
    }
    assert_eq!(world.row_times(IK).await, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn t4_later_window_needs_no_bump() {
    let world = World::new();
    world.sealed().await;
    world.revoke_latest(IK).await;
    let other = world.other_process();
    other.clock.advance(MINUTE + 59 * SECOND);
    assert_eq!(other.encrypts_under().await, 60);
}

#[tokio::test]
async fn t4_invalid_parent_bumps_both() {
    let world = World::new();
    world.sealed().await;
    world.revoke_latest(SK).await;
    assert_eq!(world.other_process().encrypts_under().await, 1);
    assert_eq!(world.row_times(SK).await, [0, 1]);
}

/// A world whose clock is `behind` that of the one who made alice's key.
async fn behind(behind: Duration) -> World {
    let home = World::over(Default::default(), FixedClock::new(START.unsigned_abs()), |builder| builder);
    home.clock.advance(behind);
    home.sealed().await;
    World::over(home.store.inner().clone(), FixedClock::new(START.unsigned_abs()), |builder| builder)
}

#[tokio::test]
async fn t4_latest_in_the_future_is_used() {
    for (ahead, alarm) in [(MINUTE, 0), (2 * MINUTE, 1), (12 * HOUR, 1), (DAY, 1)] {
        let world = behind(ahead).await;
        assert_eq!(world.encrypts_under().await, seconds(ahead));
        // The key and its parent lie ahead; the latter was not asked for as the latest.
        assert_eq!(world.raised(Event::ClockSkew), alarm, "{ahead:?}");
    }
}

#[tokio::test]
async fn t4_unusable_latest_in_the_future_is_bumped_by_a_second() {
    for ahead in [MINUTE, 12 * HOUR, DAY] {
        let world = behind(ahead).await;
        world.revoke_latest(IK).await;
        assert_eq!(world.encrypts_under().await, seconds(ahead) + 1);
    }
}

/// Told of once each: the key that is made in their place, and the look for what lies ahead, are not asked
/// for by anybody.
#[tokio::test]
async fn t4_rows_more_than_a_day_ahead_stand_in_nobodys_way_and_are_told_of_once() {
    for revoked in [None, Some(IK), Some(SK)] {
        let world = behind(DAY + 2 * MINUTE).await;
        if let Some(id) = revoked {
            world.revoke_latest(id).await;
        }
        let ahead = seconds(DAY + 2 * MINUTE);
        assert_eq!(world.encrypts_under().await, 0, "{revoked:?}");
        assert_eq!(world.row_times(IK).await, [0, ahead]);
        assert_eq!(world.row_times(SK).await, [0, ahead]);
        // As ever: it is replaced at its end, and whether or not it is revoked.
        world.revoke_latest_but_one(IK).await;
        world.factory.invalidate(&KeyId::new(IK)).unwrap();
        assert_eq!(world.encrypts_under().await, 1, "{revoked:?}");
        world.at_rest().await;
        assert_eq!(world.raised(Event::ClockSkew), 1, "{revoked:?}");
        world.revoke_latest_but_one(IK).await;
        world.factory.invalidate(&KeyId::new(IK)).unwrap();
        assert_eq!(world.encrypts_under().await, 2, "{revoked:?}");
        world.at_rest().await;
        assert_eq!(world.raised(Event::ClockSkew), 1, "{revoked:?}");
    }
}

#[tokio::test]
async fn t4_key_more_than_a_day_ahead_decrypts_what_names_it() {
    let home = World::new();
    home.clock.advance(30 * DAY);
    let (record, _) = home.sealed().await;
    let world =
        World::over(home.store.inner().clone(), FixedClock::new(START.unsigned_abs()), |builder| builder);
    for _ in 0..3 {
        world.decrypts(&record).await;
        // What is later than the latest is not taken for lost.
        assert_eq!(world.encrypts_under().await, 0);
        world.factory.invalidate_all().unwrap();
    }
    // The key and its parent.
    assert_eq!(world.raised(Event::ClockSkew), 2);
    assert_eq!(world.raised(Event::RowLost), 0);
}

/// Nor does a valid one wrapped under such a system key.
#[tokio::test]
async fn t4_key_under_a_system_key_more_than_a_day_ahead_encrypts_nothing() {
    let home = World::new();
    home.clock.advance(30 * DAY);
    let row = home.sealed_row(IK).await;
    let world =
        World::over(home.store.inner().clone(), FixedClock::new(START.unsigned_abs()), |builder| builder);
    world.delete(IK).await;
    let near = EnvelopeKeyRecord::new(meta(IK, 0), Arc::clone(row.wrapped_key()), row.parent().cloned());
    world.put(near).await;
    assert_eq!(world.encrypts_under().await, 1);
    assert_eq!(world.latest_row(IK).await.parent(), Some(&meta(SK, 0)));
}

/// The clock went back by a week: the keys it made since are as if they were not there, for encrypting.
#[tokio::test]
async fn t4_process_whose_clock_is_set_right_goes_on() {
    let home = World::new();
    home.clock.advance(7 * DAY);
    let (record, _) = home.sealed().await;
    let right =
        World::over(home.store.inner().clone(), FixedClock::new(START.unsigned_abs()), |builder| builder);
    assert_eq!(right.encrypts_under().await, 0);
    right.decrypts(&record).await;
    right.clock.advance(7 * DAY + MINUTE);
    assert_eq!(right.other_process().encrypts_under().await, seconds(7 * DAY));
}

#[tokio::test]
async fn t4_bumped_row_is_the_latest_for_everybody() {
    let world = World::new();
    world.sealed().await;
    world.revoke_latest(IK).await;
    let (one, other) = (world.other_process(), world.other_process());
    assert_eq!(one.encrypts_under().await, 1);
    assert_eq!(other.encrypts_under().await, 1);
    assert_eq!(world.row_times(IK).await, [0, 1]);
}

#[tokio::test]
async fn t4_system_key_from_the_future_may_be_younger_than_what_it_wraps() {
    let world = behind(12 * HOUR).await;
    world.delete(IK).await;
    assert_eq!(world.encrypts_under().await, 0);
    let row: EnvelopeKeyRecord = world.latest_row(IK).await;
    assert_eq!(row.parent(), Some(&meta(SK, seconds(12 * HOUR))));
}

/// A machine whose clock was never set says that, and of which key; not that a key lies ahead.
#[tokio::test]
async fn t4_no_key_is_made_while_now_rounds_down_to_the_beginning_of_1970() {
    let world = World::over(Default::default(), FixedClock::new(0), |builder| builder);
    match world.encrypt_error().await {
        error @ Error::ClockNotSet { .. } => {
            assert!(!error.is_retryable());
            assert_eq!(error.key_id().map(KeyId::as_str), Some(SK));
        }
        other => panic!("{other:?}"),
    }
    world.clock.advance(MINUTE);
    world.sealed().await;
}

/// What is to be replaced was a day ahead when it was read, and is more than that by now.
#[tokio::test]
async fn t4_clock_that_is_set_back_during_a_replacement_is_an_error() {
    let world = behind(DAY).await;
    world.revoke_latest(IK).await;
    world.faults().next(Operation::LoadLatest, Fault::Hang);
    let encrypt = spawn_encrypt(world.session());
    world.faults().until_hanging(1).await;
    world.clock.set_wall_back(2 * MINUTE);
    world.faults().release();
    let error = encrypt.await.unwrap().unwrap_err();
    assert!(matches!(&error, Error::ClockSkew(key) if *key == meta(IK, seconds(DAY))), "{error}");
    assert!(!error.is_retryable());
    assert_eq!(world.row_times(IK).await, [seconds(DAY)]);
}

/// The row of a revoked key was shredded within the minute in which it was created.
#[tokio::test]
async fn t4_no_key_is_made_under_the_name_of_one_that_is_known_to_be_revoked() {
    let world = World::with((policy(), room_for(1)));
    world.sealed().await;
    world.revoke_latest(IK).await;
    world.faults().next(Operation::Insert, DENIED);
    world.factory.invalidate(&KeyId::new(IK)).unwrap();
    world.encrypt_error().await;
    world.delete(IK).await;
    world.factory.shredded(&KeyId::new(IK)).unwrap();
    // The name is all that is left of it.
    world.session_of("bob").encrypt(b"").await.unwrap();
    assert_eq!(world.encrypts_under().await, 1);
    world.clock.advance(STALE);
    assert_eq!((world.encrypts_under().await, world.raised(Event::Unrevoked)), (1, 0));
}
