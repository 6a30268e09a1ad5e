//! T2: what a flight makes of the latest record.

use claviger::testing::{Fault, Operation, ReplaceOne as _, call};
use claviger::{
    DataRowRecord, EnvelopeKeyRecord, Error, Event, FailureClass, KeyId, KeyManagementService, KeyMeta,
    Lifetime, MetastoreAdmin, SecretKey, StaticKms,
};

use crate::support::*;

/// A world with alice's key in the store and nothing cached.
async fn cold() -> World {
    let home = World::new();
    home.sealed().await;
    home.other_process()
}

/// Asserts that encrypting fails with an error that `is_it`, and that no row was written.
async fn assert_fails_and_creates_nothing(world: &World, is_it: impl Fn(&Error) -> bool) {
    let before = world.store.inner().count(&call()).await.unwrap();
    let error = world.encrypt_error().await;
    assert!(is_it(&error), "{error:?}");
    assert_eq!(world.calls().insert, 0);
    assert_eq!(world.store.inner().count(&call()).await.unwrap(), before);
}

#[tokio::test(start_paused = true)]
async fn t2_error_never_creates() {
    for (fault, is_retryable) in [(DOWN, true), (DENIED, false)] {
        for world in [World::new(), cold().await] {
            world.faults().always_for(Operation::LoadLatest, fault);
            assert_fails_and_creates_nothing(&world, |error| error.is_retryable() == is_retryable).await;
        }
    }
}

#[tokio::test]
async fn t2_none_creates() {
    let world = World::new();
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!(world.latest_row(IK).await.parent(), Some(&meta(SK, 0)));
}

#[tokio::test]
async fn t2_expired_creates_the_next() {
    let world = cold().await;
    world.clock.advance(LIFE + SECOND);
    assert_eq!(world.encrypts_under().await, seconds(LIFE));
}

#[tokio::test]
async fn t2_exactly_at_its_end_is_valid() {
    let world = cold().await;
    world.clock.advance(LIFE);
    assert_eq!(world.encrypts_under().await, 0);
}

#[tokio::test]
async fn t2_revoked_creates_the_next() {
    let world = cold().await;
    world.revoke_latest(IK).await;
    assert_eq!(world.encrypts_under().await, 1);
    assert_eq!(world.row_times(SK).await, [0]);
}

/// Alice's row with another wrapped key and parent.
async fn altered(world: &World, wrapped_key: Option<Vec<u8>>, parent: Option<KeyMeta>) -> EnvelopeKeyRecord {
    let row = world.latest_row(IK).await;
    EnvelopeKeyRecord::new(
        row.meta().clone(),
        wrapped_key.unwrap_or_else(|| row.wrapped_key().to_vec()),
        parent,
    )
}

#[tokio::test]
async fn t2_malformed_never_creates() {
    let world = cold().await;
    world.put(altered(&world, None, None).await).await;
    assert_fails_and_creates_nothing(&world, |error| matches!(error, Error::ForeignParent { .. })).await;
    assert_eq!(world.raised(Event::ForeignParent), 1);

    let world = cold().await;
    world.put(altered(&world, Some(vec![1; 59]), Some(meta(SK, 0))).await).await;
    assert_fails_and_creates_nothing(&world, |error| matches!(error, Error::Authentication)).await;
    assert_eq!(world.raised(Event::Tampered), 1);
}

#[tokio::test]
async fn t2_row_that_cannot_be_read_is_an_error_and_an_alarm() {
    for operation in [Operation::LoadLatest, Operation::Load] {
        let world = cold().await;
        world.faults().always_for(operation, Fault::Fail(FailureClass::Damaged));
        assert_fails_and_creates_nothing(&world, |error| matches!(error, Error::Metastore { .. })).await;
        assert_eq!(world.raised(Event::Malformed), 1, "{operation:?}");
    }
}

#[tokio::test]
async fn t2_denied_kms_is_no_alarm_of_tampering_and_a_damaged_envelope_is() {
    let fail = async |class| {
        let world = cold().await;
        world.kms.faults().always_for(Operation::UnwrapKey, Fault::Fail(class));
        world
    };
    let denied = fail(FailureClass::Permanent).await;
    assert_fails_and_creates_nothing(&denied, |error| matches!(error, Error::Kms { .. })).await;
    assert_eq!(denied.raised(Event::Tampered), 0);
    let forged = fail(FailureClass::Damaged).await;
    assert_fails_and_creates_nothing(&forged, |error| matches!(error, Error::Authentication)).await;
    assert_eq!(forged.raised(Event::Tampered), 1);
}

