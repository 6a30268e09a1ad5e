//! The breaker refuses only who is in trouble, and a dead store is asked once a second.

use std::time::Duration;

use claviger::testing::Operation;
use claviger::{Error, Limits};
use tokio::time::sleep;

use crate::desk::{DENIED, DOWN, Reply};
use crate::support::{
    Ended, INTERVAL, MILLISECOND, OPERATION_DEADLINE, PERMITS, SECOND, STORE_DEADLINE, World, checked_often,
    limits, policy, reads_of,
};

/// How long a client waits before it tries again.
const RETRY: Duration = Duration::from_millis(40);

/// On a quiet store those that hang are all that is asked, so the breaker is open for them alone.
#[tokio::test(start_paused = true)]
async fn new_customer_is_served_beside_partitions_that_hang_on_a_quiet_store() {
    for permits in PERMITS {
        for hanging in [1, 5] {
            for moment in 0..10 {
                let world = World::warm(policy(), limits(permits)).await;
                world.store.rule(reads_of("hung", Reply::Hang));
                world.clients("hung", hanging, RETRY);
                sleep(11 * SECOND + moment * 247 * MILLISECOND).await;
                // Where all permits of loads hang when they are first asked for, that is one deadline more.
                world.encrypt("new").await.expect_in(STORE_DEADLINE);
            }
        }
    }
}

/// The worst of moments for a new customer: those before it are asked for the first time.
#[tokio::test(start_paused = true)]
async fn new_customer_is_served_beside_five_partitions_whose_first_calls_hang() {
    for moment in 0..30 {
        let world = World::warm(policy(), Limits::production()).await;
        sleep(11 * SECOND).await;
        world.store.rule(reads_of("hung", Reply::Hang));
        world.clients("hung", 5, RETRY);
        sleep(moment * 101 * MILLISECOND).await;
        world.encrypt("new").await.expect_in(STORE_DEADLINE);
    }
}

/// A throttled partition whose clients try again and again.
#[tokio::test(start_paused = true)]
async fn failing_partition_with_clients_that_retry_refuses_nobody_else() {
    for (permits, clients) in [(1, 1), (3, 20), (64, 1), (64, 20)] {
        let world = World::warm(checked_often(), limits(permits)).await;
        let warm = world.clients("warm", 100, 213 * MILLISECOND);
        let hot = world.client("hot", RETRY);
        let key = world.encrypt("hot").await.expect_in(SECOND).parent().unwrap().clone();
        world.store.rule(reads_of("bad", DOWN));
        for _ in 0..clients {
            world.client("bad", RETRY);
        }
        sleep(SECOND / 2).await;
        let revoked = world.store.now();
        world.revoke(&key).await;
        let new = world.client_of_new("new", 397 * MILLISECOND);
        sleep(12 * SECOND).await;
        new.assert_well(Duration::ZERO);
        warm.iter().chain([&hot]).for_each(|client| client.assert_well(Duration::ZERO));
        let last_use = hot.now().last_use(&key).unwrap();
        assert!(
            last_use <= revoked + INTERVAL,
            "{:?} after it was revoked",
            last_use.saturating_sub(revoked)
        );
        assert!(!world.metastore_is_down());
    }
}

