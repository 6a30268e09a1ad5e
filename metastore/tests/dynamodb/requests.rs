//! What is sent: consistency, conditions, one attempt, and what becomes of a call that is dropped.

use std::future::poll_fn;
use std::pin::pin;
use std::slice::from_ref;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use claviger::testing::{ReplaceOne as _, call};
use claviger::{
    BackendError, Consistency, Created, FailureClass, FailureKind, Insert, KeyId, Metastore as _,
    MetastoreAdmin as _,
};
use claviger_metastore::DynamoDbMetastore;
use claviger_testkit::{AwsStandIn, Reply, Request, call_after_the_openers_end, shared_dynalite};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::latest::LatestRecord as _;
use crate::support::{NOW, assert_failed, builder, client_config, meta, new_table, record};

/// Answers every request with nothing found.
async fn nothing() -> (DynamoDbMetastore, AwsStandIn) {
    let server = AwsStandIn::start(|_| Reply::ok(json!({}))).await;
    (builder(server.endpoint(), "keys").danger_unchecked().open().await.unwrap(), server)
}

fn only(server: &AwsStandIn) -> Request {
    let seen = server.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    seen.into_iter().next().unwrap()
}

#[tokio::test]
async fn a_load_is_as_consistent_as_asked_for() {
    for (consistency, expected) in [(Consistency::Strong, true), (Consistency::Eventual, false)] {
        let (store, server) = nothing().await;
        assert_eq!(
            store.load(&meta("_IK_a_svc_prod", NOW), &call().consistency(consistency)).await.unwrap(),
            None
        );
        let request = only(&server);
        assert_eq!(request.operation, "GetItem");
        let key = json!({ "Id": { "S": "_IK_a_svc_prod" }, "Created": { "N": "1700000000" } });
        assert_eq!(request.body, json!({ "TableName": "keys", "Key": key, "ConsistentRead": expected }));
    }
}

#[tokio::test]
async fn a_load_of_many_is_as_consistent_as_asked_for() {
    for (consistency, expected) in [(Consistency::Strong, true), (Consistency::Eventual, false)] {
        let (store, server) = nothing().await;
        assert_eq!(
            store.load_many(&[meta("_IK_a_svc_prod", NOW)], &call().consistency(consistency)).await.unwrap(),
            [None]
        );
        let request = only(&server);
        assert_eq!(request.operation, "BatchGetItem");
        assert_eq!(request.body["RequestItems"]["keys"]["ConsistentRead"], json!(expected));
    }
}

#[tokio::test]
async fn latest_is_always_read_consistently_and_up_to_its_bound() {
    let id = KeyId::new("_IK_a_svc_prod");
    let bounded =
        ("Id = :id AND Created <= :up_to", json!({ ":id": { "S": id.as_str() }, ":up_to": { "N": "7" } }));
    let unbounded = ("Id = :id", json!({ ":id": { "S": id.as_str() } }));
    for (up_to, (condition, values)) in [(Created::new(7).unwrap(), bounded), (Created::MAX, unbounded)] {
        let (one, server_of_one) = nothing().await;
        assert_eq!(one.load_latest(&id, up_to, &call()).await.unwrap(), None);
        let (many, server_of_many) = nothing().await;
        assert_eq!(many.load_latest_many(from_ref(&id), up_to, &call()).await.unwrap(), [None]);
        for request in [only(&server_of_one), only(&server_of_many)] {
            assert_eq!(request.operation, "Query");
            let expected = json!({
                "TableName": "keys",
                "KeyConditionExpression": condition,
                "ExpressionAttributeValues": values,
                "ScanIndexForward": false,
                "Limit": 2,
                "ConsistentRead": true,
            });
            assert_eq!(request.body, expected);
        }
    }
}

#[tokio::test]
async fn list_and_count_are_read_consistently() {
    let (store, server) = nothing().await;
    assert!(store.list("", None, 10, &call()).await.unwrap().records.is_empty());
    assert_eq!(store.count(&call()).await.unwrap(), 0);
    let seen = server.seen();
    let operations: Vec<_> = seen.iter().map(|request| request.operation.as_str()).collect();
    assert_eq!(operations, ["Scan", "Scan"]);
    assert!(seen.iter().all(|request| request.body["ConsistentRead"] == json!(true)), "{seen:?}");
}

