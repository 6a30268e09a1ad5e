//! What is found wrong with a file, each planted.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use claviger::testing::call;
use claviger::{Insert, Metastore as _};
use claviger_metastore::{FindingId, SchemaReport, Severity, SqliteMetastore};
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;

use crate::equal_keys::assert_equal_keys_found;
use crate::latest::LatestRecord as _;
use crate::processes::alone;
use crate::support::{NOW, Place, assert_dangerous, record};

async fn execute(place: &Place, sql: &str) {
    let pool = place.pool().await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&pool).await.unwrap();
    pool.close().await;
}

/// Puts another table in the place of ours.
async fn with_table(table: &str) -> Place {
    let place = Place::new();
    place.open().await.close().await;
    execute(&place, &format!("DROP TABLE encryption_key; {table}")).await;
    place
}

async fn report(place: &Place) -> SchemaReport {
    let store = SqliteMetastore::builder().danger_unchecked().open(&place.file).await.unwrap();
    let report = store.check_schema(&call()).await.unwrap();
    store.close().await;
    report
}

fn ids(report: &SchemaReport, severity: Severity) -> Vec<FindingId> {
    let of_it = report.findings().iter().filter(|finding| finding.severity == severity);
    of_it.map(|finding| finding.id).collect()
}

/// Asserts that this is found and nothing else, that the store does not start on it, and that it
/// does when told to.
async fn assert_found(place: &Place, id: FindingId, says: &str) {
    let found = report(place).await;
    assert_eq!(ids(&found, Severity::Dangerous), [id], "{found:?}");
    assert_eq!(ids(&found, Severity::Warning), [], "{found:?}");
    assert!(found.findings().iter().all(|finding| !finding.remedy.is_empty()));
    assert_dangerous(SqliteMetastore::open(&place.file).await, id, says);
    let other = SqliteMetastore::builder().accept(FindingId::NoBackup);
    assert_dangerous(other.open(&place.file).await, id, says);
    SqliteMetastore::builder().accept(id).open(&place.file).await.unwrap().close().await;
}

#[tokio::test]
async fn our_own_table_has_no_findings() {
    let place = Place::new();
    let store = place.open().await;
    for second in 0..1_200 {
        assert_eq!(store.insert(&record("_IK_a", NOW + second), &call()).await.unwrap(), Insert::Inserted);
    }
    assert_eq!(store.check_schema(&call()).await.unwrap(), SchemaReport::default());
}

#[tokio::test]
async fn tables_of_others_have_no_findings() {
    for table in [
        "CREATE TABLE encryption_key (id VARCHAR(255) NOT NULL, created TIMESTAMP NOT NULL DEFAULT \
         CURRENT_TIMESTAMP, key_record TEXT NOT NULL, PRIMARY KEY (id, created))",
        "CREATE TABLE encryption_key (id TEXT, created TEXT, key_record BLOB, PRIMARY KEY (id, created)) \
         WITHOUT ROWID, STRICT",
        "CREATE TABLE encryption_key (n INTEGER PRIMARY KEY, id, created, key_record); \
         CREATE UNIQUE INDEX version ON encryption_key (created, id); \
         CREATE INDEX folding ON encryption_key (id COLLATE NOCASE)",
    ] {
        let table = table.replace("key_record BLOB", "key_record ANY");
        let place = with_table(&table).await;
        assert_eq!(report(&place).await, SchemaReport::default(), "{table}");
        let record = record("_IK_a", NOW);
        let store = place.open().await;
        assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted, "{table}");
        assert_eq!(store.latest(record.meta().id()).await.unwrap(), Some(record), "{table}");
    }
}

#[tokio::test]
async fn a_missing_table_is_found() {
    let place = with_table("").await;
    let pool = place.pool().await;
    assert_dangerous(
        SqliteMetastore::builder().open_with(pool.clone()).await,
        FindingId::TableMissing,
        "no table encryption_key",
    );
    let store =
        SqliteMetastore::builder().accept(FindingId::TableMissing).open_with(pool.clone()).await.unwrap();
    assert_eq!(
        ids(&store.check_schema(&call()).await.unwrap(), Severity::Dangerous),
        [FindingId::TableMissing]
    );
    let store = SqliteMetastore::builder().migrate().open_with(pool).await.unwrap();
    assert_eq!(store.check_schema(&call()).await.unwrap(), SchemaReport::default());
}

#[tokio::test]
async fn a_missing_column_is_found() {
    let place = with_table(
        "CREATE TABLE encryption_key (id TEXT, created TEXT, record TEXT, PRIMARY KEY (id, created))",
    )
    .await;
    assert_found(&place, FindingId::ColumnMissing, "no column key_record").await;
}

