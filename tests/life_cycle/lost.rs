//! Rows that are gone: told of, remembered, and put back if that is wanted.

use claviger::testing::{Fault, Operation};
use claviger::{EnvelopeKeyRecord, Error, Event, KeyId, KeyMeta};

use crate::support::*;

const BOB: &str = "_IK_bob_checkout_payments";

fn restoring() -> World {
    World::over(Default::default(), claviger::testing::FixedClock::new(START.unsigned_abs()), |builder| {
        builder.restore_lost(true)
    })
}

fn lost(world: &World) -> Vec<KeyMeta> {
    world.factory.status().unwrap().lost_rows.into_iter().map(|row| row.key).collect()
}

fn invalidate(world: &World) {
    world.factory.invalidate_all().unwrap();
}

/// The inserts made since the last reset.
fn inserts(world: &World) -> Vec<String> {
    let log = world.faults().log().into_iter();
    log.filter(|call| call.operation == Operation::Insert).map(|call| call.key).collect()
}

/// The same id and time, under another wrapped key.
async fn other_key_of(world: &World) -> EnvelopeKeyRecord {
    let other = World::new();
    other.sealed().await;
    let row = other.latest_row(IK).await;
    let parent = world.latest_row(SK).await.meta().clone();
    EnvelopeKeyRecord::new(row.meta().clone(), row.wrapped_key().to_vec(), Some(parent))
}

/// A world in which a decrypt has found alice's row gone.
async fn robbed(world: World) -> (World, claviger::DataRowRecord, EnvelopeKeyRecord) {
    let (record, _) = world.sealed().await;
    let row = world.latest_row(IK).await;
    world.delete(IK).await;
    invalidate(&world);
    assert!(matches!(world.decrypt_error(&record).await, Error::KeyNotFound(_)));
    world.faults().reset();
    (world, record, row)
}

#[tokio::test]
async fn lost_rows_are_told_of_once_for_each_version_of_both_levels() {
    let world = World::new();
    let (record, _) = world.sealed().await;
    world.revoke_latest(IK).await;
    invalidate(&world);
    assert_eq!(world.encrypts_under().await, 1);
    let bobs = world.session_of("bob").encrypt(b"").await.unwrap();
    world.delete(IK).await;
    invalidate(&world);
    assert_eq!(world.raised(Event::RowLost), 0, "nobody has looked");
    let (encrypt, decrypt) = tokio::join!(world.sealed(), world.decrypt_error(&record));
    assert!(matches!(decrypt, Error::KeyNotFound(_)));
    world.decrypt_error(&record).await;
    assert_eq!(encrypt.1, 2, "later than both that were lost, in one minute with them");
    assert_eq!(world.raised(Event::RowLost), 2);
    let mut rows = lost(&world);
    rows.sort();
    assert_eq!(rows, [meta(IK, 0), meta(IK, 1)]);
    world.delete(SK).await;
    invalidate(&world);
    world.session_of("bob").decrypt(&bobs).await.unwrap_err();
    assert_eq!(world.raised(Event::RowLost), 3);
    assert!(lost(&world).contains(&meta(SK, 0)));
    assert_eq!(world.raised(Event::KeyChanged), 0);
}

#[tokio::test]
async fn lost_latest_version_is_told_of_and_its_successor_comes_after_it() {
    let world = World::new();
    world.sealed().await;
    let first = world.latest_row(IK).await.revoked(true);
    world.revoke_latest(IK).await;
    invalidate(&world);
    assert_eq!(world.encrypts_under().await, 1);
    world.delete(IK).await;
    world.put(first).await;
    invalidate(&world);
    assert_eq!(world.encrypts_under().await, 2);
    assert_eq!((world.raised(Event::RowLost), lost(&world)), (1, vec![meta(IK, 1)]));
}

