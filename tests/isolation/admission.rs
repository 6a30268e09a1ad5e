//! Under overload exactly the excess is refused, at once, by name, and what began goes on to its end.

use std::time::Duration;

use claviger::testing::Operation;
use claviger::{Dependency, Error, Limits};
use tokio::time::sleep;

use crate::desk::{Asked, Reply};
use crate::support::{
    INTERVAL, MILLISECOND, OPERATION_DEADLINE, REFRESH_WAIT, SECOND, World, checked_often, ik, policy,
};

const LATENCY: Duration = Duration::from_millis(20);

/// Places: of loads that may ask the store at once, and of those that may wait.
const ASKING: usize = 8;
const WAITING: usize = 100;

fn few_places() -> Limits {
    Limits::production().max_store_calls(ASKING).max_waiting_calls(WAITING)
}

#[tokio::test(start_paused = true)]
async fn exactly_the_excess_of_loads_is_refused_at_once_and_none_half_way() {
    for at_once in [100, 104, 108, 1_000, 50_000] {
        let excess = at_once - at_once.min(ASKING + WAITING);
        let world = World::warm(policy(), few_places()).await;
        world.store.all(Reply::Late(LATENCY));
        let (mut served, mut refused) = (0, 0);
        for encrypt in world.begin_encrypts("p", at_once) {
            let ended = encrypt.await.unwrap();
            if ended.outcome.is_ok() {
                served += 1;
                continue;
            }
            refused += 1;
            match ended.refused_at_once() {
                Error::Overloaded { limit, max, key, .. } => {
                    assert_eq!((limit, max), ("max_waiting_calls", WAITING));
                    assert!(key.as_str().starts_with("_IK_p"), "{key:?}");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((served, refused), (at_once - excess, excess), "{at_once} at once");
        // Nothing was asked for those that were refused.
        let asked = world.store.log().that(|asked| asked.is_for_one_of("p"));
        assert_eq!(asked.len(), 2 * served, "{at_once} at once");

        // It recovers.
        for encrypt in world.begin_encrypts("later", ASKING + WAITING) {
            encrypt.await.unwrap().expect_in(OPERATION_DEADLINE);
        }
    }
}

/// Reads of the same kind: each wants a version of its own.
#[tokio::test(start_paused = true)]
async fn exactly_the_excess_of_cold_decrypts_is_refused_at_once() {
    let writer = World::warm(policy(), Limits::production()).await;
    let mut records = Vec::new();
    for number in 0..300 {
        let partition = format!("p{number}");
        records.push((writer.encrypt(&partition).await.expect_in(SECOND), partition));
    }
    let world = writer.other_process(policy(), few_places());
    world.encrypt("first").await.expect_in(SECOND);
    world.store.all(Reply::Late(LATENCY));
    let decrypts: Vec<_> =
        records.iter().map(|(record, partition)| world.begin_decrypt(partition, record)).collect();
    let mut refused = 0;
    for decrypt in decrypts {
        let ended = decrypt.await.unwrap();
        if ended.outcome.is_err() {
            refused += 1;
            let error = ended.refused_at_once();
            assert!(matches!(error, Error::Overloaded { limit: "max_waiting_calls", .. }), "{error:?}");
        }
    }
    assert_eq!(refused, 300 - ASKING - WAITING);
}

/// However many wait for the load of one key, it is one load.
#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_load_take_no_place_of_it() {
    let world = World::warm(policy(), Limits::production().max_store_calls(1).max_waiting_calls(1)).await;
    world.store.all(Reply::Late(LATENCY));
    let encrypts: Vec<_> = (0..5_000).map(|_| world.begin_encrypt("p")).collect();
    for encrypt in encrypts {
        encrypt.await.unwrap().expect_in(SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn s0_2_exactly_the_excess_of_cold_operations_is_refused_and_warm_ones_never_are() {
    const MAX: usize = 1_000;
    const AT_ONCE: usize = 50_000;
    // Each wants a key of its own, and many want few.
    for partitions in [AT_ONCE, 10] {
        let world = World::warm(checked_often(), Limits::production().max_cold_operations(MAX)).await;
        let warm = world.clients("warm", 10, 50 * MILLISECOND);
        sleep(SECOND).await;
        world.store.all(Reply::Late(LATENCY));
        let encrypts: Vec<_> =
            (0..AT_ONCE).map(|number| world.begin_encrypt(&format!("p{}", number % partitions))).collect();
        let (mut served, mut refused) = (0, 0);
        for encrypt in encrypts {
            let ended = encrypt.await.unwrap();
            match ended.outcome {
                Ok(_) => served += 1,
                Err(Error::Overloaded { limit, max, key, dependency, .. }) => {
                    refused += 1;
                    assert_eq!((limit, max, ended.took), ("max_cold_operations", MAX, Duration::ZERO));
                    assert!(key.as_str().starts_with("_IK_p"), "{key:?}");
                    assert_eq!(dependency, Some(Dependency::Metastore));
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!((served, refused), (MAX, AT_ONCE - MAX), "{partitions} partitions");
        sleep(2 * INTERVAL).await;
        warm.iter().for_each(|client| client.assert_well(REFRESH_WAIT));
        for encrypt in world.begin_encrypts("later", MAX) {
            encrypt.await.unwrap().expect_in(OPERATION_DEADLINE);
        }
    }
}

/// What many wait for is named, so that an operator knows where to look.
#[tokio::test(start_paused = true)]
async fn who_is_refused_beside_a_kms_that_hangs_is_told_so() {
    for limits in [Limits::production().max_cold_operations(10), few_places()] {
        let world = World::new(policy(), limits);
        world.kms.all(Reply::Hang);
        world.begin_encrypts("p", ASKING + WAITING);
        sleep(SECOND).await;
        let error = world.encrypt("new").await.refused_at_once();
        assert!(error.is_retryable());
        match error {
            Error::Overloaded { key, dependency, .. } => {
                assert_eq!((key.as_str(), dependency), (ik("new").as_str(), Some(Dependency::Kms)));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The dependency that an operation waited for when its deadline came, at each stage of a load.
#[tokio::test(start_paused = true)]
async fn deadline_names_what_was_waited_for() {
    let limits = || {
        let long = 10 * OPERATION_DEADLINE;
        Limits::production().store_deadline(long).kms_deadline(long)
    };
    let stages = [
        (Operation::LoadLatest, Dependency::Metastore),
        (Operation::Load, Dependency::Metastore),
        (Operation::Insert, Dependency::Metastore),
        (Operation::WrapKey, Dependency::Kms),
        (Operation::UnwrapKey, Dependency::Kms),
    ];
    for (operation, dependency) in stages {
        let writer = World::warm(policy(), limits()).await;
        let is_stored = matches!(operation, Operation::Load | Operation::UnwrapKey);
        let world =
            if is_stored { writer.other_process(policy(), limits()) } else { World::new(policy(), limits()) };
        let rule =
            move |asked: &Asked| if asked.operation == operation { Reply::Hang } else { Reply::Answer };
        world.store.rule(rule);
        world.kms.rule(rule);
        // One begins the load of the system key, the others wait for it.
        let partitions = if is_stored { ["first"; 3] } else { ["p0", "p1", "p2"] };
        for encrypt in partitions.map(|partition| world.begin_encrypt(partition)) {
            let ended = encrypt.await.unwrap();
            assert_eq!(ended.took, OPERATION_DEADLINE, "{operation:?}");
            match ended.outcome.unwrap_err() {
                Error::Deadline { limit, after, key, dependency: named, .. } => {
                    assert_eq!((limit, after), ("operation_deadline", OPERATION_DEADLINE));
                    assert!(partitions.iter().any(|partition| key.as_str() == ik(partition)), "{key:?}");
                    assert_eq!(named, Some(dependency), "{operation:?}");
                }
                other => panic!("{operation:?}: {other:?}"),
            }
        }
    }
}
