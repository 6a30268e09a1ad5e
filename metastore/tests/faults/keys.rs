//! Keys and records for the tests.

use claviger::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};

/// 2023-11-14 22:13:20.
pub(crate) const NOW: i64 = 1_700_000_000;

/// A record of partition `p`, told from every other by its wrapped key.
pub(crate) fn record(partition: &str, created: i64) -> EnvelopeKeyRecord {
    let meta = |id: String, created| KeyMeta::new(KeyId::new(id), Created::new(created).unwrap());
    let own = meta(format!("_IK_{partition}_svc_prod"), created);
    let parent = meta("_SK_svc_prod".to_owned(), NOW - 60);
    EnvelopeKeyRecord::new(own, format!("wrapped {partition} {created:012}").into_bytes(), Some(parent))
}
