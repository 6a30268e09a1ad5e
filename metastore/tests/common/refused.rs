//! What a store refuses by itself says nothing of a server that is down.

use claviger::testing::{ReplaceOne as _, call};
use claviger::{BackendError, Created, EnvelopeKeyRecord, MetastoreAdmin};

use crate::support::{NOW, meta, record};

/// Asks a store whose server is gone.
pub(crate) async fn assert_refused_unasked(store: &impl MetastoreAdmin) {
    let long = "x".repeat(2_049);
    for id in ["", "a\0b", "__asherah_internal_x", &long] {
        let key = meta(id, NOW);
        assert_unasked(store.load(&key, &call()).await, id);
        assert_unasked(store.load_latest(key.id(), Created::MAX, &call()).await, id);
        assert_unasked(store.load_many(&[meta("a", NOW), key.clone()], &call()).await, id);
        assert_unasked(store.load_latest_many(&[key.id().clone()], Created::MAX, &call()).await, id);
        assert_unasked(store.insert(&record(id, NOW), &call()).await, id);
        assert_unasked(store.revoke(&key, &call()).await, id);
        assert_unasked(store.replace_one(&key, b"old", b"new", &call()).await, id);
        assert_unasked(store.delete(key.id(), &call()).await, id);
    }
    let large = EnvelopeKeyRecord::new(meta("a", NOW), vec![7; EnvelopeKeyRecord::MAX_JSON_BYTES], None);
    assert_unasked(store.insert(&large, &call()).await, "a large record");
    let error = store.load_latest(meta("a", NOW).id(), Created::MAX, &call()).await.unwrap_err();
    assert!(error.was_asked(), "{error:?}");
}

#[track_caller]
fn assert_unasked<T: std::fmt::Debug>(answer: Result<T, BackendError>, what: &str) {
    let error = answer.unwrap_err();
    assert!(!error.was_asked() && !error.is_transient() && error.is_of_one_key(), "{what:?}: {error:?}");
}
