//! Sessions whose system key is wrapped by Vault.

use std::sync::Arc;
use std::time::Duration;

use claviger::testing::{ReplaceOne as _, call};
use claviger::{EnvelopeKeyRecord, Error, InMemoryMetastore, MetastoreAdmin as _, SessionFactory};
use claviger_kms::VaultTransitKms;
use claviger_testkit::{FakeVault, Trick};

use crate::support::{DECRYPT, ENCRYPT, KEY, vault, with_token};

const PAYLOAD: &[u8] = b"4111 1111 1111 1111";

async fn factory(store: &Arc<InMemoryMetastore>, vault: &FakeVault) -> SessionFactory {
    let kms: VaultTransitKms = with_token(vault).await;
    let factory = SessionFactory::builder(Arc::clone(store), kms).service("checkout").product("payments");
    factory.build().unwrap()
}

/// Returns the record of the one system key.
async fn system_key(store: &InMemoryMetastore) -> EnvelopeKeyRecord {
    let page = store.list("", None, 100, &call()).await.unwrap();
    let is_system_key = |record: &EnvelopeKeyRecord| record.meta().id().as_str().starts_with("_SK_");
    page.records.into_iter().find(is_system_key).unwrap()
}

#[tokio::test]
async fn what_was_encrypted_decrypts_after_rotations_and_rewraps() {
    let (vault, store) = (vault(), Arc::new(InMemoryMetastore::new()));
    let session = factory(&store, &vault).await.session("customer-17").unwrap();
    let record = session.encrypt(PAYLOAD).await.unwrap();
    assert_eq!((vault.count(ENCRYPT), vault.count(DECRYPT)), (1, 0));
    vault.rotate(KEY);
    let cold = factory(&store, &vault).await.session("customer-17").unwrap();
    assert_eq!(*cold.decrypt(&record).await.unwrap(), *PAYLOAD);
    let old = system_key(&store).await;
    let new = with_token(&vault).await.rewrap(old.wrapped_key(), &call()).await.unwrap();
    assert!(store.replace_one(old.meta(), old.wrapped_key(), new.bytes(), &call()).await.unwrap());
    vault.set_min_decryption_version(KEY, 2);
    let cold = factory(&store, &vault).await.session("customer-17").unwrap();
    assert_eq!(*cold.decrypt(&record).await.unwrap(), *PAYLOAD);
}

#[tokio::test]
async fn a_system_key_that_was_changed_in_the_store_fails_authentication() {
    let (vault, store) = (vault(), Arc::new(InMemoryMetastore::new()));
    let session = factory(&store, &vault).await.session("customer-17").unwrap();
    let record = session.encrypt(PAYLOAD).await.unwrap();
    let stored = system_key(&store).await;
    let mut current = stored.wrapped_key().to_vec();
    let text = String::from_utf8(current.clone()).unwrap();
    for forged in [
        text.replace("v1:", "v0:"),
        format!("{text}\n"),
        // Vault opens it, and it is no key.
        vault.encrypt(KEY, "AAAA"),
        text.chars().rev().collect(),
        text.replacen(|digit: char| digit == text.chars().nth(20).unwrap(), "-", 1),
    ] {
        assert!(store.replace_one(stored.meta(), &current, forged.as_bytes(), &call()).await.unwrap());
        current = forged.clone().into_bytes();
        let cold = factory(&store, &vault).await.session("customer-17").unwrap();
        let error = cold.decrypt(&record).await.unwrap_err();
        assert!(matches!(error, Error::Authentication), "{forged}: {error:?}");
    }
}

#[tokio::test]
async fn a_vault_that_is_away_for_a_moment_is_not_noticed() {
    let (vault, store) = (vault(), Arc::new(InMemoryMetastore::new()));
    let record = factory(&store, &vault).await.session("a").unwrap().encrypt(PAYLOAD).await.unwrap();
    for trick in [Trick::Fail(503, "Vault is sealed".into()), Trick::Fail(412, String::new()), Trick::Close] {
        vault.trick(DECRYPT, trick);
        let cold = factory(&store, &vault).await.session("a").unwrap();
        assert_eq!(*cold.decrypt(&record).await.unwrap(), *PAYLOAD);
    }
}

#[tokio::test]
async fn a_vault_that_denies_is_a_failure_and_no_alarm() {
    let (vault, store) = (vault(), Arc::new(InMemoryMetastore::new()));
    let record = factory(&store, &vault).await.session("a").unwrap().encrypt(PAYLOAD).await.unwrap();
    vault.always(DECRYPT, Trick::Fail(403, "permission denied".into()));
    let cold = factory(&store, &vault).await.session("a").unwrap();
    let error = cold.decrypt(&record).await.unwrap_err();
    assert!(matches!(error, Error::Kms { .. }) && !error.is_retryable(), "{error:?}");
    assert_eq!(vault.count(DECRYPT), 1);
    vault.heal();
    tokio::time::timeout(Duration::from_secs(60), cold.decrypt(&record)).await.unwrap().unwrap();
}
