//! T4: the bump rule. A key that replaces another sorts after it.

use std::time::Duration;

use claviger::testing::FixedClock;
use claviger::{EnvelopeKeyRecord, Error, Event};

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
    for (ahead, alarm) in [(MINUTE, 0), (2 * MINUTE, 1), (12 * HOUR, 1), (30 * DAY, 1)] {
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

#[tokio::test]
async fn t4_more_than_a_day_ahead_is_refused() {
    for id in [IK, SK] {
        let world = behind(DAY + MINUTE).await;
        world.revoke_latest(id).await;
        let before = world.row_times(IK).await;
        let error = world.encrypt_error().await;
        assert!(matches!(&error, Error::ClockSkew(key) if key.id().as_str() == id), "{error}");
        assert!(!error.is_retryable());
        assert!(world.raised(Event::ClockSkew) > 0);
        assert_eq!(world.row_times(IK).await, before);
        assert_eq!(world.calls().insert, 0);
    }
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