#[tokio::test]
async fn lost_rows_are_remembered_with_their_age_for_max_stale_decrypt() {
    let (world, _, _) = robbed(World::new()).await;
    world.clock.advance(DAY);
    let rows = world.factory.status().unwrap().lost_rows;
    assert_eq!((rows.len(), rows[0].age), (1, DAY));
    world.clock.advance(SECOND);
    assert_eq!(lost(&world), []);
    assert!(!world.factory.restore_lost(&meta(IK, 0)).await.unwrap());
}

#[tokio::test]
async fn lost_row_is_restored_as_it_was_and_its_key_is_used_again() {
    let (world, record, row) = robbed(World::new()).await;
    assert!(world.factory.restore_lost(row.meta()).await.unwrap());
    assert_eq!(world.rows(IK).await, [row]);
    assert_eq!(lost(&world), []);
    world.decrypts(&record).await;
    assert_eq!(world.encrypts_under().await, 0);
    world.other_process().decrypts(&record).await;
    assert!(!world.factory.restore_lost(&meta(IK, 0)).await.unwrap(), "it is not lost any more");
    // Lost again, it is told again.
    world.delete(IK).await;
    invalidate(&world);
    world.decrypt_error(&record).await;
    assert_eq!(world.raised(Event::RowLost), 2);
}

#[tokio::test]
async fn lost_revoked_row_is_restored_revoked() {
    let world = World::new();
    let (record, _) = world.sealed().await;
    world.revoke_latest(IK).await;
    invalidate(&world);
    world.decrypts(&record).await;
    let row = world.latest_row(IK).await;
    assert!(row.is_revoked());
    world.delete(IK).await;
    invalidate(&world);
    world.decrypt_error(&record).await;
    assert!(world.factory.restore_lost(row.meta()).await.unwrap());
    assert_eq!(world.rows(IK).await, [row]);
    assert_eq!(world.encrypts_under().await, 1);
    assert_eq!(world.raised(Event::Unrevoked), 0);
}

#[tokio::test]
async fn lost_parent_is_restored_before_its_child() {
    let world = World::new();
    let (record, _) = world.sealed().await;
    let bobs = world.session_of("bob").encrypt(b"").await.unwrap();
    let rows = [world.rows(SK).await, world.rows(IK).await];
    world.delete(IK).await;
    world.delete(SK).await;
    invalidate(&world);
    world.decrypt_error(&record).await;
    world.session_of("bob").decrypt(&bobs).await.unwrap_err();
    assert_eq!(lost(&world), [meta(IK, 0), meta(SK, 0)]);
    world.faults().reset();
    assert!(world.factory.restore_lost(&meta(IK, 0)).await.unwrap());
    assert_eq!(inserts(&world), [meta(SK, 0).to_string(), meta(IK, 0).to_string()]);
    assert_eq!([world.rows(SK).await, world.rows(IK).await], rows);
    assert_eq!(lost(&world), []);
    world.decrypts(&record).await;
    assert_eq!(world.encrypts_under().await, 0);
    world.session_of("bob").decrypt(&bobs).await.unwrap();
    assert_eq!(created(&world.session_of("bob").encrypt(b"").await.unwrap()), 0);
}

#[tokio::test]
async fn lost_row_that_another_restored_is_restored() {
    let (world, record, row) = robbed(World::new()).await;
    world.put(row.clone()).await;
    assert!(world.factory.restore_lost(row.meta()).await.unwrap());
    assert_eq!((world.rows(IK).await, lost(&world)), (vec![row], vec![]));
    world.decrypts(&record).await;
}

#[tokio::test]
async fn lost_row_whose_place_another_key_has_is_an_alarm_and_stays() {
    for parent in [false, true] {
        let world = World::new();
        let (record, _) = world.sealed().await;
        let bobs = world.session_of("bob").encrypt(b"").await.unwrap();
        let other = other_key_of(&world).await;
        if parent {
            world.delete(SK).await;
            invalidate(&world);
            world.session_of("bob").decrypt(&bobs).await.unwrap_err();
            world.put(World::new().sealed_row(SK).await).await;
        }
        world.delete(IK).await;
        world.factory.invalidate(&KeyId::new(IK)).unwrap();
        world.decrypt_error(&record).await;
        if !parent {
            world.put(other).await;
        }
        for _ in 0..2 {
            assert!(!world.factory.restore_lost(&meta(IK, 0)).await.unwrap());
            assert_eq!(world.raised(Event::KeyChanged), 1);
        }
        assert!(lost(&world).contains(&meta(IK, 0)));
        assert_eq!(world.rows(IK).await.len(), usize::from(!parent), "nothing is put under another parent");
    }
}

