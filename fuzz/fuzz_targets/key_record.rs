//! Whatever reads as a key record reads the same after it is written.

#![no_main]

use claviger::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    // The seeds' own: another one is refused before the rest is looked at.
    let Some(created) = Created::new(1_700_000_060) else { return };
    let meta = KeyMeta::new(KeyId::new("_IK_a_s_p"), created);
    if let Ok(record) = EnvelopeKeyRecord::from_json(meta.clone(), json) {
        let written = record.to_json();
        assert_eq!(written.capacity(), written.len());
        assert_eq!(EnvelopeKeyRecord::from_json(meta, written.as_bytes()), Ok(record));
    }
});
