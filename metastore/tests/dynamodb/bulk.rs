//! Batches: their size, what is left undone, how many are under way at once.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use claviger::testing::call;
use claviger::{Consistency, EnvelopeKeyRecord, FailureClass, Insert, KeyId, Metastore as _};
use claviger_testkit::{AwsStandIn, Reply, Request, shared_dynalite, shared_moto};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::latest::LatestRecord as _;
use crate::support::{NOW, assert_failed, builder, meta, new_table, record};

/// The keys of a BatchGetItem.
fn keys(request: &Request) -> Vec<Value> {
    request.body["RequestItems"]["keys"]["Keys"].as_array().unwrap().clone()
}

/// A batch's answer: these found, with a key record made up, and those left.
fn found_and_left(found: &[Value], left: &[Value]) -> Reply {
    let item = |key: &Value| {
        let record = json!({ "Key": { "S": "AP/+" }, "Created": key["Created"] });
        json!({ "Id": key["Id"], "Created": key["Created"], "KeyRecord": { "M": record } })
    };
    let items: Vec<_> = found.iter().map(item).collect();
    let left = if left.is_empty() { json!({}) } else { json!({ "keys": { "Keys": left } }) };
    Reply::ok(json!({ "Responses": { "keys": items }, "UnprocessedKeys": left }))
}

fn expected(key: &claviger::KeyMeta) -> Option<EnvelopeKeyRecord> {
    Some(EnvelopeKeyRecord::new(key.clone(), [0, 255, 254], None))
}

#[tokio::test]
async fn a_batch_has_a_hundred_keys_and_each_once() {
    let server = AwsStandIn::start(|request| found_and_left(&keys(request), &[])).await;
    let store = builder(server.endpoint(), "keys").danger_unchecked().open().await.unwrap();
    let asked: Vec<_> = (0..250).map(|second| meta("a", NOW + second % 230)).collect();
    let records = store.load_many(&asked, &call()).await.unwrap();
    assert_eq!(records, asked.iter().map(expected).collect::<Vec<_>>());
    let mut sizes: Vec<_> = server.seen().iter().map(|request| keys(request).len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [30, 100, 100]);
    let distinct: HashSet<_> = server.seen().iter().flat_map(keys).map(|key| key.to_string()).collect();
    assert_eq!(distinct.len(), 230);
}

/// DynamoDB may answer a part of a batch only, when it is throttled or the answer grows too long.
#[tokio::test]
async fn what_a_batch_left_undone_is_asked_for_again() {
    let server = AwsStandIn::start(|request| {
        let keys = keys(request);
        let (found, left) = keys.split_at(keys.len().div_ceil(3));
        found_and_left(found, left)
    })
    .await;
    let store = builder(server.endpoint(), "keys").danger_unchecked().open().await.unwrap();
    let asked: Vec<_> = (0..40).map(|second| meta("a", NOW + second)).collect();
    let records = store.load_many(&asked, &call().consistency(Consistency::Eventual)).await.unwrap();
    assert_eq!(records, asked.iter().map(expected).collect::<Vec<_>>());
    let sizes: Vec<_> = server.seen().iter().map(|request| keys(request).len()).collect();
    assert_eq!(sizes, [40, 26, 17, 11, 7, 4, 2, 1]);
    let consistent =
        |request: &Request| request.body["RequestItems"]["keys"]["ConsistentRead"] == json!(true);
    assert!(!server.seen().iter().any(consistent));
}

/// A key that was left undone is not a key that is not there.
#[tokio::test]
async fn a_batch_that_stays_undone_is_a_transient_error() {
    let server = AwsStandIn::start(|request| found_and_left(&[], &keys(request))).await;
    let store = builder(server.endpoint(), "keys").danger_unchecked().open().await.unwrap();
    let asked = [meta("a", NOW), meta("b", NOW)];
    let answer = store.load_many(&asked, &call()).await;
    assert_failed(answer, FailureClass::Transient, "did not get to 2 keys");
    let requests = server.seen().len();
    assert!((3..=12).contains(&requests), "{requests} tries, further and further apart");
}

