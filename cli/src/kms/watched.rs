//! Remembers that the master key did not open a system key.
//!
//! To its callers the library says no more than that something does not authenticate, since they may
//! be those who forged it. Whoever sits at a terminal is to know that it was the master key.

use std::sync::{Arc, OnceLock};

use claviger::{
    BackendError, BoxedKms, CallContext, Error, FailureClass, KeyManagementService, KeyMeta, SecretKey,
    WrapHealth, WrappedKey,
};

/// A KMS, and the first system key that it found to be damaged or another's.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    kms: BoxedKms,
    damaged: Arc<OnceLock<(KeyMeta, BackendError)>>,
}

impl Watched {
    pub(crate) fn new(kms: BoxedKms) -> Self {
        Self { kms, damaged: Arc::default() }
    }

    /// Returns what stands behind an error.
    pub(crate) fn explain(&self, error: Error) -> Error {
        match (error, self.damaged.get()) {
            (Error::Authentication, Some((key, source))) => {
                Error::Kms { operation: "unwrap_key", key: key.clone(), source: source.clone() }
            }
            (error, _) => error,
        }
    }
}

impl KeyManagementService for Watched {
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
        self.kms.unwrap_key(wrapped, meta, context).await.inspect_err(|error| {
            if error.class() == FailureClass::Damaged {
                // Another call's is as good.
                drop(self.damaged.set((meta.clone(), error.clone())));
            }
        })
    }

    fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        self.kms.inspect(wrapped)
    }
}
