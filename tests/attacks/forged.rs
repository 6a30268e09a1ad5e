//! What attackers write: rows and records made of others.

use std::sync::Arc;

use claviger::{DataRowRecord, EnvelopeKeyRecord, KeyMeta, MalformedRecord};

use crate::support::edited;

/// The row as somebody copies it.
pub(crate) fn copy(row: &EnvelopeKeyRecord, to: KeyMeta) -> EnvelopeKeyRecord {
    EnvelopeKeyRecord::new(to, Arc::clone(row.wrapped_key()), row.parent().cloned())
}

/// The record as if that key's were what sealed it.
pub(crate) fn relabelled(record: &DataRowRecord, key: &KeyMeta) -> DataRowRecord {
    naming(record, key.id().as_str(), &key.created().to_string()).unwrap()
}

/// The same of a key that there may not be.
pub(crate) fn naming(
    record: &DataRowRecord,
    id: &str,
    created: &str,
) -> Result<DataRowRecord, MalformedRecord> {
    let named = |id: &str, created: &str| format!("{{\"KeyId\":\"{id}\",\"Created\":{created}}}");
    let old = named(record.parent().unwrap().id().as_str(), &record.parent_created().to_string());
    DataRowRecord::from_json(edited(record, &old, &named(id, created)).as_bytes())
}
