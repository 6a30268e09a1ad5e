//! How many calls are under way at once: exactly as many as there are permits, two of one key, and those
//! in trouble beside all others.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use claviger::testing::Operation;
use claviger::{DataRowRecord, Limits};
use tokio::time::sleep;

use crate::desk::{Asked, Reply};
use crate::support::{
    INTERVAL, MILLISECOND, PERMITS, SECOND, STORE_DEADLINE, World, checked_often, limits, of_earlier_version,
    policy, reads_of,
};

/// How many permits of their own inserts have, and checks.
fn half(permits: usize) -> usize {
    (permits / 2).max(1)
}

/// How many all in trouble share.
fn eighth(permits: usize) -> usize {
    (permits / 8).max(1)
}

#[tokio::test(start_paused = true)]
async fn exactly_as_many_reads_and_inserts_are_under_way_as_there_are_permits() {
    for permits in PERMITS {
        for (operation, bound) in [(Operation::LoadLatest, permits), (Operation::Insert, half(permits))] {
            let world = World::warm(policy(), limits(permits)).await;
            world.store.rule(move |asked| {
                if asked.operation == operation { Reply::Late(SECOND / 2) } else { Reply::Answer }
            });
            let encrypts = world.begin_encrypts("p", 3 * permits);
            for encrypt in encrypts {
                encrypt.await.unwrap().expect_in(8 * SECOND);
            }
            let asked = world.store.log().that(|asked| asked.operation == operation);
            assert_eq!(asked.at_once(), bound, "{operation:?} with {permits} permits");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn exactly_as_many_kms_calls_are_under_way_as_there_are_permits() {
    for permits in PERMITS {
        let (world, records) = of_system_keys(permits + 3, limits(permits)).await;
        world.kms.all(Reply::Late(SECOND));
        let decrypts: Vec<_> =
            records.iter().map(|(partition, record)| world.begin_decrypt(partition, record)).collect();
        for decrypt in decrypts {
            decrypt.await.unwrap().expect_in(8 * SECOND);
        }
        let asked = world.kms.log().that(|asked| asked.operation == Operation::UnwrapKey);
        assert_eq!(asked.at_once(), permits);
        assert_eq!(asked.len(), permits + 3);
    }
}

/// A process that has nothing cached, and records of partitions whose keys are each under a system key of
/// its own.
async fn of_system_keys(count: usize, limits: Limits) -> (World, Vec<(String, DataRowRecord)>) {
    let writer = World::new(checked_often(), Limits::production());
    let mut records = Vec::new();
    for number in 0..count {
        let partition = format!("p{number}");
        let record = writer.encrypt(&partition).await.expect_in(SECOND);
        let inserted = writer.store.log().that(|asked| asked.is_insert() && asked.is_of_system_key());
        let created = inserted.0.last().and_then(|asked| asked.created).unwrap();
        let created = claviger::Created::new(created).unwrap();
        writer.revoke(&claviger::KeyMeta::new(claviger::KeyId::new(crate::support::SK), created)).await;
        writer.clock.advance(2 * INTERVAL);
        records.push((partition, record));
    }
    (writer.other_process(policy(), limits.max_system_keys(1_000)), records)
}

/// Checks and replacements have half as many permits beside those of loads.
#[tokio::test(start_paused = true)]
async fn checks_have_half_as_many_permits_beside_those_of_loads() {
    for permits in PERMITS {
        let world = World::warm(checked_often(), limits(permits)).await;
        for ended in world.begin_encrypts("warm", 3 * permits) {
            ended.await.unwrap().expect_in(SECOND);
        }
        world.clock.advance(2 * INTERVAL);
        // The system key's row is checked by then.
        world.encrypt("first").await.expect_in(SECOND);
        world.store.rule(|asked| {
            let is_it = !asked.is_of_system_key() && !asked.is_insert();
            if is_it { Reply::Late(100 * MILLISECOND) } else { Reply::Answer }
        });
        let began = world.store.now();
        let loads = world.begin_encrypts("cold", 3 * permits);
        sleep(50 * MILLISECOND).await;
        let checks = world.begin_encrypts("warm", 3 * permits);
        for ended in loads.into_iter().chain(checks) {
            ended.await.unwrap().expect_in(8 * SECOND);
        }
        let asked = world.store.log().since(began);
        let of = |prefix: &'static str| asked.that(|asked| asked.is_for_one_of(prefix) && !asked.is_insert());
        assert_eq!(of("cold").at_once(), permits, "loads of {permits}");
        assert_eq!(of("warm").at_once(), half(permits), "checks of {permits}");
    }
}

/// Who is known to hang takes none of the permits of others.
#[tokio::test(start_paused = true)]
async fn those_in_trouble_share_an_eighth_of_the_permits_beside_all_others() {
    for permits in PERMITS {
        let world = World::warm(policy(), limits(permits)).await;
        world.store.rule(reads_of("hung", Reply::Hang));
        // So that the store is not taken to be down.
        let others = world.client_of_new("well", 100 * MILLISECOND);
        world.clients("hung", 3 * eighth(permits) + 1, 10 * MILLISECOND);
        sleep(30 * SECOND).await;
        let known = world.store.now();
        others.assert_well(4 * STORE_DEADLINE);
        let others = world.client_of_new("other", 100 * MILLISECOND);
        sleep(20 * SECOND).await;
        others.assert_well(Duration::ZERO);
        let hung = world.store.log().that(|asked| asked.is_for_one_of("hung") && asked.at >= known);
        assert_eq!(hung.at_once(), eighth(permits), "of {permits}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_of_one_key_are_two_at_once_whatever_is_asked_for() {
    for permits in PERMITS {
        let world = World::warm(policy(), limits(permits)).await;
        let record = world.encrypt("many").await.expect_in(SECOND);
        let reader = world.other_process(policy(), limits(permits));
        reader.store.rule(reads_of("many", Reply::Hang));
        reader.begin_encrypt("many");
        for version in 1..=64 {
            reader.begin_decrypt("many", &of_earlier_version(&record, 60 * version));
        }
        sleep(60 * SECOND).await;
        let asked = reader.reads_for("many");
        assert!(asked.len() > 2);
        assert_eq!(asked.at_once(), permits.min(2), "{permits} permits");
    }
}

#[tokio::test(start_paused = true)]
async fn kms_calls_of_one_system_key_are_two_at_once_at_most() {
    let (world, records) = of_system_keys(3, Limits::production()).await;
    world.kms.all(Reply::Hang);
    for round in 0..20 {
        for (partition, record) in &records {
            world.begin_encrypt(&format!("new{round}"));
            world.begin_decrypt(partition, record);
        }
        sleep(SECOND / 2).await;
    }
    let asked = world.kms.log();
    assert!(asked.len() > 3);
    assert!(asked.at_once_of_one(|asked| asked.created) <= 2, "{asked:?}");
}

/// With one permit: others go on while a call waits to be tried again.
#[tokio::test(start_paused = true)]
async fn permit_is_not_held_while_a_call_waits_to_be_tried_again() {
    let world = World::warm(policy(), limits(1)).await;
    let took = 5 * MILLISECOND;
    let failures = AtomicUsize::new(0);
    world.store.rule(move |asked| {
        let fails = asked.is_for("unlucky") && failures.fetch_add(1, Ordering::Relaxed) == 0;
        if fails { Reply::FailLate(took) } else { Reply::Late(took) }
    });
    let [unlucky, other] = ["unlucky", "other"].map(|partition| world.begin_encrypt(partition));
    other.await.unwrap().expect_in(SECOND);
    unlucky.await.unwrap().expect_in(SECOND);
    let is_read = |asked: &Asked| !asked.is_insert() && (asked.is_for("unlucky") || asked.is_for("other"));
    let reads = world.store.log().that(is_read);
    assert!(reads.0[0].is_for("unlucky") && reads.0[1].is_for("other"), "{reads:?}");
    assert_eq!(reads.0[1].at, reads.0[0].until.unwrap());
    assert_eq!(reads.at_once(), 1);
}

/// A stage of a load, by the call that panics.
#[derive(Clone, Copy, Debug)]
struct Stage {
    operation: Operation,
    of_system_key: bool,
    /// The key is cached, and the call is to check or to replace it.
    of_check: bool,
}

/// Each call that a load, a check or a replacement makes, of the metastore and of the KMS.
const STAGES: [Stage; 13] = [
    Stage { operation: Operation::LoadLatest, of_system_key: false, of_check: false },
    Stage { operation: Operation::LoadLatest, of_system_key: true, of_check: false },
    Stage { operation: Operation::WrapKey, of_system_key: true, of_check: false },
    Stage { operation: Operation::Insert, of_system_key: true, of_check: false },
    Stage { operation: Operation::Insert, of_system_key: false, of_check: false },
    Stage { operation: Operation::Load, of_system_key: false, of_check: false },
    Stage { operation: Operation::Load, of_system_key: true, of_check: false },
    Stage { operation: Operation::UnwrapKey, of_system_key: true, of_check: false },
    Stage { operation: Operation::LoadLatest, of_system_key: false, of_check: true },
    Stage { operation: Operation::Load, of_system_key: true, of_check: true },
    Stage { operation: Operation::LoadLatest, of_system_key: true, of_check: true },
    Stage { operation: Operation::WrapKey, of_system_key: true, of_check: true },
    Stage { operation: Operation::Insert, of_system_key: false, of_check: true },
];

impl Stage {
    fn is_at(self, asked: &Asked) -> bool {
        asked.operation == self.operation && asked.is_of_system_key() == self.of_system_key
    }
}

/// With one permit of each kind, none may be lost.
#[tokio::test(start_paused = true)]
async fn s1_10_permits_come_back_after_panics_at_each_stage() {
    for stage in STAGES {
        let one_place = limits(1).max_waiting_calls(1).max_cold_operations(1).max_background_refreshes(1);
        let writer = World::new(policy(), Limits::production());
        let record = writer.encrypt("old").await.expect_in(SECOND);
        let needs_rows = matches!(stage.operation, Operation::Load | Operation::UnwrapKey);
        let world = if needs_rows || stage.of_check {
            writer.other_process(checked_often(), one_place)
        } else {
            World::new(policy(), one_place)
        };
        let panics = if stage.of_check {
            world.encrypt("old").await.expect_in(SECOND);
            // What makes keys is reached when they are replaced at their end.
            let is_check = matches!(stage.operation, Operation::Load)
                || (stage.operation == Operation::LoadLatest && !stage.of_system_key);
            world.clock.advance(if is_check { 2 * INTERVAL } else { 91 * 24 * 60 * 60 * SECOND });
            2
        } else {
            4
        };
        let left = std::sync::Arc::new(AtomicUsize::new(panics));
        let rule = {
            let left = std::sync::Arc::clone(&left);
            move |asked: &Asked| {
                let panics = stage.is_at(asked)
                    && left
                        .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                        .is_ok();
                if panics { Reply::Panic } else { Reply::Answer }
            }
        };
        world.store.rule(rule.clone());
        world.kms.rule(rule);
        for _ in 0..20 {
            if needs_rows && !stage.of_check {
                drop(world.decrypt("old", &record).await);
            } else {
                drop(world.encrypt("old").await);
            }
            sleep(SECOND).await;
        }
        assert_eq!(left.load(Ordering::Relaxed), 0, "{stage:?} is not reached");
        world.encrypt("old").await.expect_in(Duration::ZERO);
        for new in 0..3 {
            world.encrypt(&format!("new{new}")).await.expect_in(Duration::ZERO);
        }
        world.clock.advance(2 * INTERVAL);
        world.encrypt("old").await.expect_in(Duration::ZERO);
    }
}
