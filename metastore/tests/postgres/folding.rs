//! Ids that a table in a collation of its own takes for one another.

use std::error::Error as _;
use std::sync::Arc;

use claviger::testing::call;
use claviger::{Consistency, EnvelopeKeyRecord, FailureClass, Insert, Metastore as _, MetastoreAdmin as _};
use claviger_metastore::{FindingId, PostgresBuilder, PostgresMetastore, SqlFault};

use crate::latest::LatestRecord as _;
use crate::support::{NOW, Place, meta, record};

async fn folding(created: &str) -> Place {
    let table = format!(
        "CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level1', deterministic = false); \
         CREATE TABLE encryption_key (id VARCHAR(255) COLLATE folding NOT NULL, created {created} NOT NULL, \
         key_record TEXT NOT NULL, PRIMARY KEY (id, created))"
    );
    Place::holding(&table).await
}

fn builder() -> PostgresBuilder {
    PostgresMetastore::builder().accept(FindingId::CollationFolds)
}

#[tokio::test]
async fn a_folded_row_is_told_as_that_or_given_out_for_an_exact_version_alone() {
    for created in ["TIMESTAMP", "TIMESTAMPTZ"] {
        let place = folding(created).await;
        let store = builder().open(&place.url).await.unwrap();
        let (row, asked) = (record("_IK_alice_svc_prod", NOW), meta("_IK_Alic\u{e9}_svc_prod", NOW));
        assert_eq!(store.insert(&row, &call()).await.unwrap(), Insert::Inserted);
        let keys = [asked.clone(), row.meta().clone(), meta(asked.id().as_str(), NOW + 1)];
        for error in [
            store.load(&asked, &call()).await.unwrap_err(),
            store.load_many(&keys, &call()).await.unwrap_err(),
        ] {
            assert_eq!(error.class(), FailureClass::Folded);
            let fault = error.source().and_then(|source| source.downcast_ref()).unwrap();
            let SqlFault::FoldedId { key, kept_under } = fault else { panic!("{fault:?}") };
            assert_eq!((key, kept_under), (&asked, row.meta().id()));
        }

        for names in ["on", "off"] {
            let url = format!("{}?prepared-statements={names}", place.url);
            let store = builder().folded_ids(true).open(&url).await.unwrap();
            let folded =
                EnvelopeKeyRecord::new(asked.clone(), Arc::clone(row.wrapped_key()), row.parent().cloned())
                    .folded(row.meta().id().clone());
            assert_eq!(
                store.load(&asked, &call().consistency(Consistency::Eventual)).await.unwrap().as_ref(),
                Some(&folded)
            );
            let found = store.load_many(&keys, &call()).await.unwrap();
            assert_eq!(found, [Some(folded), Some(row.clone()), None]);
            assert_eq!(store.latest(asked.id()).await.unwrap(), None);
            assert_eq!(store.latest_many(&[asked.id().clone()]).await.unwrap(), [None]);
        }
    }
}

/// By the statements of the documentation, which find the rows of the names they are given.
#[tokio::test]
async fn each_id_gets_rows_of_its_own_by_the_documented_statements() {
    let documented = include_str!("../../../docs/metastores.md").split("```sql\n");
    let block =
        documented.filter_map(|block| block.split_once("```")).find(|(sql, _)| sql.contains("LOCK TABLE"));
    let statements = block.unwrap().0;
    for created in ["TIMESTAMP", "TIMESTAMPTZ"] {
        let place = folding(created).await;
        let store = builder().open(&place.url).await.unwrap();
        let mut expected = Vec::new();
        for second in 0..4 {
            let [one, other] = ["alice", "Alice"].map(|name| format!("_IK_{name}_checkout_payments"));
            let row = record(if second % 2 == 0 { &one } else { &other }, NOW + second);
            assert_eq!(store.insert(&row, &call()).await.unwrap(), Insert::Inserted);
            for id in [one, other] {
                let meta = meta(&id, NOW + second);
                expected.push(EnvelopeKeyRecord::new(
                    meta,
                    Arc::clone(row.wrapped_key()),
                    row.parent().cloned(),
                ));
            }
        }
        let bob = record("_IK_bob_checkout_payments", NOW);
        assert_eq!(store.insert(&bob, &call()).await.unwrap(), Insert::Inserted);
        expected.push(bob);
        store.close().await;
        place.execute(statements).await;
        let store = place.open().await;
        let report = store.check_schema(&call()).await.unwrap();
        assert!(!report.findings().iter().any(|found| found.id == FindingId::CollationFolds), "{report:?}");
        assert_eq!(store.count(&call()).await.unwrap(), expected.len() as u64);
        for row in expected {
            assert_eq!(store.load(row.meta(), &call()).await.unwrap(), Some(row));
        }
    }
}
