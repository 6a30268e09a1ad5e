//! `try_encrypt` and `try_decrypt`: with cached keys as the methods that wait do, and otherwise nothing.

use claviger::{Error, Event, RevokedDecrypt};

use crate::support::*;

#[tokio::test]
async fn nothing_cached_is_none_and_calls_nobody() {
    let home = World::new();
    let (record, _) = home.sealed().await;
    let world = home.other_process();
    assert!(world.session().try_encrypt(b"data").unwrap().is_none());
    assert!(world.session().try_decrypt(&record).unwrap().is_none());
    world.at_rest().await;
    assert_eq!(world.calls(), Calls::default());
}

#[tokio::test]
async fn cached_keys_serve_at_once() {
    let world = World::new();
    let session = world.session();
    session.encrypt(b"makes the key").await.unwrap();
    let calls = world.calls();
    let record = session.try_encrypt(b"data").unwrap().unwrap();
    assert_eq!(&*session.try_decrypt(&record).unwrap().unwrap(), b"data");
    assert_eq!(&*session.decrypt(&record).await.unwrap(), b"data");
    assert_eq!(world.calls(), calls);
}

/// It is used, and checked in the background, as by the methods that wait.
#[tokio::test]
async fn a_key_that_is_due_serves_and_is_checked_meanwhile() {
    for encrypts in [true, false] {
        let world = World::new();
        let (record, _) = world.sealed().await;
        world.clock.advance(DUE);
        let calls = world.calls();
        if encrypts {
            assert!(world.session().try_encrypt(b"data").unwrap().is_some());
        } else {
            assert!(world.session().try_decrypt(&record).unwrap().is_some());
        }
        world.at_rest().await;
        assert_ne!(world.calls(), calls, "encrypts: {encrypts}");
    }
}

#[tokio::test]
async fn a_key_whose_check_must_be_waited_for_is_none() {
    let world = World::new();
    let (record, _) = world.sealed().await;
    for age in [STALE, LIFE] {
        world.clock.advance(age);
        let calls = world.calls();
        assert!(world.session().try_encrypt(b"data").unwrap().is_none(), "{age:?}");
        assert!(world.session().try_decrypt(&record).unwrap().is_none(), "{age:?}");
        world.at_rest().await;
        assert_eq!(world.calls(), calls, "{age:?}");
    }
}

#[tokio::test]
async fn what_is_refused_without_waiting_is_refused() {
    let world = World::with(policy().revoked_decrypt(RevokedDecrypt::Deny));
    let session = world.session();
    let (record, _) = world.sealed().await;
    let others = world.session_of("bob").encrypt(b"bob's").await.unwrap();
    assert!(matches!(session.try_decrypt(&others), Err(Error::ForeignRecord)));
    world.revoke_latest(IK).await;
    world.factory.invalidate_all().unwrap();
    world.decrypt_error(&record).await;
    assert!(matches!(session.try_decrypt(&record), Err(Error::KeyRevoked(_))));
    assert!(world.factory.close(SECOND).await.unwrap().is_clean());
    assert!(matches!(session.try_encrypt(b""), Err(Error::Closed)));
    assert!(matches!(session.try_decrypt(&record), Err(Error::Closed)));
}

#[tokio::test]
async fn a_revoked_key_that_goes_on_decrypting_warns() {
    let world = World::with(policy().revoked_decrypt(RevokedDecrypt::Warn));
    let (record, _) = world.sealed().await;
    world.revoke_latest(IK).await;
    world.factory.invalidate_all().unwrap();
    world.decrypts(&record).await;
    let warned = world.raised(Event::RevokedDecrypt);
    assert!(world.session().try_decrypt(&record).unwrap().is_some());
    assert_eq!(world.raised(Event::RevokedDecrypt), warned + 1);
}