#[tokio::test]
async fn lost_row_that_cannot_be_restored_now_stays_in_the_list() {
    for (fault, is_retryable) in [(DOWN, true), (DENIED, false)] {
        let (world, record, row) = robbed(World::new()).await;
        world.faults().always_for(Operation::Insert, fault);
        let error = world.factory.restore_lost(row.meta()).await.unwrap_err();
        assert!(matches!(error, Error::Metastore { operation: "insert", .. }), "{error}");
        assert_eq!(error.is_retryable(), is_retryable);
        assert_eq!(lost(&world), [meta(IK, 0)]);
        world.faults().heal();
        world.clock.advance(SECOND);
        assert!(world.factory.restore_lost(row.meta()).await.unwrap());
        world.decrypts(&record).await;
    }
}

#[tokio::test(start_paused = true)]
async fn lost_row_is_restored_in_time_whoever_waits() {
    let (world, record, row) = robbed(World::new()).await;
    assert!(polled_once(world.factory.restore_lost(row.meta())).await.is_none());
    world.landed().await;
    assert_eq!(world.rows(IK).await, [row]);
    world.decrypts(&record).await;
    let (world, _, row) = robbed(World::new()).await;
    world.faults().always_for(Operation::Insert, Fault::Hang);
    let begun = tokio::time::Instant::now();
    world.factory.restore_lost(row.meta()).await.unwrap_err();
    assert!(begun.elapsed() <= 10 * SECOND);
    assert!(world.factory.close(SECOND).await.unwrap().is_clean());
    assert!(matches!(world.factory.restore_lost(row.meta()).await, Err(Error::Closed)));
    assert!(matches!(world.factory.shredded(row.meta().id()), Err(Error::Closed)));
}

/// Keys of others hold on to what was known of the system key, and do not stand in its way.
#[tokio::test]
async fn lost_row_that_is_back_encrypts_again() {
    for is_revoked in [false, true] {
        let world = World::new();
        let (record, _) = world.sealed().await;
        world.session_of("bob").encrypt(b"").await.unwrap();
        let row = world.latest_row(SK).await;
        if is_revoked {
            world.revoke_latest(SK).await;
            invalidate(&world);
            world.decrypts(&record).await;
        }
        world.delete(SK).await;
        invalidate(&world);
        world.decrypt_error(&record).await;
        assert_eq!(lost(&world), [meta(SK, 0)]);
        world.put(row).await;
        world.clock.advance(SECOND);
        world.decrypts(&record).await;
        assert_eq!(lost(&world), [], "a check found it");
        let expected = if is_revoked { 1 } else { 0 };
        assert_eq!(world.encrypts_under().await, expected, "revoked is for ever");
        let bobs = created(&world.session_of("bob").encrypt(b"").await.unwrap());
        assert_eq!(bobs, expected);
        assert_eq!(world.row_times(SK).await.len(), 1 + usize::from(is_revoked));
        assert_eq!(world.raised(Event::KeyChanged), 0);
        if is_revoked {
            assert!(world.raised(Event::Unrevoked) >= 1);
        }
    }
}

#[tokio::test]
async fn lost_row_in_whose_place_another_key_is_read_is_told_once() {
    let (world, record, _) = robbed(World::new()).await;
    world.put(other_key_of(&world).await).await;
    world.clock.advance(SECOND);
    for _ in 0..3 {
        invalidate(&world);
        world.session().decrypt(&record).await.unwrap_err();
    }
    assert_eq!(world.raised(Event::KeyChanged), 1);
    assert_eq!(lost(&world), [meta(IK, 0)], "it is what the records were sealed under");
}

