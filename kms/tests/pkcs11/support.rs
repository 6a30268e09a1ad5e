//! Tokens, and services opened on them.

use claviger::{BackendError, Created, KeyId, KeyMeta, SecretKey, SystemRandom};
use claviger_kms::{Pkcs11Kms, Pkcs11KmsBuilder, Pkcs11Mechanism};
use claviger_test_servers::SoftHsm;
use secrecy::SecretString;

pub(crate) const KEY: &str = "system-keys-1";

pub(crate) fn meta() -> KeyMeta {
    KeyMeta::new(KeyId::new("_SK_checkout_payments"), Created::new(1_700_000_000).unwrap())
}

pub(crate) fn fresh_key() -> SecretKey {
    SecretKey::generate(&SystemRandom::new()).unwrap()
}

/// Makes a token with one key.
pub(crate) fn token() -> SoftHsm {
    let hsm = SoftHsm::token("kms");
    hsm.add_key(KEY);
    hsm
}

/// Begins with the token's one key and the right PIN.
pub(crate) fn builder(hsm: &SoftHsm) -> Pkcs11KmsBuilder {
    Pkcs11Kms::builder(hsm.module(), hsm.label(), KEY).pin(SecretString::from(hsm.pin()))
}

/// Opens a service on a token of its own.
pub(crate) async fn opened(mechanism: Pkcs11Mechanism, prepare: impl FnOnce(&SoftHsm)) -> (Pkcs11Kms, SoftHsm) {
    let hsm = token();
    prepare(&hsm);
    (builder(&hsm).mechanism(mechanism).open().await.unwrap(), hsm)
}

/// Returns all that an error and its causes say.
pub(crate) fn says(error: &BackendError) -> String {
    let mut text = format!("{error}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
