//! One wrapped key in several rows, on an empty table.

use std::time::Duration;

use claviger::testing::call;
use claviger::{EnvelopeKeyRecord, Insert, MetastoreAdmin};
use claviger_metastore::{FindingId, SchemaReport, Severity, look_for_equal_keys};

use crate::support::{NOW, meta, record};

pub(crate) async fn assert_equal_keys_found(store: &impl MetastoreAdmin) {
    let sound = (0..20).map(|second| record("_IK_many_svc_prod", NOW + second));
    for record in sound.chain([record("_IK_victim_svc_prod", NOW)]) {
        assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
    }
    assert_eq!(findings(store).await, []);
    let victim = record("_IK_victim_svc_prod", NOW);
    let copy = |id, created| {
        let key = std::sync::Arc::clone(victim.wrapped_key());
        EnvelopeKeyRecord::new(meta(id, created), key, victim.parent().cloned())
    };
    // Under another id of the same time, and as a later version of its own.
    for copy in [copy("_IK_mallory_svc_prod", NOW), copy("_IK_victim_svc_prod", NOW + 7)] {
        assert_eq!(store.insert(&copy, &call()).await.unwrap(), Insert::Inserted);
    }
    let found = findings(store).await;
    let [(FindingId::EqualKeys, Severity::Dangerous, what)] = &found[..] else { panic!("{found:?}") };
    let named = format!(
        "1 wrapped keys are in more than one row: _IK_mallory_svc_prod@{NOW} = _IK_victim_svc_prod@{NOW} = \
         _IK_victim_svc_prod@{}.",
        NOW + 7
    );
    assert!(what.starts_with(&named), "{what}");
}

async fn findings(store: &impl MetastoreAdmin) -> Vec<(FindingId, Severity, String)> {
    let mut report = SchemaReport::default();
    look_for_equal_keys(store, Duration::from_secs(30), &mut report).await.unwrap();
    report.findings().iter().map(|it| (it.id, it.severity, it.what.clone())).collect()
}
