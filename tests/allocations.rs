//! How often the hot path allocates.

use allocation_counter::measure;
use claviger::DataRowRecord;

fn allocations<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let mut result = None;
    let info = measure(|| result = Some(work()));
    (info.count_total, result.unwrap())
}

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
        let (count, record) = allocations(|| DataRowRecord::from_json(json.as_bytes()).unwrap());
        assert_eq!((count, record.data().len()), (2, data_bytes));
    }
}

#[test]
fn writing_a_record_allocates_once() {
    for data_bytes in [28, 92, 64 << 10] {
        let json = json(data_bytes);
        let record = DataRowRecord::from_json(json.as_bytes()).unwrap();
        let (count, written) = allocations(|| record.to_json());
        assert_eq!((count, written), (1, json));
    }
}

/// An escape costs the copy of its string, here of `Data`, which grows by doubling at most.
#[test]
fn escapes_allocate_no_more_than_a_few_times() {
    let escaped = json(64 << 10).replace('+', "\\u002B");
    let (count, _record) = allocations(|| DataRowRecord::from_json(escaped.as_bytes()).unwrap());
    assert!(count <= 25, "{count}");
}
