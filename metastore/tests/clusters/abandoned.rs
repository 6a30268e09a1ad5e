//! Calls that are given up: the server is told, and nothing piles up on it.

use std::num::NonZeroU32;
use std::time::Duration;

use claviger::testing::call;
use claviger::{CallContext, Insert, Metastore};
use claviger_metastore::{MysqlMetastore, PostgresMetastore};
use claviger_testkit::{MariaDb, Postgres};
use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, raw_sql};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::load::until;
use crate::record;

const CONNECTIONS: NonZeroU32 = NonZeroU32::new(6).unwrap();
const HASTY: Duration = Duration::from_millis(300);
/// How long calls are made in vain.
const VAIN: Duration = Duration::from_secs(4);

/// The context of a call that is soon given up.
fn hasty() -> CallContext {
    CallContext::within(HASTY)
}

/// Makes loads and inserts, many at a time, all of which are in vain; returns the most that
/// `count` tells meanwhile.
async fn in_vain(store: &(impl Metastore + Clone), count: impl Fn() -> u32) -> u32 {
    let mut calls = JoinSet::new();
    for task in 0..20 {
        let store = store.clone();
        calls.spawn(async move {
            let begun = Instant::now();
            while begun.elapsed() < VAIN {
                let record = record(&format!("_IK_{task}_svc_prod"), 0);
                let error = if task % 2 == 0 {
                    store.load(record.meta(), &hasty()).await.map(drop).unwrap_err()
                } else {
                    store.insert(&record, &hasty()).await.map(drop).unwrap_err()
                };
                assert!(error.is_transient(), "{error:?}");
            }
        });
    }
    let mut most = 0;
    while !calls.is_empty() {
        most = most.max(count());
        while let Some(ended) = calls.try_join_next() {
            ended.unwrap();
        }
        sleep(Duration::from_millis(20)).await;
    }
    most
}

/// Everything works again, at once.
async fn assert_whole(store: &(impl Metastore + Clone)) {
    for second in 0..50 {
        let record = record("_IK_whole_svc_prod", second);
        while store.insert(&record, &call()).await.is_err() {}
        assert!(store.load(record.meta(), &call()).await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_lock_on_postgres_is_ended_and_never_more_than_the_pool() {
    let server = Postgres::start();
    let url = server.url("postgres");
    let unchecked = PostgresMetastore::builder().danger_unchecked().migrate().open(&url).await.unwrap();
    unchecked.close().await;
    // Its own time-outs would end the statements, too.
    let builder = PostgresMetastore::builder().server_timeouts(false).max_connections(CONNECTIONS);
    let store = builder.open(&url).await.unwrap();
    let mut locker = PgConnection::connect(&url).await.unwrap();
    raw_sql("BEGIN; LOCK TABLE encryption_key").execute(&mut locker).await.unwrap();
    let connections = || -> u32 {
        let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'claviger'";
        server.psql("postgres", ours).parse().unwrap()
    };
    let most = in_vain(&store, connections).await;
    println!("{most} connections");
    assert!(most <= CONNECTIONS.get() + 1, "{most}");
    // Nobody waits for the lock any more: what was given up has ended though the lock is held.
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    while server.psql("postgres", waiting) != "0" {
        sleep(Duration::from_millis(10)).await;
    }
    // Others' sessions are left alone.
    raw_sql("COMMIT").execute(&mut locker).await.unwrap();
    assert_whole(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_lock_on_mariadb_is_ended_and_never_more_than_the_pool() {
    let server = MariaDb::start();
    server.create_database("keys", "utf8mb4");
    let url = server.url("keys");
    let unchecked = MysqlMetastore::builder().danger_unchecked().migrate().open(&url).await.unwrap();
    unchecked.close().await;
    let builder = MysqlMetastore::builder().server_timeouts(false).max_connections(CONNECTIONS);
    let store = builder.open(&url).await.unwrap();
    let mut locker = MySqlConnection::connect(&url).await.unwrap();
    raw_sql("LOCK TABLES encryption_key WRITE").execute(&mut locker).await.unwrap();
    // A connection that is given up while it is made stands in the list, too, until the server notices.
    let waiting = "SELECT count(*) FROM information_schema.processlist WHERE state LIKE '%lock%'";
    let most = in_vain(&store, || server.sql("", waiting).parse().unwrap()).await;
    println!("{most} wait for the lock");
    assert!(most <= CONNECTIONS.get() + 1, "{most}");
    while server.sql("", waiting) != "0" {
        sleep(Duration::from_millis(10)).await;
    }
    raw_sql("UNLOCK TABLES").execute(&mut locker).await.unwrap();
    assert_whole(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_give_up_when_callers_do() {
    let postgres = Postgres::start();
    let url = postgres.url("postgres");
    PostgresMetastore::builder().danger_unchecked().migrate().open(&url).await.unwrap();
    let mut locker = PgConnection::connect(&url).await.unwrap();
    let record = record("_IK_a_svc_prod", 0);
    // The same, whether the session is set or each statement.
    for parameters in ["", "?prepared-statements=off"] {
        let store = PostgresMetastore::open(&format!("{url}{parameters}")).await.unwrap();
        raw_sql("BEGIN; LOCK TABLE encryption_key").execute(&mut locker).await.unwrap();
        let error = store.insert(&record, &call()).await.unwrap_err();
        assert!(error.is_transient() && format!("{error:?}").contains("55P03"), "{error:?}");
        raw_sql("ROLLBACK").execute(&mut locker).await.unwrap();
    }
    let mariadb = MariaDb::start();
    mariadb.create_database("keys", "utf8mb4");
    let url = mariadb.url("keys");
    let store = MysqlMetastore::builder().danger_unchecked().migrate().open(&url).await.unwrap();
    assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
    let mut locker = MySqlConnection::connect(&url).await.unwrap();
    raw_sql("LOCK TABLES encryption_key WRITE").execute(&mut locker).await.unwrap();
    let error = store.insert(&record, &call()).await.unwrap_err();
    assert!(error.is_transient() && format!("{error:?}").contains("1205"), "{error:?}");
}

/// A runtime may be as short-lived as a request.
#[test]
fn the_server_is_told_also_after_the_runtime_that_told_it_is_gone() {
    let server = Postgres::start();
    let url = server.url("postgres");
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let lasting = runtime();
    let (store, mut locker) = lasting.block_on(async {
        PostgresMetastore::builder().danger_unchecked().migrate().open(&url).await.unwrap();
        let builder = PostgresMetastore::builder().server_timeouts(false).max_connections(CONNECTIONS);
        let store = builder.open(&url).await.unwrap();
        assert_eq!(store.load(record("_IK_a_svc_prod", 0).meta(), &hasty()).await.unwrap(), None);
        let mut locker = PgConnection::connect(&url).await.unwrap();
        raw_sql("BEGIN; LOCK TABLE encryption_key").execute(&mut locker).await.unwrap();
        (store, locker)
    });
    let in_vain = async || {
        let error = store.load(record("_IK_a_svc_prod", 0).meta(), &hasty()).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
    };
    for _ in 0..3 {
        let passing = runtime();
        passing.block_on(in_vain());
        passing.shutdown_background();
    }
    lasting.block_on(async {
        let waiting = || -> u32 {
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            server.psql("postgres", waiting).parse().unwrap()
        };
        let before = waiting();
        in_vain().await;
        until("what was given up last has ended", async || waiting() <= before).await;
        raw_sql("COMMIT").execute(&mut locker).await.unwrap();
        assert_whole(&store).await;
    });
}
