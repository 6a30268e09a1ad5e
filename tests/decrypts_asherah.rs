//! Records of other implementations decrypt, over the metastore rows they were written with.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::collections::BTreeSet;
use std::convert::Infallible;

use base64_simd::STANDARD;
use claviger::testing::call;
use claviger::{
    Created, DataRowRecord, EnvelopeKeyRecord, Error, InMemoryMetastore, Insert, KeyId, KeyMeta, Metastore,
    SecretKey, SessionFactory, StaticKms,
};
use serde_json::Value;

/// Each file with how many data row records it holds.
const FILES: [(&str, usize); 4] = [
    (include_str!("vectors/go_core.json"), 17),
    (include_str!("vectors/rust_core_1.0.0.json"), 16),
    (include_str!("vectors/wheel_go_0.3.9.json"), 12),
    (include_str!("vectors/wheel_rust_0.5.56.json"), 12),
];

/// What the records of a kind show is named in the vectors, so that none is lost unnoticed.
const KINDS: [&str; 8] = [
    "empty",
    "one-byte",
    "unicode-partition",
    "html-partition",
    "rotated-1",
    "before-IK-revoked",
    "after-IK-revoked",
    "space-quote-partition",
];

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap()
}

async fn factory_of(group: &Value) -> SessionFactory {
    let store = InMemoryMetastore::new();
    for row in group["metastore_rows"].as_array().unwrap() {
        let created = Created::new(row["created"].as_i64().unwrap()).unwrap();
        let meta = KeyMeta::new(KeyId::new(text(row, "id")), created);
        let record = EnvelopeKeyRecord::from_json(meta, text(row, "key_record").as_bytes()).unwrap();
        assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
    }
    let Ok(master_key) = SecretKey::try_init(|bytes| {
        bytes.copy_from_slice(text(group, "master_key_utf8").as_bytes());
        Ok::<_, Infallible>(())
    });
    let builder = SessionFactory::builder(store, StaticKms::danger_any_key(&master_key).unwrap())
        .service(text(group, "service"))
        .product(text(group, "product"));
    match text(group, "region_suffix") {
        "" => builder,
        suffix => builder.region_suffix(suffix),
    }
    .build()
    .unwrap()
}

#[tokio::test]
async fn every_record_of_the_vectors_decrypts_to_its_plaintext() {
    let mut kinds = BTreeSet::new();
    for (file, records_expected) in FILES {
        let mut records = 0;
        for group in serde_json::from_str::<Vec<Value>>(file).unwrap() {
            let factory = factory_of(&group).await;
            for vector in group["vectors"].as_array().unwrap() {
                let expected = STANDARD.decode_to_vec(text(vector, "plaintext_b64")).unwrap();
                let session = factory.session(text(vector, "partition")).unwrap();
                let (drr, name) = (text(vector, "drr").as_bytes(), text(vector, "name"));
                assert_eq!(*session.decrypt_json(drr).await.unwrap(), expected, "{name}");
                let record = DataRowRecord::from_json(drr).unwrap();
                assert_eq!(*session.decrypt(&record).await.unwrap(), expected, "{name}");
                let other = factory.session("nobody").unwrap().decrypt(&record).await;
                assert!(matches!(other, Err(Error::ForeignRecord)), "{name}: {other:?}");
                kinds.extend(KINDS.into_iter().filter(|kind| name.starts_with(kind)));
                records += 1;
            }
        }
        assert_eq!(records, records_expected);
    }
    assert_eq!(kinds, KINDS.into(), "records of every kind were read");
}

/// The files hold none of these: a record under a system key that was revoked after it was written.
#[tokio::test]
async fn a_record_under_a_revoked_system_key_decrypts() {
    let group = &serde_json::from_str::<Vec<Value>>(FILES[0].0).unwrap()[0];
    let mut revoked = group.clone();
    let mut system_keys = 0;
    for row in revoked["metastore_rows"].as_array_mut().unwrap() {
        if text(row, "id").starts_with("_SK_") {
            let record = text(row, "key_record").replacen('{', r#"{"Revoked":true,"#, 1);
            row["key_record"] =
                record.replace(r#""Revoked":true,"Revoked":true"#, r#""Revoked":true"#).into();
            system_keys += 1;
        }
    }
    assert!(system_keys > 0);
    let factory = factory_of(&revoked).await;
    for vector in group["vectors"].as_array().unwrap() {
        let session = factory.session(text(vector, "partition")).unwrap();
        let plaintext = session.decrypt_json(text(vector, "drr").as_bytes()).await.unwrap();
        assert_eq!(*plaintext, STANDARD.decode_to_vec(text(vector, "plaintext_b64")).unwrap());
    }
}
