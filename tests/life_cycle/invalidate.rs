//! `invalidate`: what is cached of a key is checked before it is used next. The clock stands still in
//! most of these tests, so that whatever happens does so in one tick of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use claviger::testing::{Fault, FixedClock, Operation};
use claviger::{
    DataRowRecord, Error, Event, InMemoryMetastore, KeyId, Limits, ReadableSuffixes, RevokedDecrypt,
};

use crate::support::*;

const ONE_READ: Calls = Calls { load: 0, load_latest: 1, insert: 0, wrap: 0, unwrap: 0 };

fn invalidate(world: &World, id: &str) {
    world.factory.invalidate(&KeyId::new(id)).unwrap();
}

/// A world with alice's keys in its cache, and how many calls that took.
async fn warm() -> (World, DataRowRecord, Calls) {
    let world = World::new();
    let (record, _) = world.sealed().await;
    let calls = world.calls();
    (world, record, calls)
}

#[tokio::test]
async fn invalidated_key_is_checked_before_its_next_use_and_is_fresh_then() {
    let (world, record, before) = warm().await;
    invalidate(&world, IK);
    assert_eq!(world.calls(), before, "nothing is asked by the call itself");
    assert_eq!(world.encrypts_under().await, 0);
    assert_eq!(world.calls() - before, ONE_READ, "neither the parent's row nor the KMS");
    world.encrypts_under().await;
    world.decrypts(&record).await;
    assert_eq!(world.calls() - before, ONE_READ);
    invalidate(&world, IK);
    world.decrypts(&record).await;
    world.encrypts_under().await;
    assert_eq!(world.calls() - before, Calls { load: 1, ..ONE_READ });
}

#[tokio::test]
async fn invalidated_revoked_key_never_encrypts_again() {
    for id in [IK, SK] {
        let (world, _, _) = warm().await;
        world.revoke_latest(id).await;
        assert_eq!(world.encrypts_under().await, 0, "{id}: it is not known yet");
        invalidate(&world, id);
        assert_eq!(world.encrypts_under().await, 1, "{id}");
    }
}

#[tokio::test]
async fn invalidated_system_key_is_checked_once_for_all_keys_under_it() {
    let (world, _, _) = warm().await;
    let partitions: Vec<String> = (0..50).map(|number| format!("customer-{number}")).collect();
    for partition in &partitions {
        world.session_of(partition).encrypt(b"").await.unwrap();
    }
    let before = world.calls();
    invalidate(&world, SK);
    for partition in &partitions {
        assert_eq!(created(&world.session_of(partition).encrypt(b"").await.unwrap()), 0);
    }
    assert_eq!(world.calls() - before, Calls { load: 1, ..Calls::default() });
    world.revoke_latest(SK).await;
    invalidate(&world, SK);
    for partition in &partitions {
        assert_eq!(created(&world.session_of(partition).encrypt(b"").await.unwrap()), 1);
    }
}

#[tokio::test]
async fn invalidated_deleted_key_is_dropped() {
    for id in [IK, SK] {
        let (world, record, _) = warm().await;
        world.delete(id).await;
        invalidate(&world, id);
        assert!(matches!(world.decrypt_error(&record).await, Error::KeyNotFound(_)), "{id}");
    }
}

#[tokio::test]
async fn invalidated_revoked_key_is_denied_to_decrypts() {
    for id in [IK, SK] {
        let world = World::with(policy().revoked_decrypt(RevokedDecrypt::Deny));
        let (record, _) = world.sealed().await;
        world.revoke_latest(id).await;
        world.decrypts(&record).await;
        invalidate(&world, id);
        assert!(matches!(world.decrypt_error(&record).await, Error::KeyRevoked(_)), "{id}");
    }
}

#[tokio::test]
async fn invalidated_all_checks_every_key() {
    let (world, record, _) = warm().await;
    world.session_of("bob").encrypt(b"").await.unwrap();
    let before = world.calls();
    world.factory.invalidate_all().unwrap();
    world.encrypts_under().await;
    world.decrypts(&record).await;
    world.session_of("bob").encrypt(b"").await.unwrap();
    assert_eq!(world.calls() - before, Calls { load: 1, load_latest: 2, ..Calls::default() });
}

