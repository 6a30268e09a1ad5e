//! The trait of a key management service, which wraps system keys.

pub(crate) mod key_wrap;
pub(crate) mod static_key;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use claviger_memory::LockPolicy;

use crate::BoxFuture;
use crate::context::CallContext;
use crate::error::{BackendError, Error};
use crate::gate::{Class, Gate, Subject};
use crate::record::KeyMeta;
use crate::secret::SecretKey;
use crate::telemetry::calls::{Call, Calls};

/// A key management service: it holds the master key and wraps system keys under it.
///
/// # Cancel safety
/// The core may drop any of these futures at any await; the service stays usable.
pub trait KeyManagementService: fmt::Debug + Send + Sync + 'static {
    /// Wraps a system key. `meta` names it, for logs and for services that bind a context.
    ///
    /// Two wraps of one key differ, unless the service wraps without randomness as AES key wrap does. No two
    /// system keys are equal, so equal ciphertexts never occur.
    fn wrap_key(
        &self,
        key: &SecretKey,
        meta: &KeyMeta,
        context: &CallContext,
    ) -> impl Future<Output = Result<WrappedKey, BackendError>> + Send;

    /// Unwraps what [`wrap_key`](Self::wrap_key) made, or what another Asherah made with the same
    /// master key.
    ///
    /// Anything forged or damaged is an error, never transient; [`BackendError::damaged`] where the
    /// service can tell that from a refusal, which raises an alarm. Of a service that keeps several
    /// copies of a key, one that is damaged may be passed over: what comes back is the key that was
    /// wrapped, or nothing.
    fn unwrap_key(
        &self,
        wrapped: &[u8],
        meta: &KeyMeta,
        context: &CallContext,
    ) -> impl Future<Output = Result<SecretKey, BackendError>> + Send;

    /// Returns which copies a wrapped key holds, from its bytes alone: nothing is unwrapped, and no
    /// service is asked.
    ///
    /// # Errors
    /// For bytes that this service cannot have made.
    fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError>;

    /// Returns how the memory is locked in which the service itself holds keys that wrap others; `None` if it
    /// holds none, as services elsewhere do.
    ///
    /// A factory whose policy has [`LockPolicy::Require`] refuses to be built over a service that has less.
    fn lock_policy(&self) -> Option<LockPolicy> {
        None
    }
}

/// A system key as the KMS wrapped it, and the copies it could not make.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKey {
    bytes: Arc<[u8]>,
    missing_copies: Vec<String>,
}

impl WrappedKey {
    /// A wrapped key of which every copy was made.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { bytes: bytes.into(), missing_copies: Vec::new() }
    }

    /// Names the copies (regions, say) that could not be made.
    #[must_use]
    pub fn lacking(mut self, missing_copies: Vec<String>) -> Self {
        self.missing_copies = missing_copies;
        self
    }

    /// Returns the bytes that are stored.
    #[must_use]
    pub const fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// Returns the names of the copies that could not be made; empty if all were.
    #[must_use]
    pub fn missing_copies(&self) -> &[String] {
        &self.missing_copies
    }
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrappedKey")
            .field("bytes", &format_args!("[{} bytes]", self.bytes.len()))
            .field("missing_copies", &self.missing_copies)
            .finish()
    }
}

/// Which copies of a wrapped system key there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WrapHealth {
    /// The copies that are there, by the KMS's names for them.
    pub present: Vec<String>,
    /// The copies that the configuration asks for and that are not there.
    pub missing: Vec<String>,
}

impl WrapHealth {
    /// Lists the copies.
    #[must_use]
    pub const fn new(present: Vec<String>, missing: Vec<String>) -> Self {
        Self { present, missing }
    }
}

impl<K: KeyManagementService> KeyManagementService for Arc<K> {
    async fn wrap_key(
        &self,
        key: &SecretKey,
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        (**self).wrap_key(key, meta, context).await
    }

    async fn unwrap_key(
        &self,
        wrapped: &[u8],
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        (**self).unwrap_key(wrapped, meta, context).await
    }

    fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        (**self).inspect(wrapped)
    }

    fn lock_policy(&self) -> Option<LockPolicy> {
        (**self).lock_policy()
    }
}

/// A KMS chosen at run time.
#[derive(Clone, Debug)]
pub struct BoxedKms(Arc<dyn DynKms>);

