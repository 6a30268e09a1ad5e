//! Remembers that the master key did not open a system key.
//!
//! To its callers the library says no more than that something does not authenticate, since they may
//! be those who forged it. Whoever sits at a terminal is to know that it was the master key.

use std::sync::{Arc, OnceLock};

use claviger::{
    BackendError, BoxedKms, CallContext, Error, FailureClass, KeyManagementService, KeyMeta, LockPolicy,
    SecretKey, WrapHealth, WrappedKey,
};

use crate::exit::Failure;
use crate::explain;

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

    /// Returns what an error means, by what stands behind it, and whether it is of one row: others may still do
    /// well.
    pub(crate) fn explain(&self, error: &Error) -> (Failure, bool) {
        match (error, self.damaged.get()) {
            (Error::Authentication, Some((key, source))) => (explain::master_key(key.id(), source), false),
            _ => (explain::failure(error), explain::is_of_one_row(error)),
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

    fn lock_policy(&self) -> Option<LockPolicy> {
        self.kms.lock_policy()
    }

    fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        self.kms.inspect(wrapped)
    }
}