#[tokio::test]
async fn every_write_has_a_condition() {
    let (store, server) = nothing().await;
    let record = record("_IK_a_svc_prod", NOW);
    assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
    assert!(store.revoke(record.meta(), &call()).await.unwrap());
    assert!(store.replace_one(record.meta(), b"old", b"new", &call()).await.unwrap());
    let seen = server.seen();
    let conditions: Vec<_> = seen.iter().map(|request| request.body["ConditionExpression"].clone()).collect();
    let expected = ["attribute_not_exists(Id)", "attribute_exists(Id)", "#record.#key = :old"];
    assert_eq!(conditions, expected.map(Value::from));
}

#[tokio::test]
async fn the_sdk_does_not_retry() {
    let server =
        AwsStandIn::start(|_| Reply::error(500, "InternalServerError", "DynamoDB answered with an error"))
            .await;
    let retries = RetryConfig::standard().with_max_attempts(5);
    let theirs = Client::from_conf(client_config(server.endpoint()).retry_config(retries).build());
    let ours = builder(server.endpoint(), "keys").danger_unchecked().open().await.unwrap();
    let theirs = DynamoDbMetastore::builder().danger_unchecked().open_with(theirs).await.unwrap();
    for store in [ours, theirs] {
        let before = server.seen().len();
        assert_failed(store.latest(&KeyId::new("a")).await, FailureClass::Transient, "InternalServerError");
        assert_eq!(server.seen().len(), before + 1);
    }
}

#[tokio::test]
async fn a_ready_client_keeps_what_it_has_and_takes_what_the_builder_says() {
    let (one, other) = (
        AwsStandIn::start(|_| Reply::ok(json!({}))).await,
        AwsStandIn::start(|_| Reply::ok(json!({}))).await,
    );
    let client = Client::from_conf(client_config(one.endpoint()).build());
    let unchecked = || DynamoDbMetastore::builder().table("theirs").danger_unchecked();
    let key = meta("a", NOW);
    let kept = unchecked().open_with(client.clone()).await.unwrap();
    assert_eq!(kept.load(&key, &call()).await.unwrap(), None);
    assert_eq!(only(&one).body["TableName"], json!("theirs"));
    let moved = unchecked().endpoint(other.endpoint()).open_with(client).await.unwrap();
    assert_eq!(moved.load(&key, &call()).await.unwrap(), None);
    assert_eq!((one.seen().len(), other.seen().len()), (1, 1));
}

#[tokio::test]
async fn a_reply_of_another_key_is_not_taken() {
    let other = json!({
        "Id": { "S": "_IK_b_svc_prod" },
        "Created": { "N": "1700000000" },
        "KeyRecord": { "M": { "Key": { "S": "AAAA" }, "Created": { "N": "1700000000" } } },
    });
    let server = AwsStandIn::start(move |request| {
        Reply::ok(match request.operation.as_str() {
            "Query" => json!({ "Items": [other] }),
            "BatchGetItem" => json!({ "Responses": { "keys": [other] } }),
            _ => json!({ "Item": other }),
        })
    })
    .await;
    let store = builder(server.endpoint(), "keys").danger_unchecked().open().await.unwrap();
    let key = meta("_IK_a_svc_prod", NOW);
    let (damaged, says) = (FailureClass::Damaged, "the item of another key came, which was not asked for");
    assert_failed(store.load(&key, &call()).await, damaged, says);
    assert_failed(store.latest(key.id()).await, damaged, says);
    assert_failed(store.load_many(from_ref(&key), &call()).await, damaged, says);
    assert_failed(store.latest_many(from_ref(key.id())).await, damaged, says);
}