#[tokio::test]
async fn t2_foreign_parent_never_creates() {
    for id in [
        "_SK_checkout_other",
        "_SK_other_payments",
        "_SK_checkout_payments2",
        "_SK_checkout_payments_us-west-2",
        "_IK_alice_checkout_payments",
        "_SK_",
        "SK_checkout_payments",
    ] {
        let world = cold().await;
        world.put(altered(&world, None, Some(meta(id, 0))).await).await;
        assert_fails_and_creates_nothing(&world, |error| matches!(error, Error::ForeignParent { .. })).await;
        assert_eq!(world.raised(Event::ForeignParent), 1, "{id}");
        assert_eq!(world.calls().load, 0, "{id} is not even loaded");
    }
}

/// A world in which the key was seen revoked, and somebody undid that in the store.
async fn known_as_revoked() -> World {
    let world = World::new();
    let (record, _) = world.sealed().await;
    let unrevoked = world.latest_row(IK).await;
    world.revoke_latest(IK).await;
    world.clock.advance(STALE);
    world.decrypts(&record).await;
    world.put(unrevoked).await;
    world
}

#[tokio::test]
async fn t2_valid_but_known_here_as_revoked_creates_and_alarms() {
    let world = known_as_revoked().await;
    assert_eq!(world.encrypts_under().await, seconds(STALE));
    assert_eq!(world.raised(Event::Unrevoked), 1);
}

#[tokio::test]
async fn t2_revoked_is_remembered_while_the_keyring_lives_though_the_key_was_never_cached() {
    let world = cold().await;
    let session = world.session();
    let unrevoked = world.latest_row(IK).await;
    world.revoke_latest(IK).await;
    world.faults().next(Operation::Insert, DENIED);
    session.encrypt(b"").await.unwrap_err();
    world.put(unrevoked).await;
    assert_eq!(world.encrypts_under().await, 1);
    assert_eq!(world.raised(Event::Unrevoked), 1);
    drop(session);
}

/// Breaks alice's row so that its key does not unwrap.
async fn tamper(world: &World) {
    let mut wrapped_key = world.latest_row(IK).await.wrapped_key().to_vec();
    wrapped_key[0] ^= 1;
    world.put(altered(world, Some(wrapped_key), Some(meta(SK, 0))).await).await;
}

#[tokio::test]
async fn t2_key_that_is_not_to_be_used_is_replaced_before_it_is_unwrapped() {
    // Known here as revoked, though the row does not say so, and forged too.
    let world = known_as_revoked().await;
    tamper(&world).await;
    assert_eq!(world.encrypts_under().await, seconds(STALE));
    // Under a parent that is revoked.
    let world = cold().await;
    world.revoke_latest(SK).await;
    tamper(&world).await;
    assert_eq!(world.encrypts_under().await, 1);
    assert_eq!(world.raised(Event::Tampered), 0);
}

#[tokio::test]
async fn t2_valid_but_exhausted_here_creates() {
    let world = World::with(policy().max_wraps_per_key(1));
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!(world.encrypts_under().await, 1);
}

#[tokio::test]
async fn t2_parent_expired_creates_under_a_valid_one() {
    let home = World::new();
    home.session_of("bob").encrypt(b"makes the system key").await.unwrap();
    home.clock.advance(DAY);
    home.sealed().await;
    let world = home.other_process();
    world.clock.advance(LIFE);
    assert_eq!(world.encrypts_under().await, seconds(DAY + LIFE));
    assert_eq!(world.row_times(SK).await, [0, seconds(DAY + LIFE)]);
    assert_eq!(world.latest_row(IK).await.parent(), Some(&meta(SK, seconds(DAY + LIFE))));
}

#[tokio::test]
async fn t2_parent_revoked_creates_under_a_valid_one() {
    let world = cold().await;
    world.revoke_latest(SK).await;
    assert_eq!(world.encrypts_under().await, 1);
    assert_eq!(world.row_times(SK).await, [0, 1]);
    assert_eq!(world.latest_row(IK).await.parent(), Some(&meta(SK, 1)));
}