#[tokio::test]
async fn lost_rows_are_restored_by_who_finds_them_gone_if_that_is_wanted() {
    for (ids, is_encrypt) in
        [(&[IK][..], true), (&[IK], false), (&[SK], false), (&[SK, IK], true), (&[SK, IK], false)]
    {
        let world = restoring();
        let (record, _) = world.sealed().await;
        let rows = [world.rows(SK).await, world.rows(IK).await];
        for id in ids {
            world.delete(id).await;
        }
        invalidate(&world);
        let before = world.calls();
        if is_encrypt {
            assert_eq!(world.encrypts_under().await, 0, "{ids:?}");
        }
        world.decrypts(&record).await;
        assert_eq!(world.encrypts_under().await, 0, "{ids:?}");
        let calls = world.calls() - before;
        assert_eq!((calls.insert, calls.wrap), (ids.len(), 0), "{ids:?}");
        assert_eq!([world.rows(SK).await, world.rows(IK).await], rows);
        assert_eq!(world.raised(Event::RowLost), ids.len() as u64, "it is told all the same");
        assert_eq!(lost(&world), []);
        world.other_process().decrypts(&record).await;
    }
}

#[tokio::test]
async fn lost_latest_of_several_versions_is_restored_and_used() {
    let world = restoring();
    let (first, _) = world.sealed().await;
    world.revoke_latest(IK).await;
    invalidate(&world);
    assert_eq!(world.encrypts_under().await, 1);
    world.delete(IK).await;
    invalidate(&world);
    assert_eq!(world.encrypts_under().await, 1);
    assert_eq!(world.row_times(IK).await, [0, 1]);
    assert!(world.rows(IK).await[0].is_revoked());
    world.decrypts(&first).await;
}

#[tokio::test(start_paused = true)]
async fn lost_row_that_cannot_be_put_back_at_once_is_put_back_later() {
    let world = restoring();
    let (record, _) = world.sealed().await;
    let row = world.latest_row(IK).await;
    world.delete(IK).await;
    invalidate(&world);
    world.faults().always_for(Operation::Insert, DOWN);
    world.decrypts(&record).await;
    assert!(world.decrypt_error(&record).await.is_retryable());
    assert!(world.encrypt_error().await.is_retryable());
    world.faults().heal();
    world.clock.advance(SECOND);
    world.decrypts(&record).await;
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!(world.rows(IK).await, [row]);
    assert_eq!(world.raised(Event::RowLost), 1);
}

#[tokio::test]
async fn lost_row_whose_place_another_key_has_is_left_alone_also_where_rows_are_restored() {
    let world = restoring();
    let (record, _) = world.sealed().await;
    let other = other_key_of(&world).await;
    world.delete(IK).await;
    // Found gone by the read, and there by the insert.
    world.faults().next(Operation::Load, Fault::HangReply);
    invalidate(&world);
    let session = world.session();
    let decrypt = tokio::spawn(async move { session.decrypt(&record).await.map(drop) });
    world.faults().until_hanging(1).await;
    world.put(other.clone()).await;
    world.faults().release();
    decrypt.await.unwrap().unwrap_err();
    assert_eq!(world.raised(Event::KeyChanged), 1);
    assert_eq!(world.rows(IK).await, [other]);
}