#[tokio::test]
async fn invalidated_other_keys_stay_fresh() {
    let (world, record, before) = warm().await;
    for id in ["_IK_bob_checkout_payments", "_SK_checkout_other", "_IK_ALICE_checkout_payments", ""] {
        invalidate(&world, id);
    }
    world.encrypts_under().await;
    world.decrypts(&record).await;
    assert_eq!(world.calls(), before);
}

#[tokio::test(start_paused = true)]
async fn invalidated_key_goes_on_while_the_store_does_not_answer() {
    for (fault, wait) in [(DOWN, None), (Fault::Hang, Some(SECOND / 5))] {
        let (world, record, _) = warm().await;
        world.clock.advance(STALE / 2);
        invalidate(&world, IK);
        world.faults().always(fault);
        let begun = tokio::time::Instant::now();
        assert_eq!(world.encrypts_under().await, 0);
        assert!(wait.is_none_or(|wait| begun.elapsed() == wait), "{:?}", begun.elapsed());
        let before = world.calls();
        assert_eq!(world.encrypts_under().await, 0);
        assert_eq!(world.calls(), before, "at once, for the next second");
        assert_eq!(world.raised(Event::Stale), 2);
        world.heal();
        world.revoke_latest(IK).await;
        world.clock.advance(SECOND);
        assert_ne!(world.encrypts_under().await, 0, "it is still to be checked");
        world.decrypts(&record).await;
    }
}

#[tokio::test(start_paused = true)]
async fn invalidated_key_goes_on_no_longer_than_any_other() {
    let (world, record, _) = warm().await;
    world.faults().always(DOWN);
    world.clock.advance(TOO_OLD - SECOND);
    invalidate(&world, IK);
    assert_eq!(world.encrypts_under().await, 0);
    world.clock.advance(SECOND);
    assert!(world.encrypt_error().await.is_retryable());
    world.clock.advance(TOO_OLD_TO_DECRYPT - TOO_OLD - SECOND);
    world.decrypts(&record).await;
    world.clock.advance(SECOND);
    assert!(world.decrypt_error(&record).await.is_retryable());
}

/// A flight has read the row before it changed. Who waits for it gets what it read; who comes later
/// does not, and nobody takes what it read for fresh.
#[tokio::test]
async fn invalidated_during_a_cold_flight_the_key_is_not_fresh() {
    for (id, operation) in [(IK, Operation::LoadLatest), (SK, Operation::Load)] {
        let home = World::new();
        home.sealed().await;
        let world = home.other_process();
        world.faults().next(operation, Fault::HangReply);
        let early = spawn_encrypt(world.session());
        world.faults().until_hanging(1).await;
        world.revoke_latest(id).await;
        invalidate(&world, id);
        let late = spawn_encrypt(world.session());
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        world.faults().release();
        assert_eq!(created(&early.await.unwrap().unwrap()), 0, "{id}");
        assert_eq!(created(&late.await.unwrap().unwrap()), 1, "{id}: it came later");
    }
}

#[tokio::test]
async fn invalidated_during_a_cold_flight_the_next_use_asks_again() {
    for id in [IK, SK] {
        let home = World::new();
        let (record, _) = home.sealed().await;
        for is_encrypt in [true, false] {
            let world = home.other_process();
            world
                .faults()
                .next(if is_encrypt { Operation::LoadLatest } else { Operation::Load }, Fault::HangReply);
            let (session, again) = (world.session(), record.clone());
            let early = tokio::spawn(async move {
                if is_encrypt {
                    session.encrypt(b"").await.map(drop)
                } else {
                    session.decrypt(&again).await.map(drop)
                }
            });
            world.faults().until_hanging(1).await;
            invalidate(&world, id);
            world.faults().release();
            early.await.unwrap().unwrap();
            let before = world.calls();
            world.encrypts_under().await;
            world.decrypts(&record).await;
            let again = world.calls() - before;
            assert_eq!((again.insert, again.wrap, again.unwrap), (0, 0, 0));
            // The system key's row was read after the word came, when the intermediate key's was.
            let is_read = if id == IK { again.load_latest == 1 } else { again.load + again.load_latest <= 1 };
            assert!(is_read, "{id} {is_encrypt}: {again:?}");
        }
    }
}

