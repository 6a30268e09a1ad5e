//! Items as Asherah writes them, and as it does not.

use std::path::Path;
use std::slice::from_ref;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use claviger::testing::{ReplaceOne as _, call};
use claviger::{
    BackendError, Consistency, Created, EnvelopeKeyRecord, FailureClass, Insert, KeyId, KeyMeta,
    Metastore as _, MetastoreAdmin as _,
};
use claviger_testkit::shared_dynalite;
use serde_json::Value;

use crate::latest::LatestRecord as _;
use crate::support::{Beside, Item, NOW, assert_failed, item, key, m, meta, n, record, s};

/// An item of `_IK_a_svc_prod` with these fields in its key record.
fn holding<const N: usize>(fields: [(&str, AttributeValue); N]) -> Item {
    let mut item = key(&meta("_IK_a_svc_prod", NOW));
    item.insert("KeyRecord".into(), m(fields));
    item
}

#[tokio::test]
async fn items_are_written_as_asherah_writes_them() {
    let beside = Beside::on(shared_dynalite()).await;
    let parent = m([("KeyId", s("_SK_svc_prod")), ("Created", n(NOW - 60))]);
    let fields = [("Key", s("AP/+")), ("Created", n(NOW)), ("ParentKeyMeta", parent.clone())];
    let bare = EnvelopeKeyRecord::new(meta("_IK_a_svc_prod", NOW), [0, 255, 254], None);
    let whole = EnvelopeKeyRecord::new(
        meta("_IK_a_svc_prod", NOW),
        [0, 255, 254],
        Some(meta("_SK_svc_prod", NOW - 60)),
    );
    let [key, created, parent] = fields.clone();
    for (record, expected) in [
        (whole.clone(), holding(fields)),
        (
            whole.revoked(true),
            holding([key.clone(), created.clone(), parent, ("Revoked", AttributeValue::Bool(true))]),
        ),
        (bare, holding([key, created])),
    ] {
        assert_eq!(beside.store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
        assert_eq!(beside.get(record.meta()).await, Some(expected));
        assert_eq!(beside.store.delete(record.meta().id(), &call()).await.unwrap(), 1);
    }
}

/// What other writers may add or leave out.
#[tokio::test]
async fn forms_that_mean_the_same_are_read() {
    let beside = Beside::on(shared_dynalite()).await;
    let (wrapped, created) = (("Key", s("AP/+")), ("Created", n(NOW)));
    let parent = |more| m([("KeyId", s("_SK_svc_prod")), ("Created", n(NOW - 60)), ("More", more)]);
    let plain = EnvelopeKeyRecord::new(meta("_IK_a_svc_prod", NOW), [0, 255, 254], None);
    let with_parent = EnvelopeKeyRecord::new(
        meta("_IK_a_svc_prod", NOW),
        [0, 255, 254],
        Some(meta("_SK_svc_prod", NOW - 60)),
    );
    let null = AttributeValue::Null(true);
    let mut more =
        holding([wrapped.clone(), created.clone(), ("Unknown", n(1)), ("ParentKeyMeta", parent(n(1)))]);
    more.insert("Unknown".into(), s("x"));
    for (stored, expected) in [
        (holding([wrapped.clone(), created.clone()]), plain.clone()),
        (
            holding([wrapped.clone(), created.clone(), ("Revoked", AttributeValue::Bool(false))]),
            plain.clone(),
        ),
        (
            holding([wrapped.clone(), created.clone(), ("Revoked", AttributeValue::Bool(true))]),
            plain.clone().revoked(true),
        ),
        (holding([wrapped, created, ("Revoked", null.clone()), ("ParentKeyMeta", null)]), plain),
        (more, with_parent),
    ] {
        beside.put(stored).await;
        let loaded = beside.store.load(expected.meta(), &call()).await.unwrap();
        assert_eq!(loaded.as_ref(), Some(&expected));
        assert_eq!(beside.store.latest(expected.meta().id()).await.unwrap(), Some(expected));
    }
}

#[tokio::test]
async fn items_that_cannot_be_read_are_damaged_in_every_call() {
    let beside = Beside::on(shared_dynalite()).await;
    let (wrapped, created) = (("Key", s("AP/+")), ("Created", n(NOW)));
    let parent = |fields| ("ParentKeyMeta", fields);
    let good = [wrapped.clone(), created.clone()];
    let with = |more: (&str, AttributeValue)| holding([good[0].clone(), good[1].clone(), more]);
    let mut no_map = key(&meta("_IK_a_svc_prod", NOW));
    let none = no_map.clone();
    no_map.insert("KeyRecord".into(), s("{}"));
    let key = meta("_IK_a_svc_prod", NOW);
    for (stored, says) in [
        (none, "KeyRecord is no map"),
        (no_map, "KeyRecord is no map"),
        (holding([created.clone()]), "Key is no text"),
        (holding([("Key", AttributeValue::B(Blob::new([0, 255]))), created.clone()]), "Key is no text"),
        (holding([("Key", s("AP/")), created.clone()]), "Key is no base64"),
        (holding([("Key", s("AP/=")), created.clone()]), "Key is no base64"),
        // The last character says more bits than there are: not the text of any bytes.
        (holding([("Key", s("AB==")), created]), "Key is no base64"),
        (holding([wrapped.clone()]), "Created inside"),
        (holding([wrapped.clone(), ("Created", s("1700000000"))]), "Created inside"),
        (holding([wrapped, ("Created", n(NOW + 1))]), "Created inside"),
        (with(("Revoked", s("true"))), "Revoked"),
        (with(("Revoked", n(1))), "Revoked"),
        (with(parent(s("_SK_svc_prod"))), "ParentKeyMeta is no map"),
        (with(parent(m([]))), "ParentKeyMeta names no key"),
        (with(parent(m([("KeyId", s("x")), ("Created", n(0))]))), "ParentKeyMeta names no key"),
        (with(parent(m([("KeyId", n(1)), ("Created", n(NOW))]))), "ParentKeyMeta names no key"),
    ] {
        beside.put(stored).await;
        let damaged = FailureClass::Damaged;
        assert_failed(beside.store.load(&key, &call()).await, damaged, says);
        assert_failed(
            beside.store.load(&key, &call().consistency(Consistency::Eventual)).await,
            damaged,
            says,
        );
        assert_failed(beside.store.latest(key.id()).await, damaged, says);
        assert_failed(beside.store.load_many(from_ref(&key), &call()).await, damaged, says);
        assert_failed(beside.store.latest_many(&[key.id().clone()]).await, damaged, says);
        // It is there all the same: nothing may be put in its place.
        assert_eq!(
            beside.store.insert(&record("_IK_a_svc_prod", NOW), &call()).await.unwrap(),
            Insert::AlreadyExists
        );
    }
}

/// A revocation and a replacement change their field and no other, known or not.
#[tokio::test]
async fn updates_leave_what_they_do_not_know() {
    let beside = Beside::on(shared_dynalite()).await;
    let key = meta("_IK_a_svc_prod", NOW);
    let fields = |wrapped| [("Key", s(wrapped)), ("Created", n(NOW)), ("Unknown", n(7))];
    let mut stored = holding(fields("AP/+"));
    stored.insert("Beside".into(), item([("x", s("y"))]).remove("x").unwrap());
    beside.put(stored.clone()).await;
    assert!(beside.store.replace_one(&key, &[0, 255, 254], &[1, 2, 3], &call()).await.unwrap());
    let [wrapped, created, unknown] = fields("AQID");
    stored.insert("KeyRecord".into(), m([wrapped.clone(), created.clone(), unknown.clone()]));
    assert_eq!(beside.get(&key).await.as_ref(), Some(&stored));
    assert!(beside.store.revoke(&key, &call()).await.unwrap());
    stored
        .insert("KeyRecord".into(), m([wrapped, created, unknown, ("Revoked", AttributeValue::Bool(true))]));
    assert_eq!(beside.get(&key).await, Some(stored));
}

/// Every row of the vectors, as an item the way its writer makes one of it, is read as its JSON is, and
/// written the same.
#[tokio::test]
async fn rows_of_other_implementations_are_read_and_written_alike() {
    let beside = Beside::on(shared_dynalite()).await;
    let mut seen = std::collections::HashSet::new();
    for file in ["go_core", "rust_core_1.0.0", "wheel_go_0.3.9", "wheel_rust_0.5.56"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/vectors/{file}.json"));
        let groups: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for row in
            groups.as_array().unwrap().iter().flat_map(|group| group["metastore_rows"].as_array().unwrap())
        {
            let (id, created) = (row["id"].as_str().unwrap(), row["created"].as_i64().unwrap());
            let text = row["key_record"].as_str().unwrap();
            if claviger::backend::is_reserved_id(id) || !seen.insert((id.to_owned(), created)) {
                continue;
            }
            let meta = KeyMeta::new(KeyId::new(id), Created::new(created).unwrap());
            let expected = EnvelopeKeyRecord::from_json(meta.clone(), text.as_bytes()).unwrap();
            let mut stored = key(&meta);
            stored.insert("KeyRecord".into(), attribute(&serde_json::from_str(text).unwrap()));
            beside.put(stored.clone()).await;
            assert_eq!(beside.store.load(&meta, &call()).await.unwrap().as_ref(), Some(&expected));
            beside
                .client
                .delete_item()
                .table_name(&beside.table)
                .set_key(Some(key(&meta)))
                .send()
                .await
                .unwrap();
            assert_eq!(beside.store.insert(&expected, &call()).await.unwrap(), Insert::Inserted);
            assert_eq!(beside.get(&meta).await, Some(stored));
        }
    }
    assert!(seen.len() > 20, "{}", seen.len());
}

/// JSON as an attribute, as every Asherah maps it.
fn attribute(json: &Value) -> AttributeValue {
    match json {
        Value::Bool(value) => AttributeValue::Bool(*value),
        Value::Number(value) => n(value),
        Value::String(value) => s(value),
        Value::Object(fields) => {
            AttributeValue::M(fields.iter().map(|(name, value)| (name.clone(), attribute(value))).collect())
        }
        other => panic!("{other} is not in a key record"),
    }
}

#[tokio::test]
async fn a_damaged_item_does_not_hide_others_from_a_list() -> Result<(), BackendError> {
    let beside = Beside::on(shared_dynalite()).await;
    let good = record("_IK_b_svc_prod", NOW);
    assert_eq!(beside.store.insert(&good, &call()).await?, Insert::Inserted);
    beside.put(holding([("Key", s("?"))])).await;
    let page = beside.store.list("", None, 10, &call()).await?;
    assert_eq!(page.records, [good]);
    let damaged: Vec<_> = page.damaged.iter().map(|row| (row.id.as_str(), row.created)).collect();
    assert_eq!(damaged, [("_IK_a_svc_prod", Created::new(NOW))]);
    assert_eq!(beside.store.count(&call()).await?, 2);
    Ok(())
}
