//! Records that somebody made up.

use claviger::testing::{FixedClock, Operation};
use claviger::{DataRowRecord, Error, Event, ReadableSuffixes};

use crate::forged::naming;
use crate::support::*;

/// Each forged version costs a call, up to so many a second for each partition.
#[tokio::test]
async fn forged_versions_cost_so_many_calls_a_second_and_nobody_else() {
    let world = World::new();
    let (record, _) = world.sealed().await;
    let bob = world.session_of("bob").encrypt(b"secret").await.unwrap();
    let cold = world.session_of("cold").encrypt(b"secret").await.unwrap();
    for second in 1..=3_u64 {
        let before = world.calls_for(Operation::Load, IK);
        let mut refused = 0;
        for number in 0..5_000 {
            let created = START - 1_000_000 * i64::try_from(second).unwrap() + number;
            let error = world.decrypt_error(&naming(&record, IK, &created.to_string()).unwrap()).await;
            match error {
                Error::KeyNotFound(_) => {}
                Error::Overloaded { limit: "max_misses", max: 64, .. } => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(world.calls_for(Operation::Load, IK) - before, 64);
        assert_eq!((refused, world.raised(Event::TooManyMisses)), (4_936, 4_936 * second));
        // What is cached, and other partitions.
        world.decrypts(&record).await;
        assert_eq!(*world.session_of("bob").decrypt(&bob).await.unwrap(), *b"secret");
        world.clock.advance(SECOND);
    }
    let other = world.other_process();
    assert_eq!(*other.session_of("cold").decrypt(&cold).await.unwrap(), *b"secret");
}

/// The regions of one partition are one, and where they are known others cost nothing.
#[tokio::test]
async fn forged_regions_count_for_one_partition() {
    let regions = |readable: Option<ReadableSuffixes>| {
        World::over(Default::default(), FixedClock::new(START.unsigned_abs()), |builder| {
            let builder = builder.region_suffix("us-west-2");
            readable.into_iter().fold(builder, claviger::SessionFactoryBuilder::readable_suffixes)
        })
    };
    for (readable, calls) in [(None, 64), (Some(ReadableSuffixes::Only(vec!["eu-west-1".to_owned()])), 0)] {
        let world = regions(readable);
        let record = world.session().encrypt(b"secret").await.unwrap();
        let before = world.calls().load;
        for number in 0..1_000_u32 {
            let word: String = (0..4)
                .map(|place| char::from(b'a' + u8::try_from(number / 26_u32.pow(place) % 26).unwrap()))
                .collect();
            let id = format!("_IK_alice_checkout_payments_aa-{word}-1");
            let forged = naming(&record, &id, &record.parent_created().to_string()).unwrap();
            assert!(world.session().decrypt(&forged).await.is_err());
        }
        assert_eq!(world.calls().load - before, calls);
        assert_eq!(*world.session().decrypt(&record).await.unwrap(), *b"secret");
    }
}

/// What no store can hold asks none.
#[tokio::test]
async fn records_that_name_what_no_store_can_hold_are_malformed() {
    let world = World::new();
    let (record, _) = world.sealed().await;
    let before = world.calls();
    for created in ["0", "-5", "253402300800", "9223372036854775807"] {
        assert!(naming(&record, IK, created).is_err(), "{created}");
    }
    let long = format!("_IK_alice_checkout_payments_{}", "x".repeat(2_048));
    assert!(naming(&record, &long, "1").is_err());
    for id in
        ["_IK_Alice_checkout_payments", "_IK_alice_checkout_payments ", "_SK_checkout_payments", "", "x"]
    {
        let forged = naming(&record, id, &record.parent_created().to_string()).unwrap();
        let error = world.decrypt_error(&forged).await;
        assert!(matches!(error, Error::ForeignRecord), "{id}: {error:?}");
    }
    assert_eq!(world.calls() - before, Calls::default());
}

/// A partition's name is never echoed, however long, and what no store can hold asks none.
#[tokio::test]
async fn partitions_that_no_store_can_hold_are_refused_at_the_door() {
    let world = World::new();
    for partition in ["x".repeat(256), "x".repeat(5_000_000), "a\u{1b}[2J".to_owned(), "a\nb".to_owned()] {
        let error = world.factory.session(&partition).unwrap_err();
        assert!(matches!(error, Error::InvalidPartition { .. }), "{error:?}");
        assert!(error.to_string().len() < 100 && !error.is_retryable());
    }
    assert!(world.factory.session(&"x".repeat(200)).is_ok());
}
