//! Errors to try a program's handling of them with.

use std::sync::Arc;
use std::time::Duration;

use claviger_memory::MemoryError;

use crate::error::{BackendError, Dependency, Error};
use crate::random::RandomError;
use crate::record::{KeyMeta, MalformedRecord};

/// Returns an error of each variant there is. Those that are about a key are about this one; what a back end said
/// is `source`.
///
/// ```
/// use claviger::testing::every_error;
/// use claviger::{BackendError, Created, KeyId, KeyMeta};
///
/// let key = KeyMeta::new(KeyId::new("_IK_customer-17_checkout_payments"), Created::MIN);
/// for error in every_error(&key, &BackendError::transient("down")) {
///     assert!(!error.to_string().contains("customer-17"), "{error}");
/// }
/// ```
#[must_use]
pub fn every_error(key: &KeyMeta, source: &BackendError) -> Vec<Error> {
    let id = key.id();
    vec![
        Error::invalid_config("reason"),
        Error::InvalidPartition { reason: "is empty" },
        MalformedRecord::new("innermost").into(),
        Error::ForeignParent { key: key.clone() },
        Error::ForeignRecord,
        Error::Authentication,
        Error::Cipher,
        Error::KeyNotFound(key.clone()),
        Error::KeyRevoked(key.clone()),
        Error::TooLarge { bytes: 2, max_bytes: 1 },
        metastore_error("load", key, source),
        kms_error("unwrap_key", key, source),
        Error::IndistinctKey(key.clone()),
        Error::CreationRace(id.clone()),
        Error::ClockSkew(key.clone()),
        Error::ClockNotSet { key: id.clone() },
        RandomError::new().into(),
        MemoryError::Forked.into(),
        Error::Deadline {
            limit: "operation_deadline",
            after: Duration::ZERO,
            key: id.clone(),
            dependency: Some(Dependency::Kms),
        },
        Error::Overloaded { limit: "max_waiting_calls", max: 1, key: id.clone(), dependency: None },
        Error::interrupted(id, Dependency::Kms),
        Error::NoRuntime(Arc::new(std::io::Error::other("no thread"))),
        Error::Persistence { operation: "store", source: source.clone() },
        Error::Forked,
        Error::Closed,
    ]
}

/// Returns what an operation fails with whose call of the metastore failed.
#[must_use]
pub fn metastore_error(operation: &'static str, key: &KeyMeta, source: &BackendError) -> Error {
    Error::Metastore { operation, key: key.id().clone(), source: source.clone() }
}

/// Returns what an operation fails with whose call of the KMS failed.
#[must_use]
pub fn kms_error(operation: &'static str, key: &KeyMeta, source: &BackendError) -> Error {
    Error::Kms { operation, key: key.clone(), source: source.clone() }
}
