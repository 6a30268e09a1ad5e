//! T5: which key decrypts.

use std::time::Duration;

use claviger::testing::{Fault, FixedClock, Operation};
use claviger::{DataRowRecord, Error, Event, ReadableSuffixes, RevokedDecrypt};

use crate::support::*;

/// A record and a world that has cached nothing yet.
async fn cold() -> (World, DataRowRecord) {
    let home = World::new();
    let (record, _) = home.sealed().await;
    (home.other_process(), record)
}

/// A record and a world that has cached its key for decrypting.
async fn warm() -> (World, DataRowRecord) {
    let (world, record) = cold().await;
    world.decrypts(&record).await;
    world.faults().reset();
    world.kms.faults().reset();
    (world, record)
}

#[tokio::test]
async fn t5_malformed_record_is_refused_before_any_call() {
    let (world, record) = cold().await;
    let (session, json) = (world.session(), record.to_json());
    let created = format!("\"Created\":{START}}}");
    let parent = json.split_once("\"ParentKeyMeta\":").unwrap().1.split_once('}').unwrap().0;
    let wrapped_key = json.split_once("\"Key\":\"").unwrap().1.split_once('"').unwrap().0;
    let data = json.split_once("\"Data\":\"").unwrap().1.split_once('"').unwrap().0;
    let key = json.split_once("\"Key\":{").unwrap().1.split_once("}}").unwrap().0;
    for (case, json) in [
        ("no key", edited(&record, &format!("\"Key\":{{{key}}}}},"), "")),
        ("no wrapped key", edited(&record, &format!("\"Key\":\"{wrapped_key}\","), "")),
        ("no parent meta", edited(&record, &format!(",\"ParentKeyMeta\":{parent}}}"), "")),
        ("parent Created 0", edited(&record, &created, "\"Created\":0}")),
        ("parent Created negative", edited(&record, &created, "\"Created\":-1}")),
        ("wrapped key not base64", edited(&record, wrapped_key, "%%%%")),
        ("data not base64", edited(&record, data, "A")),
        ("wrapped key too short", edited(&record, wrapped_key, &wrapped_key[..76])),
        ("data too short", edited(&record, data, &data[..36])),
        ("no JSON", "{".to_owned()),
    ] {
        let error = session.decrypt_json(json.as_bytes()).await.unwrap_err();
        assert!(matches!(error, Error::MalformedRecord(_)), "{case}: {error}");
        assert!(!error.is_retryable());
    }
    assert_eq!(world.calls(), Calls::default());
    session.decrypt_json(json.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn t5_foreign_record_is_refused_before_any_call() {
    let (world, record) = cold().await;
    for id in [
        "_IK_bob_checkout_payments",
        "_IK_alice_checkout_payments2",
        "_IK_alice_checkout_payment",
        "_IK_alice_checkout_payments_us-west-2",
        "_IK_ALICE_checkout_payments",
        "_SK_checkout_payments",
        "",
    ] {
        let json = edited(&record, IK, id);
        let error = world.session().decrypt_json(json.as_bytes()).await.unwrap_err();
        assert!(matches!(error, Error::ForeignRecord), "{id}: {error}");
        assert!(!error.is_retryable());
    }
    assert_eq!(world.calls(), Calls::default());
}

fn with_policy(rows: &World, what: RevokedDecrypt) -> World {
    World::over(rows.store.inner().clone(), rows.clock.clone(), |builder| {
        builder.policy(policy().revoked_decrypt(what))
    })
}

#[tokio::test]
async fn t5_revoked_allow_goes_on() {
    for id in [IK, SK] {
        let (home, record) = cold().await;
        home.revoke_latest(id).await;
        let world = with_policy(&home, RevokedDecrypt::Allow);
        world.decrypts(&record).await;
        let before = world.calls();
        world.decrypts(&record).await;
        assert_eq!(world.calls(), before);
        assert_eq!(world.raised(Event::RevokedDecrypt), 0);
    }
}

#[tokio::test]
async fn t5_revoked_warn_goes_on_with_one_event_each() {
    for id in [IK, SK] {
        let (home, record) = cold().await;
        home.revoke_latest(id).await;
        let world = with_policy(&home, RevokedDecrypt::Warn);
        for (warned, age) in
            [Duration::ZERO, Duration::ZERO, DUE, STALE, TOO_OLD_TO_DECRYPT].into_iter().enumerate()
        {
            world.clock.advance(age);
            world.decrypts(&record).await;
            world.landed().await;
            assert_eq!(world.raised(Event::RevokedDecrypt), warned as u64 + 1, "{id} {age:?}");
        }
    }
}

#[tokio::test]
async fn t5_revoked_deny_is_asked_after_a_load() {
    for id in [IK, SK] {
        let (home, record) = cold().await;
        home.revoke_latest(id).await;
        let world = with_policy(&home, RevokedDecrypt::Deny);
        for _ in 0..2 {
            let error = world.decrypt_error(&record).await;
            assert!(matches!(&error, Error::KeyRevoked(key) if *key == meta(IK, 0)), "{error}");
            assert!(!error.is_retryable());
        }
    }
}

#[tokio::test]
async fn t5_revoked_deny_is_asked_of_a_cached_key_without_a_call() {
    for id in [IK, SK] {
        let (home, record) = cold().await;
        let world = with_policy(&home, RevokedDecrypt::Deny);
        world.decrypts(&record).await;
        home.revoke_latest(id).await;
        world.decrypts(&record).await;
        world.clock.advance(STALE);
        assert!(matches!(world.decrypt_error(&record).await, Error::KeyRevoked(_)), "learned by the refresh");
        let before = world.calls();
        world.clock.advance(TOO_OLD_TO_DECRYPT);
        assert!(matches!(world.decrypt_error(&record).await, Error::KeyRevoked(_)));
        assert_eq!(world.calls(), before);
    }
}

#[tokio::test]
async fn t5_revoked_is_sticky_through_eviction() {
    let (home, record) = cold().await;
    let unrevoked = home.latest_row(IK).await;
    home.revoke_latest(IK).await;
    let policy = policy().revoked_decrypt(RevokedDecrypt::Deny);
    let world = World::over(home.store.inner().clone(), home.clock.clone(), |builder| {
        builder.policy(policy).limits(room_for(1))
    });
    let session = world.session();
    session.decrypt(&record).await.unwrap_err();
    world.session_of("bob").encrypt(b"takes the place").await.unwrap();
    world.put(unrevoked).await;
    assert!(matches!(session.decrypt(&record).await, Err(Error::KeyRevoked(_))));
    assert_eq!(world.raised(Event::Unrevoked), 1);
}

#[tokio::test]
async fn t5_expired_keys_decrypt() {
    let (world, record) = cold().await;
    world.clock.advance(100 * LIFE);
    world.decrypts(&record).await;
    assert_eq!(world.rows(IK).await.len(), 1);
}

#[tokio::test]
async fn t5_fresh_makes_no_call() {
    let (world, record) = warm().await;
    world.delete(IK).await;
    world.clock.advance(DUE - SECOND);
    world.decrypts(&record).await;
    world.landed().await;
    assert_eq!(world.calls(), Calls::default());
}

#[tokio::test]
async fn t5_due_refreshes_in_the_background_without_a_kms_call() {
    let (world, record) = warm().await;
    world.clock.advance(DUE);
    world.decrypts(&record).await;
    assert_eq!(world.calls(), Calls::default(), "not waited for");
    world.landed().await;
    assert_eq!(world.calls(), Calls { load: 2, ..Calls::default() });
    world.clock.advance(DUE - SECOND);
    world.decrypts(&record).await;
    world.landed().await;
    assert_eq!(world.calls(), Calls { load: 2, ..Calls::default() });
}

#[tokio::test(start_paused = true)]
async fn t5_stale_failure_or_no_answer_uses_the_cached_key() {
    for (fault, wait) in [(DOWN, None), (DENIED, None), (Fault::Hang, Some(SECOND / 5))] {
        let (world, record) = warm().await;
        world.clock.advance(STALE);
        world.faults().always(fault);
        let begun = tokio::time::Instant::now();
        world.decrypts(&record).await;
        assert!(wait.is_none_or(|wait| begun.elapsed() == wait), "{:?}", begun.elapsed());
        let before = world.calls();
        world.decrypts(&record).await;
        assert_eq!(world.calls(), before, "at once, for the next second");
        assert_eq!(world.raised(Event::Stale), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn t5_stale_ends_at_interval_and_max_stale_decrypt() {
    let (world, record) = warm().await;
    world.faults().always(DOWN);
    world.clock.advance(TOO_OLD_TO_DECRYPT - SECOND);
    world.decrypts(&record).await;
    world.clock.advance(SECOND);
    assert!(world.decrypt_error(&record).await.is_retryable());
    world.heal();
    world.clock.advance(SECOND);
    world.decrypts(&record).await;
}

#[tokio::test]
async fn t5_row_gone_drops_the_key() {
    for id in [IK, SK] {
        let (world, record) = warm().await;
        world.delete(id).await;
        world.clock.advance(STALE);
        let error = world.decrypt_error(&record).await;
        assert!(matches!(&error, Error::KeyNotFound(key) if *key == meta(id, 0)), "{error}");
        assert!(!error.is_retryable());
        let status = world.factory.status().unwrap();
        assert_eq!(status.intermediate_keys, 0, "{id}");
        assert_eq!(status.system_keys, usize::from(id == IK));
    }
}

#[tokio::test]
async fn t5_row_gone_is_learned_in_the_background() {
    for id in [IK, SK] {
        let (world, record) = warm().await;
        world.delete(id).await;
        world.clock.advance(DUE);
        world.decrypts(&record).await;
        world.landed().await;
        assert!(matches!(world.decrypt_error(&record).await, Error::KeyNotFound(_)));
    }
}

#[tokio::test]
async fn t5_not_cached_loads_exactly_the_version_and_the_parent_it_names() {
    let home = World::new();
    let (first, _) = home.sealed().await;
    home.revoke_latest(SK).await;
    let (second, _) = home.other_process().sealed().await;
    assert_eq!((created(&first), created(&second)), (0, 1));
    for (record, version) in [(first, 0), (second, 1)] {
        let world = home.other_process();
        world.decrypts(&record).await;
        let asked: Vec<_> = world.faults().log().into_iter().map(|call| (call.operation, call.key)).collect();
        assert_eq!(asked, [IK, SK].map(|id| (Operation::Load, meta(id, version).to_string())));
        assert_eq!(world.calls().unwrap, 1);
    }
}

#[tokio::test]
async fn t5_not_cached_fails_as_the_kms_does() {
    for (fault, is_retryable) in [(DOWN, true), (DENIED, false)] {
        let (world, record) = cold().await;
        world.kms.faults().always(fault);
        assert_eq!(world.decrypt_error(&record).await.is_retryable(), is_retryable);
        world.heal();
        world.clock.advance(SECOND);
        world.decrypts(&record).await;
    }
}

#[tokio::test]
async fn t5_missing_is_remembered_for_a_second_and_a_young_one_for_a_tenth_of_it() {
    let five_minutes = seconds(5 * MINUTE);
    for (since_start, held) in [
        (-five_minutes - 2, SECOND),
        (-five_minutes, SECOND / 10),
        (0, SECOND / 10),
        (7, SECOND / 10),
        (seconds(DAY), SECOND / 10),
    ] {
        let (world, record) = warm().await;
        let missing = of_version(&record, since_start + 1);
        for _ in 0..5 {
            let error = world.decrypt_error(&missing).await;
            assert!(
                matches!(&error, Error::KeyNotFound(key) if *key == meta(IK, since_start + 1)),
                "{error}"
            );
        }
        world.clock.advance(held - Duration::from_nanos(1));
        world.decrypt_error(&missing).await;
        assert_eq!(world.calls(), Calls { load: 1, ..Calls::default() }, "{since_start}");
        world.decrypts(&record).await;
        world.clock.advance(Duration::from_nanos(1));
        world.decrypt_error(&missing).await;
        assert_eq!(world.calls(), Calls { load: 2, ..Calls::default() }, "{since_start}");
    }
}

/// It is asked for again as soon as another process may have inserted it.
#[tokio::test]
async fn t5_missing_young_version_that_appears_is_found_within_a_tenth_of_a_second() {
    let (world, record) = cold().await;
    let row = world.latest_row(IK).await;
    world.delete(IK).await;
    world.decrypt_error(&record).await;
    world.put(row).await;
    world.clock.advance(SECOND / 10);
    world.decrypts(&record).await;
}

#[tokio::test]
async fn t5_missing_parent_is_remembered_for_a_second() {
    let (world, record) = cold().await;
    world.delete(SK).await;
    world.decrypt_error(&record).await;
    world.decrypt_error(&record).await;
    assert_eq!(world.calls_for(Operation::Load, SK), 1);
}

#[tokio::test]
async fn t5_missing_is_forgotten_by_our_own_insert_and_never_kept_for_the_latest() {
    let (world, record) = warm().await;
    world.decrypt_error(&of_version(&record, 1)).await;
    world.revoke_latest(IK).await;
    let (second, created) = world.sealed().await;
    assert_eq!(created, 1);
    world.decrypts(&second).await;
    assert_eq!(world.factory.status().unwrap().intermediate_keys, 2);
}

#[tokio::test]
async fn t5_missing_is_forgotten_by_our_own_insert_also_when_the_key_is_evicted() {
    let (home, record) = cold().await;
    let world =
        World::over(home.store.inner().clone(), home.clock.clone(), |builder| builder.limits(room_for(1)));
    world.decrypt_error(&of_version(&record, 1)).await;
    world.revoke_latest(IK).await;
    let (second, created) = world.sealed().await;
    assert_eq!(created, 1);
    world.session_of("bob").encrypt(b"takes the place").await.unwrap();
    world.decrypts(&second).await;
}

#[tokio::test]
async fn t5_late_not_found_does_not_undo_our_own_insert() {
    let (world, record) = warm().await;
    let early = of_version(&record, 1);
    world.revoke_latest(IK).await;
    world.faults().next(Operation::Load, Fault::HangReply);
    let decrypt = tokio::spawn({
        let session = world.session();
        async move { session.decrypt(&early).await.map(drop) }
    });
    world.faults().until_hanging(1).await;
    world.clock.advance(Duration::from_millis(1));
    let (second, created) = world.sealed().await;
    assert_eq!(created, 1);
    world.faults().release();
    // Not its record: it is the right key that refuses.
    assert!(matches!(decrypt.await.unwrap(), Err(Error::Authentication)));
    let before = world.calls();
    world.decrypts(&second).await;
    assert_eq!(world.encrypts_under().await, 1);
    assert_eq!(world.calls(), before);
    assert_eq!(world.raised(Event::RowLost), 0, "and it was never lost");
}

#[tokio::test]
async fn t5_tag_wrong_says_authentication_and_nothing_more() {
    let (world, record) = warm().await;
    let json = record.to_json();
    let data = json.split_once("\"Data\":\"").unwrap().1;
    let other = if data.starts_with('A') { "B" } else { "A" };
    let forged = format!("{}\"Data\":\"{other}{}", json.split_once("\"Data\":\"").unwrap().0, &data[1..]);
    let error = world.session().decrypt_json(forged.as_bytes()).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.is_retryable()), ("authentication failed", false));
    assert!(std::error::Error::source(&error).is_none());
    assert_eq!(world.factory.status().unwrap().events, []);
    assert_eq!(world.calls(), Calls::default());
}

fn in_region(rows: &World, suffix: &str, readable: ReadableSuffixes) -> World {
    World::over(rows.store.inner().clone(), rows.clock.clone(), |builder| {
        builder.region_suffix(suffix).readable_suffixes(readable)
    })
}

#[tokio::test]
async fn t5_suffix_reads_across_regions_and_encrypts_under_its_own() {
    let without = World::new();
    let (bare, _) = without.sealed().await;
    let west = in_region(&without, "us-west-2", ReadableSuffixes::Any);
    west.clock.advance(DAY);
    let (western, _) = west.sealed().await;
    assert_eq!(western.parent().unwrap().id().as_str(), "_IK_alice_checkout_payments_us-west-2");
    let east = in_region(&without, "us-east-1", ReadableSuffixes::Any);
    for record in [&bare, &western] {
        east.decrypts(record).await;
        east.decrypts(record).await;
    }
    assert_eq!(east.calls().insert, 0);
    let (eastern, _) = east.sealed().await;
    assert_eq!(eastern.parent().unwrap().id().as_str(), "_IK_alice_checkout_payments_us-east-1");
    let row = east.latest_row("_IK_alice_checkout_payments_us-east-1").await;
    assert_eq!(row.parent().unwrap().id().as_str(), "_SK_checkout_payments_us-east-1");
    west.decrypts(&eastern).await;
    // One without a suffix reads its own only.
    assert!(matches!(without.decrypt_error(&western).await, Error::ForeignRecord));
}

#[tokio::test]
async fn t5_suffix_not_readable_is_foreign() {
    let home = World::new();
    let (western, _) = in_region(&home, "us-west-2", ReadableSuffixes::Any).sealed().await;
    let only = |list: &[&str]| ReadableSuffixes::Only(list.iter().map(ToString::to_string).collect());
    let east = in_region(&home, "us-east-1", only(&["eu-west-1"]));
    assert!(matches!(east.decrypt_error(&western).await, Error::ForeignRecord));
    in_region(&home, "us-east-1", only(&["us-west-2"])).decrypts(&western).await;
}

#[tokio::test]
async fn t5_other_regions_key_under_a_parent_of_this_one_is_refused() {
    let home = World::new();
    let west = in_region(&home, "us-west-2", ReadableSuffixes::Any);
    let (western, _) = west.sealed().await;
    let row = west.latest_row("_IK_alice_checkout_payments_us-west-2").await;
    let parent = meta("_SK_checkout_payments_us-east-1", 0);
    home.put(claviger::EnvelopeKeyRecord::new(row.meta().clone(), row.wrapped_key().to_vec(), Some(parent)))
        .await;
    let east = in_region(&home, "us-east-1", ReadableSuffixes::Any);
    assert!(matches!(east.decrypt_error(&western).await, Error::ForeignParent { .. }));
    assert_eq!(east.raised(Event::ForeignParent), 1);
}

#[tokio::test]
async fn t5_same_created_in_two_regions_are_two_keys() {
    let clock = FixedClock::new(START.unsigned_abs());
    let home = World::over(Default::default(), clock, |builder| builder);
    let (west, east) = (
        in_region(&home, "us-west-2", ReadableSuffixes::Any),
        in_region(&home, "us-east-1", ReadableSuffixes::Any),
    );
    let ((western, at_west), (eastern, at_east)) = (west.sealed().await, east.sealed().await);
    assert_eq!(at_west, at_east);
    for world in [west, east] {
        world.decrypts(&western).await;
        world.decrypts(&eastern).await;
    }
}