/// Another process was faster, and the row was revoked since.
#[tokio::test]
async fn lost_row_that_another_restored_is_what_it_says_now() {
    for operation in [Operation::LoadLatest, Operation::Load] {
        let world = restoring();
        let (record, _) = world.sealed().await;
        let row = world.latest_row(IK).await;
        world.delete(IK).await;
        invalidate(&world);
        world.faults().next(operation, Fault::HangReply);
        let session = world.session();
        let asked = tokio::spawn(async move {
            match operation {
                Operation::Load => session.decrypt(&record).await.map(|_| None),
                _ => session.encrypt(b"").await.map(Some),
            }
        });
        world.faults().until_hanging(1).await;
        world.put(row.revoked(true)).await;
        world.faults().release();
        let sealed = asked.await.unwrap().unwrap();
        assert!(sealed.is_none_or(|sealed| created(&sealed) == 1), "{operation:?}");
        assert_eq!(world.encrypts_under().await, 1, "{operation:?}");
        assert_eq!(world.raised(Event::Unrevoked), 0);
    }
}

#[tokio::test]
async fn lost_rows_stay_away_by_default() {
    let world = World::new();
    let (record, _) = world.sealed().await;
    world.delete(IK).await;
    invalidate(&world);
    world.decrypt_error(&record).await;
    assert_eq!(world.encrypts_under().await, 1);
    assert_eq!(world.row_times(IK).await, [1]);
}

#[tokio::test]
async fn shredded_rows_are_neither_told_of_nor_kept_nor_restored() {
    for is_early in [true, false] {
        let world = restoring();
        let (record, _) = world.sealed().await;
        world.session_of("bob").encrypt(b"").await.unwrap();
        if is_early {
            world.factory.shredded(&KeyId::new(IK)).unwrap();
            world.delete(IK).await;
            invalidate(&world);
        } else {
            world.delete(IK).await;
            world.factory.shredded(&KeyId::new(IK)).unwrap();
        }
        assert!(matches!(world.decrypt_error(&record).await, Error::KeyNotFound(_)));
        assert_eq!(world.row_times(IK).await, [] as [i64; 0]);
        assert_eq!((world.raised(Event::RowLost), lost(&world)), (0, vec![]));
        assert!(!world.factory.restore_lost(&meta(IK, 0)).await.unwrap());
        assert_eq!(world.encrypts_under().await, 1, "no two keys have one id and time");
        // Others are told of and put back as ever.
        world.delete(BOB).await;
        invalidate(&world);
        assert_eq!(created(&world.session_of("bob").encrypt(b"").await.unwrap()), 0);
        assert_eq!(world.raised(Event::RowLost), 1);
    }
}

#[tokio::test]
async fn shredded_key_leaves_the_list_of_lost_rows() {
    let (world, _, _) = robbed(World::new()).await;
    assert_eq!(lost(&world), [meta(IK, 0)]);
    world.factory.shredded(&KeyId::new(IK)).unwrap();
    assert_eq!(lost(&world), []);
    assert!(!world.factory.restore_lost(&meta(IK, 0)).await.unwrap());
    assert_eq!(inserts(&world), [] as [String; 0]);
}

#[tokio::test]
async fn shredded_key_is_checked_before_its_next_use() {
    let world = World::new();
    let (record, _) = world.sealed().await;
    world.delete(IK).await;
    world.decrypts(&record).await;
    world.factory.shredded(&KeyId::new(IK)).unwrap();
    world.decrypt_error(&record).await;
}

/// Word comes while the row is about to be put back.
#[tokio::test]
async fn shredded_row_is_not_restored_by_who_waits_to_do_so() {
    let (world, record, row) = robbed(World::new()).await;
    // One key's calls are two at most at once.
    world.faults().always_for(Operation::Load, Fault::Hang);
    let waiting: Vec<_> = (1..=2)
        .map(|earlier| {
            let (session, record) = (world.session(), of_version(&record, -earlier));
            tokio::spawn(async move { session.decrypt(&record).await })
        })
        .collect();
    world.faults().until_hanging(2).await;
    assert!(polled_once(world.factory.restore_lost(row.meta())).await.is_none());
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    world.factory.shredded(row.meta().id()).unwrap();
    world.faults().heal();
    for decrypt in waiting {
        assert!(matches!(decrypt.await.unwrap(), Err(Error::KeyNotFound(_))));
    }
    world.landed().await;
    assert_eq!(world.rows(IK).await, []);
}