#[tokio::test]
async fn t2_parent_missing_creates_and_alarms() {
    let world = cold().await;
    world.delete(SK).await;
    assert_eq!(world.encrypts_under().await, 1);
    assert_eq!(world.raised(Event::MissingParent), 1);
    assert_eq!(world.row_times(SK).await, [0], "the system key is a new one of the same minute");
}

#[tokio::test(start_paused = true)]
async fn t2_parent_that_cannot_be_had_never_creates() {
    for (fault, is_retryable) in [(DOWN, true), (DENIED, false)] {
        let world = cold().await;
        world.faults().always_for(Operation::Load, fault);
        assert_fails_and_creates_nothing(&world, |error| {
            matches!(error, Error::Metastore { operation: "load", .. })
                && error.is_retryable() == is_retryable
        })
        .await;
        let world = cold().await;
        world.kms.faults().always_for(Operation::UnwrapKey, fault);
        assert_fails_and_creates_nothing(&world, |error| {
            matches!(error, Error::Kms { operation: "unwrap_key", .. })
                && error.is_retryable() == is_retryable
        })
        .await;
    }
}

#[tokio::test]
async fn t2_valid_is_used() {
    let world = cold().await;
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!(world.calls(), Calls { load: 1, load_latest: 1, insert: 0, wrap: 0, unwrap: 1 });
}

#[tokio::test]
async fn t2_parent_is_the_one_the_record_names_not_the_latest() {
    let home = World::new();
    home.sealed().await;
    // Another system key, one second younger.
    home.revoke_latest(SK).await;
    home.other_process().session_of("bob").encrypt(b"").await.unwrap();
    let younger = home.latest_row(SK).await;
    let world = World::new();
    world.sealed().await;
    world.put(younger).await;
    assert_eq!(world.row_times(SK).await, [0, 1]);
    let world = world.other_process();
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!(world.faults().log()[1].key, meta(SK, 0).to_string());
}

#[tokio::test]
async fn t2_tampered_never_creates() {
    for flipped in [0, 31, 32, 47, 48, 59] {
        let world = cold().await;
        let mut wrapped_key = world.latest_row(IK).await.wrapped_key().to_vec();
        wrapped_key[flipped] ^= 1;
        world.put(altered(&world, Some(wrapped_key), Some(meta(SK, 0))).await).await;
        assert_fails_and_creates_nothing(&world, |error| matches!(error, Error::Authentication)).await;
        assert_eq!(world.raised(Event::Tampered), 1);
    }
}

#[tokio::test]
async fn t2_tampered_parent_never_creates() {
    let world = cold().await;
    let row = world.latest_row(SK).await;
    let mut wrapped_key = row.wrapped_key().to_vec();
    wrapped_key[0] ^= 1;
    world.put(EnvelopeKeyRecord::new(row.meta().clone(), wrapped_key, None)).await;
    assert_fails_and_creates_nothing(&world, |error| matches!(error, Error::Authentication)).await;
    assert_eq!(world.raised(Event::Tampered), 1);
}

#[tokio::test]
async fn t2_tampered_is_to_t1_a_failed_refresh() {
    let world = World::new();
    world.sealed().await;
    tamper(&world).await;
    world.clock.advance(STALE);
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!((world.raised(Event::Tampered), world.raised(Event::Stale)), (1, 1));
    world.clock.advance(HOUR + SECOND);
    assert!(matches!(world.encrypt_error().await, Error::Authentication));
}

/// Wraps alice's key anew under the system key, or another one in its place.
async fn rewrap(world: &World, id: &str, other_bytes: bool) {
    let system_row = world.latest_row(SK).await;
    let master = world.kms.inner();
    let system_key = master.unwrap_key(system_row.wrapped_key(), system_row.meta(), &call()).await.unwrap();
    let (row, wrapped_key);
    if id == SK {
        row = system_row;
        wrapped_key = wrapped_anew(master, &row, other_bytes).await;
    } else {
        row = world.latest_row(IK).await;
        wrapped_key = wrapped_anew(&StaticKms::new(&system_key).unwrap(), &row, other_bytes).await;
    }
    let replaced =
        world.store.inner().replace_one(row.meta(), row.wrapped_key(), &wrapped_key, &call()).await;
    assert!(replaced.unwrap());
}

async fn wrapped_anew(parent: &StaticKms, row: &EnvelopeKeyRecord, other_bytes: bool) -> Vec<u8> {
    let mut key = parent.unwrap_key(row.wrapped_key(), row.meta(), &call()).await.unwrap();
    if other_bytes {
        key = SecretKey::generate(&claviger::SystemRandom::new()).unwrap();
    }
    parent.wrap_key(&key, row.meta(), &call()).await.unwrap().bytes().to_vec()
}

