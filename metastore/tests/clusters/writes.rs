//! Servers that take no writes: reads go on, and who needs no new key notices nothing.

use std::num::NonZeroU32;
use std::time::Duration;

use claviger::SessionFactory;
use claviger_metastore::PostgresMetastore;
use claviger_testkit::Postgres;
use tokio::time::{Instant, sleep};

use crate::load::{Load, Mix, Outcome, create_known, factory, lost, seconds, until};

async fn store_on(server: &Postgres) -> PostgresMetastore {
    let url = server.url("postgres");
    PostgresMetastore::builder().danger_unchecked().migrate().open(&url).await.unwrap();
    PostgresMetastore::builder().max_connections(CONNECTIONS).open(&url).await.unwrap()
}

const CONNECTIONS: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// One operation in twenty is the first of a new partition.
const FIVE_PERCENT: Mix = Mix { tasks: 24, new: 20, cold: 3 };

fn is_read_only(factory: &SessionFactory) -> bool {
    let status = factory.status().unwrap();
    assert!(!status.metastore_down, "reads go on");
    status.metastore_read_only
}

/// Only who needed a new key was refused, and nothing is lost.
async fn assert_only_creations_failed(outcome: Outcome, server: &Postgres) {
    println!("{} encrypts, {} decrypts, {:?}", outcome.encrypts, outcome.decrypts, outcome.creations_failed);
    assert!(outcome.encrypts_failed.is_empty(), "{:?}", outcome.encrypts_failed);
    assert!(outcome.decrypts_failed.is_empty(), "{:?}", outcome.decrypts_failed);
    assert!(outcome.permanent.is_empty(), "{:?}", outcome.permanent);
    assert!(!outcome.creations_failed.is_empty());
    let fresh = factory(PostgresMetastore::open(&server.url("postgres")).await.unwrap());
    assert!(lost(&fresh, &outcome.ledger).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_turns_read_only_answers_all_who_need_no_new_key() {
    let server = Postgres::start();
    let factory = factory(store_on(&server).await);
    create_known(&factory).await;
    let load = Load::start(&factory, FIVE_PERCENT, "read-only");
    load.goes_on(200).await;
    assert!(!is_read_only(&factory));
    server.set("default_transaction_read_only", "on");
    until("it is told", async || is_read_only(&factory)).await;
    load.goes_on(2_000).await;
    // The probe of each second keeps it told.
    assert!(is_read_only(&factory) && load.creations_failed() > 0);
    // Whoever sets it back is a session that was told of it.
    server.psql(
        "postgres",
        "SET default_transaction_read_only = off; ALTER SYSTEM RESET default_transaction_read_only",
    );
    server.psql("postgres", "SELECT pg_reload_conf()");
    until("it is over", async || !is_read_only(&factory)).await;
    let before = load.creations_failed();
    load.goes_on(500).await;
    assert_eq!(load.creations_failed(), before, "new keys are made again");
    assert_only_creations_failed(load.end().await, &server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_nobody_who_needs_no_new_key() {
    let server = Postgres::start_on_small_disk(120);
    let store = store_on(&server).await;
    let factory = factory(store);
    create_known(&factory).await;
    // What is there is on the disk, and its pages are full.
    server.psql("postgres", "ALTER TABLE encryption_key SET (fillfactor = 100)");
    server.psql("postgres", "VACUUM FULL encryption_key; CHECKPOINT");
    let load = Load::start(&factory, FIVE_PERCENT, "full");
    load.goes_on(100).await;
    server.fill_disk(0);
    until("it is told", async || is_read_only(&factory)).await;
    load.goes_on(1_000).await;
    server.free_disk();
    until("it is over", async || !is_read_only(&factory)).await;
    assert_only_creations_failed(load.end().await, &server).await;
}

/// Commits wait for a standby that is dead, for as long as that takes, and no cancel reaches them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_synchronous_standby_stops_no_read_and_fills_no_server() {
    let server = Postgres::start_with(&[("max_connections", "60")]);
    let mut standby = Postgres::standby_of(&server, "second");
    let store = store_on(&server).await;
    let factory = factory(store);
    server.set("synchronous_standby_names", "second");
    create_known(&factory).await;
    let load = Load::start(&factory, FIVE_PERCENT, "standby");
    load.goes_on(200).await;
    standby.kill();
    until("it is told", async || is_read_only(&factory)).await;
    let rows = || server.psql("postgres", "SELECT count(*) FROM encryption_key");
    let (begun, mut most, mut waiting, before) = (Instant::now(), 0, 0, rows());
    while begun.elapsed() < seconds(8) {
        let number = |condition: &str| -> u32 {
            let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'claviger'";
            server.psql("postgres", &format!("{count}{condition}")).parse().unwrap()
        };
        most = most.max(number(""));
        waiting = waiting.max(number(" AND wait_event = 'SyncRep'"));
        load.goes_on(10).await;
        sleep(Duration::from_millis(20)).await;
    }
    println!("{most} connections at most, {waiting} of them waiting for the standby");
    assert!(most <= CONNECTIONS.get() + 2, "{most}");
    assert!((1..=CONNECTIONS.get() / 2).contains(&waiting), "{waiting}");
    // Their waits were not ended: that would show what no other machine has.
    assert_eq!(rows(), before);
    server.set("synchronous_standby_names", "");
    until("it is over", async || !is_read_only(&factory)).await;
    assert_only_creations_failed(load.end().await, &server).await;
}
