//! No work that cannot help: while the KMS is down the metastore is not asked for what only the KMS could
//! open, and what is down is told.

use claviger::testing::Operation;
use claviger::{DataRowRecord, Limits};
use tokio::time::sleep;

use crate::desk::{Asked, DOWN, Reply};
use crate::support::{INTERVAL, MILLISECOND, SECOND, STORE_DEADLINE, World, checked_often, policy, reads_of};

/// Rows of so many partitions, and another process that has nothing cached.
async fn stored(partitions: usize) -> (World, Vec<(String, DataRowRecord)>) {
    let writer = World::new(policy(), Limits::production());
    let mut records = Vec::new();
    for number in 0..partitions {
        let partition = format!("p{number}");
        let record = writer.encrypt(&partition).await.expect_in(SECOND);
        records.push((partition, record));
    }
    (writer.other_process(policy(), Limits::production()), records)
}

/// Each probe asks for what it needs, once.
#[tokio::test(start_paused = true)]
async fn store_is_not_asked_for_what_only_a_kms_that_is_down_could_open() {
    for reply in [DOWN, Reply::Hang] {
        for in_use in [1, 3, 40] {
            let case = format!("{reply:?}, {in_use} in use");
            let (world, records) = stored(in_use).await;
            world.kms.all(reply);
            let pause = u32::try_from(in_use).unwrap() * 10 * MILLISECOND;
            world.clients("p", in_use, pause);
            for (partition, record) in &records {
                world.begin_decrypt(partition, record);
            }
            sleep(40 * SECOND).await;
            assert!(world.kms_is_down() && !world.metastore_is_down(), "{case}");
            let down = world.store.now();
            sleep(60 * SECOND).await;
            let asked = world.store.log().since(down);
            for is_of_system_key in [false, true] {
                let rows = asked.that(|asked| asked.is_of_system_key() == is_of_system_key);
                assert!(rows.most_in_a_second() <= 1, "{case}, system key's: {is_of_system_key}: {rows:?}");
            }
            let kms = world.kms.log().since(down);
            assert_eq!(kms.most_in_a_second(), 1, "{case}");
            assert!(kms.longest_gap() <= 7 * SECOND, "{case}: {:?}", kms.longest_gap());

            world.kms.heal();
            sleep(7 * SECOND).await;
            assert!(!world.kms_is_down(), "{case}");
            for (partition, record) in &records {
                world.decrypt(partition, record).await.expect_in(SECOND);
            }
        }
    }
}

/// Nor to make keys in a new store.
#[tokio::test(start_paused = true)]
async fn store_is_not_asked_to_make_keys_that_a_kms_that_is_down_could_not_wrap() {
    for reply in [DOWN, Reply::Hang] {
        let world = World::new(policy(), Limits::production());
        world.kms.all(reply);
        world.clients("p", 10, 50 * MILLISECOND);
        sleep(40 * SECOND).await;
        assert!(world.kms_is_down());
        let down = world.store.now();
        sleep(30 * SECOND).await;
        let asked = world.store.log().since(down);
        assert!(asked.that(|asked| !asked.is_of_system_key()).most_in_a_second() <= 1, "{reply:?}");
        assert!(asked.that(Asked::is_of_system_key).most_in_a_second() <= 1, "{reply:?}");
    }
}

/// With the system key cached the KMS is not needed, so its outage is nobody's.
#[tokio::test(start_paused = true)]
async fn keys_under_a_cached_system_key_are_loaded_and_made_while_the_kms_is_down() {
    let (world, records) = stored(20).await;
    let (partition, record) = &records[0];
    world.decrypt(partition, record).await.expect_in(SECOND);
    world.kms.all(Reply::Hang);
    for (partition, record) in &records {
        world.decrypt(partition, record).await.expect_in(SECOND);
    }
    world.encrypt("new").await.expect_in(SECOND);
    assert_eq!(world.kms.log().that(|asked| asked.operation == Operation::UnwrapKey).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn kms_is_told_to_be_down_from_the_fifth_failure_to_the_next_answer() {
    let (world, records) = stored(1).await;
    world.kms.all(DOWN);
    let (partition, record) = &records[0];
    let mut failures = 0;
    // One system key alone is asked for once a second.
    for _ in 0..10 {
        assert!(world.decrypt(partition, record).await.outcome.is_err());
        failures = world.kms.log().len();
        assert_eq!(world.kms_is_down(), failures >= 5, "{failures} failures");
        sleep(SECOND).await;
    }
    assert!(failures > 5);
    for _ in 0..100 {
        sleep(100 * MILLISECOND).await;
        assert!(world.kms_is_down());
    }
    world.kms.heal();
    world.decrypt(partition, record).await.expect_in(SECOND);
    assert!(!world.kms_is_down());
}

/// A warm-up is no reason to ask a dead store more often.
#[tokio::test(start_paused = true)]
async fn warm_up_beside_a_dead_store_makes_no_call_of_its_own() {
    let (world, records) = stored(30).await;
    let partitions: Vec<&str> = records.iter().map(|(partition, _)| partition.as_str()).collect();
    world.store.all(DOWN);
    world.clients("x", 5, 10 * MILLISECOND);
    sleep(10 * SECOND).await;
    assert!(world.metastore_is_down());
    let down = world.store.now();
    for _ in 0..10 {
        let warm_up = world.factory.warm_up(partitions.iter().copied()).await.unwrap();
        assert_eq!((warm_up.loaded, warm_up.failed.len()), (0, partitions.len()));
        sleep(100 * MILLISECOND).await;
    }
    assert_eq!(world.store.log().since(down).most_in_a_second(), 1);
    world.store.heal();
    sleep(SECOND).await;
    let warm_up = world.factory.warm_up(partitions.iter().copied()).await.unwrap();
    assert_eq!(warm_up.loaded, partitions.len(), "{warm_up:?}");
}

/// What makes a revoked key tempting.
#[derive(Clone, Copy, Debug)]
enum Outage {
    Row,
    Inserts,
    Store,
    Everything,
}

/// While its successor cannot be had, from the first failure on till the breaker is long open.
#[tokio::test(start_paused = true)]
async fn known_revoked_key_never_encrypts_however_often_its_successor_cannot_be_had() {
    for outage in [Outage::Row, Outage::Inserts, Outage::Store, Outage::Everything] {
        for reply in [DOWN, Reply::Hang, crate::desk::DENIED] {
            let world = World::warm(checked_often(), Limits::production()).await;
            let record = world.encrypt("hot").await.expect_in(SECOND);
            let key = record.parent().unwrap().clone();
            world.revoke(&key).await;
            world.clock.advance(2 * INTERVAL);
            world.decrypt("hot", &record).await.expect_in(SECOND);
            match outage {
                Outage::Row => world.store.rule(reads_of("hot", reply)),
                Outage::Inserts => {
                    world.store.rule(move |asked| if asked.is_insert() { reply } else { Reply::Answer });
                }
                Outage::Store => world.store.all(reply),
                Outage::Everything => {
                    world.store.all(reply);
                    world.kms.all(reply);
                }
            }
            for _ in 0..60 {
                let ended = world.encrypt("hot").await;
                assert!(ended.outcome.is_err(), "{outage:?}, {reply:?}: {:?}", ended.outcome);
                sleep(210 * MILLISECOND).await;
            }
            world.store.heal();
            world.kms.heal();
            sleep(STORE_DEADLINE + SECOND).await;
            let successor = world.encrypt("hot").await.expect_in(SECOND);
            assert_ne!(*successor.parent().unwrap(), key, "{outage:?}, {reply:?}");
        }
    }
}
