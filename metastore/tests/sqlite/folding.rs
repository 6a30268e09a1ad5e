//! Ids that a table made by others takes for one another.

use std::error::Error as _;
use std::sync::Arc;

use claviger::testing::call;
use claviger::{EnvelopeKeyRecord, FailureClass, Insert, Metastore as _, MetastoreAdmin as _};
use claviger_metastore::{FindingId, SqlFault, SqliteMetastore};

use crate::latest::LatestRecord as _;
use crate::support::{NOW, Place, meta, record};

async fn folding() -> Place {
    let place = Place::new();
    place.open().await.close().await;
    let pool = place.pool().await;
    let table = "DROP TABLE encryption_key; CREATE TABLE encryption_key (id VARCHAR(255) COLLATE NOCASE NOT \
                 NULL, created TIMESTAMP NOT NULL, key_record TEXT NOT NULL, PRIMARY KEY (id, created))";
    sqlx::raw_sql(table).execute(&pool).await.unwrap();
    pool.close().await;
    place
}

#[tokio::test]
async fn a_folded_row_is_told_as_that_or_given_out_for_an_exact_version_alone() {
    let place = folding().await;
    let builder = || SqliteMetastore::builder().accept(FindingId::CollationFolds);
    let store = builder().open(&place.file).await.unwrap();
    let (row, asked) = (record("_IK_alice_svc_prod", NOW), meta("_IK_Alice_svc_prod", NOW));
    assert_eq!(store.insert(&row, &call()).await.unwrap(), Insert::Inserted);
    // In another form, as other programs write it.
    let (other, asked_other) = (record("_IK_bob_svc_prod", NOW), meta("_IK_Bob_svc_prod", NOW));
    place.write_row("_IK_bob_svc_prod", "'2023-11-14T22:13:20Z'", &other.to_json()).await;
    let keys = [asked.clone(), row.meta().clone(), meta("_IK_Alice_svc_prod", NOW + 1), asked_other.clone()];
    for error in
        [store.load(&asked, &call()).await.unwrap_err(), store.load_many(&keys, &call()).await.unwrap_err()]
    {
        assert_eq!(error.class(), FailureClass::Folded);
        let fault = error.source().and_then(|source| source.downcast_ref()).unwrap();
        let SqlFault::FoldedId { key, kept_under } = fault else { panic!("{fault:?}") };
        assert_eq!((key, kept_under), (&asked, row.meta().id()));
    }

    let store = builder().folded_ids(true).open(&place.file).await.unwrap();
    let folded = |row: &EnvelopeKeyRecord, asked| {
        EnvelopeKeyRecord::new(asked, Arc::clone(row.wrapped_key()), row.parent().cloned())
            .folded(row.meta().id().clone())
    };
    let (folded, folded_other) = (folded(&row, asked.clone()), folded(&other, asked_other.clone()));
    assert_eq!(store.load(&asked, &call()).await.unwrap().as_ref(), Some(&folded));
    assert_eq!(store.load(&asked_other, &call()).await.unwrap().as_ref(), Some(&folded_other));
    let found = store.load_many(&keys, &call()).await.unwrap();
    assert_eq!(found, [Some(folded), Some(row), None, Some(folded_other)]);
    assert_eq!(store.latest(asked.id()).await.unwrap(), None);
    assert_eq!(store.latest_many(&[asked.id().clone()]).await.unwrap(), [None]);
}

/// By the statements of the documentation, which find the rows of the names they are given.
#[tokio::test]
async fn each_id_gets_rows_of_its_own_by_the_documented_statements() {
    let documented = include_str!("../../../docs/metastores.md").split("```sql\n");
    let block = documented
        .filter_map(|block| block.split_once("```"))
        .find(|(sql, _)| sql.contains("BEGIN IMMEDIATE"));
    let place = folding().await;
    let store = SqliteMetastore::builder().accept(FindingId::CollationFolds).open(&place.file).await.unwrap();
    let mut expected = Vec::new();
    for second in 0..4 {
        let [one, other] = ["alice", "Alice"].map(|name| format!("_IK_{name}_checkout_payments"));
        let row = record(if second % 2 == 0 { &one } else { &other }, NOW + second);
        assert_eq!(store.insert(&row, &call()).await.unwrap(), Insert::Inserted);
        for id in [one, other] {
            let meta = meta(&id, NOW + second);
            expected.push(EnvelopeKeyRecord::new(meta, Arc::clone(row.wrapped_key()), row.parent().cloned()));
        }
    }
    let bob = record("_IK_bob_checkout_payments", NOW);
    assert_eq!(store.insert(&bob, &call()).await.unwrap(), Insert::Inserted);
    expected.push(bob);
    store.close().await;
    let pool = place.pool().await;
    sqlx::raw_sql(block.unwrap().0).execute(&pool).await.unwrap();
    pool.close().await;
    let store = place.open().await;
    assert_eq!(store.check_schema(&call()).await.unwrap().findings(), []);
    assert_eq!(store.count(&call()).await.unwrap(), expected.len() as u64);
    for row in expected {
        assert_eq!(store.load(row.meta(), &call()).await.unwrap(), Some(row));
    }
}
