//! Whatever reads as a data row record reads the same after it is written, in JSON and in bytes; and the two readers
//! of JSON, our own and serde's, agree.

#![no_main]

use claviger::DataRowRecord;
use claviger_fuzz::assert_agree;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let ours = DataRowRecord::from_json(bytes);
    assert_agree(&ours, &serde_json::from_slice::<DataRowRecord>(bytes));
    match ours {
        Ok(record) => hold(&record),
        // What is said does not grow with what is read.
        Err(error) => assert!(error.to_string().len() < 200, "{error}"),
    }
    if let Ok(record) = postcard::from_bytes::<DataRowRecord>(bytes) {
        hold(&record);
    }
});

fn hold(record: &DataRowRecord) {
    let json = record.to_json();
    assert_eq!(json.capacity(), json.len());
    assert_eq!(DataRowRecord::from_json(json.as_bytes()).as_ref(), Ok(record));
    assert_eq!(serde_json::to_string(record).expect("it can be written"), json);
    let bytes = postcard::to_allocvec(record).expect("it can be written");
    assert_eq!(postcard::from_bytes::<DataRowRecord>(&bytes).as_ref(), Ok(record));
    let parts = (record.parent().cloned().expect("it has a parent"), record.wrapped_key(), record.data());
    let again = DataRowRecord::from_parts(parts.0, parts.1, parts.2, record.created());
    let again = again.expect("its parts make a record");
    // A time that is none of a key is not kept apart.
    assert_eq!((again.parent(), again.wrapped_key(), again.data()), (record.parent(), parts.1, parts.2));
}
