//! Ids that a table in a collation of its own takes for one another.

use std::error::Error as _;
use std::sync::Arc;

use claviger::{Consistency, EnvelopeKeyRecord, FailureClass, Insert, Metastore as _};
use claviger_metastore::{FindingId, PostgresBuilder, PostgresMetastore, SqlFault};

use crate::support::{NOW, PLENTY, Place, meta, record};

async fn folding(created: &str) -> Place {
    let table = format!(
        "CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level1', deterministic = false); \
         CREATE TABLE encryption_key (id VARCHAR(255) COLLATE folding NOT NULL, created {created} NOT NULL, \
         key_record TEXT NOT NULL, PRIMARY KEY (id, created))"
    );
    Place::holding(&table).await
}

fn builder() -> PostgresBuilder {
    PostgresMetastore::builder().accept(FindingId::CollationFolds).deadline(PLENTY)
}

#[tokio::test]
async fn a_folded_row_is_told_as_that_or_given_out_for_an_exact_version_alone() {
    for created in ["TIMESTAMP", "TIMESTAMPTZ"] {
        let place = folding(created).await;
        let store = builder().open(&place.url).await.unwrap();
        let (row, asked) = (record("_IK_alice_svc_prod", NOW), meta("_IK_Alic\u{e9}_svc_prod", NOW));
        assert_eq!(store.insert(&row).await.unwrap(), Insert::Inserted);
        let keys = [asked.clone(), row.meta().clone(), meta(asked.id().as_str(), NOW + 1)];
        for error in [
            store.load(&asked, Consistency::Strong).await.unwrap_err(),
            store.load_many(&keys, Consistency::Strong).await.unwrap_err(),
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
            assert_eq!(store.load(&asked, Consistency::Eventual).await.unwrap().as_ref(), Some(&folded));
            let found = store.load_many(&keys, Consistency::Strong).await.unwrap();
            assert_eq!(found, [Some(folded), Some(row.clone()), None]);
            assert_eq!(store.load_latest(asked.id()).await.unwrap(), None);
            assert_eq!(store.load_latest_many(&[asked.id().clone()]).await.unwrap(), [None]);
        }
    }
}
