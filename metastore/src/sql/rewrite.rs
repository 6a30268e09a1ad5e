//! What operators change of a record.

use std::sync::Arc;

use claviger::EnvelopeKeyRecord;

/// What became of a rewrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rewritten {
    NotFound,
    Left,
    Changed,
}

/// Makes a revoked record of one that is not.
pub(crate) fn revoke(record: &EnvelopeKeyRecord) -> Option<EnvelopeKeyRecord> {
    (!record.is_revoked()).then(|| record.clone().revoked(true))
}

/// Puts `new` in the place of the wrapped key `old`, in a record that has it.
pub(crate) fn replace_wrapped_key(
    old: &[u8],
    new: &[u8],
) -> impl Fn(&EnvelopeKeyRecord) -> Option<EnvelopeKeyRecord> + Send + Sync + 'static + use<> {
    let (old, new): (Arc<[u8]>, Arc<[u8]>) = (old.into(), new.into());
    move |record| {
        (*record.wrapped_key() == old).then(|| {
            let (meta, parent) = (record.meta().clone(), record.parent().cloned());
            EnvelopeKeyRecord::new(meta, Arc::clone(&new), parent).revoked(record.is_revoked())
        })
    }
}
