//! What the tests share.

use std::error::Error;
use std::time::Duration;

use claviger::testing::{FixedClock, call};
use claviger::{
    BackendError, CallContext, Created, FailureClass, KeyId, KeyManagementService, KeyMeta, SecretKey,
    SystemRandom,
};
use claviger_kms::{VaultAuth, VaultTransitKms, VaultTransitKmsBuilder};
use claviger_testkit::{FakeVault, Grant};

pub(crate) const KEY: &str = "transit/claviger";
pub(crate) const ENCRYPT: &str = "POST /v1/transit/encrypt/claviger";
pub(crate) const DECRYPT: &str = "POST /v1/transit/decrypt/claviger";
pub(crate) const LOGIN: &str = "POST /v1/auth/approle/login";
pub(crate) const RENEW: &str = "POST /v1/auth/token/renew-self";
pub(crate) const LOOK_UP: &str = "GET /v1/auth/token/lookup-self";

pub(crate) const ROLE: &str = "role-of-the-service";
pub(crate) const SECRET: &str = "secret-id-5e1f2c9a7d";

/// A Vault with the key.
pub(crate) fn vault() -> FakeVault {
    let vault = FakeVault::start();
    vault.create_key(KEY);
    vault
}

/// The same, with a role that gives this.
pub(crate) fn vault_with_role(grant: &Grant) -> FakeVault {
    let vault = vault();
    vault.create_app_role("approle", ROLE, SECRET, grant);
    vault
}

pub(crate) fn builder(vault: &FakeVault) -> VaultTransitKmsBuilder {
    VaultTransitKms::builder(vault.url(), "claviger")
}

/// A KMS with a token that is good for ever.
pub(crate) async fn with_token(vault: &FakeVault) -> VaultTransitKms {
    let token = vault.create_token(&Grant::new().ttl(Duration::ZERO));
    builder(vault).auth(VaultAuth::token(token)).open().await.unwrap()
}

pub(crate) async fn with_role(vault: &FakeVault, clock: &FixedClock) -> VaultTransitKms {
    builder(vault).auth(VaultAuth::app_role(ROLE, SECRET)).clock(clock.clone()).open().await.unwrap()
}

pub(crate) fn clock() -> FixedClock {
    FixedClock::new(1_700_000_000)
}

pub(crate) fn meta() -> KeyMeta {
    KeyMeta::new(KeyId::new("_SK_checkout_payments"), Created::new(1_700_000_000).unwrap())
}

pub(crate) fn fresh_key() -> SecretKey {
    SecretKey::generate(&SystemRandom::new()).unwrap()
}

pub(crate) async fn wrap(kms: &impl KeyManagementService, key: &SecretKey) -> Vec<u8> {
    kms.wrap_key(key, &meta(), &call()).await.unwrap().bytes().to_vec()
}

pub(crate) async fn assert_unwraps_to(kms: &impl KeyManagementService, wrapped: &[u8], key: &SecretKey) {
    let unwrapped = kms.unwrap_key(wrapped, &meta(), &call()).await.unwrap();
    // Not `assert_eq!`, which would print the keys.
    assert!(unwrapped.expose_secret() == key.expose_secret(), "another key came back");
}

/// Wraps and unwraps a new key.
pub(crate) async fn assert_works(kms: &impl KeyManagementService) {
    let key = fresh_key();
    assert_unwraps_to(kms, &wrap(kms, &key).await, &key).await;
}

/// The same, for a KMS whose deadline a slow machine may not meet.
pub(crate) async fn assert_works_in_the_end(kms: &impl KeyManagementService) {
    let works = async {
        while let Err(error) = kms.wrap_key(&fresh_key(), &meta(), &call()).await {
            assert!(error.is_transient(), "{}", told(&error));
        }
    };
    tokio::time::timeout(Duration::from_secs(60), works).await.expect("it works in the end");
}

pub(crate) async fn wrap_error(kms: &impl KeyManagementService) -> BackendError {
    kms.wrap_key(&fresh_key(), &meta(), &call()).await.unwrap_err()
}

/// The error of a call that may take so many milliseconds.
pub(crate) async fn wrap_error_within(millis: u64, kms: &impl KeyManagementService) -> BackendError {
    let context = CallContext::within(Duration::from_millis(millis));
    kms.wrap_key(&fresh_key(), &meta(), &context).await.unwrap_err()
}

pub(crate) async fn unwrap_error(kms: &impl KeyManagementService, wrapped: &[u8]) -> BackendError {
    kms.unwrap_key(wrapped, &meta(), &call()).await.unwrap_err()
}

/// Returns an error with all its causes.
pub(crate) fn told(error: &BackendError) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}

#[track_caller]
pub(crate) fn assert_told(error: &BackendError, class: FailureClass, words: &[&str]) {
    let told = told(error);
    assert_eq!(error.class(), class, "{told}");
    for word in words {
        assert!(told.contains(word), "{word:?} was to be said: {told}");
    }
}

/// Waits until something is so: it is about to be.
pub(crate) async fn until(is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("it is so in the end");
}
