//! How many requests leave a service.

use std::sync::Arc;
use std::time::Duration;

use claviger_testkit::shared_localstack;
use tokio::task::JoinSet;

use crate::drills::world::{World, assert_reads, write};

const TASKS: usize = 64;

fn none() -> Vec<String> {
    Vec::new()
}

fn one(operation: &str) -> Vec<String> {
    vec![operation.to_owned()]
}

#[tokio::test]
async fn s3_11_a_new_system_key_is_one_request_in_each_region_and_a_cold_start_one_in_all() {
    let world = World::new(shared_localstack()).await;
    let kms = world.kms().await;
    let maker = world.process(&kms, "product");
    let record = write(&maker, "alice").await;
    assert_eq!(world.asked(), [one("GenerateDataKey"), one("Encrypt"), one("Encrypt")]);
    world.forget();
    write(&maker, "bob").await;
    assert_reads(&maker, "alice", &record).await;
    assert_eq!(world.asked(), [none(), none(), none()], "a warm path asks nobody");
    // Nor does a check that finds nothing changed.
    world.clock.advance(Duration::from_secs(60 * 60));
    write(&maker, "alice").await;
    assert_reads(&maker, "alice", &record).await;
    assert_eq!(world.asked(), [none(), none(), none()]);

    let reader = Arc::new(world.process(&kms, "product"));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (reader, record) = (Arc::clone(&reader), record.clone());
        tasks.spawn(async move {
            assert_reads(&reader, "alice", &record).await;
            write(&reader, &format!("partition {task}")).await;
        });
    }
    tasks.join_all().await;
    assert_eq!(world.asked(), [one("Decrypt"), none(), none()]);
    world.forget();
    for _ in 0..TASKS {
        assert_reads(&world.process(&kms, "product"), "alice", &record).await;
    }
    assert_eq!(world.asked(), [vec!["Decrypt".to_owned(); TASKS], none(), none()]);
}

#[tokio::test]
async fn s3_11_a_dead_region_is_asked_once_a_second_however_many_processes_start() {
    let world = World::new(shared_localstack()).await;
    let record = write(&world.process(&world.kms().await, "product"), "alice").await;
    let [east, west, _] = &world.sites[..] else { panic!("three regions") };
    east.die();
    // It has no connections from before.
    let kms = world.kms().await;
    let before = east.way.accepted();
    let asked = || east.way.accepted() - before;
    let starts = async || {
        for _ in 0..20 {
            assert_reads(&world.process(&kms, "product"), "alice", &record).await;
        }
    };
    world.forget();
    starts().await;
    assert_eq!(asked(), 3, "so many failures in a row, and it is left alone");
    for second in 1..=5 {
        world.clock.advance(Duration::from_millis(999));
        starts().await;
        assert_eq!(asked(), 2 + second);
        world.clock.advance(Duration::from_millis(1));
        starts().await;
        assert_eq!(asked(), 3 + second);
    }
    assert_eq!(world.asked()[1].len(), 11 * 20, "{} answered all", west.region);
    east.revive();
    starts().await;
    assert_eq!(asked(), 8, "not even now");
    world.clock.advance(Duration::from_secs(1));
    world.forget();
    starts().await;
    assert_eq!(world.asked(), [vec!["Decrypt".to_owned(); 20], none(), none()]);
}
