//! The Rust one refuses to start where its regions or keys are others than it has noted in the
//! metastore, and is told by the steps of `docs/migration.md`.

use claviger::{RewrapOptions, repair_system_keys};
use claviger_metastore::SqliteMetastore;
use claviger_test_servers::shared_localstack;
use serde_json::{Value, json};

use crate::envelopes::peers::{PARTITION, assert_they_read, assert_we_read, peer, theirs};
use crate::envelopes::{MasterKey, keys, open};
use crate::support::{EUROPE, WEST};

const SERVICE: &str = "guarded";

#[tokio::test]
async fn a_region_is_added_and_another_taken_out_by_steps_that_asherahs_guard_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    let store = SqliteMetastore::open(&path).await.unwrap();
    let both = keys(shared_localstack(), &[WEST, EUROPE]).await;
    let [west, europe] = [&both[..1], &both[1..]];
    let start = |keys: &[MasterKey], settings: Value| {
        let mut own =
            json!({ "Metastore": "sqlite", "ConnectionString": path, "PreferredRegion": keys[0].region });
        own.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let variables =
            [("AWS_ENDPOINT_URL", shared_localstack()), ("AWS_REGION", WEST), ("NO_PROXY", "127.0.0.1")];
        peer("CLAVIGER_ASHERAH_PYTHON", SERVICE, keys, &own, &variables)
    };
    let assert_refused = |keys: &[MasterKey], settings: Value, row: &str| {
        let answer = start(keys, settings).ask(&json!({ "partition": PARTITION, "decrypt": row }));
        let error = answer["error"].as_str().unwrap_or_else(|| panic!("{answer}"));
        assert!(error.contains("config drift guard mismatch"), "{error}");
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
