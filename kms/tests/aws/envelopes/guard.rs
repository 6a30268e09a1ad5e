//! The Rust one refuses to start where its regions or keys are others than it has noted in the
//! metastore, and is told by the steps of `docs/migration.md`.

use claviger::{RewrapOptions, repair_system_keys, rewrap_system_keys};
use claviger_kms::AwsKms;
use claviger_metastore::SqliteMetastore;
use claviger_testkit::shared_localstack;
use serde_json::{Value, json};

use crate::envelopes::peers::{PARTITION, assert_they_read, assert_we_read, peer, theirs, write};
use crate::envelopes::{MasterKey, keys, open};
use crate::support::{EUROPE, WEST, client};

const SERVICE: &str = "guarded";
const REFUSAL: &str = "config drift guard mismatch";

#[tokio::test]
async fn a_region_is_added_and_another_taken_out_by_steps_that_asherahs_guard_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    let store = SqliteMetastore::migrate(&path).await.unwrap();
    let both = keys(shared_localstack(), &[WEST, EUROPE]).await;
    let [west, europe] = [&both[..1], &both[1..]];
    let start = |keys: &[MasterKey], settings: Value| {
        let mut own =
            json!({ "Metastore": "sqlite", "ConnectionString": path, "PreferredRegion": keys[0].region });
        own.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        peer("CLAVIGER_ASHERAH_PYTHON", SERVICE, keys, &own, &variables())
    };
    let assert_refused = |keys: &[MasterKey], settings: Value, row: &str| {
        let answer = start(keys, settings).ask(&json!({ "partition": PARTITION, "decrypt": row }));
        let error = answer["error"].as_str().unwrap_or_else(|| panic!("{answer}"));
        assert!(error.contains(REFUSAL), "{error}");
    };
    let row = theirs(&mut start(west, json!({})), "theirs");
    let json = row.to_json();

    // We add the region, and it has its copy of the key: the other needs no more than that to read.
    let report = repair_system_keys(&store, &open(&both).await, &RewrapOptions::new()).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_we_read(&store, SERVICE, europe, &row).await;
    assert_they_read(&mut start(west, json!({})), &row, "theirs");
    assert_refused(&both, json!({}), &json);
    assert_they_read(&mut start(&both, json!({ "ConfigDriftForceRun": true })), &row, "theirs");
    assert_refused(&both, json!({}), &json);
    assert_they_read(&mut start(&both, json!({ "ConfigDriftForceUpdate": true })), &row, "theirs");
    assert_they_read(&mut start(&both, json!({})), &row, "theirs");
    assert_refused(west, json!({}), &json);

    // The same regions and keys, another one first: as in the other region of a fleet.
    assert_refused(&both, json!({ "PreferredRegion": EUROPE }), &json);
    // The same region, another key.
    let other = keys(shared_localstack(), &[WEST]).await;
    assert_refused(&other, json!({}), &json);
    // The first region is taken out, by the same steps.
    assert_refused(europe, json!({}), &json);
    assert_they_read(&mut start(europe, json!({ "ConfigDriftForceUpdate": true })), &row, "theirs");
    assert_they_read(&mut start(europe, json!({})), &row, "theirs");
}

/// Asherah knows one key for each region. While that of one is replaced it reads by another's copy.
#[tokio::test]
async fn a_regions_key_is_replaced_while_asherah_reads_by_another_region() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    let store = SqliteMetastore::migrate(&path).await.unwrap();
    let old = keys(shared_localstack(), &[EUROPE, WEST]).await;
    let mut new = keys(shared_localstack(), &[EUROPE]).await;
    new.push(MasterKey { region: WEST, arn: old[1].arn.clone(), endpoint: old[1].endpoint });
    let start = |keys: &[MasterKey], settings: Value| {
        let mut own = json!({ "Metastore": "sqlite", "ConnectionString": path, "PreferredRegion": EUROPE });
        own.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        peer("CLAVIGER_ASHERAH_PYTHON", SERVICE, keys, &own, &variables())
    };
    let row = theirs(&mut start(&old, json!({})), "theirs");

    let kms = AwsKms::builder()
        .region(EUROPE, &new[0].arn)
        .previous_arn(EUROPE, &old[0].arn)
        .region(WEST, &old[1].arn)
        .client(EUROPE, client(shared_localstack(), EUROPE))
        .client(WEST, client(shared_localstack(), WEST));
    let kms = kms.open().await.unwrap();
    let all = RewrapOptions::new().even_if_up_to_date(true);
    let report = rewrap_system_keys(&store, &kms, &kms, &all).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_we_read(&store, SERVICE, &new[..1], &row).await;
    assert_they_read(&mut start(&old, json!({})), &row, "theirs");
    assert_they_read(&mut start(&new, json!({ "ConfigDriftForceUpdate": true })), &row, "theirs");
    assert_they_read(&mut start(&new, json!({})), &row, "theirs");
}

/// Given a key alone, it writes the envelope of one region, `AWS_REGION`; to its guard it is not the same.
#[tokio::test]
async fn a_key_without_a_region_map_is_a_region_map_of_one_to_all_but_asherahs_guard() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    let store = SqliteMetastore::migrate(&path).await.unwrap();
    let west = keys(shared_localstack(), &[WEST]).await;
    let map = json!({ "Metastore": "sqlite", "ConnectionString": path });
    let mut key = json!({ "RegionMap": null, "PreferredRegion": null, "KmsKeyId": west[0].arn });
    key.as_object_mut().unwrap().extend(map.as_object().unwrap().clone());
    let start = |own: &Value| peer("CLAVIGER_ASHERAH_PYTHON", SERVICE, &west, own, &variables());

    let row = theirs(&mut start(&key), "theirs");
    assert_we_read(&store, SERVICE, &west, &row).await;
    let ours = write(&store, SERVICE, &west).await;
    assert_they_read(&mut start(&key), &ours, "ours");
    let answer = start(&map).ask(&json!({ "partition": PARTITION, "decrypt": ours.to_json() }));
    assert!(answer["error"].as_str().unwrap().contains(REFUSAL), "{answer}");
}

fn variables() -> [(&'static str, &'static str); 3] {
    [("AWS_ENDPOINT_URL", shared_localstack()), ("AWS_REGION", WEST), ("NO_PROXY", "127.0.0.1")]
}
