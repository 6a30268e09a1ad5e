//! Connections: dropped calls, dead servers, half-open ways.

use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use claviger::testing::call;
use claviger::{
    CallContext, Consistency, Created, EnvelopeKeyRecord, Insert, Metastore as _, MetastoreAdmin as _,
};
use claviger_metastore::PostgresMetastore;
use claviger_testkit::{Direction, Fault, Postgres, Proxy, shown_number};
use tokio::task::JoinSet;

use crate::common_pool::{CONNECTIONS, assert_whole, dead_connections, dropped_calls};
use crate::latest::LatestRecord as _;
use crate::support::{ASHERAH, NOW, Place, assert_permanent, assert_transient, record};

async fn store_at(url: &str) -> PostgresMetastore {
    let builder = PostgresMetastore::builder().max_connections(NonZeroU32::new(CONNECTIONS).unwrap());
    builder.open(url).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_4_dropped_calls_cross_no_replies_and_give_their_connections_back() {
    let place = Place::migrated().await;
    dropped_calls(&store_at(&place.url).await).await;
}

#[tokio::test]
async fn reads_do_not_notice_that_all_pooled_connections_died() {
    let place = Place::migrated().await;
    dead_connections(&store_at(&place.url).await, async || terminate_all(&place).await).await;
}

async fn terminate_all(place: &Place) {
    place
        .execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_5_the_pool_is_whole_again_after_the_server_was_killed_twenty_times() {
    let mut server = Postgres::start();
    server.psql("postgres", ASHERAH);
    let store = store_at(&server.url("postgres")).await;
    for round in 0..20 {
        assert_whole(&store).await;
        let is_over = Arc::new(AtomicBool::new(false));
        let mut calls = JoinSet::new();
        for worker in 0..10 {
            let (store, is_over) = (store.clone(), Arc::clone(&is_over));
            calls.spawn(
                async move { insert_until(&store, &format!("_IK_{worker}_svc_prod"), &is_over).await },
            );
        }
        // In the midst of it.
        while store.count(&call()).await.unwrap() < 20 {}
        server.kill();
        server.restart();
        is_over.store(true, Ordering::Relaxed);
        let answered: Vec<_> = calls.join_all().await.into_iter().flatten().collect();
        let keys: Vec<_> = answered.iter().map(|record| record.meta().clone()).collect();
        let found = store.load_many(&keys, &call()).await.unwrap();
        assert!(found.iter().flatten().eq(&answered), "an insert that was answered is gone in round {round}");
        server.psql("postgres", "TRUNCATE encryption_key");
    }
    assert_whole(&store).await;
}

/// Returns what was answered.
async fn insert_until(store: &PostgresMetastore, id: &str, is_over: &AtomicBool) -> Vec<EnvelopeKeyRecord> {
    let mut inserted = Vec::new();
    for second in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let record = record(id, NOW + second);
        match store.insert(&record, &call()).await {
            Ok(outcome) => {
                assert_eq!(outcome, Insert::Inserted);
                inserted.push(record);
            }
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
    }
    inserted
}

#[tokio::test]
async fn a_half_open_connection_is_given_up_and_closed() {
    let place = Place::migrated().await;
    let server = place.url.rsplit_once('@').unwrap().1.split_once('/').unwrap().0;
    let proxy = Proxy::start(server).await;
    let url = place.url.replace(server, &proxy.address());
    let id = record("_IK_a_svc_prod", NOW).meta().id().clone();
    for direction in [Direction::ToServer, Direction::ToClient] {
        for after in [0, 20] {
            let hasty = PostgresMetastore::builder().max_connections(NonZeroU32::MIN);
            let store = hasty.open(&url).await.unwrap();
            let ask = async || {
                let context = CallContext::within(Duration::from_millis(700));
                store.load_latest(&id, Created::MAX, &context).await
            };
            assert_eq!(ask().await.unwrap(), None);
            proxy.set_open(Fault::Stall { direction, after });
            assert_transient(ask().await, "no answer from the database within 700ms");
            // The one place is free for a connection that works, once the server has ended the other.
            while ask().await.is_err() {}
            assert_eq!(shown_number(&store, "connections"), 1);
            store.close().await;
        }
    }
}

#[tokio::test]
async fn eventual_loads_go_to_the_replica_and_the_rest_to_the_primary() {
    let (primary, replica) = (Place::migrated().await, Place::migrated().await);
    let (here, there) = (record("_IK_a_svc_prod", NOW), record("_IK_b_svc_prod", NOW));
    assert_eq!(primary.open().await.insert(&here, &call()).await.unwrap(), Insert::Inserted);
    assert_eq!(replica.open().await.insert(&there, &call()).await.unwrap(), Insert::Inserted);
    let builders = [
        PostgresMetastore::builder().replica(replica.url.parse().unwrap()),
        PostgresMetastore::builder().replica_url(replica.url.clone()),
    ];
    for builder in builders {
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
    let nobody = primary.url.replace(&primary.name, "nobody");
    let store = PostgresMetastore::builder().replica_url(nobody).open(&primary.url).await.unwrap();
    assert_permanent(store.load(here.meta(), &call().consistency(Consistency::Eventual)).await, "3D000");
    assert_eq!(store.load(here.meta(), &call()).await.unwrap().as_ref(), Some(&here));
}

#[tokio::test]
async fn a_closed_store_refuses_calls() {
    let place = Place::migrated().await;
    let store = place.open().await;
    let record = record("_IK_a_svc_prod", NOW);
    assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
    store.close().await;
    assert_permanent(store.insert(&record, &call()).await, "closed");
    assert_permanent(store.latest(record.meta().id()).await, "closed");
    assert_permanent(store.count(&call()).await, "closed");
}

#[test]
fn a_call_outside_a_runtime_is_an_error() {
    let mut call = pin!(PostgresMetastore::open("postgres://a:b@127.0.0.1/keys"));
    let polled = call.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    let Poll::Ready(Err(error)) = polled else { panic!("it waits, or connected") };
    assert!(!error.is_transient());
}
