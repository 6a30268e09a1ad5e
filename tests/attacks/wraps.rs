//! The budget of wraps: counted anew with each load, so chance ends a key's life too.

use std::collections::BTreeMap;

use claviger::testing::SeededRandom;
use claviger::{Error, Event, KeyMeta};

use crate::forged::copy;
use crate::support::*;

const LIMIT: u64 = 1_000;

/// The most wraps under one key among so many, by a partition whose key is evicted after each few.
#[tokio::test]
async fn evictions_do_not_stretch_the_budget_of_wraps() {
    for turns in [1_u64, 20] {
        let world = World::over(
            Default::default(),
            claviger::testing::FixedClock::new(START.unsigned_abs()),
            |builder| {
                builder
                    .policy(policy().max_wraps_per_key(LIMIT))
                    .limits(room_for(1))
                    .random(SeededRandom::new(3))
            },
        );
        let mut wraps: BTreeMap<KeyMeta, u64> = BTreeMap::new();
        for _ in 0..20 * LIMIT / turns {
            for _ in 0..turns {
                let record = world.session().encrypt(b"x").await.unwrap();
                *wraps.entry(record.parent().unwrap().clone()).or_default() += 1;
            }
            // The other one's key takes the only place.
            world.session_of("bob").encrypt(b"x").await.unwrap();
            world.clock.advance(SECOND);
        }
        let most = wraps.values().max().unwrap();
        assert!(
            wraps.len() > 10 && *most < 8 * LIMIT,
            "{turns}: {} keys, {most} wraps at the most",
            wraps.len()
        );
    }
}

/// Nor do processes that are started again and again.
#[tokio::test]
async fn restarts_do_not_stretch_the_budget_of_wraps() {
    let home = World::new();
    let mut wraps: BTreeMap<KeyMeta, u64> = BTreeMap::new();
    for process in 0..200 {
        let world = World::over(home.store.inner().clone(), home.clock.clone(), |builder| {
            builder.policy(policy().max_wraps_per_key(LIMIT)).random(SeededRandom::new(process))
        });
        for _ in 0..50 {
            let record = world.session().encrypt(b"x").await.unwrap();
            *wraps.entry(record.parent().unwrap().clone()).or_default() += 1;
        }
        home.clock.advance(SECOND);
    }
    let most = wraps.values().max().unwrap();
    assert!(wraps.len() > 4 && *most < 6 * LIMIT, "{} keys, {most} wraps at the most", wraps.len());
}

/// Nor do copies of one key under many ids, which are refused.
#[tokio::test]
async fn partitions_share_no_key() {
    let world = World::with(policy().max_wraps_per_key(LIMIT));
    let row = world.sealed_row(IK).await;
    for number in 0..20 {
        let key = meta(&format!("_IK_v{number}_checkout_payments"), 0);
        world.put(copy(&row, key)).await;
        let error = world.session_of(&format!("v{number}")).encrypt(b"x").await.unwrap_err();
        assert!(matches!(error, Error::Authentication), "{error:?}");
    }
    assert_eq!(world.raised(Event::Tampered), 20);
}
