use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use claviger::testing::{ReplaceOne as _, call};
use claviger::{Created, EnvelopeKeyRecord, Insert, KeyId, KeyMeta, Metastore as _, MetastoreAdmin as _};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Sqlite};

use super::builder::{CONNECTIONS_MAX, enter_wal_mode};
use super::file::Missing;
use super::*;

async fn in_a_folder() -> (SqliteMetastore, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteMetastore::migrate(folder.path().join("keys.db")).await.unwrap();
    (store, folder)
}

/// Takes every connection at once.
async fn all_connections(store: &SqliteMetastore) -> Vec<PoolConnection<Sqlite>> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        connections.push(connection(&store.0.0.pool, call().deadline).await.unwrap());
    }
    connections
}

fn record(created: i64) -> EnvelopeKeyRecord {
    let meta = KeyMeta::new(KeyId::new("_IK_a_svc_prod"), Created::new(created).unwrap());
    EnvelopeKeyRecord::new(meta, *b"wrapped", None)
}

#[tokio::test]
async fn every_connection_commits_durably() {
    let (store, _folder) = in_a_folder().await;
    for mut connection in all_connections(&store).await {
        assert_eq!(statements::journal_mode(&mut connection).await.unwrap(), "wal");
        assert_eq!(statements::synchronous(&mut connection).await.unwrap(), 2);
    }
}

#[tokio::test]
async fn s1_4_dropped_calls_give_their_connections_back() {
    let (store, _folder) = in_a_folder().await;
    for round in 0..1_000 {
        let record = record(round + 1);
        let calls = async {
            let _either = store.insert(&record, &call()).await?;
            store.revoke(record.meta(), &call()).await?;
            store.load_latest(record.meta().id(), Created::MAX, &call()).await
        };
        let mut calls = pin!(calls);
        for _ in 0..round % 40 {
            if poll_fn(|context| Poll::Ready(calls.as_mut().poll(context).is_ready())).await {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    let connections = all_connections(&store).await;
    assert_eq!(connections.len(), CONNECTIONS_MAX as usize);
    drop(connections);
    // The queue of writers is empty, and no transaction was left open on any connection.
    for created in 10_000..10_100 {
        assert_eq!(store.insert(&record(created), &call()).await.unwrap(), Insert::Inserted);
        let latest = store.load_latest(record(1).meta().id(), Created::MAX, &call()).await.unwrap();
        assert_eq!(latest.map(|latest| latest.record), Some(record(created)));
    }
}

#[test]
fn a_call_outside_a_runtime_is_an_error() {
    let outside = || {
        let mut call = pin!(SqliteMetastore::migrate("keys.db"));
        call.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    };
    let Poll::Ready(Err(error)) = outside() else { panic!("it waits, or opened the file") };
    assert!(!error.is_transient());
}

#[tokio::test]
async fn keys_that_the_table_cannot_hold_are_refused_before_it_is_touched() {
    let (store, _folder) = in_a_folder().await;
    // A closed pool would answer that it is closed.
    store.close().await;
    let long = "x".repeat(256);
    let cases = [
        ("", "key id is empty"),
        (long.as_str(), "key id of 256 characters is over the limit of 255"),
        ("a\0b", "key id contains NUL"),
        ("__asherah_internal_x", "key id is reserved"),
    ];
    for (id, says) in cases {
        let key = KeyMeta::new(KeyId::new(id), Created::MIN);
        let insert =
            store.insert(&EnvelopeKeyRecord::new(key.clone(), *b"wrapped", None), &call()).await.map(drop);
        let load = store.load(&key, &call()).await.map(drop);
        let load_many = store.load_many(std::slice::from_ref(&key), &call()).await.map(drop);
        let revoke = store.revoke(&key, &call()).await.map(drop);
        let replace = store.replace_one(&key, b"old", b"new", &call()).await.map(drop);
        let latest = store.load_latest(key.id(), Created::MAX, &call()).await.map(drop);
        let delete = store.delete(key.id(), &call()).await.map(drop);
        for answer in [insert, load, load_many, latest, revoke, replace, delete] {
            assert_refused(answer, says);
        }
    }
    let long = EnvelopeKeyRecord::new(KeyMeta::new(KeyId::new("a"), Created::MIN), vec![0; 49_152], None);
    let says = "key record of length 65558 is over the limit of 65536";
    assert_refused(store.insert(&long, &call()).await.map(drop), says);
}

#[track_caller]
fn assert_refused(answer: Result<(), BackendError>, says: &str) {
    let error = answer.unwrap_err();
    assert!(!error.is_transient() && !error.was_asked());
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), says);
}

#[tokio::test]
async fn entering_wal_mode_waits_for_who_is_using_the_file() {
    let folder = tempfile::tempdir().unwrap();
    // Without SQLite's own waiting, which this step does not go by.
    let options = SqliteConnectOptions::new().filename(folder.path().join("keys.db"));
    let options = options.busy_timeout(Duration::ZERO).create_if_missing(true);
    let mut other = options.connect().await.unwrap();
    let using = other.begin_with("BEGIN EXCLUSIVE").await.unwrap();
    let mut entering = pin!(enter_wal_mode(&options, Missing::IsMade));
    // Each try and each pause wakes it at least once.
    let mut wakes = 0;
    let ended = poll_fn(|context| match entering.as_mut().poll(context) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => {
            wakes += 1;
            if wakes < 20 { Poll::Pending } else { Poll::Ready(None) }
        }
    })
    .await;
    assert!(ended.is_none(), "{ended:?}");
    using.rollback().await.unwrap();
    entering.await.unwrap();
}
