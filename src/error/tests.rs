use std::error::Error as StdError;

use super::*;
use crate::record::Created;

const PARTITION: &str = "alice@example.com";

fn every_error() -> Vec<Error> {
    let key = KeyMeta::new(KeyId::new(format!("_IK_{PARTITION}_checkout_payments")), Created::MIN);
    crate::testing::every_error(&key, &BackendError::transient(std::io::Error::other("innermost")))
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
