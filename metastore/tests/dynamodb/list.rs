//! Pages: what is left out, what is damaged, where the next one begins.

use claviger::testing::call;
use claviger::{Created, EnvelopeKeyRecord, Insert, KeyId, KeyMeta, Metastore as _, MetastoreAdmin as _};
use claviger_testkit::{shared_dynalite, shared_moto};

use crate::support::{Beside, NOW, item, key, m, meta, n, record, s};

#[tokio::test]
async fn what_is_no_key_is_neither_listed_nor_counted() {
    for endpoint in [shared_dynalite(), shared_moto()] {
        let beside = Beside::on(endpoint).await;
        // As the Rust package writes it, and one that is no key record at all.
        let guard = meta("__asherah_internal_config_drift_guard_v1__:P4Box1cXU9ICNy3lMjV2RM", 946_684_800);
        let mut stored = key(&guard);
        stored.insert("KeyRecord".into(), m([("Key", s("eyJ9")), ("Created", n(946_684_800))]));
        beside.put(stored).await;
        beside.put(key(&meta("__asherah_internal_other", NOW))).await;
        assert!(beside.store.list("", None, 10, &call()).await.unwrap().records.is_empty());
        assert_eq!(beside.store.count(&call()).await.unwrap(), 0);
        let record = record("_IK_a_svc_prod", NOW);
        assert_eq!(beside.store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
        for limit in 1..4 {
            let (mut listed, mut after) = (Vec::new(), None);
            loop {
                let page = beside.store.list("", after.as_ref(), limit, &call()).await.unwrap();
                assert!(page.damaged.is_empty());
                listed.extend(page.records);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(listed, std::slice::from_ref(&record));
        }
        assert_eq!(beside.store.count(&call()).await.unwrap(), 1);
        assert!(beside.get(&guard).await.is_some());
    }
}

/// Items whose `Created` is no time: each is reported, none stops the list, and no page leads back.
#[tokio::test]
async fn creation_times_that_are_none_do_not_stop_a_list() {
    for endpoint in [shared_dynalite(), shared_moto()] {
        let beside = Beside::on(endpoint).await;
        for created in ["-5", "0", "1700000030.5", "1E+30"] {
            beside.put(item([("Id", s("_IK_a_svc_prod")), ("Created", n(created))])).await;
        }
        let mut records: Vec<_> = [0, 60].map(|seconds| record("_IK_a_svc_prod", NOW + seconds)).into();
        records.push(EnvelopeKeyRecord::new(
            KeyMeta::new(KeyId::new("_IK_b_svc_prod"), Created::MAX),
            [1],
            None,
        ));
        for record in &records {
            assert_eq!(beside.store.insert(record, &call()).await.unwrap(), Insert::Inserted);
        }
        for limit in [1, 2, 3, 100] {
            let (mut listed, mut damaged, mut after) = (Vec::new(), 0, None);
            for _page in 0..20 {
                let page = beside.store.list("", after.as_ref(), limit, &call()).await.unwrap();
                listed.extend(page.records);
                assert!(
                    page.damaged
                        .iter()
                        .all(|row| row.created.is_none() && row.id.as_str() == "_IK_a_svc_prod")
                );
                damaged += page.damaged.len();
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(after, None, "the list ends");
            listed.sort_by(|one, other| one.meta().cmp(other.meta()));
            assert_eq!(listed, records, "pages of {limit}");
            // Two that lie before the first second there is are one place to go on from.
            assert!((3..=4).contains(&damaged), "{damaged} in pages of {limit}");
        }
    }
}

/// More than DynamoDB reads at once: a scan's page ends at a mebibyte, whatever the limit.
#[tokio::test]
async fn a_page_is_filled_over_several_scans() {
    let beside = Beside::on(shared_dynalite()).await;
    let wrapped = vec![7; 49_152];
    let records: Vec<_> = (0..36)
        .map(|second| EnvelopeKeyRecord::new(meta("_IK_a_svc_prod", NOW + second), wrapped.clone(), None))
        .collect();
    for record in &records {
        assert_eq!(beside.store.insert(record, &call()).await.unwrap(), Insert::Inserted);
    }
    let page = beside.store.list("", None, 100, &call()).await.unwrap();
    assert_eq!(page.records, records);
    assert_eq!(page.next, None);
    let page = beside.store.list("", None, 35, &call()).await.unwrap();
    assert_eq!(page.records, records[..35]);
    // A page of nothing leads nowhere.
    assert_eq!(beside.store.list("", page.next.as_ref(), 0, &call()).await.unwrap().next, None);
    let rest = beside.store.list("", page.next.as_ref(), 35, &call()).await.unwrap();
    assert_eq!(rest.records, records[35..]);
    assert_eq!(beside.store.count(&call()).await.unwrap(), 36);
    // The versions to delete are found over several pages of a query.
    assert_eq!(beside.store.delete(&KeyId::new("_IK_a_svc_prod"), &call()).await.unwrap(), 36);
    assert_eq!(beside.store.count(&call()).await.unwrap(), 0);
}
