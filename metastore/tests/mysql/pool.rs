//! Connections: dropped calls, dead servers, half-open ways.

use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use claviger::testing::call;
use claviger::{
    BackendError, CallContext, Consistency, Created, EnvelopeKeyRecord, Insert, Metastore as _,
    MetastoreAdmin as _,
};
use claviger_metastore::MysqlMetastore;
use claviger_testkit::{Direction, Fault, MariaDb, Proxy};
use tokio::task::JoinSet;

use crate::common_pool::{CONNECTIONS, assert_whole, dead_connections, dropped_calls};
use crate::latest::LatestRecord as _;
use crate::support::{NOW, Place, UTF8, assert_permanent, assert_transient, builder, execute, record};

async fn store_at(url: &str) -> MysqlMetastore {
    builder().max_connections(NonZeroU32::new(CONNECTIONS).unwrap()).open(url).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_4_dropped_calls_cross_no_replies_and_give_their_connections_back() {
    let place = Place::migrated(UTF8).await;
    dropped_calls(&store_at(&place.url).await).await;
}

#[tokio::test]
async fn reads_do_not_notice_that_all_pooled_connections_died() {
    let place = Place::migrated(UTF8).await;
    dead_connections(&store_at(&place.url).await, async || kill_all(&place).await).await;
}

/// Kills every connection to the place's database.
async fn kill_all(place: &Place) {
    let database = place.url.rsplit_once('/').unwrap().1;
    let elsewhere = Place { url: place.url.replace(database, "information_schema") };
    let ids = format!("SELECT CAST(id AS CHAR) FROM processlist WHERE db = '{database}'");
    for id in elsewhere.texts(&ids).await {
        execute(&elsewhere.url, &format!("KILL HARD CONNECTION {id}")).await;
    }
    while !elsewhere.texts(&ids).await.is_empty() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_5_the_pool_is_whole_again_after_the_server_was_killed_twenty_times() {
    let mut server = MariaDb::start();
    let place = Place::at(&server, UTF8).await;
    place.migrate().await;
    let store = store_at(&place.url).await;
    let mut kept_before = 0;
    for round in 0..20 {
        assert_whole(&store).await;
        let mut calls = JoinSet::new();
        let is_over = Arc::new(AtomicBool::new(false));
        for worker in 0..10 {
            let (store, is_over) = (store.clone(), Arc::clone(&is_over));
            calls.spawn(async move {
                let mut inserted = Vec::new();
                for second in 0.. {
                    // Who waited for a connection while the server was away has noticed nothing.
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let record = record(&format!("_IK_{worker}_svc_prod"), NOW + round * 100_000 + second);
                    match store.insert(&record, &call()).await {
                        Ok(outcome) => assert_eq!(outcome, Insert::Inserted),
                        Err(error) => {
                            assert!(error.is_transient(), "{error:?}");
                            break;
                        }
                    }
                    inserted.push(record);
                }
                inserted
            });
        }
        // In the midst of it. The table is never emptied: a `TRUNCATE` shortly before a crash would prove
        // MariaDB's recovery of that, too.
        while store.count(&call()).await.unwrap() < kept_before + 20 {}
        server.kill();
        server.restart();
        is_over.store(true, Ordering::Relaxed);
        let kept: Vec<EnvelopeKeyRecord> = calls.join_all().await.into_iter().flatten().collect();
        let keys: Vec<_> = kept.iter().map(|record| record.meta().clone()).collect();
        let found = store.load_many(&keys, &call()).await.unwrap();
        if !found.iter().flatten().eq(&kept) {
            // Gone, or not seen by a server that has just begun again?
            let again = store.load_many(&keys, &call()).await.unwrap();
            let [first, later] = [&found, &again].map(|found| found.iter().flatten().count());
            panic!(
                "an insert that was answered is gone: round {round}, {} answered, {first} found, {later} later",
                kept.len()
            );
        }
        kept_before = store.count(&call()).await.unwrap();
    }
    assert_whole(&store).await;
}

#[tokio::test]
async fn a_half_open_connection_is_given_up_and_closed() {
    let place = Place::migrated(UTF8).await;
    let server = place.url.rsplit_once('@').unwrap().1.split_once('/').unwrap().0.to_owned();
    let proxy = Proxy::start(&server).await;
    let url = place.url.replace(&server, &proxy.address());
    let one = NonZeroU32::new(1).unwrap();
    let record = record("_IK_a_svc_prod", NOW);
    for direction in [Direction::ToServer, Direction::ToClient] {
        // How many bytes a connection is good for that has loaded once.
        proxy.set(Fault::None);
        let store = builder().max_connections(one).danger_unchecked().open(&url).await.unwrap();
        assert_eq!(store.latest(record.meta().id()).await.unwrap(), None);
        let (to_server, to_client) = proxy.bytes();
        let after = if direction == Direction::ToServer { to_server } else { to_client };
        store.close().await;
        let hasty = MysqlMetastore::builder().max_connections(one).danger_unchecked();
        let hasty = hasty.open(&url).await.unwrap();
        let id = record.meta().id();
        let ask = async || {
            let context = CallContext::within(Duration::from_millis(300));
            Ok::<_, BackendError>(
                hasty.load_latest(id, Created::MAX, &context).await?.map(|latest| latest.record),
            )
        };
        proxy.set(Fault::Stall { direction, after: after.saturating_sub(8) });
        for _ in 0..2 {
            if let Err(error) = ask().await {
                assert!(error.is_transient(), "{error:?}");
            }
        }
        assert_transient(ask().await, "database");
        proxy.set(Fault::None);
        // The one place in the pool is free, and what is made in it works.
        let mut answer = ask().await;
        for _ in 0..100 {
            if answer.is_ok() {
                break;
            }
            answer = ask().await;
        }
        assert_eq!(answer.unwrap(), None);
    }
}

#[tokio::test]
async fn eventual_loads_go_to_the_replica_and_the_rest_to_the_primary() {
    let (primary, replica) = (Place::migrated(UTF8).await, Place::migrated(UTF8).await);
    let (here, there) = (record("_IK_a_svc_prod", NOW), record("_IK_b_svc_prod", NOW));
    assert_eq!(primary.open().await.insert(&here, &call()).await.unwrap(), Insert::Inserted);
    assert_eq!(replica.open().await.insert(&there, &call()).await.unwrap(), Insert::Inserted);
    let options = replica.url.parse().unwrap();
    for builder in [builder().replica(options), builder().replica_url(replica.url.clone())] {
        let store = builder.open(&primary.url).await.unwrap();
        let keys = [here.meta().clone(), there.meta().clone()];
        let loads = async |context: CallContext| {
            let many = store.load_many(&keys, &context).await.unwrap();
            for (key, record) in keys.iter().zip(&many) {
                assert_eq!(store.load(key, &context).await.unwrap(), *record);
            }
            many
        };
        assert_eq!(loads(call()).await, [Some(here.clone()), None]);
        assert_eq!(loads(call().consistency(Consistency::Eventual)).await, [None, Some(there.clone())]);
        assert_eq!(store.latest(here.meta().id()).await.unwrap().as_ref(), Some(&here));
        let latest = store.latest_many(&[here.meta().id().clone(), there.meta().id().clone()]).await;
        assert_eq!(latest.unwrap(), [Some(here.clone()), None]);
        assert_eq!(store.list("", None, 9, &call()).await.unwrap().records, std::slice::from_ref(&here));
    }
    // Without a replica the primary answers; with one that is not to be had it is the caller's to ask.
    let alone = primary.open().await;
    assert_eq!(
        alone.load(here.meta(), &call().consistency(Consistency::Eventual)).await.unwrap().as_ref(),
        Some(&here)
    );
    let nobody = format!("{}/nobody", primary.url.rsplit_once('/').unwrap().0);
    let store = builder().replica_url(nobody).open(&primary.url).await.unwrap();
    assert_permanent(store.load(here.meta(), &call().consistency(Consistency::Eventual)).await, "1049");
    assert_eq!(store.load(here.meta(), &call()).await.unwrap().as_ref(), Some(&here));
}

#[tokio::test]
async fn a_closed_store_refuses_calls() {
    let store = Place::migrated(UTF8).await.open().await;
    let record = record("_IK_a_svc_prod", NOW);
    assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
    store.close().await;
    assert_permanent(store.insert(&record, &call()).await, "closed");
    assert_permanent(store.latest(record.meta().id()).await, "closed");
    assert_permanent(store.count(&call()).await, "closed");
}

#[test]
fn a_call_outside_a_runtime_is_an_error() {
    let mut call = pin!(MysqlMetastore::open("mysql://a:b@127.0.0.1/keys"));
    let polled = call.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    let Poll::Ready(Err(error)) = polled else { panic!("it waits, or connected") };
    assert!(!error.is_transient());
}
