//! Reads descriptions, and has what they say serve.

use std::time::Duration;

use claviger::CallContext;
use claviger_open::{Environment, FactorySpec, KmsOptions, Making, OpenStore, StoreOptions};
use serde_json::{Value, json};

/// A machine that is busy is no service that is down.
const PATIENCE: Duration = Duration::from_secs(60);

/// A master key that nobody guesses.
pub(crate) const HEX: &str = "8f0e6d5c4b3a29181706f5e4d3c2b1a09f8e7d6c5b4a39281706f5e4d3c2b1a0";

/// Opens both, encrypts and decrypts, and looks at the table.
pub(crate) async fn serves(spec: &FactorySpec, environment: &Environment) {
    let store =
        spec.metastore().open(&StoreOptions::new().environment(environment.clone()).migrate()).await.unwrap();
    // Go's Asherah has no other static one.
    let options = KmsOptions::new().environment(environment.clone()).danger_known_key(true);
    let options = options.making(Making::IfMissing);
    let kms = spec.kms().open(&options.making_members(Making::IfMissing)).await.unwrap();
    let checked = kms.check(&CallContext::within(PATIENCE)).await;
    assert!(checked.iter().all(claviger_kms::CopyCheck::is_good), "{checked:?}");
    let factory = spec.builder(store.metastore(), kms.kms()).build().unwrap();
    let session = factory.session("customer-17").unwrap();
    let record = session.encrypt(b"4111").await.unwrap();
    assert_eq!(&*session.decrypt(&record).await.unwrap(), b"4111");
    close(&store).await;
}

async fn close(store: &OpenStore) {
    #[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql", feature = "dynamodb"))]
    drop(store.check_schema(&CallContext::within(PATIENCE)).await.unwrap());
    store.close().await;
}

/// Reads a description as TOML and as JSON, which say the same.
pub(crate) fn described(metastore: &Value, kms: &Value) -> FactorySpec {
    let table = json!({ "service": "checkout", "product": "payments", "metastore": metastore, "kms": kms });
    let (json, toml) = (table.to_string(), toml::to_string(&table).unwrap());
    let spec = FactorySpec::from_toml(&toml).unwrap();
    for other in [
        FactorySpec::from_json(&json).unwrap(),
        serde_json::from_str(&json).unwrap(),
        toml::from_str(&toml).unwrap(),
    ] {
        assert_eq!(format!("{spec:?}"), format!("{other:?}"));
    }
    spec
}

pub(crate) fn variables(metastore: &str, kms: &str) -> FactorySpec {
    let names = [
        ("CLAVIGER_SERVICE", "checkout"),
        ("CLAVIGER_PRODUCT", "payments"),
        ("CLAVIGER_EXPIRE_AFTER", "90d"),
    ];
    let both = [("CLAVIGER_METASTORE", metastore), ("CLAVIGER_KMS", kms)];
    FactorySpec::from_environment(&Environment::of(names.into_iter().chain(both))).unwrap()
}

pub(crate) fn local() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.key").display().to_string();
    (folder, path)
}
