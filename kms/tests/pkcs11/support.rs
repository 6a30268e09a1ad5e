//! Tokens, and services opened on them.

use std::fs;
use std::thread;
use std::time::Duration;

use claviger::testing::call;
use claviger::testing::kms::{Outage, Trouble};
use claviger::{BackendError, Created, KeyId, KeyManagementService as _, KeyMeta, SecretKey, SystemRandom};
use claviger_kms::{Pkcs11Kms, Pkcs11KmsBuilder, Pkcs11Mechanism};
use claviger_testkit::{HsmFault, SoftHsm};
use secrecy::SecretString;

pub(crate) const KEY: &str = "system-keys-1";

// Return codes, by the standard.
pub(crate) const GENERAL_ERROR: u32 = 0x05;
pub(crate) const DEVICE_REMOVED: u32 = 0x32;
pub(crate) const MECHANISM_INVALID: u32 = 0x70;

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
pub(crate) async fn opened(
    mechanism: Pkcs11Mechanism,
    prepare: impl FnOnce(&SoftHsm),
) -> (Pkcs11Kms, SoftHsm) {
    let hsm = token();
    prepare(&hsm);
    (builder(&hsm).mechanism(mechanism).open().await.unwrap(), hsm)
}

/// Opens services on two tokens, whose keys have the same label.
pub(crate) async fn opened_twice(mechanism: Pkcs11Mechanism) -> ((Pkcs11Kms, Pkcs11Kms), [SoftHsm; 2]) {
    let (one, token) = opened(mechanism, |_| {}).await;
    let (other, other_token) = opened(mechanism, |_| {}).await;
    ((one, other), [token, other_token])
}

/// Opens a service on a token that trouble comes to.
pub(crate) async fn opened_with_outage(mechanism: Pkcs11Mechanism) -> (Pkcs11Kms, Troubled) {
    let hsm = token();
    let builder = builder(&hsm).sessions(1);
    (builder.mechanism(mechanism).open().await.unwrap(), Troubled(hsm))
}

/// A token in trouble.
#[derive(Debug)]
pub(crate) struct Troubled(SoftHsm);

impl Outage for Troubled {
    async fn begin(&self, trouble: Trouble) {
        self.0.fault_all(match trouble {
            Trouble::OutOfReach => HsmFault::Fail(DEVICE_REMOVED, u32::MAX),
            Trouble::Hanging => HsmFault::Hang,
            Trouble::Slow => HsmFault::Slow,
            _ => panic!("{trouble:?}"),
        });
    }

    async fn end(&self) {
        self.0.fault_all(HsmFault::None);
    }
}

/// The service, which goes first, leaves a thread behind that hangs. It must not be at work in the
/// module when the process ends.
impl Drop for Troubled {
    fn drop(&mut self) {
        self.0.fault_all(HsmFault::None);
        while threads_of(&self.0) > 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

pub(crate) async fn wrap(kms: &Pkcs11Kms, key: &SecretKey) -> Vec<u8> {
    kms.wrap_key(key, &meta(), &call()).await.unwrap().bytes().to_vec()
}

pub(crate) async fn unwrap(kms: &Pkcs11Kms, wrapped: &[u8]) -> Result<SecretKey, BackendError> {
    kms.unwrap_key(wrapped, &meta(), &call()).await
}

pub(crate) async fn assert_unwraps_to(kms: &Pkcs11Kms, wrapped: &[u8], key: &SecretKey) {
    assert!(unwrap(kms, wrapped).await.unwrap().expose_secret() == key.expose_secret());
}

/// Returns all that an error and its causes say.
pub(crate) fn says(error: &BackendError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Returns how many threads this process has for a token.
pub(crate) fn threads_of(hsm: &SoftHsm) -> usize {
    let name: String = format!("hsm {}", hsm.label()).chars().take(15).collect();
    let threads = fs::read_dir("/proc/self/task").unwrap();
    // One that ends meanwhile has no name.
    let names = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok());
    names.filter(|thread| thread.trim_end() == name).count()
}

/// Waits until it is so; fails the test if it never is.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), wait).await.is_ok(), "never: {what}");
}
