//! Whatever reads as a data row record reads the same after it is written.

#![no_main]

use claviger::DataRowRecord;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    if let Ok(record) = DataRowRecord::from_json(json) {
        let written = record.to_json();
        assert_eq!(written.capacity(), written.len());
        assert_eq!(DataRowRecord::from_json(written.as_bytes()), Ok(record));
    }
});
