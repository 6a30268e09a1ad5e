//! Rows of foreign writers that are longer than any key's.

use std::error::Error as _;

use claviger::testing::call;
use claviger::{FailureClass, Metastore as _, MetastoreAdmin as _};
use claviger_metastore::{FindingId, SqlFault, SqliteMetastore};
use claviger_testkit::{in_environment, told_by_parent};

use crate::common_huge::{BYTES, ID, ROWS, assert_not_fetched};
use crate::support::{NOW, Place, record};

#[tokio::test]
async fn huge_records_are_damaged_and_not_fetched() {
    if let Some(file) = told_by_parent() {
        let store = SqliteMetastore::open(file).await.unwrap();
        let findings: Vec<_> =
            store.check_schema(&call()).await.unwrap().findings().iter().map(|it| it.id).collect();
        assert_eq!(findings, [FindingId::DamagedRows]);
        assert_not_fetched(store).await;
        return;
    }
    let place = Place::new();
    place.open().await.close().await;
    let pool = place.pool().await;
    for row in 0..ROWS {
        let insert = format!(
            "INSERT INTO encryption_key VALUES ('{ID}', datetime({NOW} + {row}, 'unixepoch'), \
             printf('%.*c', {BYTES}, 'x'))"
        );
        sqlx::query(sqlx::AssertSqlSafe(insert)).execute(&pool).await.unwrap();
    }
    pool.close().await;
    let file = place.file.to_str().unwrap();
    in_environment("huge::huge_records_are_damaged_and_not_fetched", file, &[]).await;
}

#[tokio::test]
async fn ids_that_are_too_long_are_damaged_rows_and_no_page_is_lost_for_them() {
    let place = Place::new();
    let store = place.open().await;
    let records: Vec<_> = ["a", "m", "z"].map(|id| record(id, NOW)).into();
    for record in &records {
        assert_eq!(store.insert(record, &call()).await.unwrap(), claviger::Insert::Inserted);
    }
    for id in ["b".repeat(2_049), format!("b{}", "\u{e9}".repeat(5_000)), "n".repeat(1 << 20)] {
        place.write_row(&id, "datetime('now')", "{}").await;
    }
    let page = store.list("", None, 100, &call()).await.unwrap();
    assert_eq!(page.records, records);
    assert_eq!(page.damaged.len(), 3);
    for row in &page.damaged {
        assert_eq!((row.error.class(), row.id.as_str().chars().count()), (FailureClass::Damaged, 255));
        let fault = row.error.source().and_then(|source| source.downcast_ref());
        assert!(matches!(fault, Some(SqlFault::RowIdTooLong)));
    }
    // A page that has no row to go on from is longer.
    for limit in 1..=4 {
        let (mut after, mut listed, mut damaged) = (None, Vec::new(), 0);
        loop {
            let page = store.list("", after.as_ref(), limit, &call()).await.unwrap();
            listed.extend(page.records);
            damaged += page.damaged.len();
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!((&listed, damaged), (&records, 3), "pages of {limit}");
    }
}
