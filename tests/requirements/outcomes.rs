//! S3.7: what the store answers is told apart, and a refusal surfaces.

use claviger::testing::{Fault, NoChance, Operation, call};
use claviger::{CryptoPolicy, Error, FailureClass, KeyMeta, Limits, MetastoreAdmin};

use crate::world::{DAY, HOUR, SECOND, World, policy};

/// Why the latest key must not be used any more.
#[derive(Clone, Copy, Debug)]
enum End {
    Expired,
    Revoked,
    ParentRevoked,
    Exhausted,
}

const WRAPS_MAX: u64 = 8;

#[tokio::test(start_paused = true)]
async fn s3_7_a_denied_insert_is_an_error_never_an_expired_or_revoked_key() {
    for end in [End::Expired, End::Revoked, End::ParentRevoked, End::Exhausted] {
        let world = World::new();
        let policy: CryptoPolicy = policy().max_wraps_per_key(WRAPS_MAX);
        let random = NoChance::new(world.random.clone());
        let factory = world.builder().policy(policy).random(random).build().unwrap();
        let session = factory.session("partition").unwrap();
        let old = session.encrypt(b"").await.unwrap();
        bring_about(end, &world, old.parent().unwrap()).await;
        if let End::Exhausted = end {
            for _ in 1..WRAPS_MAX {
                session.encrypt(b"").await.unwrap();
            }
        }
        let rows = world.rows().await;

        world.store.faults().always_for(Operation::Insert, Fault::Fail(FailureClass::Permanent));
        for attempt in 1..=3 {
            let denied = session.encrypt(b"").await;
            let error = denied.expect_err(&format!("{end:?}, attempt {attempt}"));
            assert!(matches!(error, Error::Metastore { operation: "insert", .. }), "{end:?}: {error:?}");
            assert!(!error.is_retryable(), "{end:?}");
        }
        assert_eq!(world.rows().await, rows, "{end:?}");
        assert_eq!(*session.decrypt(&old).await.unwrap(), *b"", "{end:?}: reading goes on");

        world.store.faults().heal();
        let new = session.encrypt(b"").await.unwrap();
        assert_ne!(new.parent().unwrap(), old.parent().unwrap(), "{end:?}");
    }
}

async fn bring_about(end: End, world: &World, key: &KeyMeta) {
    match end {
        // Within the time in which a transient failure would be bridged: what is denied is not.
        End::Expired => world.clock.advance(90 * DAY + HOUR / 2),
        End::Revoked => assert!(world.store.inner().revoke(key, &call()).await.unwrap()),
        End::ParentRevoked => {
            let rows = world.store.inner().list("", None, 10, &call()).await.unwrap().records;
            let parent = rows.iter().find_map(|row| row.parent()).unwrap();
            assert!(world.store.inner().revoke(parent, &call()).await.unwrap());
        }
        End::Exhausted => {}
    }
    if let End::Revoked | End::ParentRevoked = end {
        world.clock.advance(3 * HOUR);
    }
}

/// The three answers of an insert, and what each leads to.
#[tokio::test(start_paused = true)]
async fn s3_7_a_failed_insert_is_not_taken_for_a_duplicate() {
    let world = World::new();
    let session = world.factory_without_retries().session("partition").unwrap();
    for class in [FailureClass::Transient, FailureClass::Permanent] {
        world.store.faults().next(Operation::Insert, Fault::Fail(class));
        let error = session.encrypt(b"").await.unwrap_err();
        assert!(matches!(error, Error::Metastore { operation: "insert", .. }), "{error:?}");
        assert_eq!(error.is_retryable(), class == FailureClass::Transient);
        assert_eq!(world.rows().await, 0);
        world.clock.advance(SECOND);
    }
    let record = session.encrypt(b"").await.unwrap();
    // A process that starts now finds the keys and inserts none.
    let other = world.factory().session("partition").unwrap();
    assert_eq!(other.encrypt(b"").await.unwrap().parent().unwrap(), record.parent().unwrap());
    assert_eq!(world.rows().await, 2);
}

#[tokio::test(start_paused = true)]
async fn s3_7_a_failed_read_never_creates_a_key() {
    for class in [FailureClass::Transient, FailureClass::Permanent] {
        for operation in [Operation::Load, Operation::LoadLatest] {
            let world = World::new();
            world.factory().session("partition").unwrap().encrypt(b"").await.unwrap();
            let rows = world.rows().await;
            world.store.faults().always_for(operation, Fault::Fail(class));
            let error = world.factory().session("partition").unwrap().encrypt(b"").await.unwrap_err();
            assert!(matches!(error, Error::Metastore { .. }), "{operation:?}: {error:?}");
            assert_eq!(world.rows().await, rows, "{operation:?}");
            assert_eq!(world.store.faults().calls_of(Operation::Insert), 2, "those of the first factory");
        }
    }
}

/// Of plaintexts; what they are sealed in is not counted.
#[tokio::test]
async fn s0_2_a_payload_of_the_limit_is_taken_and_one_of_a_byte_more_is_not() {
    let world = World::new();
    let session = |max_bytes| {
        let limits = Limits::production().max_payload_bytes(max_bytes);
        world.builder().limits(limits).build().unwrap().session("partition").unwrap()
    };
    let limited = session(100);
    let record = limited.encrypt(&[7; 100]).await.unwrap();
    assert_eq!(*limited.decrypt(&record).await.unwrap(), [7; 100]);
    let too_large =
        |ended: Option<Error>| matches!(ended, Some(Error::TooLarge { bytes: 101, max_bytes: 100, .. }));
    assert!(too_large(limited.encrypt(&[7; 101]).await.err()));

    let larger = session(101).encrypt(&[7; 101]).await.unwrap();
    let fresh = session(100);
    let calls = world.store.faults().calls();
    assert!(too_large(fresh.decrypt(&larger).await.err()));
    assert!(too_large(fresh.decrypt_json(larger.to_json().as_bytes()).await.err()));
    assert_eq!(world.store.faults().calls(), calls, "nothing is loaded for it");
}