/// Holds every answer until eight requests wait, or as many as are left.
async fn eight_at_a_time(requests: usize) -> (AwsStandIn, Arc<AtomicUsize>) {
    let (waiting, most) = (Arc::new(Mutex::new((0, requests))), Arc::new(AtomicUsize::new(0)));
    let (gate, seen) = (Arc::new(Semaphore::new(0)), Arc::clone(&most));
    let server = AwsStandIn::start_with(move |request| {
        let (waiting, gate, seen) = (Arc::clone(&waiting), Arc::clone(&gate), Arc::clone(&seen));
        async move {
            let is_full = {
                let mut waiting = waiting.lock().unwrap();
                waiting.0 += 1;
                seen.fetch_max(waiting.0, Ordering::SeqCst);
                waiting.0 == waiting.1.min(8)
            };
            if is_full {
                // One more would come now: the client has nothing else to do.
                for _turn in 0..1_000 {
                    tokio::task::yield_now().await;
                }
                let mut waiting = waiting.lock().unwrap();
                gate.add_permits(waiting.0);
                *waiting = (0, waiting.1 - waiting.0);
            }
            gate.acquire().await.unwrap().forget();
            match request.operation.as_str() {
                "BatchGetItem" => found_and_left(&keys(&request), &[]),
                _ => Reply::ok(json!({})),
            }
        }
    })
    .await;
    (server, most)
}

#[tokio::test]
async fn eight_batches_are_under_way_at_once_and_no_more() {
    let (server, most) = eight_at_a_time(20).await;
    let store = builder(server.endpoint(), "keys").danger_unchecked().open().await.unwrap();
    let asked: Vec<_> = (0..2_000).map(|second| meta("a", NOW + second)).collect();
    let records = store.load_many(&asked, &call()).await.unwrap();
    assert_eq!(records, asked.iter().map(expected).collect::<Vec<_>>());
    assert_eq!((server.seen().len(), most.load(Ordering::SeqCst)), (20, 8));
}

#[tokio::test]
async fn eight_latest_are_asked_for_at_once_and_no_more() {
    let (server, most) = eight_at_a_time(30).await;
    let store = builder(server.endpoint(), "keys").danger_unchecked().open().await.unwrap();
    // Each id twice.
    let asked: Vec<_> = (0..60).map(|number| KeyId::new(format!("_IK_{}_svc_prod", number % 30))).collect();
    let records = store.latest_many(&asked).await.unwrap();
    assert_eq!(records, vec![None; 60]);
    assert_eq!((server.seen().len(), most.load(Ordering::SeqCst)), (30, 8));
}

#[tokio::test]
async fn one_failed_part_fails_the_whole() {
    let server = AwsStandIn::start(|request| match request.operation.as_str() {
        "BatchGetItem" if keys(request).len() == 100 => found_and_left(&keys(request), &[]),
        "Query" if request.body["ExpressionAttributeValues"][":id"]["S"] == json!("0") => {
            Reply::ok(json!({}))
        }
        _ => Reply::error(400, "ProvisionedThroughputExceededException", "as told"),
    })
    .await;
    let store = builder(server.endpoint(), "keys").danger_unchecked().open().await.unwrap();
    let asked: Vec<_> = (0..150).map(|second| meta("a", NOW + second)).collect();
    let answer = store.load_many(&asked, &call()).await;
    assert_failed(answer, FailureClass::Transient, "as told");
    let ids = ["0", "1"].map(KeyId::new);
    assert_failed(store.latest_many(&ids).await, FailureClass::Transient, "as told");
}

#[tokio::test]
async fn a_thousand_keys_are_loaded() {
    for endpoint in [shared_dynalite(), shared_moto()] {
        let store = new_table(endpoint).await;
        let records: Vec<_> = (0..60).map(|second| record("_IK_a_svc_prod", NOW + second)).collect();
        for record in &records {
            assert_eq!(store.insert(record, &call()).await.unwrap(), Insert::Inserted);
        }
        let asked: Vec<_> = (0..1_000).map(|second| meta("_IK_a_svc_prod", NOW + second)).collect();
        let loaded = store.load_many(&asked, &call()).await.unwrap();
        assert_eq!(loaded.len(), 1_000);
        assert_eq!(loaded.into_iter().flatten().collect::<Vec<_>>(), records);
    }
}
