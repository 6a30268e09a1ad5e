//! Calls that nobody waits for any more, thousands of them among others: no reply crosses over, no
//! connection is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use claviger::testing::call;
use claviger::{BoxedMetastore, EnvelopeKeyRecord, Insert, Metastore as _};
use claviger_testkit::{abandon, shared_dynalite};
use tokio::task::JoinSet;

use crate::engine::{DynamoDb, Engine, MariaDb, Postgres, Way, sqlite};
use crate::keys::{NOW, record};
use crate::latest::LatestRecord as _;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s1_4_postgres_is_whole_after_thousands_of_dropped_calls() {
    dropped_calls_to(Postgres::shared().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s1_4_mariadb_is_whole_after_thousands_of_dropped_calls() {
    dropped_calls_to(MariaDb::shared().await).await;
}

/// On dynalite: moto would take minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s1_4_dynamodb_is_whole_after_thousands_of_dropped_calls() {
    dropped_calls_to(DynamoDb::create(shared_dynalite()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s1_4_sqlite_is_whole_after_thousands_of_dropped_calls() {
    let folder = tempfile::tempdir().unwrap();
    dropped_calls("sqlite", &sqlite::way(folder.path(), CONNECTIONS).await).await;
}

async fn dropped_calls_to<E: Engine>(engine: E) {
    dropped_calls(E::NAME, &engine.way(&engine.address(), CONNECTIONS, Duration::from_secs(60)).await).await;
}

const CONNECTIONS: u32 = 4;
const TASKS: usize = 16;
const POLLS_MAX: usize = 200;
const DROPPED: usize = 3_000;
const KEYS: usize = 100;
const ROUND_TRIPS: usize = 10_000;

async fn dropped_calls(name: &str, way: &Way) {
    let keys: Arc<Vec<_>> = Arc::new((0..KEYS).map(|number| record(&format!("k{number}"), NOW)).collect());
    for key in keys.iter() {
        assert_eq!(way.store.insert(key, &way.call()).await.unwrap(), Insert::Inserted);
    }
    // For every number of polls that a call can take, and more.
    let created = Arc::new(AtomicI64::new(NOW));
    for polls in 0..POLLS_MAX {
        let key = keys.get(polls % KEYS).unwrap();
        abandon(one_of_each(&way.store, key, &next(&created)), polls).await;
        let sound = way.store.load(key.meta(), &way.call()).await.unwrap();
        assert_eq!(sound.as_ref(), Some(key), "{polls}");
    }
    // At random, all at once, with others who do wait.
    let dropped = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (store, keys) = (way.store.clone(), Arc::clone(&keys));
        let (created, dropped) = (Arc::clone(&created), Arc::clone(&dropped));
        tasks.spawn(async move {
            for round in 0..DROPPED / TASKS {
                let key = keys.get((task * 31 + round * 7) % KEYS).unwrap();
                let polls = (task * 13 + round * 17) % 23;
                let outcome = abandon(one_of_each(&store, key, &next(&created)), polls).await;
                dropped.fetch_add(usize::from(outcome.is_none()), Ordering::Relaxed);
                if round % 8 == 0 {
                    round_trip(&store, key).await;
                }
            }
        });
    }
    tasks.join_all().await;
    // Nobody is in the way of these.
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (store, keys) = (way.store.clone(), Arc::clone(&keys));
        tasks.spawn(async move {
            for round in 0..ROUND_TRIPS / TASKS {
                round_trip(&store, keys.get((task * 31 + round * 7) % KEYS).unwrap()).await;
            }
        });
    }
    tasks.join_all().await;
    way.idle().await;
    way.hold_all().await;
    let dropped = dropped.load(Ordering::Relaxed);
    println!("{name}: {dropped} calls dropped at random, {ROUND_TRIPS} round trips right");
    assert!(dropped > DROPPED / 2);
}

fn next(created: &AtomicI64) -> EnvelopeKeyRecord {
    record("new", created.fetch_add(1, Ordering::Relaxed))
}

async fn one_of_each(store: &BoxedMetastore, key: &EnvelopeKeyRecord, new: &EnvelopeKeyRecord) {
    let answer = store.load(key.meta(), &call()).await.unwrap();
    assert_eq!(answer.as_ref(), Some(key));
    assert_eq!(store.insert(new, &call()).await.unwrap(), Insert::Inserted);
    let both = store.load_many(&[new.meta().clone(), key.meta().clone()], &call()).await.unwrap();
    assert_eq!(both, [Some(new.clone()), Some(key.clone())]);
}

async fn round_trip(store: &BoxedMetastore, key: &EnvelopeKeyRecord) {
    assert_eq!(store.latest(key.meta().id()).await.unwrap().as_ref(), Some(key));
}
