//! What a move meets seldom: many pages and versions, keys that go away, services that lie or fail for now.

use std::sync::Arc;

use claviger::backend::DamagedRow;
use claviger::testing::{Fault, FaultyKms, FaultyMetastore, Operation, call};
use claviger::{
    BackendError, CallContext, Created, EnvelopeKeyRecord, FailureClass, InMemoryMetastore, Insert, KeyId,
    KeyManagementService, KeyMeta, Limits, Metastore, MetastoreAdmin, Rewrap, RewrapOptions, SecretKey,
    StaticKms, SystemRandom, WrapHealth, WrappedKey, rewrap_system_keys,
};

use crate::regions::master_key;
use crate::support::{assert_all_decrypt, populate, rewrapped, system_key_metas, system_keys};

fn once() -> RewrapOptions {
    RewrapOptions::new().limits(Limits::production().max_attempts(1))
}

async fn insert(store: &InMemoryMetastore, record: EnvelopeKeyRecord) {
    assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
}

/// Wraps another key than it is given.
#[derive(Debug)]
struct Liar(StaticKms);

impl KeyManagementService for Liar {
    async fn wrap_key(
        &self,
        _key: &SecretKey,
        meta: &KeyMeta,
        _context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        let other = SecretKey::generate(&SystemRandom::new()).unwrap();
        self.0.wrap_key(&other, meta, &call()).await
    }

    async fn unwrap_key(
        &self,
        wrapped: &[u8],
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        self.0.unwrap_key(wrapped, meta, context).await
    }

    fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        self.0.inspect(wrapped)
    }
}

#[tokio::test]
async fn service_that_wraps_another_key_is_given_none() {
    let (store, old) = (InMemoryMetastore::new(), Arc::new(master_key("old")));
    let records = populate(&store, &old).await;
    let before = system_keys(&store).await;
    let report = rewrap_system_keys(&store, &old, &Liar(master_key("new")), &once()).await.unwrap();
    assert!(report.keys.iter().all(|(_, done)| matches!(done, Rewrap::Failed(_))), "{report:?}");
    assert_eq!(system_keys(&store).await, before);
    assert_all_decrypt(&store, &old, &records).await;
}

#[tokio::test]
async fn all_pages_are_gone_through() {
    let (store, old) = (InMemoryMetastore::new(), Arc::new(master_key("old")));
    for number in 0..1_200 {
        let parent = KeyMeta::new(KeyId::new("_SK_a_b"), Created::MIN);
        let meta = KeyMeta::new(KeyId::new(format!("_IK_{number:05}_a_b")), Created::MIN);
        insert(&store, EnvelopeKeyRecord::new(meta, [7; 60], Some(parent))).await;
    }
    populate(&store, &old).await;
    let report = rewrap_system_keys(&store, &old, &master_key("new"), &once()).await.unwrap();
    assert_eq!((rewrapped(&report), report.keys.len()), (6, 6));
}

#[tokio::test]
async fn all_versions_of_a_key_are_gone_through() {
    let (store, old) = (InMemoryMetastore::new(), master_key("old"));
    let id = KeyId::new("_SK_checkout_payments");
    for created in 1..=205 {
        let meta = KeyMeta::new(id.clone(), Created::new(created * 60).unwrap());
        let secret = SecretKey::generate(&SystemRandom::new()).unwrap();
        let wrapped = old.wrap_key(&secret, &meta, &call()).await.unwrap();
        insert(&store, EnvelopeKeyRecord::new(meta, Arc::clone(wrapped.bytes()), None)).await;
    }
    let only = once().only([id]);
    let report = rewrap_system_keys(&store, &old, &master_key("new"), &only).await.unwrap();
    assert_eq!((rewrapped(&report), report.keys.len()), (205, 205));
}

#[tokio::test]
async fn key_that_is_deleted_meanwhile_is_gone_and_no_failure() {
    let (store, old) = (InMemoryMetastore::new(), Arc::new(master_key("old")));
    populate(&store, &old).await;
    let id = system_key_metas(&store).await[0].id().clone();
    let new = FaultyKms::new(master_key("new"));
    new.faults().next(Operation::WrapKey, Fault::Hang);
    let options = once().only([id.clone()]);
    let (report, ()) = tokio::join!(rewrap_system_keys(&store, &old, &new, &options), async {
        new.faults().until_hanging(1).await;
        store.delete(&id, &call()).await.unwrap();
        new.faults().release();
    });
    let report = report.unwrap();
    assert!(
        report.is_clean() && report.keys.iter().any(|(_, done)| matches!(done, Rewrap::Gone)),
        "{report:?}"
    );
    assert!(system_key_metas(&store).await.iter().all(|key| *key.id() != id), "nothing is made anew");
}

/// What fails for now is not taken for another service's key.
#[tokio::test]
async fn key_that_cannot_be_looked_at_now_is_left_as_it_is() {
    for operation in [Operation::Inspect, Operation::UnwrapKey] {
        let (store, old) = (InMemoryMetastore::new(), Arc::new(master_key("old")));
        populate(&store, &old).await;
        let new = FaultyKms::new(master_key("new"));
        if operation == Operation::UnwrapKey {
            drop(rewrap_system_keys(&store, &old, &new, &once()).await.unwrap());
        }
        let before = system_keys(&store).await;
        let only = once().only([before[0].meta().id().clone()]);
        new.faults().reset();
        new.faults().always_for(operation, Fault::Fail(FailureClass::Transient));
        let report = rewrap_system_keys(&store, &old, &new, &only).await.unwrap();
        let is_for_now = |done: &Rewrap| matches!(done, Rewrap::Failed(error) if error.is_retryable());
        assert!(report.keys.iter().all(|(_, done)| is_for_now(done)), "{operation:?}: {report:?}");
        assert_eq!(new.faults().calls_of(Operation::WrapKey), 0, "{operation:?}");
        assert_eq!(system_keys(&store).await, before, "{operation:?}");
    }
}

/// Of another key's row nothing is told: it is not looked at.
#[tokio::test]
async fn damaged_rows_of_system_keys_are_told_and_those_of_others_are_not() {
    let (store, old) = (FaultyMetastore::new(InMemoryMetastore::new()), Arc::new(master_key("old")));
    let records = populate(store.inner(), &old).await;
    let id = system_key_metas(store.inner()).await.swap_remove(0).id().clone();
    let unreadable = |id: &KeyId| DamagedRow::new(id.clone(), None, BackendError::permanent("no JSON"));
    store.show_damaged(unreadable(&id));
    store.show_damaged(unreadable(&KeyId::new("_IK_alice_service_product")));
    let report = rewrap_system_keys(&store, &old, &master_key("new"), &once()).await.unwrap();
    let told: Vec<_> = report.damaged.iter().map(|row| &row.id).collect();
    assert_eq!((told, report.is_clean()), (vec![&id], false));
    assert!(rewrapped(&report) > 0 && !records.is_empty(), "the others are moved: {report:?}");
}