#[tokio::test]
async fn t2_rewrapped_key_is_accepted() {
    for id in [IK, SK] {
        let world = World::new();
        let (record, _) = world.sealed().await;
        rewrap(&world, id, false).await;
        let before = world.calls();
        world.clock.advance(STALE);
        assert_eq!(world.encrypts_under().await, 0);
        world.decrypts(&record).await;
        assert_eq!(
            (world.calls() - before).unwrap,
            usize::from(id == SK),
            "only a new wrapping is unwrapped"
        );
        assert_eq!(world.raised(Event::KeyChanged), 0);
        assert_eq!(world.factory.status().unwrap().orphans, []);
        // The new wrapping is the known one now.
        world.clock.advance(STALE);
        let before = world.calls();
        assert_eq!(world.encrypts_under().await, 0);
        assert_eq!((world.calls() - before).unwrap, 0);
    }
}

/// A key whose row holds other bytes, and a record that was sealed under the former ones.
async fn changed(id: &str, rules: impl Into<Rules>) -> (World, DataRowRecord) {
    let world = World::with(rules);
    let (record, _) = world.sealed().await;
    rewrap(&world, id, true).await;
    world.clock.advance(STALE);
    (world, record)
}

#[tokio::test]
async fn t2_changed_key_never_encrypts_again_and_still_decrypts() {
    for (id, successor, keys) in [(IK, 0, [2, 1]), (SK, seconds(STALE), [2, 2])] {
        let (world, record) = changed(id, policy()).await;
        let (new, created) = world.sealed().await;
        assert_eq!(created, successor, "{id}: the same version, or one under the system key as it is now");
        assert_eq!(world.raised(Event::KeyChanged), 1, "{id}");
        world.other_process().decrypts(&new).await;
        for _ in 0..2 {
            world.decrypts(&record).await;
            world.decrypts(&new).await;
        }
        assert!(matches!(world.other_process().decrypt_error(&record).await, Error::Authentication));
        let status = world.factory.status().unwrap();
        assert_eq!([status.intermediate_keys, status.system_keys], keys, "{id}");
        assert_eq!((status.orphans, status.memory.slots), (vec![], keys.iter().sum()), "{id}");

        let before = world.calls();
        world.sealed().await;
        world.decrypts(&record).await;
        world.landed().await;
        assert_eq!(world.calls(), before, "{id}: its row was read, so it is fresh");
    }
}

#[tokio::test]
async fn t2_changed_key_is_gone_from_memory_after_max_stale_decrypt() {
    let keys = |world: &World| {
        let status = world.factory.status().unwrap();
        assert_eq!(status.memory.slots, status.intermediate_keys + status.system_keys);
        status.memory.slots
    };
    for (id, while_it_lasts) in [(IK, 3), (SK, 4)] {
        let (world, record) = changed(id, policy().idle_timeout(Lifetime::Never)).await;
        world.sealed().await;
        for _ in 0..24 {
            world.decrypts(&record).await;
            assert_eq!(keys(&world), while_it_lasts, "{id}");
            world.clock.advance(HOUR);
            world.sealed().await;
        }
        world.clock.advance(HOUR + SECOND);
        let (new, _) = world.sealed().await;
        assert_eq!(keys(&world), while_it_lasts - 1, "{id}");
        world.decrypts(&new).await;
        if id == IK {
            assert!(matches!(world.decrypt_error(&record).await, Error::Authentication));
        }
    }
}

#[tokio::test]
async fn t2_changed_key_goes_at_once_with_word_of_a_shredding() {
    for id in [IK, SK] {
        let (world, record) = changed(id, policy()).await;
        world.sealed().await;
        let before = world.factory.status().unwrap().memory.slots;
        world.factory.shredded(&KeyId::new(id)).unwrap();
        assert_eq!(world.factory.status().unwrap().memory.slots, before - 1, "{id}");
        if id == IK {
            assert!(matches!(world.decrypt_error(&record).await, Error::Authentication));
        }
    }
}