#[tokio::test]
async fn a_column_that_does_not_keep_texts_is_found() {
    for (types, of) in
        [("id INTEGER, created TEXT", "id is INTEGER"), ("id NUMERIC, created TEXT", "id is NUMERIC")]
    {
        let place = with_table(&format!(
            "CREATE TABLE encryption_key ({types}, key_record TEXT, PRIMARY KEY (id, created))"
        ))
        .await;
        assert_found(&place, FindingId::ColumnType, of).await;
    }
    let place = with_table(
        "CREATE TABLE encryption_key (id TEXT, created INTEGER, key_record TEXT, PRIMARY KEY (id, created)) \
         STRICT",
    )
    .await;
    assert_found(&place, FindingId::ColumnType, "created is INTEGER").await;
}

#[tokio::test]
async fn a_missing_primary_key_is_found() {
    for key in ["", "; CREATE UNIQUE INDEX part ON encryption_key (id, created) WHERE id > ''"] {
        let place =
            with_table(&format!("CREATE TABLE encryption_key (id TEXT, created TEXT, key_record TEXT){key}"))
                .await;
        assert_found(&place, FindingId::PrimaryKeyMissing, "unique").await;
        execute(&place, remedy(&report(&place).await)).await;
        assert_eq!(report(&place).await, SchemaReport::default());
    }
}

/// The statement that the first finding's remedy names last.
fn remedy(report: &SchemaReport) -> &'static str {
    let remedy = &report.findings()[0].remedy;
    remedy.rsplit('`').nth(1).unwrap().to_owned().leak()
}

#[tokio::test]
async fn a_collation_that_folds_is_found() {
    for collation in ["NOCASE", "RTRIM"] {
        let place = with_table(&format!(
            "CREATE TABLE encryption_key (id TEXT COLLATE {collation}, created TEXT, key_record TEXT, \
             PRIMARY KEY (id, created))"
        ))
        .await;
        assert_found(&place, FindingId::CollationFolds, collation).await;
    }
}

#[tokio::test]
async fn connections_that_do_not_commit_durably_are_found() {
    let place = Place::new();
    place.open().await.close().await;
    let weak = SqliteConnectOptions::new().filename(&place.file).pragma("synchronous", "NORMAL");
    let pool = SqlitePool::connect_with(weak).await.unwrap();
    assert_dangerous(SqliteMetastore::new(pool.clone()).await, FindingId::NotDurable, "synchronous is 1");
    let store = SqliteMetastore::builder().accept(FindingId::NotDurable).open_with(pool).await.unwrap();
    assert_eq!(
        ids(&store.check_schema(&call()).await.unwrap(), Severity::Dangerous),
        [FindingId::NotDurable]
    );
}

#[tokio::test]
async fn rows_in_other_forms_are_found_and_mended() {
    let place = Place::new();
    place.open().await.close().await;
    let record = record("_IK_a", NOW);
    place.write_row("_IK_a", "'2023-11-14T22:13:20Z'", &record.to_json()).await;
    place.write_row("_IK_b", "1700000000", &record.to_json()).await;
    let found = report(&place).await;
    assert_eq!(ids(&found, Severity::Warning), [FindingId::CreatedForms], "{found:?}");
    assert_eq!(ids(&found, Severity::Dangerous), []);
    assert!(found.findings()[0].what.contains(" 2 of 2 rows looked at "), "{found:?}");
    // A warning is no reason not to start.
    place.open().await.close().await;
    execute(&place, remedy(&found)).await;
    assert_eq!(report(&place).await, SchemaReport::default());
}

#[tokio::test]
async fn a_row_at_both_ends_of_the_table_is_looked_at_once() {
    let place = Place::new();
    place.open().await.close().await;
    let record = record("_IK_a", NOW);
    // More than an end has, and fewer than both.
    let rows: Vec<String> =
        (0..600).map(|row| format!("('_IK_{row}', '1700000000', '{}')", record.to_json())).collect();
    let insert = format!("INSERT INTO encryption_key (id, created, key_record) VALUES {}", rows.join(","));
    execute(&place, &insert).await;
    let found = report(&place).await;
    assert!(found.findings()[0].what.contains(" 600 of 600 rows looked at "), "{found:?}");
}

#[tokio::test]
async fn rows_in_another_zone_are_found_and_mended() {
    for (created, zone) in [
        ("2023-11-14 14:13:20", "8:00 hours behind"),
        ("2023-11-14 23:13:20", "1:00 hours ahead"),
        ("2023-11-15 03:58:20", "5:45 hours ahead"),
    ] {
        let place = Place::new();
        place.open().await.close().await;
        let record = record("_IK_a", NOW);
        place.write_row("_IK_a", &format!("'{created}'"), &record.to_json()).await;
        assert_found(&place, FindingId::ZoneMismatch, zone).await;
        execute(&place, remedy(&report(&place).await)).await;
        assert_eq!(report(&place).await, SchemaReport::default());
        assert_eq!(place.open().await.latest(record.meta().id()).await.unwrap(), Some(record));
    }
}

