//! What the table cannot hold is refused before it is asked.

use claviger::testing::{ReplaceOne as _, call};
use claviger::{EnvelopeKeyRecord, FailureClass, KeyId, Metastore as _, MetastoreAdmin as _};
use claviger_testkit::{AwsStandIn, Reply, shared_dynalite};
use serde_json::json;

use crate::latest::LatestRecord as _;
use crate::refused::assert_refused_unasked;
use crate::support::{NOW, assert_failed, builder, meta, new_table, record};

#[tokio::test]
async fn ids_that_do_not_fit_are_refused_by_every_call() {
    let server = AwsStandIn::start(|_| Reply::ok(json!({}))).await;
    let store = builder(server.endpoint(), "keys").danger_unchecked().open().await.unwrap();
    let cases = [
        (String::new(), "key id is empty"),
        ("x".repeat(2_049), "2049 bytes"),
        // Bytes, not characters.
        ("\u{e9}".repeat(1_025), "2050 bytes"),
        ("a\0b".to_owned(), "NUL"),
        ("__asherah_internal_config_drift_guard_v1__:x".to_owned(), "reserved"),
    ];
    for (id, says) in cases {
        let key = meta(&id, NOW);
        let class = FailureClass::Permanent;
        assert_failed(store.load(&key, &call()).await, class, says);
        assert_failed(store.latest(key.id()).await, class, says);
        assert_failed(store.load_many(&[meta("a", NOW), key.clone()], &call()).await, class, says);
        assert_failed(store.latest_many(&[KeyId::new("a"), key.id().clone()]).await, class, says);
        assert_failed(store.insert(&record(&id, NOW), &call()).await, class, says);
        assert_failed(store.revoke(&key, &call()).await, class, says);
        assert_failed(store.replace_one(&key, b"old", b"new", &call()).await, class, says);
        assert_failed(store.delete(key.id(), &call()).await, class, says);
    }
    assert!(server.seen().is_empty(), "DynamoDB was not asked");
}

#[tokio::test]
async fn ids_of_2048_bytes_are_kept_and_told_apart() {
    let store = new_table(shared_dynalite()).await;
    let stem = "\u{e9}".repeat(1_023);
    let records = ["ab", "ba", "a"].map(|tail| record(&format!("{stem}{tail}"), NOW));
    for record in &records {
        assert_eq!(store.insert(record, &call()).await.unwrap(), claviger::Insert::Inserted);
    }
    for record in records {
        assert_eq!(store.latest(record.meta().id()).await.unwrap(), Some(record));
    }
}

#[tokio::test]
async fn wrapped_keys_of_64_kib_of_base64_are_kept_and_longer_ones_refused() {
    let store = new_table(shared_dynalite()).await;
    let with_key = |bytes| EnvelopeKeyRecord::new(meta(&format!("of-{bytes}"), NOW), vec![7; bytes], None);
    for bytes in [49_151, 49_152] {
        let large = with_key(bytes);
        assert_eq!(store.insert(&large, &call()).await.unwrap(), claviger::Insert::Inserted);
        assert_eq!(store.latest(large.meta().id()).await.unwrap(), Some(large));
    }
    for bytes in [49_153, 1_000_000] {
        let refused = store.insert(&with_key(bytes), &call()).await;
        assert!(refused.as_ref().is_err_and(|error| !error.was_asked()));
        assert_failed(refused, FailureClass::Permanent, "over the limit");
    }
    let small = with_key(1);
    assert_eq!(store.insert(&small, &call()).await.unwrap(), claviger::Insert::Inserted);
    let replaced = store.replace_one(small.meta(), &[7], &[7; 400_000], &call()).await;
    assert_failed(replaced, FailureClass::Permanent, "over the limit");
    assert_eq!(store.latest(small.meta().id()).await.unwrap(), Some(small));
}

#[tokio::test]
async fn a_wrapped_key_without_bytes_is_refused() {
    let store = new_table(shared_dynalite()).await;
    let empty = EnvelopeKeyRecord::new(meta("a", NOW), Vec::new(), None);
    assert_failed(store.insert(&empty, &call()).await, FailureClass::Permanent, "empty");
    let record = record("a", NOW);
    assert_eq!(store.insert(&record, &call()).await.unwrap(), claviger::Insert::Inserted);
    let replaced = store.replace_one(record.meta(), record.wrapped_key(), &[], &call()).await;
    assert_failed(replaced, FailureClass::Permanent, "empty");
    assert_eq!(store.latest(record.meta().id()).await.unwrap(), Some(record));
}

#[tokio::test]
async fn what_is_refused_here_says_so_also_when_the_server_is_gone() {
    // Nobody listens there.
    let store = builder("http://127.0.0.1:9", "keys").danger_unchecked().open().await.unwrap();
    assert_refused_unasked(&store).await;
}
