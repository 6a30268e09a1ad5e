//! Records to store, and what errors say.

use std::error::Error as _;
use std::fmt::Debug;

use claviger::{BackendError, Created, EnvelopeKeyRecord, KeyId, KeyMeta};
use claviger_metastore::{DangerousSchema, FindingId};

use crate::support::never_said;

/// 2023-11-14 22:13:20.
pub(crate) const NOW: i64 = 1_700_000_000;

pub(crate) fn password(url: &str) -> &str {
    url.split(['@', ':']).nth(2).unwrap()
}

pub(crate) fn meta(id: &str, created: i64) -> KeyMeta {
    KeyMeta::new(KeyId::new(id), Created::new(created).unwrap())
}

pub(crate) fn record(id: &str, created: i64) -> EnvelopeKeyRecord {
    let parent = meta("_SK_svc_prod", NOW - 60);
    EnvelopeKeyRecord::new(meta(id, created), format!("{id}@{created}").into_bytes(), Some(parent))
}

/// Every layer of an error, as a log would show it.
pub(crate) fn chain(error: &BackendError) -> String {
    format!("{} {error:?}", claviger_testkit::chain(error))
}

/// The ids of what the error says is dangerous.
#[track_caller]
pub(crate) fn dangers(error: &BackendError) -> Vec<FindingId> {
    assert!(!error.is_transient(), "{}", chain(error));
    let danger = error.source().and_then(|source| source.downcast_ref::<DangerousSchema>());
    danger.unwrap_or_else(|| panic!("{}", chain(error))).findings.iter().map(|finding| finding.id).collect()
}

#[track_caller]
pub(crate) fn assert_permanent<T: Debug>(answer: Result<T, BackendError>, says: &str) {
    let error = answer.unwrap_err();
    assert!(!error.is_transient(), "{}", chain(&error));
    assert_says(&error, says);
}

#[track_caller]
pub(crate) fn assert_transient<T: Debug>(answer: Result<T, BackendError>, says: &str) {
    let error = answer.unwrap_err();
    assert!(error.is_transient(), "{}", chain(&error));
    assert_says(&error, says);
}

#[track_caller]
fn assert_says(error: &BackendError, says: &str) {
    let text = chain(error);
    assert!(text.contains(says), "{text}");
    for word in never_said() {
        assert!(!text.contains(word), "{text}");
    }
}
