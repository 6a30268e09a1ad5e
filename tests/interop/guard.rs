//! The Rust one notes in the metastore where it is and what its KMS is, and does not start where its
//! settings say otherwise. We need no such leave, and it is told by the steps of `docs/migration.md`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use claviger::SessionFactory;
use claviger_metastore::SqliteMetastore;
use claviger_testkit::shared_dynalite;
use serde_json::{Value, json};

use crate::peer::{Package, Peer, Place};
use crate::postgres::Table;
use crate::world::{NAMES, PARTITION, PRODUCT, assert_decrypts, habits, kms};
use crate::{dynamodb, postgres};

const REFUSAL: &str = "config drift guard mismatch";

fn peer(place: &Place, settings: &Value) -> Peer {
    Peer::start_with(Package::Rust, place, &habits(NAMES), settings)
}

/// Tells whether it starts. What comes after that is not the guard's.
fn starts(place: &Place, settings: &Value) -> bool {
    let mut peer = peer(place, settings);
    peer.begin_encrypt(PARTITION, b"");
    peer.end_encrypt().err().is_none_or(|error| !error.contains(REFUSAL))
}

async fn ours(path: &Path) -> (SqliteMetastore, SessionFactory) {
    let store = SqliteMetastore::migrate(path).await.unwrap();
    let builder = SessionFactory::builder(store.clone(), kms()).service(NAMES.service).product(PRODUCT);
    (store, builder.build().unwrap())
}

#[tokio::test]
async fn a_place_that_changed_is_used_by_us_at_once_and_by_the_rust_one_after_the_steps() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("keys.db"), folder.path().join("moved.db"));
    let (old_place, new_place) = (Place::Sqlite(old.clone()), Place::Sqlite(new.clone()));
    let (store, _) = ours(&old).await;
    let theirs = peer(&old_place, &json!({})).encrypt(PARTITION, b"theirs");
    // With the last connection the log goes into the file.
    store.close().await;
    assert!(!folder.path().join("keys.db-wal").exists());

    // The old name stays, for those that do not know the new one yet.
    fs::rename(&old, &new).unwrap();
    symlink(&new, &old).unwrap();
    let (_store, factory) = ours(&new).await;
    let session = factory.session(PARTITION).unwrap();
    assert_decrypts(&session, &theirs, b"theirs").await;
    let record = session.encrypt(b"ours").await.unwrap();

    assert!(!starts(&new_place, &json!({})));
    // One that runs in spite of it changes nothing for the others: they can be told one by one.
    peer(&new_place, &json!({ "ConfigDriftForceRun": true })).assert_decrypts(PARTITION, &record, b"ours");
    assert!(!starts(&new_place, &json!({})));
    assert!(starts(&old_place, &json!({})));
    // One notes the new place, and from then on all start there and none where it was.
    peer(&new_place, &json!({ "ConfigDriftForceUpdate": true })).assert_decrypts(PARTITION, &record, b"ours");
    peer(&new_place, &json!({})).assert_decrypts(PARTITION, &record, b"ours");
    assert!(!starts(&old_place, &json!({})));
    assert_decrypts(&session, &theirs, b"theirs").await;
}

#[tokio::test]
async fn of_its_settings_these_are_heeded_by_the_guard_and_those_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    let (_store, _factory) = ours(&path).await;
    let place = Place::Sqlite(path);
    let spelled_otherwise = folder.path().join("./keys.db");
    assert!(starts(&place, &json!({})));
    for settings in [
        json!({ "ExpireAfter": 60, "CheckInterval": 60 }),
        json!({ "EnableSessionCaching": true, "SessionCacheMaxSize": 1, "SessionCacheDuration": 60 }),
        // Another master key.
        json!({ "StaticMasterKeyHex": "8f".repeat(32) }),
        // On DynamoDB alone it does anything.
        json!({ "EnableRegionSuffix": true }),
        // Each service has a note of its own.
        json!({ "ServiceName": "other", "ConnectionString": spelled_otherwise }),
    ] {
        assert!(starts(&place, &settings), "{settings}");
    }
    for settings in [
        json!({ "ConnectionString": spelled_otherwise }),
        json!({ "KMS": "aws", "RegionMap": { "us-east-1": "arn:a" }, "PreferredRegion": "us-east-1" }),
        json!({ "KMS": "aws", "KmsKeyId": "arn:a" }),
    ] {
        assert!(!starts(&place, &settings), "{settings}");
    }

    // Neither host nor database are noted: any would do.
    let world = postgres::world(Table::Own, &[Package::Rust]).await;
    let Place::Postgres(url) = &world.place else { panic!("{:?} is no PostgreSQL", world.place) };
    let by_name = Place::Postgres(url.replace("127.0.0.1", "localhost"));
    assert!(starts(&world.place, &json!({})) && starts(&by_name, &json!({})));

    let world = dynamodb::world(shared_dynalite(), NAMES, &[Package::Rust]).await;
    assert!(starts(&world.place, &json!({})));
    for settings in [json!({ "EnableRegionSuffix": true }), json!({ "DynamoDBRegion": "eu-west-1" })] {
        assert!(!starts(&world.place, &settings), "{settings}");
    }
}
