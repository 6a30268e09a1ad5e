//! Whatever DynamoDB answers, or something in front of it: what comes out of a call is the key that was asked for, as
//! another reader of JSON finds it in the answer; or an error that says somebody was asked, and no credential.
//!
//! The first byte chooses the call, the second the HTTP status.

#![no_main]

use std::sync::LazyLock;

use aws_credential_types::Credentials;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Region};
use claviger::{BackendError, Created, EnvelopeKeyRecord, KeyId, Metastore as _, MetastoreAdmin as _};
use claviger_fuzz::http::Answers;
use claviger_fuzz::{SECRET, assert_hidden, call, chosen, meta, run, told};
use claviger_metastore::DynamoDbMetastore;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

static ANSWERS: LazyLock<Answers> = LazyLock::new(Answers::default);

static STORE: LazyLock<DynamoDbMetastore> = LazyLock::new(|| {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-west-2"))
        .credentials_provider(Credentials::new(
            "AKIDEXAMPLE",
            SECRET,
            Some(SECRET.to_owned()),
            None,
            "fuzzing",
        ))
        .http_client(ANSWERS.client());
    let builder = DynamoDbMetastore::builder().table("keys").danger_unchecked();
    run(builder.open_with(Client::from_conf(config.build()))).expect("nobody is asked")
});

const STATUSES: [u16; 8] = [200, 200, 200, 200, 400, 413, 500, 503];

const ID: &str = "_IK_a_s_p";
const CREATED: i64 = 1_700_000_060;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, rest)) = chosen(bytes, 9) else { return };
    let Some((status, body)) = chosen(rest, 8) else { return };
    let status = STATUSES[usize::from(status)];
    if body.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()) {
        return;
    }
    LazyLock::force(&STORE);
    ANSWERS.set(status, body);
    if let Err(error) = run(ask(choice, body)) {
        assert!(error.was_asked(), "{}", told(&error));
        assert_hidden(&told(&error));
    }
});

async fn ask(choice: u8, body: &[u8]) -> Result<(), BackendError> {
    let (key, id, json) = (meta(ID, CREATED), KeyId::new(ID), LazyLock::new(|| value(body)));
    let item = |record: &EnvelopeKeyRecord, item: &Value| {
        assert_eq!(record.meta().id(), &id);
        assert_eq!(item["Id"]["S"], ID);
        assert_eq!(item["Created"]["N"], record.meta().created().to_string());
        // The JSON of records has the same base64.
        let written = value(record.to_json().as_bytes());
        assert_eq!(item["KeyRecord"]["M"]["Key"]["S"], written["Key"]);
        assert_eq!(item["KeyRecord"]["M"]["Revoked"]["BOOL"] == true, record.is_revoked());
        let parent = &item["KeyRecord"]["M"]["ParentKeyMeta"]["M"];
        assert_eq!(parent["KeyId"]["S"], written["ParentKeyMeta"]["KeyId"]);
    };
    match choice {
        0 => {
            if let Some(record) = STORE.load(&key, &call()).await? {
                assert_eq!(record.meta(), &key);
                item(&record, &json["Item"]);
            }
        }
        1 => {
            if let Some(latest) = STORE.load_latest(&id, Created::MAX, &call()).await? {
                item(&latest.record, &json["Items"][0]);
                if let Some(earlier) = &latest.predecessor {
                    item(earlier, &json["Items"][1]);
                }
            }
        }
        2 => {
            let keys = [key, meta(ID, CREATED + 1)];
            let records = STORE.load_many(&keys, &call()).await?;
            assert_eq!(records.len(), keys.len());
            for (record, key) in records.iter().zip(&keys) {
                assert!(record.as_ref().is_none_or(|record| record.meta() == key));
            }
        }
        3 => {
            let records = STORE.load_latest_many(&[id.clone()], Created::MAX, &call()).await?;
            let latest = records.into_iter().next().flatten();
            assert!(latest.is_none_or(|latest| *latest.record.meta().id() == id));
        }
        4 => {
            let page = STORE.list("", None, 4, &call()).await?;
            assert!(page.records.len() + page.damaged.len() <= 4);
        }
        5 => drop(STORE.insert(&EnvelopeKeyRecord::new(key, *b"wrapped", None), &call()).await?),
        6 => drop(STORE.revoke(&key, &call()).await?),
        7 => drop(STORE.count(&call()).await?),
        _ => drop(STORE.check_schema(&call()).await?),
    }
    Ok(())
}

fn value(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap_or_default()
}
