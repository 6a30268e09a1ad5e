//! A store that hangs ends a factory's call at the deadline of its limits, whatever that is: no back end has
//! one of its own.

use std::time::Duration;

use claviger::{
    BoxedMetastore, CryptoPolicy, Limits, LockPolicy, SecretKey, SessionFactory, StaticKms, SystemRandom,
};
use claviger_testkit::{Direction, Fault, Proxy, assert_ended_at};
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;
use tokio::time::Instant;

use crate::engine::{DynamoDb, Engine, LONG, MariaDb, Postgres, sqlite};

const DEADLINES: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(8)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_has_the_deadline_of_the_limits_alone() {
    hanging::<Postgres>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_has_the_deadline_of_the_limits_alone() {
    hanging::<MariaDb>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dynamodb_has_the_deadline_of_the_limits_alone() {
    hanging::<DynamoDb>().await;
}

/// Another program writes, and does not come to an end. Reads go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_has_the_deadline_of_the_limits_alone() {
    let folder = tempfile::tempdir().unwrap();
    let way = sqlite::way(folder.path(), 2).await;
    let url = folder.path().join("keys.db");
    let mut other = SqliteConnection::connect(url.to_str().unwrap()).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    for deadline in DEADLINES {
        assert_ends(&way.store, deadline).await;
    }
}

/// A server that answers no more: to a connection that is made, and to one that stands.
async fn hanging<E: Engine>() {
    let engine = E::shared().await;
    let proxy = Proxy::start(&engine.address()).await;
    let stall = Fault::Stall { direction: Direction::ToServer, after: 0 };
    for deadline in DEADLINES {
        let way = engine.way(&proxy.address(), 1, LONG).await;
        proxy.set(stall);
        assert_ends(&way.store, deadline).await;
        proxy.set(Fault::None);
        proxy.cut_all();
        let way = engine.way(&proxy.address(), 1, LONG).await;
        way.hold_all().await;
        // New connections, too: a client may prefer one to those that it has.
        proxy.set(stall);
        proxy.set_open(stall);
        assert_ends(&way.store, deadline).await;
        proxy.set(Fault::None);
        proxy.cut_all();
    }
}

async fn assert_ends(store: &BoxedMetastore, deadline: Duration) {
    let master_key = SecretKey::generate(&SystemRandom::new()).unwrap();
    let factory = SessionFactory::builder(store.clone(), StaticKms::new(&master_key).unwrap())
        .service("svc")
        .product("prod")
        .policy(CryptoPolicy::default().lock_policy(LockPolicy::Off))
        .limits(Limits::production().store_deadline(deadline).operation_deadline(LONG * 3).max_attempts(1))
        .build()
        .unwrap();
    let begun = Instant::now();
    let error = factory.session("alice").unwrap().encrypt(b"data").await.unwrap_err();
    assert_ended_at(deadline, begun, &error);
}