impl BoxedKms {
    /// Boxes a KMS.
    pub fn new(kms: impl KeyManagementService) -> Self {
        Self(Arc::new(kms))
    }
}

impl KeyManagementService for BoxedKms {
    async fn wrap_key(
        &self,
        key: &SecretKey,
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        self.0.wrap_key_dyn(key, meta, context).await
    }

    async fn unwrap_key(
        &self,
        wrapped: &[u8],
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        self.0.unwrap_key_dyn(wrapped, meta, context).await
    }

    fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        self.0.inspect_dyn(wrapped)
    }

    fn lock_policy(&self) -> Option<LockPolicy> {
        self.0.lock_policy_dyn()
    }
}

trait DynKms: fmt::Debug + Send + Sync {
    fn wrap_key_dyn<'a>(
        &'a self,
        key: &'a SecretKey,
        meta: &'a KeyMeta,
        context: &'a CallContext,
    ) -> BoxFuture<'a, Result<WrappedKey, BackendError>>;

    fn unwrap_key_dyn<'a>(
        &'a self,
        wrapped: &'a [u8],
        meta: &'a KeyMeta,
        context: &'a CallContext,
    ) -> BoxFuture<'a, Result<SecretKey, BackendError>>;

    fn inspect_dyn(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError>;

    fn lock_policy_dyn(&self) -> Option<LockPolicy>;
}

impl<K: KeyManagementService> DynKms for K {
    fn wrap_key_dyn<'a>(
        &'a self,
        key: &'a SecretKey,
        meta: &'a KeyMeta,
        context: &'a CallContext,
    ) -> BoxFuture<'a, Result<WrappedKey, BackendError>> {
        Box::pin(self.wrap_key(key, meta, context))
    }

    fn unwrap_key_dyn<'a>(
        &'a self,
        wrapped: &'a [u8],
        meta: &'a KeyMeta,
        context: &'a CallContext,
    ) -> BoxFuture<'a, Result<SecretKey, BackendError>> {
        Box::pin(self.unwrap_key(wrapped, meta, context))
    }

    fn inspect_dyn(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        self.inspect(wrapped)
    }

    fn lock_policy_dyn(&self) -> Option<LockPolicy> {
        self.lock_policy()
    }
}

/// The core's way to the KMS: every call through one gate, every failure an [`Error`].
#[derive(Debug)]
pub(crate) struct KmsHandle {
    kms: BoxedKms,
    gate: Gate,
    calls: Arc<Calls>,
}

impl KmsHandle {
    pub(crate) const fn new(kms: BoxedKms, gate: Gate, calls: Arc<Calls>) -> Self {
        Self { kms, gate, calls }
    }

    pub(crate) const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Waits until the KMS may be asked for this key, before a row is read that needs it.
    pub(crate) async fn clearance(&self, meta: &KeyMeta) -> Result<(), Error> {
        self.gate.clearance().await.map_err(|error| to_error("unwrap_key", meta, error))
    }

    pub(crate) async fn wrap_key(
        &self,
        class: Class,
        key: &SecretKey,
        meta: &KeyMeta,
    ) -> Result<WrappedKey, Error> {
        let subject = Subject::latest(meta.id());
        let call = |context| async move {
            self.calls.observe(Call::WrapKey, meta, &context, self.kms.wrap_key(key, meta, &context)).await
        };
        self.gate.call(class, &subject, call).await.map_err(|error| to_error("wrap_key", meta, error))
    }

    /// Asks what a wrapped key holds, which needs no service.
    pub(crate) fn inspect(&self, wrapped: &[u8], meta: &KeyMeta) -> Result<WrapHealth, Error> {
        self.kms.inspect(wrapped).map_err(|error| to_error("inspect", meta, error))
    }

    pub(crate) async fn unwrap_key(
        &self,
        class: Class,
        wrapped: &[u8],
        meta: &KeyMeta,
    ) -> Result<SecretKey, Error> {
        let subject = Subject::version(meta);
        let call = |context| async move {
            let answer = self.kms.unwrap_key(wrapped, meta, &context);
            self.calls.observe(Call::UnwrapKey, meta, &context, answer).await
        };
        self.gate.call(class, &subject, call).await.map_err(|error| to_error("unwrap_key", meta, error))
    }
}

pub(crate) fn to_error(operation: &'static str, key: &KeyMeta, source: BackendError) -> Error {
    Error::Kms { operation, key: key.clone(), source }
}
