//! The byte string of binary serde formats.

use serde::de::Deserializer as _;
use serde::de::value::{Error, SeqDeserializer};

use super::*;
use crate::aead::OVERHEAD_BYTES;
use crate::record::json::RecordVisitor;

fn bytes() -> Vec<u8> {
    crate::record::binary::write(&data_row_record()).unwrap()
}

#[test]
fn the_bytes_are_those_of_the_layout() {
    let id = b"_IK_\"a\\b\"\n_s_p";
    let mut expected = vec![1];
    expected.extend([0, 0, 0, 0, 0x65, 0x53, 0xf1, 0x4d]);
    expected.extend([0, 0, 0, 0, 0x65, 0x53, 0xf1, 0x28]);
    expected.extend([0xfb; 60]);
    expected.extend([0, u8::try_from(id.len()).unwrap()]);
    expected.extend(id);
    expected.extend((0..30).map(|n| n * 8));
    assert_eq!(bytes(), expected);
    assert_eq!(crate::record::binary::read(&expected).unwrap(), data_row_record());
}

/// postcard writes a byte string as its length and the bytes, and so knows nothing of fields.
#[test]
fn a_binary_format_keeps_one_byte_string_that_begins_with_the_format() {
    let record = data_row_record();
    let kept = postcard::to_allocvec(&record).unwrap();
    assert_eq!(kept, [&[u8::try_from(bytes().len()).unwrap()], &*bytes()].concat());
    assert_eq!(postcard::from_bytes::<DataRowRecord>(&kept).unwrap(), record);
}

/// How records of JSON's like are told from these: by their first byte.
#[test]
fn no_json_and_no_other_format_is_taken_for_one() {
    for first in (0..=u8::MAX).filter(|first| *first != 1) {
        let mut other = bytes();
        other[0] = first;
        crate::record::binary::read(&other).unwrap_err();
    }
    crate::record::binary::read(&[]).unwrap_err();
    crate::record::binary::read(data_row_record().to_json().as_bytes()).unwrap_err();
}

#[test]
fn what_is_cut_short_is_refused() {
    let whole = bytes();
    let data_from = whole.len() - 30;
    for length in 0..whole.len() {
        // Data is as long as it is, but for a tag and a nonce.
        let is_read = crate::record::binary::read(&whole[..length]).is_ok();
        assert_eq!(is_read, length >= data_from + OVERHEAD_BYTES, "{length}");
    }
}

#[test]
fn a_parent_that_no_store_holds_is_refused() {
    let with = |at: usize, byte: u8| {
        let mut bytes = bytes();
        bytes[at] = byte;
        crate::record::binary::read(&bytes)
    };
    with(9, 0x80).unwrap_err();
    with(9, 0x7f).unwrap_err();
    with(79, 0xff).unwrap_err();
    let long = |length: usize| {
        let parent = KeyMeta::new(KeyId::new("x".repeat(length)), Created::MIN);
        let record = DataRowRecord::new(1, [0; 60], parent, vec![0; 28]);
        crate::record::binary::write(&record).map(|bytes| crate::record::binary::read(&bytes).is_ok())
    };
    assert_eq!([2_048, 2_049, 65_535, 65_536].map(long), [Some(true), Some(false), Some(false), None]);
}

#[test]
fn a_creation_time_that_is_none_is_kept_as_it_is() {
    for created in [0, -1, i64::MIN, i64::MAX] {
        let record = DataRowRecord::new(created, [0; 60], meta("_IK_a", 1), vec![0; 28]);
        assert_eq!(record.created(), None);
        let read = crate::record::binary::read(&crate::record::binary::write(&record).unwrap()).unwrap();
        assert_eq!(read.to_json(), record.to_json());
    }
}

#[test]
fn bytes_given_as_a_list_of_numbers_are_read() {
    let numbers = SeqDeserializer::<_, Error>::new(bytes().into_iter());
    assert_eq!(numbers.deserialize_any(RecordVisitor).unwrap(), data_row_record());
    let text = SeqDeserializer::<_, Error>::new(["1"].into_iter());
    text.deserialize_any(RecordVisitor).unwrap_err();
}

#[test]
fn a_record_is_put_together_from_its_parts() {
    let record = data_row_record();
    let parts = |wrapped: &[u8], data: Vec<u8>| {
        DataRowRecord::from_parts(record.parent().unwrap().clone(), wrapped, data, record.created())
    };
    assert_eq!(parts(record.wrapped_key(), record.data().to_vec()).unwrap(), record);
    parts(&[0; 59], vec![0; 28]).unwrap_err();
    parts(&[0; 61], vec![0; 28]).unwrap_err();
    parts(&[0; 60], vec![0; 27]).unwrap_err();
    let undated = DataRowRecord::from_parts(meta("_IK_a", 1), &[0; 60], vec![0; 28], None).unwrap();
    assert_eq!((undated.created(), undated.version()), (None, RecordFormat::V1));
    let long = meta(&"x".repeat(2_049), 1);
    DataRowRecord::from_parts(long, &[0; 60], vec![0; 28], None).unwrap_err();
}