/// A call that is dropped closes its own connection, and the next one gets a good one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_call_takes_no_other_calls_reply() {
    let arrived = Arc::new(Notify::new());
    let told = Arc::clone(&arrived);
    let server = AwsStandIn::start_with(move |request| {
        let told = Arc::clone(&told);
        async move {
            if request.body["Key"]["Id"]["S"] == json!("held") {
                told.notify_one();
                return Reply::Silence;
            }
            Reply::ok(json!({}))
        }
    })
    .await;
    let store = builder(server.endpoint(), "keys").danger_unchecked().open().await.unwrap();
    let (held, free) = (meta("held", NOW), meta("free", NOW));
    for round in 1..=20 {
        {
            let context = call();
            let mut load = pin!(store.load(&held, &context));
            let mut arrived = pin!(arrived.notified());
            poll_fn(|context| {
                assert!(load.as_mut().poll(context).is_pending());
                arrived.as_mut().poll(context)
            })
            .await;
        }
        assert_eq!(store.load(&free, &call()).await.unwrap(), None);
        assert!(server.connections() <= round + 1, "connections are used again");
    }
}

#[test]
fn a_call_outside_a_runtime_is_an_error() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(new_table(shared_dynalite()));
    drop(runtime);
    let (key, id) = (meta("a", NOW), KeyId::new("a"));
    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(one) = pin!(store.load(&key, &call())).poll(&mut context) else {
        panic!("it waits for nothing");
    };
    assert_failed(one, FailureClass::Permanent, "no tokio runtime");
    let Poll::Ready(many) = pin!(store.latest_many(&[id])).poll(&mut context) else {
        panic!("it waits for nothing");
    };
    assert_failed(many, FailureClass::Permanent, "no tokio runtime");
    let Poll::Ready(opened) = pin!(DynamoDbMetastore::open("keys")).poll(&mut context) else {
        panic!("it waits for nothing");
    };
    assert_failed(opened, FailureClass::Permanent, "no tokio runtime");
}

#[test]
fn clones_work_on_several_runtimes() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let store = runtime().block_on(new_table(shared_dynalite()));
    let record = record("_IK_a_svc_prod", NOW);
    assert_eq!(runtime().block_on(store.insert(&record, &call())).unwrap(), Insert::Inserted);
    // The connection of the runtime before is closed and not used again.
    assert_eq!(runtime().block_on(store.clone().latest(record.meta().id())).unwrap(), Some(record));
}

/// A connection is driven by the runtime that it was opened in, and ends with it.
#[test]
fn a_call_whose_connection_ends_with_another_runtime_may_be_made_again() {
    let servers = tokio::runtime::Runtime::new().unwrap();
    for (kept_back, says) in [
        (Reply::Silence, "runtime dropped the dispatch task"),
        (Reply::Stall(0), "cannot be read"),
        (Reply::Stall(9), "cannot be read"),
    ] {
        let server = servers.block_on(AwsStandIn::start(move |request| {
            let is_held = request.body["Key"]["Id"]["S"] == json!("held");
            if is_held { kept_back.clone() } else { Reply::ok(json!({})) }
        }));
        let client = Client::from_conf(client_config(server.endpoint()).build());
        let store =
            servers.block_on(DynamoDbMetastore::builder().danger_unchecked().open_with(client)).unwrap();
        let load = |id| {
            let store = store.clone();
            async move { store.load(&meta(id, NOW), &call()).await }
        };
        let (lost, caller) =
            call_after_the_openers_end(load("free"), |_| load("held"), || server.kept_waiting() > 0);
        assert_eq!(server.connections(), 1, "both calls used one");
        let kind = lost.as_ref().err().and_then(BackendError::kind);
        assert_failed(lost, FailureClass::Transient, says);
        assert_eq!(kind, Some(FailureKind::Unreachable));
        assert_eq!(caller.block_on(load("free")).unwrap(), None);
    }
}

#[test]
fn debug_shows_the_table_alone() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = builder("https://canary-endpoint:1", "keys").danger_unchecked();
    let store = runtime.block_on(store.open()).unwrap();
    assert_eq!(format!("{store:?}"), "DynamoDbMetastore { table: \"keys\", .. }");
}
