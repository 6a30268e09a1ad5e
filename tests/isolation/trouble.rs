//! Who is in trouble is asked seldom: by one operation a second, of all callers together, until it is
//! answered or a minute is over.

use std::time::Duration;

use claviger::testing::Operation;
use claviger::{Error, Limits};
use tokio::time::sleep;

use crate::desk::{Asked, DENIED, DOWN, Reply};
use crate::support::{
    HOUR, MILLISECOND, PERMITS, SECOND, STORE_DEADLINE, World, limits, of_earlier_version, policy, reads_of,
};

#[tokio::test(start_paused = true)]
async fn who_is_in_trouble_is_asked_once_a_second_by_all_callers_together() {
    for permits in PERMITS {
        for reply in [DOWN, Reply::Hang] {
            for callers in [1, 20, 100] {
                let case = format!("{permits} permits, {reply:?}, {callers} callers");
                let world = World::warm(policy(), limits(permits)).await;
                world.store.rule(reads_of("bad", reply));
                // The store answers others.
                let others = world.client_of_new("well", 70 * MILLISECOND);
                for _ in 0..callers {
                    world.client("bad", (callers * 20 * MILLISECOND).min(SECOND));
                }
                sleep(10 * SECOND).await;
                let known = world.store.now();
                sleep(20 * SECOND).await;
                let asked = world.reads_for("bad").since(known);
                assert_eq!(asked.most_in_a_second(), 1, "{case}");
                assert!(asked.longest_gap() <= STORE_DEADLINE + SECOND, "{case}: {:?}", asked.longest_gap());
                others.assert_well(STORE_DEADLINE);
            }
        }
    }
}

/// A key's latest and each of its versions are subjects of their own.
#[tokio::test(start_paused = true)]
async fn latest_and_each_version_of_a_key_are_in_trouble_apart() {
    let world = World::warm(policy(), Limits::production()).await;
    let record = world.encrypt("bad").await.expect_in(SECOND);
    let reader = world.other_process(policy(), Limits::production());
    reader.decrypt("bad", &record).await.expect_in(SECOND);
    let created = record.parent_created().unix_seconds();
    reader.store.rule(move |asked| {
        let is_it = asked.is_for("bad") && asked.created.is_none_or(|version| version != created);
        if is_it { DOWN } else { Reply::Answer }
    });
    for round in 0..100 {
        for older in [60, 120] {
            drop(reader.decrypt("bad", &of_earlier_version(&record, older)).await);
            // The store answers others.
            reader.encrypt(&format!("well{round}x{older}")).await.expect_in(Duration::ZERO);
        }
        drop(reader.encrypt("bad").await);
        reader.decrypt("bad", &record).await.expect_in(Duration::ZERO);
        sleep(97 * MILLISECOND).await;
    }
    // After the first operation with its retries.
    let asked = reader.reads_for("bad").since(SECOND / 2);
    for subject in [None, Some(created - 60), Some(created - 120)] {
        let asked = asked.that(|asked| asked.created == subject);
        assert_eq!(asked.most_in_a_second(), 1, "{subject:?}");
        assert!((8..=10).contains(&asked.len()), "{subject:?}: {}", asked.len());
    }
}

/// Of the metastore and of the KMS.
#[tokio::test(start_paused = true)]
async fn others_get_the_last_failure_of_who_is_in_trouble_at_once() {
    for operation in [Operation::LoadLatest, Operation::Insert, Operation::WrapKey] {
        let world = World::new(policy(), Limits::production());
        let rule = move |asked: &Asked| if asked.operation == operation { DOWN } else { Reply::Answer };
        world.store.rule(rule);
        world.kms.rule(rule);
        let first = world.encrypt("p").await.outcome.unwrap_err();
        let calls = || {
            let count = |log: crate::desk::Log| log.that(|asked| asked.operation == operation).len();
            count(world.store.log()) + count(world.kms.log())
        };
        let (asked, began) = (calls(), world.store.now());
        while world.store.now() < began + SECOND - 150 * MILLISECOND {
            let error = world.encrypt("p").await.refused_at_once();
            assert_eq!(failure(&error), failure(&first), "{operation:?}");
            sleep(50 * MILLISECOND).await;
        }
        assert_eq!(calls(), asked, "{operation:?}: it is not asked again in that second");
    }
}

/// What failed, and what it said.
fn failure(error: &Error) -> (&'static str, String) {
    let (operation, source) = match error {
        Error::Metastore { operation, source, .. } | Error::Kms { operation, source, .. } => {
            (*operation, source)
        }
        other => panic!("{other:?}"),
    };
    (operation, std::error::Error::source(source).map(ToString::to_string).unwrap_or_default())
}

/// Also a refusal for good.
#[tokio::test(start_paused = true)]
async fn trouble_ends_with_an_answer() {
    let world = World::warm(policy(), Limits::production()).await;
    world.store.rule(reads_of("bad", DOWN));
    assert!(world.encrypt("bad").await.outcome.unwrap_err().is_retryable());
    sleep(SECOND).await;
    world.store.rule(reads_of("bad", DENIED));
    let before = world.reads_for("bad").len();
    for calls in 1..=5 {
        assert!(!world.encrypt("bad").await.refused_at_once().is_retryable());
        assert_eq!(world.reads_for("bad").len(), before + calls);
    }
}

/// Then it is a customer like any other, whose calls are tried again.
#[tokio::test(start_paused = true)]
async fn trouble_ends_after_a_minute() {
    for (since, calls) in [(SECOND, 1), (59 * SECOND, 1), (61 * SECOND, 3), (HOUR, 3)] {
        let world = World::warm(policy(), Limits::production()).await;
        world.store.rule(reads_of("bad", DOWN));
        assert!(world.encrypt("bad").await.outcome.is_err());
        let before = world.reads_for("bad").len();
        assert_eq!(before, 3);
        sleep(since).await;
        world.encrypt("well").await.expect_in(Duration::ZERO);
        assert!(world.encrypt("bad").await.outcome.is_err());
        assert_eq!(world.reads_for("bad").len() - before, calls, "{since:?} after it");
    }
}

/// An operation whose caller went away is still one that hangs.
#[tokio::test(start_paused = true)]
async fn who_hangs_is_in_trouble_also_if_the_operations_deadline_comes_first() {
    let world = World::warm(policy(), Limits::production().operation_deadline(SECOND)).await;
    world.store.rule(reads_of("hung", Reply::Hang));
    let ended = world.encrypt("hung").await;
    assert_eq!(ended.took, SECOND);
    assert!(ended.outcome.is_err());
    world.client("hung", 10 * MILLISECOND);
    world.client_of_new("well", 70 * MILLISECOND);
    let known = world.store.now();
    sleep(30 * SECOND).await;
    assert_eq!(world.reads_for("hung").since(known).most_in_a_second(), 1);
}
