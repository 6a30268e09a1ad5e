use crate::testing::call;
use std::pin::pin;
use std::task::{Context, Waker};

use super::*;
use crate::metastore::memory::InMemoryMetastore;
use crate::record::Created;

fn store() -> FaultyMetastore<InMemoryMetastore> {
    FaultyMetastore::new(InMemoryMetastore::new())
}

fn key(created: i64) -> KeyMeta {
    KeyMeta::new(KeyId::new("_IK_a_svc_prod"), Created::new(created).unwrap())
}

fn record(created: i64) -> EnvelopeKeyRecord {
    EnvelopeKeyRecord::new(key(created), *b"wrapped", None)
}

fn is_pending(call: &mut (impl Future + Unpin)) -> bool {
    std::pin::Pin::new(call).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

const TRANSIENT: Fault = Fault::Fail(FailureClass::Transient);
const PERMANENT: Fault = Fault::Fail(FailureClass::Permanent);

#[tokio::test]
async fn a_numbered_call_fails_as_told_and_does_nothing() {
    let store = store();
    store.faults().at(2, PERMANENT);
    assert_eq!(store.insert(&record(1), &call()).await.unwrap(), Insert::Inserted);
    assert_eq!(store.insert(&record(2), &call()).await.unwrap_err().class(), FailureClass::Permanent);
    assert_eq!(store.insert(&record(3), &call()).await.unwrap(), Insert::Inserted);
    assert_eq!(store.inner().count(&call()).await.unwrap(), 2);
    store.faults().reset();
    store.faults().at(1, TRANSIENT);
    assert_eq!(store.insert(&record(4), &call()).await.unwrap_err().class(), FailureClass::Transient);
}

#[tokio::test]
async fn a_queued_fault_meets_the_next_call_of_its_method_once() {
    let store = store();
    store.faults().next(Operation::Insert, TRANSIENT);
    store.faults().next(Operation::Insert, PERMANENT);
    assert!(store.load_latest(key(1).id(), Created::MAX, &call()).await.is_ok());
    assert_eq!(store.insert(&record(1), &call()).await.unwrap_err().class(), FailureClass::Transient);
    assert_eq!(store.insert(&record(1), &call()).await.unwrap_err().class(), FailureClass::Permanent);
    assert!(store.insert(&record(1), &call()).await.is_ok());
}

#[tokio::test]
async fn an_outage_lasts_until_healed_and_a_method_can_differ() {
    let store = store();
    store.faults().always(TRANSIENT);
    store.faults().always_for(Operation::Insert, PERMANENT);
    for _ in 0..3 {
        assert!(store.load(&key(1), &call()).await.unwrap_err().is_transient());
        assert!(!store.insert(&record(1), &call()).await.unwrap_err().is_transient());
    }
    store.faults().heal();
    assert_eq!(store.insert(&record(1), &call()).await.unwrap(), Insert::Inserted);
    assert_eq!(store.faults().calls(), 7);
}

#[tokio::test]
async fn a_lost_reply_comes_after_the_work() {
    let store = store();
    store.faults().next(Operation::Insert, Fault::LoseReply(FailureClass::Transient));
    assert!(store.insert(&record(1), &call()).await.unwrap_err().is_transient());
    assert_eq!(store.insert(&record(1), &call()).await.unwrap(), Insert::AlreadyExists);
}

#[tokio::test]
async fn a_hung_call_has_done_nothing_and_a_hung_reply_has() {
    for (fault, rows) in [(Fault::Hang, 0), (Fault::HangReply, 1)] {
        let store = store();
        let record = record(1);
        store.faults().next(Operation::Insert, fault);
        let context = call();
        let mut insert = pin!(store.insert(&record, &context));
        assert!(is_pending(&mut insert));
        store.faults().until_hanging(1).await;
        assert_eq!(store.inner().count(&call()).await.unwrap(), rows);
        assert!(is_pending(&mut insert));
        store.faults().release();
        assert_eq!(insert.await.unwrap(), Insert::Inserted);
        assert_eq!((store.faults().hanging(), store.inner().count(&call()).await.unwrap()), (0, 1));
    }
}

#[tokio::test]
async fn a_hung_call_that_is_dropped_hangs_no_more() {
    let store = store();
    store.faults().always(Fault::Hang);
    {
        let record = record(1);
        let context = call();
        let mut insert = pin!(store.insert(&record, &context));
        assert!(is_pending(&mut insert));
        assert_eq!(store.faults().hanging(), 1);
    }
    assert_eq!((store.faults().hanging(), store.inner().count(&call()).await.unwrap()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_delay_goes_by_the_clock_of_the_runtime() {
    let store = store();
    store.faults().next(Operation::Count, Fault::Delay(Duration::from_secs(3_600)));
    let begun = tokio::time::Instant::now();
    assert_eq!(store.count(&call()).await.unwrap(), 0);
    assert!(begun.elapsed() >= Duration::from_secs(3_600));
}

#[tokio::test]
async fn clones_share_the_script_and_the_log() {
    let store = store();
    let clone = store.clone();
    clone.faults().next(Operation::LoadMany, TRANSIENT);
    let keys = [key(1), key(2)];
    assert!(store.load_many(&keys, &call()).await.is_err());
    assert!(store.revoke(&key(3), &call()).await.is_ok());
    let log = clone.faults().log();
    let expected =
        [(Operation::LoadMany, "_IK_a_svc_prod@1 _IK_a_svc_prod@2"), (Operation::Revoke, "_IK_a_svc_prod@3")];
    assert_eq!(log, expected.map(|(operation, key)| Call { operation, key: key.to_owned() }));
    assert_eq!(clone.faults().calls_of(Operation::Revoke), 1);
}