#[tokio::test]
async fn t2_changed_key_that_changes_back_is_one_key_again() {
    let world = World::new();
    let (record, _) = world.sealed().await;
    let first = world.latest_row(IK).await;
    for round in 0..40 {
        if round % 2 == 0 {
            rewrap(&world, IK, true).await
        } else {
            world.put(first.clone()).await
        }
        world.clock.advance(STALE);
        let (new, _) = world.sealed().await;
        world.other_process().decrypts(&new).await;
        world.decrypts(&record).await;
        assert!(world.factory.status().unwrap().intermediate_keys <= 16, "{round}");
    }
    world.put(first).await;
    assert_eq!(world.raised(Event::KeyChanged), 40);
}

#[tokio::test]
async fn t2_changed_system_key_still_opens_the_keys_under_it() {
    let (world, record) = changed(SK, (policy(), room_for(2))).await;
    world.sealed().await;
    // They take the place of alice's.
    for partition in ["bob", "carol"] {
        world.session_of(partition).encrypt(b"").await.unwrap();
    }
    world.decrypts(&record).await;
    assert_eq!(world.raised(Event::Tampered), 0);
    // The row under the former system key is the latest for nobody.
    assert_eq!(world.encrypts_under().await, seconds(STALE));
}

#[tokio::test]
async fn t2_changed_key_is_not_displaced_by_a_read_that_began_before() {
    let world = World::new();
    let (record, _) = world.sealed().await;
    world.clock.advance(STALE);
    // This flight has read the former bytes.
    world.faults().next(Operation::LoadLatest, Fault::HangReply);
    let early = spawn_encrypt(world.session());
    world.faults().until_hanging(1).await;
    rewrap(&world, IK, true).await;
    world.clock.advance(SECOND);
    world.decrypts(&record).await;
    assert_eq!(world.raised(Event::KeyChanged), 1);
    world.faults().release();
    early.await.unwrap().unwrap();
    world.landed().await;
    let (new, _) = world.sealed().await;
    world.other_process().decrypts(&new).await;
    assert_eq!(world.raised(Event::KeyChanged), 1, "it did not change back");
}

#[tokio::test]
async fn t2_changed_key_stays_revoked() {
    for id in [IK, SK] {
        let (world, record) = changed(id, policy()).await;
        world.revoke_latest(id).await;
        let (new, created) = world.sealed().await;
        assert_eq!(created, seconds(STALE), "{id}");
        world.other_process().decrypts(&new).await;
        world.decrypts(&record).await;
    }
}

/// Every record that is written from the discovery on is readable by others.
#[tokio::test]
async fn t2_key_made_anew_in_its_minute_by_another_process_is_the_one_to_use() {
    let world = World::new();
    world.sealed().await;
    world.delete(IK).await;
    world.clock.advance(20 * SECOND);
    let (theirs, _) = world.other_process().sealed().await;
    for _ in 0..48 {
        world.clock.advance(HOUR / 2 + SECOND);
        let (ours, _) = world.sealed().await;
        if world.raised(Event::KeyChanged) > 0 {
            world.other_process().decrypts(&ours).await;
        }
    }
    assert_eq!(world.raised(Event::KeyChanged), 1);
    world.decrypts(&theirs).await;
}

#[tokio::test]
async fn t2_wraps_are_counted_on_through_a_rewrapping() {
    let world = World::with(policy().max_wraps_per_key(4));
    world.sealed().await;
    world.sealed().await;
    rewrap(&world, IK, false).await;
    world.clock.advance(STALE);
    // Two counted before (as three, since they are counted in lots), one more fits.
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!(world.encrypts_under().await, seconds(STALE));
}

/// Two loads read one row, and the revocation comes in between.
#[tokio::test(start_paused = true)]
async fn t2_answer_from_before_a_revocation_was_learned_is_no_alarm() {
    let world = World::new();
    let (record, _) = world.sealed().await;
    world.clock.advance(STALE);
    world.faults().next(Operation::LoadLatest, Fault::HangReply);
    let early = spawn_encrypt(world.session());
    world.faults().until_hanging(1).await;
    world.revoke_latest(IK).await;
    world.decrypts(&record).await;
    world.faults().release();
    early.await.unwrap().unwrap();
    world.landed().await;
    assert_eq!(world.raised(Event::Unrevoked), 0);

    let row = world.rows(IK).await.swap_remove(0);
    world.put(row.revoked(false)).await;
    world.clock.advance(STALE);
    world.decrypts(&record).await;
    assert_eq!(world.raised(Event::Unrevoked), 1, "what was read later is");
}
