//! Rows in the far future, which would freeze rotation, or stop it once they are revoked.

use std::sync::Arc;

use claviger::{EnvelopeKeyRecord, Event, KeyId};

use crate::forged::copy;
use crate::support::*;

const FAR: i64 = 4_000_000_000 - START;

/// He copies both keys, re-parents the copy, and an operator revokes them later: keys are replaced as ever.
#[tokio::test]
async fn rows_in_the_far_future_freeze_no_rotation_and_their_revocation_stops_none() {
    let world = World::new();
    let row = world.sealed_row(IK).await;
    let system_key = world.latest_row(SK).await;
    world.put(copy(&system_key, meta(SK, FAR))).await;
    let far = EnvelopeKeyRecord::new(meta(IK, FAR), Arc::clone(row.wrapped_key()), Some(meta(SK, FAR)));
    world.put(far).await;
    let (mut age, mut last) = (std::time::Duration::ZERO, 0);
    for years in [0, 1, 5, 20] {
        let step = years * 365 * DAY + 2 * HOUR;
        world.clock.advance(step);
        age += step;
        let at = world.encrypts_under().await;
        assert!(at <= seconds(age) && at >= seconds(age - std::cmp::min(age, LIFE)), "{years} years: {at}");
        assert!(at > last || years == 0, "{years} years: {at}");
        last = at;
        world.at_rest().await;
    }
    // Both are told of, once, though keys were replaced three times.
    assert_eq!(world.raised(Event::ClockSkew), 2);
    for id in [IK, SK] {
        world.revoke_latest(id).await;
        world.factory.invalidate(&KeyId::new(id)).unwrap();
        assert_eq!(world.encrypts_under().await, last, "{id}: what is in use is not affected");
    }
    world.clock.advance(LIFE + DAY);
    assert_eq!(world.encrypts_under().await, (seconds(age + LIFE + DAY) / 60) * 60);
    let record = world.session_of("bob").encrypt(b"x").await.unwrap();
    assert_eq!(created(&record), (seconds(age + LIFE + DAY) / 60) * 60);
}
