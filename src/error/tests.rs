use std::error::Error as StdError;

use super::*;
use crate::record::Created;

const PARTITION: &str = "alice@example.com";

/// An error of each variant there is; those that are of a key are of the partition's.
fn every_error() -> Vec<Error> {
    let key = KeyMeta::new(KeyId::new(format!("_IK_{PARTITION}_checkout_payments")), Created::MIN);
    let id = key.id().clone();
    let source = || BackendError::transient(std::io::Error::other("innermost"));
    let mut all = vec![
        Error::invalid_config("reason"),
        Error::InvalidPartition { reason: "is empty" },
        MalformedRecord::new("innermost").into(),
        Error::ForeignParent { key: key.clone() },
        Error::ForeignRecord,
        Error::Authentication,
        Error::Cipher,
        Error::KeyNotFound(key.clone()),
        Error::KeyRevoked(key.clone()),
        Error::TooLarge { bytes: 2, bytes_max: 1 },
        Error::Metastore { operation: "load", key: key.id().clone(), source: source() },
        Error::Kms { operation: "unwrap_key", key: key.clone(), source: source() },
        Error::IndistinctKey(key.clone()),
        Error::CreationRace(id.clone()),
        Error::ClockSkew(key),
        RandomError::new().into(),
        Error::Deadline {
            limit: "operation_deadline",
            after: Duration::ZERO,
            key: id.clone(),
            dependency: Some(Dependency::Kms),
        },
        Error::Overloaded { limit: "waiting_calls_max", max: 1, key: id, dependency: None },
        Error::Interrupted,
        Error::NoRuntime(Arc::new(std::io::Error::other("no thread"))),
        Error::Persistence { operation: "store", source: source() },
        Error::Forked,
        Error::Closed,
    ];
    all.push(MemoryError::Forked.into());
    all
}

#[test]
fn no_text_of_an_error_holds_a_key_id_and_its_key_id_does() {
    for error in every_error() {
        let text = ErrorChain::new(&error).to_string();
        assert!(!text.contains('@') && !text.contains("_IK_"), "{text}");
        if format!("{error:?}").contains(PARTITION) {
            assert!(error.key_id().is_some_and(|id| id.as_str().contains(PARTITION)), "{error:?}");
        }
    }
}

#[test]
fn the_innermost_cause_of_every_error_is_told() {
    for error in every_error() {
        let mut innermost: &dyn StdError = &error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        let chain = ErrorChain::new(&error).to_string();
        assert!(chain.ends_with(&innermost.to_string()), "{chain}");
        // What is held is either a source or none of an error.
        assert_eq!(format!("{error:?}").contains("innermost"), chain.contains("innermost"), "{error:?}");
    }
}