#[tokio::test]
async fn invalidated_during_a_background_refresh_the_key_is_not_fresh() {
    let (world, record, _) = warm().await;
    for is_encrypt in [true, false] {
        world.clock.advance(DUE);
        world
            .faults()
            .next(if is_encrypt { Operation::LoadLatest } else { Operation::Load }, Fault::HangReply);
        let use_key = async || {
            if is_encrypt {
                world.encrypts_under().await;
            } else {
                world.decrypts(&record).await;
            }
        };
        use_key().await;
        world.faults().until_hanging(1).await;
        invalidate(&world, IK);
        world.faults().release();
        world.landed().await;
        let before = world.calls();
        use_key().await;
        assert_eq!((world.calls() - before).unwrap, 0);
        assert_ne!(world.calls(), before, "{is_encrypt}");
        let before = world.calls();
        use_key().await;
        assert_eq!(world.calls(), before, "fresh now");
    }
}

#[tokio::test]
async fn invalidated_during_a_flight_that_lands_a_newer_key_that_one_is_not_fresh() {
    let (world, _, _) = warm().await;
    world.revoke_latest(IK).await;
    world.other_process().sealed().await;
    world.clock.advance(STALE);
    world.faults().next(Operation::LoadLatest, Fault::HangReply);
    let early = spawn_encrypt(world.session());
    world.faults().until_hanging(1).await;
    world.revoke_latest(IK).await;
    invalidate(&world, IK);
    world.faults().release();
    assert_eq!(created(&early.await.unwrap().unwrap()), 1);
    assert_eq!(world.encrypts_under().await, seconds(STALE), "it asked again");
}

#[tokio::test]
async fn invalidated_during_a_creation_the_new_key_is_asked_for_again() {
    let world = World::new();
    world.session_of("bob").encrypt(b"makes the system key").await.unwrap();
    world.faults().next(Operation::Insert, Fault::HangReply);
    let early = spawn_encrypt(world.session());
    world.faults().until_hanging(1).await;
    world.revoke_latest(IK).await;
    invalidate(&world, IK);
    world.faults().release();
    assert_eq!(created(&early.await.unwrap().unwrap()), 0);
    assert_eq!(world.encrypts_under().await, 1);
}

#[tokio::test]
async fn invalidated_missing_version_is_asked_for_again() {
    let home = World::new();
    let (record, _) = home.sealed().await;
    let row = home.latest_row(IK).await;
    home.delete(IK).await;
    let world = home.other_process();
    world.decrypt_error(&record).await;
    world.put(row.clone()).await;
    world.decrypt_error(&record).await;
    invalidate(&world, IK);
    world.decrypts(&record).await;
    // A flight that began before does not note it either.
    home.delete(IK).await;
    let world = home.other_process();
    world.faults().next(Operation::Load, Fault::HangReply);
    let (session, again) = (world.session(), record.clone());
    let early = tokio::spawn(async move { session.decrypt(&again).await.map(drop) });
    world.faults().until_hanging(1).await;
    world.put(row).await;
    invalidate(&world, IK);
    world.faults().release();
    assert!(matches!(early.await.unwrap(), Err(Error::KeyNotFound(_))));
    world.decrypts(&record).await;
    world.factory.invalidate_all().unwrap();
    world.decrypts(&record).await;
}

#[tokio::test]
async fn invalidated_all_forgets_missing_versions() {
    let home = World::new();
    let (record, _) = home.sealed().await;
    let row = home.latest_row(IK).await;
    home.delete(IK).await;
    let world = home.other_process();
    world.decrypt_error(&record).await;
    world.put(row).await;
    world.factory.invalidate_all().unwrap();
    world.decrypts(&record).await;
}