/// Whoever wants it, whether their keys are cached and are to be checked, or are not.
#[tokio::test(start_paused = true)]
async fn dead_store_is_asked_once_a_second_and_used_again_once_it_is_back() {
    for reply in [DOWN, Reply::Hang] {
        for is_cached in [false, true] {
            for in_use in [1, 3, 40] {
                let case = format!("{reply:?}, cached: {is_cached}, {in_use} in use");
                let world = World::warm(checked_often(), Limits::production()).await;
                if is_cached {
                    for ended in world.begin_encrypts("p", in_use) {
                        ended.await.unwrap().expect_in(SECOND);
                    }
                }
                world.store.all(reply);
                let pause = u32::try_from(in_use).unwrap() * 5 * MILLISECOND;
                let clients = world.clients("p", in_use, pause.max(RETRY));
                sleep(30 * SECOND).await;
                assert!(world.metastore_is_down(), "{case}");
                let dead = world.store.now();
                sleep(60 * SECOND).await;
                let asked = world.store.log().since(dead);
                assert_eq!(asked.most_in_a_second(), 1, "{case}: {:?}", asked.0);
                // A call that hangs is in the way of the next one of its key.
                assert!(asked.longest_gap() <= STORE_DEADLINE + SECOND, "{case}: {:?}", asked.longest_gap());
                if is_cached {
                    clients.iter().for_each(|client| client.assert_well(SECOND));
                }

                world.store.heal();
                sleep(STORE_DEADLINE + SECOND).await;
                assert!(!world.metastore_is_down(), "{case}");
                for partition in 0..in_use {
                    world.encrypt(&format!("p{partition}")).await.expect_in(Duration::ZERO);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn store_that_takes_no_inserts_is_asked_for_one_a_second() {
    for reply in [DOWN, Reply::Hang] {
        for in_use in [1, 3, 40] {
            let world = World::warm(policy(), Limits::production()).await;
            let old = world.encrypt("old").await.expect_in(SECOND);
            world.store.rule(move |asked| if asked.is_insert() { reply } else { Reply::Answer });
            world.clients("p", in_use, 100 * MILLISECOND);
            sleep(30 * SECOND).await;
            let dead = world.store.now();
            sleep(30 * SECOND).await;
            let inserts = world.store.log().since(dead).that(|asked| asked.is_insert());
            assert_eq!(inserts.most_in_a_second(), 1, "{reply:?}, {in_use} in use");
            let status = world.factory.status().unwrap();
            assert!(status.metastore_read_only && !status.metastore_down, "{status:?}");
            world.decrypt("old", &old).await.expect_in(Duration::ZERO);

            world.store.heal();
            sleep(STORE_DEADLINE + SECOND).await;
            for partition in 0..in_use {
                world.encrypt(&format!("p{partition}")).await.expect_in(Duration::ZERO);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn probe_goes_to_who_is_not_in_trouble_if_one_waits() {
    for reply in [DOWN, Reply::Hang] {
        for moment in 0..10 {
            let world = World::warm(policy(), Limits::production()).await;
            world.store.rule(reads_of("bad", reply));
            world.clients("bad", 3, RETRY);
            sleep(20 * SECOND + moment * 100 * MILLISECOND).await;
            assert!(world.metastore_is_down());
            let calls = world.store.log().len();
            // The probe is left for a quarter of a second to those that were answered last.
            world.encrypt("well").await.expect_in(SECOND + 250 * MILLISECOND);
            let log = world.store.log();
            assert!(log.0[calls].is_for("well"), "{reply:?}, {moment}: {:?}", &log.0[calls..]);
        }
    }
}

/// Less than a second after they failed: by a call that was under way when the breaker opened.
#[tokio::test(start_paused = true)]
async fn answer_lets_each_in_trouble_be_asked_again_at_once() {
    let world = World::warm(policy(), Limits::production()).await;
    world.store.rule(|asked| {
        let is_well = asked.is_for("well");
        if is_well { Reply::Late(100 * MILLISECOND) } else { Reply::FailLate(10 * MILLISECOND) }
    });
    let well = world.begin_encrypt("well");
    let failing = world.begin_encrypts("p", 50);
    for ended in failing {
        assert!(ended.await.unwrap().outcome.unwrap_err().is_retryable());
    }
    assert!(world.metastore_is_down());
    world.store.heal();
    well.await.unwrap().expect_in(100 * MILLISECOND);
    for partition in 0..50 {
        world.encrypt(&format!("p{partition}")).await.expect_in(Duration::ZERO);
    }
    assert!(world.store.now() < SECOND);
}

/// Once the store is taken to be down it is so until it answers, also while the next probe is due.
#[tokio::test(start_paused = true)]
async fn store_is_told_to_be_down_from_the_fifth_failure_to_the_next_answer() {
    for is_in_use in [false, true] {
        let world = World::warm(policy(), Limits::production().max_attempts(1)).await;
        world.store.all(DOWN);
        for failure in 1..=5 {
            assert!(world.encrypt(&format!("p{failure}")).await.outcome.is_err());
            assert_eq!(world.metastore_is_down(), failure == 5, "{failure}");
        }
        if is_in_use {
            world.clients("p", 5, RETRY);
        }
        for _ in 0..500 {
            sleep(RETRY).await;
            assert!(world.metastore_is_down(), "in use: {is_in_use}");
        }
        world.store.heal();
        world.encrypt("new").await.expect_in(SECOND);
        assert!(!world.metastore_is_down());
    }
}

#[tokio::test(start_paused = true)]
async fn answer_to_anybody_keeps_the_store_up() {
    let world = World::warm(policy(), Limits::production().max_attempts(1)).await;
    world.store.rule(reads_of("bad", DOWN));
    for round in 0..20 {
        for bad in 0..4 {
            assert!(world.encrypt(&format!("bad{round}x{bad}")).await.outcome.is_err());
        }
        world.encrypt(&format!("well{round}")).await.expect_in(Duration::ZERO);
        assert!(!world.metastore_is_down());
    }
}

/// A refusal for good says that the dependency is up: it opens no breaker, and nobody is in trouble by it.
#[tokio::test(start_paused = true)]
async fn refusals_for_good_are_answers() {
    for operation in [Operation::LoadLatest, Operation::Insert, Operation::WrapKey] {
        for is_one_partition in [false, true] {
            let world = World::new(policy(), Limits::production());
            let rule = move |asked: &crate::desk::Asked| {
                if asked.operation == operation { DENIED } else { Reply::Answer }
            };
            world.store.rule(rule);
            world.kms.rule(rule);
            for number in 0..20 {
                let partition = if is_one_partition { "p".to_owned() } else { format!("p{number}") };
                let error = world.encrypt(&partition).await.refused_at_once();
                assert!(!error.is_retryable(), "{operation:?}: {error:?}");
            }
            let calls = [world.store.log(), world.kms.log()]
                .map(|log| log.that(|asked| asked.operation == operation).len());
            assert_eq!(calls.iter().sum::<usize>(), 20, "{operation:?}");
            assert!(!world.metastore_is_down() && !world.kms_is_down(), "{operation:?}");
        }
    }
}

/// An outage tells what the store said last, not that it is not asked.
#[tokio::test(start_paused = true)]
async fn who_is_in_trouble_is_told_the_last_failure_in_an_outage_too() {
    let world = World::warm(policy(), Limits::production()).await;
    world.store.all(DOWN);
    for _ in 0..100 {
        let Ended { outcome, took } = world.encrypt("p").await;
        assert!(took < OPERATION_DEADLINE);
        match outcome {
            Err(Error::Metastore { operation: "load_latest", source, .. }) => {
                assert_eq!(std::error::Error::source(&source).unwrap().to_string(), "as told");
            }
            other => panic!("{other:?}"),
        }
        sleep(150 * MILLISECOND).await;
    }
    assert!(world.metastore_is_down());
}
