//! Members that fail on command, and envelopes that a writer of the store made.

#![expect(clippy::unwrap_used, reason = "a helper fails its test by panicking")]

use std::error::Error as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64_simd::STANDARD;
use claviger::testing::kms::{Outage, Trouble};
use claviger::testing::{Faults, FaultyKms, FixedClock, call};
use claviger::{
    BackendError, CallContext, Created, KeyId, KeyManagementService, KeyMeta, SecretKey, StaticKms,
    SystemRandom, WrapHealth, WrappedKey,
};
use claviger_kms::{AnyOfKms, AnyOfKmsBuilder, CopyFailures, KofNKms, KofNKmsBuilder};
use serde::{Deserialize, Serialize};

pub(crate) const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

pub(crate) const DEADLINE: Duration = Duration::from_secs(2);

pub(crate) fn meta() -> KeyMeta {
    KeyMeta::new(KeyId::new("_SK_checkout_payments"), Created::new(1_700_000_000).unwrap())
}

pub(crate) fn fresh_key() -> SecretKey {
    SecretKey::generate(&SystemRandom::new()).unwrap()
}

/// A member with a master key of its own, which fails or answers wrongly when told to.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) kms: FaultyKms<Liar>,
}

#[derive(Debug)]
pub(crate) struct Liar {
    kms: StaticKms,
    lies: AtomicBool,
}

impl Member {
    pub(crate) fn new() -> Self {
        let kms = StaticKms::new(&fresh_key()).unwrap();
        Self { kms: FaultyKms::new(Liar { kms, lies: AtomicBool::new(false) }) }
    }

    pub(crate) fn faults(&self) -> &Faults {
        self.kms.faults()
    }

    /// Makes it answer with another key than was wrapped.
    pub(crate) fn lie(&self) {
        self.kms.inner().lies.store(true, Ordering::Relaxed);
    }

    pub(crate) fn heal(&self) {
        self.faults().reset();
        self.kms.inner().lies.store(false, Ordering::Relaxed);
    }

    /// Wraps by this member alone.
    pub(crate) async fn wrap(&self, key: &SecretKey) -> Vec<u8> {
        self.kms.inner().wrap_key(key, &meta(), &call()).await.unwrap().bytes().to_vec()
    }
}

impl KeyManagementService for Liar {
    async fn wrap_key(
        &self,
        key: &SecretKey,
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        self.kms.wrap_key(key, meta, context).await
    }

    async fn unwrap_key(
        &self,
        wrapped: &[u8],
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        let key = self.kms.unwrap_key(wrapped, meta, context).await?;
        Ok(if self.lies.load(Ordering::Relaxed) { fresh_key() } else { key })
    }

    fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        // 32 bytes, a tag and a nonce: what a static KMS wrapped can be told by its length only.
        if wrapped.len() == 60 {
            self.kms.inspect(wrapped)
        } else {
            Err(BackendError::damaged("of another length than a static KMS makes"))
        }
    }
}

pub(crate) fn members<const N: usize>() -> [Member; N] {
    std::array::from_fn(|_| Member::new())
}

/// Begins one of these members; time stands still, so that a breaker that opened stays open.
pub(crate) fn any_of(members: &[Member]) -> AnyOfKmsBuilder {
    NAMES
        .iter()
        .zip(members)
        .fold(AnyOfKms::builder().clock(FixedClock::new(1)), |builder, (name, member)| {
            builder.member(*name, member.kms.clone())
        })
}

pub(crate) fn k_of_n(k: u8, members: &[Member]) -> KofNKmsBuilder {
    let builder = KofNKms::builder(k).asherah_compatible(false).clock(FixedClock::new(1));
    NAMES
        .iter()
        .zip(members)
        .fold(builder, |builder, (name, member)| builder.member(*name, member.kms.clone()))
}

pub(crate) async fn wrap(kms: &impl KeyManagementService, key: &SecretKey) -> Vec<u8> {
    kms.wrap_key(key, &meta(), &call()).await.unwrap().bytes().to_vec()
}

pub(crate) async fn unwrap(
    kms: &impl KeyManagementService,
    wrapped: &[u8],
) -> Result<SecretKey, BackendError> {
    kms.unwrap_key(wrapped, &meta(), &call()).await
}

#[track_caller]
pub(crate) fn assert_same(unwrapped: Result<SecretKey, BackendError>, key: &SecretKey) {
    // Not `assert_eq!`, which would print the keys.
    assert!(unwrapped.unwrap().expose_secret() == key.expose_secret(), "another key came back");
}

/// Returns what the copies failed of, as `name: what it said`.
pub(crate) fn causes(error: &BackendError) -> Vec<String> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(failures) = error.downcast_ref::<CopyFailures>() {
            return failures.failures().iter().map(ToString::to_string).collect();
        }
        cause = error.source();
    }
    Vec::new()
}

/// The whole chain of what an error says.
pub(crate) fn said(error: &BackendError) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    said
}

/// The stored form, read and written here by other means than the library's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) kind: String,
    pub(crate) k: u8,
    pub(crate) sealed: String,
    pub(crate) copies: Vec<Copy>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Copy {
    pub(crate) member: String,
    pub(crate) x: u8,
    pub(crate) copy: String,
}

impl Envelope {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes.strip_prefix(b"CLV1").unwrap()).unwrap()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        [b"CLV1", serde_json::to_vec(self).unwrap().as_slice()].concat()
    }

    pub(crate) fn members(&self) -> Vec<&str> {
        self.copies.iter().map(|copy| copy.member.as_str()).collect()
    }
}

impl Copy {
    pub(crate) fn new(member: &str, x: u8, bytes: &[u8]) -> Self {
        Self { member: member.to_owned(), x, copy: STANDARD.encode_to_string(bytes) }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        STANDARD.decode_to_vec(&self.copy).unwrap()
    }
}

/// An outage of all members at once.
#[derive(Debug)]
pub(crate) struct OfAll(pub(crate) Vec<Faults>);

impl Outage for OfAll {
    async fn begin(&self, trouble: Trouble) {
        for faults in &self.0 {
            faults.begin(trouble).await;
        }
    }

    async fn end(&self) {
        for faults in &self.0 {
            faults.end().await;
        }
    }
}

pub(crate) fn outage_of(members: &[Member]) -> OfAll {
    OfAll(members.iter().map(|member| member.faults().clone()).collect())
}