#[tokio::test]
async fn invalidated_revocation_stays_for_ever() {
    let (world, record, _) = warm().await;
    let unrevoked = world.latest_row(IK).await;
    world.revoke_latest(IK).await;
    invalidate(&world, IK);
    world.decrypts(&record).await;
    world.put(unrevoked).await;
    invalidate(&world, IK);
    assert_eq!(world.encrypts_under().await, 1);
    assert_eq!(world.raised(Event::Unrevoked), 1);
}

#[tokio::test]
async fn invalidated_with_interval_0_changes_nothing() {
    let world = World::with(policy().revoke_check_interval(Duration::ZERO));
    let (record, _) = world.sealed().await;
    invalidate(&world, IK);
    invalidate(&world, SK);
    let before = world.calls();
    world.encrypts_under().await;
    assert_eq!(world.calls() - before, Calls { load: 1, load_latest: 1, ..Calls::default() });
    let before = world.calls();
    world.decrypts(&record).await;
    assert_eq!(world.calls() - before, Calls { load: 2, ..Calls::default() });
}

/// The parent's own keyring is gone, and only the keys under it lead to what is known of it.
#[tokio::test]
async fn invalidated_parent_that_was_evicted_is_checked_too() {
    let rows = World::new();
    let in_region = |region: &'static str| {
        World::over(rows.store.inner().clone(), rows.clock.clone(), |builder| {
            let policy = policy().revoked_decrypt(RevokedDecrypt::Deny);
            let builder = builder.limits(Limits::production().max_system_keys(1));
            builder.region_suffix(region).readable_suffixes(ReadableSuffixes::Any).policy(policy)
        })
    };
    let (east, _) = in_region("eu-east-1").sealed().await;
    let (south, _) = in_region("eu-south-1").sealed().await;
    let world = in_region("eu-west-1");
    world.decrypts(&east).await;
    world.decrypts(&south).await;
    assert_eq!(world.factory.status().unwrap().system_keys, 1);
    let id = format!("{SK}_eu-east-1");
    world.revoke_latest(&id).await;
    world.decrypts(&east).await;
    invalidate(&world, &id);
    assert!(matches!(world.decrypt_error(&east).await, Error::KeyRevoked(_)));
    world.decrypts(&south).await;
}

#[tokio::test]
async fn invalidated_after_close_is_an_error() {
    let (world, _, _) = warm().await;
    assert!(world.factory.close(SECOND).await.unwrap().is_clean());
    assert!(matches!(world.factory.invalidate(&KeyId::new(IK)), Err(Error::Closed)));
    assert!(matches!(world.factory.invalidate_all(), Err(Error::Closed)));
}

/// Whatever goes on at the same time: who comes after the word does not use the revoked key.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn invalidated_under_load_no_later_encrypt_uses_the_revoked_key() {
    let mut rounds = 0;
    // Nobody goes on with the key for want of an answer, however busy the machine is.
    let (wait, deadline) = (59 * SECOND, 60 * SECOND);
    for id in [IK, SK].into_iter().cycle().take(60) {
        let (rows, clock) = (InMemoryMetastore::new(), FixedClock::new(START.unsigned_abs()));
        let world = Arc::new(World::over(rows, clock, |builder| {
            let limits = Limits::production().operation_deadline(deadline);
            builder.policy(policy().refresh_wait(wait)).limits(limits)
        }));
        world.sealed().await;
        let stop = Arc::new(AtomicBool::new(false));
        let load: Vec<_> = (0..8)
            .map(|task| {
                let (world, stop) = (Arc::clone(&world), Arc::clone(&stop));
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        world.sealed().await;
                        if task == 0 {
                            world.factory.invalidate_all().unwrap();
                        }
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let revoked = world.latest_row(id).await.meta().created().unix_seconds() - START;
        world.revoke_latest(id).await;
        invalidate(&world, id);
        for _ in 0..20 {
            let sealed_under = world.encrypts_under().await;
            assert!(sealed_under > revoked, "{id}: {sealed_under}");
        }
        stop.store(true, Ordering::Relaxed);
        for task in load {
            task.await.unwrap();
        }
        rounds += 1;
    }
    assert_eq!(rounds, 60);
}
