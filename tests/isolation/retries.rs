//! One policy of retries (S0.6): only what fails for now is tried again, so often, after pauses that are
//! drawn at random below a bound that doubles, and not beyond the operation's deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use claviger::testing::Operation;
use claviger::{Error, FailureClass, Limits};

use crate::desk::{Asked, DOWN, Log, Reply};
use crate::support::{MILLISECOND, SECOND, World, limits, policy};

/// The calls that are tried again.
const OPERATIONS: [Operation; 4] =
    [Operation::LoadLatest, Operation::Load, Operation::Insert, Operation::UnwrapKey];

/// Has the first calls of an operation fail, and loads a key that needs it. Returns how it ended and the
/// calls.
async fn played(operation: Operation, limits: Limits, failures: usize, reply: Reply) -> (Option<Error>, Log) {
    let writer = World::warm(policy(), Limits::production()).await;
    let record = writer.encrypt("old").await.expect_in(SECOND);
    let world = writer.other_process(policy(), limits);
    let left = Arc::new(AtomicUsize::new(failures));
    let rule = move |asked: &Asked| {
        let fails = asked.operation == operation
            && left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if fails { reply } else { Reply::Answer }
    };
    world.store.rule(rule.clone());
    world.kms.rule(rule);
    let error = match operation {
        Operation::Load | Operation::UnwrapKey => world.decrypt("old", &record).await.outcome.err(),
        _ => world.encrypt("new").await.outcome.err(),
    };
    let mut calls = world.store.log().that(|asked| asked.operation == operation);
    calls.0.extend(world.kms.log().that(|asked| asked.operation == operation).0);
    // Of the first one that was asked for.
    let id = calls.0[0].id.clone();
    (error, calls.that(|asked| asked.id == id))
}

#[tokio::test(start_paused = true)]
async fn s0_6_call_that_fails_for_now_is_tried_again_so_often_as_is_allowed() {
    for operation in OPERATIONS {
        for max_attempts in [1, 2, 3, 4] {
            for failures in 0..=4 {
                let limits = Limits::production().max_attempts(max_attempts);
                let (error, calls) = played(operation, limits, failures, DOWN).await;
                let case = format!("{operation:?}, {failures} failures, {max_attempts} attempts");
                let attempts = usize::try_from(max_attempts).unwrap();
                assert_eq!(calls.len(), attempts.min(failures + 1), "{case}");
                assert_eq!(error.is_some(), failures >= attempts, "{case}: {error:?}");
                assert!(error.is_none_or(|error| error.is_retryable()), "{case}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn s0_6_what_is_refused_for_good_is_not_tried_again() {
    for operation in OPERATIONS {
        for class in [FailureClass::Permanent, FailureClass::Damaged] {
            let (error, calls) = played(operation, Limits::production(), 1, Reply::Fail(class)).await;
            assert_eq!(calls.len(), 1, "{operation:?}, {class:?}");
            assert!(error.is_some_and(|error| !error.is_retryable()), "{operation:?}, {class:?}");
        }
    }
}

/// Full jitter: each pause is drawn from the whole span below its bound.
#[tokio::test(start_paused = true)]
async fn s0_6_pauses_are_drawn_below_20_40_and_80_milliseconds() {
    let world = World::warm(policy(), Limits::production().max_attempts(4)).await;
    let desk = world.store.clone();
    // Each partition's first three reads fail.
    world.store.rule(move |asked| {
        let reads = desk.log().that(|before| before.id == asked.id).len();
        if asked.operation == Operation::LoadLatest && reads < 3 { DOWN } else { Reply::Answer }
    });
    let mut pauses: [Vec<Duration>; 3] = Default::default();
    for number in 0..100 {
        let partition = format!("p{number}");
        world.encrypt(&partition).await.expect_in(SECOND);
        let calls = world.reads_for(&partition);
        assert_eq!(calls.len(), 4);
        for (drawn, pair) in pauses.iter_mut().zip(calls.0.windows(2)) {
            drawn.push(pair[1].at - pair[0].until.unwrap());
        }
    }
    for (drawn, bound) in pauses.iter().zip([20, 40, 80]) {
        let bound = bound * MILLISECOND;
        // The timer's steps are a millisecond.
        assert!(drawn.iter().all(|pause| *pause <= bound + MILLISECOND), "{bound:?}: {drawn:?}");
        let [shortest, longest] = [drawn.iter().min(), drawn.iter().max()].map(|pause| *pause.unwrap());
        assert!(shortest < bound / 4 && longest > bound * 3 / 4, "{bound:?}: {shortest:?} to {longest:?}");
    }
}

/// What an operation gets back is what its last attempt said, and there is none once the breaker is open.
#[tokio::test(start_paused = true)]
async fn s0_6_open_breaker_ends_the_retries_with_the_last_real_failure() {
    for operation in OPERATIONS {
        let (error, calls) = played(operation, Limits::production().max_attempts(50), 50, DOWN).await;
        assert_eq!(calls.len(), 5, "{operation:?}");
        let source = match &error {
            Some(Error::Metastore { source, .. } | Error::Kms { source, .. }) => source,
            other => panic!("{operation:?}: {other:?}"),
        };
        let said = std::error::Error::source(source).map(ToString::to_string);
        assert_eq!(said.as_deref(), Some("as told"), "{operation:?}");
    }
}

/// The one whose attempt another's failures outran, too: it is not tried again as a probe.
#[tokio::test(start_paused = true)]
async fn s0_6_breaker_that_others_open_ends_the_retries_too() {
    let world = World::warm(policy(), Limits::production()).await;
    world.store.all(Reply::FailLate(10 * MILLISECOND));
    let began = world.store.now();
    for encrypt in world.begin_encrypts("p", 6) {
        let ended = encrypt.await.unwrap();
        assert!(ended.took <= 10 * MILLISECOND + 20 * MILLISECOND, "{:?}", ended.took);
        assert!(ended.outcome.unwrap_err().is_retryable());
    }
    let asked = world.store.log().that(|asked| asked.is_for_one_of("p") && asked.at >= began);
    assert_eq!(asked.len(), 6, "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn s0_6_operations_deadline_wins() {
    for (operation_deadline, attempts) in [(SECOND, 1), (3 * SECOND, 2), (5 * SECOND, 3), (9 * SECOND, 3)] {
        let world = World::warm(policy(), limits(64).operation_deadline(operation_deadline)).await;
        world.store.rule(crate::support::reads_of("hung", Reply::Hang));
        let ended = world.encrypt("hung").await;
        assert!(ended.took <= operation_deadline, "{:?}", ended.took);
        let error = ended.outcome.unwrap_err();
        // Three attempts of two seconds each, and two pauses.
        let is_over = matches!(error, Error::Deadline { .. });
        assert_eq!(is_over, operation_deadline < 6 * SECOND, "{error:?}");
        assert_eq!(world.reads_for("hung").len(), attempts, "{operation_deadline:?}");
    }
}
