//! How often the hot path allocates.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use claviger::{DataRowRecord, InMemoryMetastore, SecretKey, SessionFactory, StaticKms, SystemRandom};

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

/// Polls once: what is cached is at hand, with no I/O to wait for. `None` if it waits.
fn at_once<T, E>(future: impl Future<Output = Result<T, E>>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome.ok(),
        Poll::Pending => None,
    }
}

/// The record's data; its parent's id where the thread last used another; the plaintext. The key path
/// allocates nothing.
#[tokio::test]
async fn s3_9_the_hot_path_allocates_what_it_returns_and_waits_for_nothing() {
    let kms = StaticKms::new(&SecretKey::generate(&SystemRandom::new()).unwrap()).unwrap();
    let factory = SessionFactory::builder(InMemoryMetastore::new(), kms)
        .service("checkout")
        .product("payments")
        .build()
        .unwrap();
    let session = factory.session("customer-17").unwrap();
    let first = session.encrypt(b"the keys are made now").await.unwrap();
    let other = factory.session("customer-18").unwrap();
    let _other_id = other.encrypt(b"and these").await.unwrap();
    let (mut elsewhere, mut record, mut plaintext, mut again) = (None, None, None, None);
    let change = measure(|| elsewhere = at_once(session.encrypt(&[7; 1024])));
    let encrypt = measure(|| record = at_once(session.encrypt(&[7; 1024])));
    let decrypt = measure(|| plaintext = at_once(session.decrypt(&first)));
    let make = measure(|| again = factory.session("customer-17").ok());
    assert_eq!(record.unwrap().data().len(), 1024 + 28);
    assert_eq!(*plaintext.unwrap(), *b"the keys are made now");
    assert_eq!(elsewhere.unwrap().parent(), first.parent());
    assert!(again.is_some());
    assert_eq!((change.count_total, encrypt.count_total, decrypt.count_total), (2, 1, 1));
    assert!(make.count_total <= 1, "{make:?}");
}