#[tokio::test]
async fn rows_that_cannot_be_read_are_found() {
    let record = record("_IK_a", NOW);
    let rows = [
        ("'_IK_a', 'yesterday'", record.to_json()),
        ("'_IK_a', '2023-11-14 22:13:20'", "{".into()),
        // By seconds, which no zone is.
        ("'_IK_a', '2023-11-14 22:13:21'", record.to_json()),
        // By days.
        ("'_IK_a', '2023-11-15 22:13:20'", record.to_json()),
        ("x'5f494b5f62', '2023-11-14 22:13:20'", record.to_json()),
        ("CAST(x'5f494b5f62ff' AS TEXT), '2023-11-14 22:13:20'", record.to_json()),
    ];
    for (key, json) in rows {
        let place = Place::new();
        place.open().await.close().await;
        execute(&place, &format!("INSERT INTO encryption_key VALUES ({key}, '{json}')")).await;
        let found = report(&place).await;
        assert_eq!(ids(&found, Severity::Dangerous), [], "{key}");
        assert!(ids(&found, Severity::Warning).contains(&FindingId::DamagedRows), "{key}: {found:?}");
        place.open().await.close().await;
    }
}

#[tokio::test]
async fn what_asherah_keeps_beside_the_keys_is_no_finding() {
    let place = Place::new();
    place.open().await.close().await;
    place.write_row("__asherah_internal_config_drift_guard_v1__:x", "'2000-01-01 00:00:00'", "{}").await;
    assert_eq!(report(&place).await, SchemaReport::default());
}

#[test]
fn a_file_that_takes_no_writes_is_found() {
    // Root writes where it may not, unless its right to is taken away.
    alone("schema::a_file_that_takes_no_writes_is_found", true, async || {
        let place = Place::new();
        let store = place.open().await;
        assert_eq!(store.insert(&record("_IK_a", NOW), &call()).await.unwrap(), Insert::Inserted);
        for entry in fs::read_dir(place.folder.path()).unwrap() {
            fs::set_permissions(entry.unwrap().path(), fs::Permissions::from_mode(0o400)).unwrap();
        }
        let found = place.open().await.check_schema(&call()).await.unwrap();
        assert_eq!(ids(&found, Severity::Warning), [FindingId::ReadOnly]);
        assert_eq!(ids(&found, Severity::Dangerous), []);
    });
}

#[tokio::test]
async fn connections_that_only_read_are_found() {
    let place = Place::new();
    place.open().await.close().await;
    let reading = SqliteConnectOptions::new().filename(&place.file).pragma("query_only", "ON");
    let store = SqliteMetastore::new(SqlitePool::connect_with(reading).await.unwrap()).await.unwrap();
    assert_eq!(ids(&store.check_schema(&call()).await.unwrap(), Severity::Warning), [FindingId::ReadOnly]);
}

#[tokio::test]
async fn a_file_that_another_process_writes_takes_writes() {
    let place = Place::new();
    place.open().await.close().await;
    let options = SqliteConnectOptions::new().filename(&place.file).busy_timeout(std::time::Duration::ZERO);
    let store = SqliteMetastore::new(SqlitePool::connect_with(options).await.unwrap()).await.unwrap();
    let other = place.pool().await;
    let _writing = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    assert_eq!(store.check_schema(&call()).await.unwrap(), SchemaReport::default());
}

/// Every kind that an SQLite file can have is planted above.
#[test]
fn the_findings_are_of_those_there_are() {
    let of_sqlite = [
        FindingId::TableMissing,
        FindingId::ColumnMissing,
        FindingId::ColumnType,
        FindingId::PrimaryKeyMissing,
        FindingId::CollationFolds,
        FindingId::NotDurable,
        FindingId::CreatedForms,
        FindingId::ZoneMismatch,
        FindingId::ReadOnly,
        FindingId::LogGrows,
        FindingId::DamagedRows,
    ];
    let source = include_str!("../../src/sql/sqlite/check.rs");
    let named: BTreeSet<_> =
        FindingId::ALL.iter().filter(|id| source.contains(&format!("FindingId::{id:?},"))).copied().collect();
    assert_eq!(named, BTreeSet::from(of_sqlite));
}

/// A transaction that is left open keeps the log from being begun anew.
#[tokio::test]
async fn a_log_that_has_grown_is_found() {
    let place = Place::new();
    let store = place.open().await;
    let pool = place.pool().await;
    let mut reading = pool.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM encryption_key").fetch_one(&mut *reading).await.unwrap();
    assert_eq!(ids(&store.check_schema(&call()).await.unwrap(), Severity::Warning), []);
    execute(&place, "CREATE TABLE other (bytes BLOB); INSERT INTO other VALUES (zeroblob(70000000))").await;
    assert_eq!(ids(&store.check_schema(&call()).await.unwrap(), Severity::Warning), [FindingId::LogGrows]);
    reading.rollback().await.unwrap();
    execute(&place, "PRAGMA wal_checkpoint(TRUNCATE)").await;
    assert_eq!(ids(&store.check_schema(&call()).await.unwrap(), Severity::Warning), []);
}

#[tokio::test]
async fn a_key_that_several_rows_hold_is_found() {
    let place = Place::new();
    assert_equal_keys_found(&place.open().await).await;
}
