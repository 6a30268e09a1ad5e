//! Rows of foreign writers that are longer than any key's.

use claviger::testing::call;
use claviger::{FailureClass, Metastore as _, MetastoreAdmin as _};
use claviger_metastore::{FindingId, PostgresMetastore};
use claviger_testkit::{in_environment, told_by_parent};

use crate::common_huge::{BYTES, ID, ROWS, assert_not_fetched};
use crate::support::{ASHERAH, NOW, Place, ids, record};

/// As long when stored, and so short that the server has to measure the text.
const STORAGES: [&str; 2] = ["EXTERNAL", "EXTENDED"];

#[tokio::test]
async fn huge_records_are_damaged_and_not_fetched() {
    if let Some(url) = told_by_parent() {
        let store = PostgresMetastore::builder().open(&url).await.unwrap();
        let report = store.check_schema(&call()).await.unwrap();
        assert!(ids(&report).contains(&FindingId::DamagedRows), "{report:?}");
        assert_not_fetched(store).await;
        return;
    }
    for (table, json, storage) in [
        (None, "to_json(repeat('x', {}))", STORAGES[0]),
        (None, "to_json(repeat('x', {}))", STORAGES[1]),
        (Some(ASHERAH), "repeat('x', {})", STORAGES[0]),
        // The database compresses it to less than a record may have.
        (Some(ASHERAH), "repeat('x', 5000000 + 0 * {})", STORAGES[1]),
    ] {
        let place = match table {
            None => Place::migrated().await,
            Some(table) => Place::holding(table).await,
        };
        place.execute(&format!("ALTER TABLE encryption_key ALTER key_record SET STORAGE {storage}")).await;
        let json = json.replace("{}", &BYTES.to_string());
        place
            .execute(&format!(
                "INSERT INTO encryption_key SELECT '{ID}', to_timestamp({NOW} + n) AT TIME ZONE 'UTC', {json} \
                 FROM generate_series(0, {ROWS} - 1) AS n"
            ))
            .await;
        in_environment("huge::huge_records_are_damaged_and_not_fetched", &place.url, &[]).await;
    }
}

#[tokio::test]
async fn ids_that_are_too_long_are_damaged_rows() {
    let place = Place::holding(
        "CREATE TABLE encryption_key (id TEXT NOT NULL, created TIMESTAMPTZ NOT NULL, key_record JSONB NOT \
         NULL, PRIMARY KEY (id, created))",
    )
    .await;
    let store = place.unchecked().await;
    let records: Vec<_> = ["a", "z"].map(|id| record(id, NOW)).into();
    for record in &records {
        assert_eq!(store.insert(record, &call()).await.unwrap(), claviger::Insert::Inserted);
    }
    // The index compresses it.
    place.execute("INSERT INTO encryption_key VALUES (repeat('b', 100000), now(), '{}')").await;
    let page = store.list("", None, 2, &call()).await.unwrap();
    assert_eq!((page.records.len(), page.damaged.len()), (1, 0), "the next page begins with the other row");
    let page = store.list("", page.next.as_ref(), 2, &call()).await.unwrap();
    assert_eq!(page.records, records[1..]);
    assert_eq!(page.damaged[0].error.class(), FailureClass::Damaged);
    assert_eq!(page.damaged[0].id.as_str(), "b".repeat(255));
}
