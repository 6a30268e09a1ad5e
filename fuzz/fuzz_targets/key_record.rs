//! Whatever reads as a key record reads the same after it is written, is what another reader of JSON finds there, and
//! is no other version's.

#![no_main]

use claviger::EnvelopeKeyRecord;
use claviger_fuzz::meta;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// The seeds' own: another one is refused before the rest is looked at.
const CREATED: i64 = 1_700_000_060;

fuzz_target!(|json: &[u8]| {
    let key = meta("_IK_a_s_p", CREATED);
    let record = match EnvelopeKeyRecord::from_json(key.clone(), json) {
        Ok(record) => record,
        Err(error) => {
            assert!(error.to_string().len() < 200, "{error}");
            return;
        }
    };
    let written = record.to_json();
    assert_eq!(written.capacity(), written.len());
    assert_eq!(EnvelopeKeyRecord::from_json(key, written.as_bytes()).as_ref(), Ok(&record));
    EnvelopeKeyRecord::from_json(meta("_IK_a_s_p", CREATED + 1), json).expect_err("it is another version's");
    let other: Value = serde_json::from_str(&written).expect("what is written is JSON");
    // Of a text in a field that is ignored, we do not ask whether it is UTF-8.
    let Ok(read) = serde_json::from_slice::<Value>(json) else { return };
    for name in ["Key", "Created"] {
        assert_eq!(read[name], other[name]);
    }
    // What is false, null or not there is one and the same.
    assert_eq!(read["Revoked"] == true, record.is_revoked());
    assert_eq!(other["Revoked"] == true, record.is_revoked());
    for name in ["KeyId", "Created"] {
        assert_eq!(read["ParentKeyMeta"][name], other["ParentKeyMeta"][name]);
    }
});
