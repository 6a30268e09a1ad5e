//! A store with a few services' keys, made by factories in the past.

use claviger::testing::{FixedClock, call};
use claviger::{
    CryptoPolicy, DataRowRecord, EnvelopeKeyRecord, InMemoryMetastore, KeyManagementService, KeyMeta,
    LockPolicy, MetastoreAdmin, Rewrap, RewrapReport, SessionFactory,
};

pub(crate) const START: u64 = 28_333_334 * 60;
const DAY: u64 = 24 * 60 * 60;

/// The services whose keys are in the store, in the order of their ids.
pub(crate) const SERVICES: [&str; 2] = ["billing", "checkout"];

pub(crate) fn factory(
    store: &InMemoryMetastore,
    kms: impl KeyManagementService,
    service: &str,
    now: u64,
) -> SessionFactory {
    SessionFactory::builder(store.clone(), kms)
        .service(service)
        .product("payments")
        .policy(CryptoPolicy::production().lock_policy(LockPolicy::Off))
        .clock(FixedClock::new(now))
        .build()
        .unwrap()
}

/// Two services, three system keys each, a hundred days apart; with a record under each.
pub(crate) async fn populate(
    store: &InMemoryMetastore,
    kms: &(impl KeyManagementService + Clone),
) -> Vec<(&'static str, DataRowRecord)> {
    let mut records = Vec::new();
    for service in SERVICES {
        for day in [0, 100, 200] {
            let factory = factory(store, kms.clone(), service, START + day * DAY);
            records.push((service, factory.session("alice").unwrap().encrypt(b"secret").await.unwrap()));
        }
    }
    records
}

pub(crate) async fn assert_all_decrypt(
    store: &InMemoryMetastore,
    kms: &(impl KeyManagementService + Clone),
    records: &[(&'static str, DataRowRecord)],
) {
    for (service, record) in records {
        let factory = factory(store, kms.clone(), service, START + 201 * DAY);
        let plaintext = factory.session("alice").unwrap().decrypt(record).await.unwrap();
        assert_eq!(*plaintext, *b"secret");
    }
}

pub(crate) fn rewrapped(report: &RewrapReport) -> usize {
    report.keys.iter().filter(|(_, done)| matches!(done, Rewrap::Rewrapped { .. })).count()
}

/// The system keys of the store, the oldest first.
pub(crate) async fn system_keys(store: &InMemoryMetastore) -> Vec<EnvelopeKeyRecord> {
    let mut records = store.list("", None, 1_000, &call()).await.unwrap().records;
    records.retain(|record| record.meta().id().as_str().starts_with("_SK_"));
    records
}

pub(crate) async fn system_key_metas(store: &InMemoryMetastore) -> Vec<KeyMeta> {
    system_keys(store).await.iter().map(|record| record.meta().clone()).collect()
}
