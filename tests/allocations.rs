//! How often the hot path allocates.

use allocation_counter::measure;
use claviger::DataRowRecord;

fn json(data_bytes: usize) -> String {
    let [key, data] = [60, data_bytes].map(|bytes| base64_simd::STANDARD.encode_to_string(vec![0xfb; bytes]));
    let parent = r#"{"KeyId":"_IK_customer-17_checkout_payments","Created":1700000040}"#;
    format!(r#"{{"Key":{{"Created":1700000077,"Key":"{key}","ParentKeyMeta":{parent}}},"Data":"{data}"}}"#)
}

/// The parent's id and the data.
#[test]
fn reading_a_record_allocates_twice() {
    for data_bytes in [28, 92, 64 << 10] {
        let json = json(data_bytes);
        let mut record = None;
        let counted = measure(|| record = DataRowRecord::from_json(json.as_bytes()).ok());
        assert_eq!((counted.count_total, record.unwrap().data().len()), (2, data_bytes));
    }
}

#[test]
fn writing_a_record_allocates_once() {
    for data_bytes in [28, 92, 64 << 10] {
        let json = json(data_bytes);
        let record = DataRowRecord::from_json(json.as_bytes()).unwrap();
        let mut written = String::new();
        let counted = measure(|| written = record.to_json());
        assert_eq!((counted.count_total, written), (1, json));
    }
}

/// An escape costs copies of its string, never more than a small multiple of the input.
#[test]
fn escapes_allocate_in_proportion_to_the_input() {
    let escaped = json(64 << 10).replace('+', "\\u002B");
    let mut record = None;
    let counted = measure(|| record = DataRowRecord::from_json(escaped.as_bytes()).ok());
    assert!(counted.count_total <= 25, "{counted:?}");
    assert!(counted.bytes_max <= 4 * escaped.len() as u64, "{counted:?} of {}", escaped.len());
    assert_eq!(record.unwrap().data(), [0xfb; 64 << 10]);
}
