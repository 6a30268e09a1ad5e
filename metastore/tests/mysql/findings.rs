//! What the check of a table finds, each fault planted, and that what it says mends it does.

use claviger::testing::call;
use claviger::{Insert, Metastore as _};
use claviger_metastore::{FindingId, MysqlMetastore, SchemaReport, Severity};
use claviger_testkit::{MariaDb, shared_mariadb};

use crate::equal_keys::assert_equal_keys_found;
use crate::support::{
    ASHERAH, LATIN1, NOW, Place, UTF8, as_user, assert_permanent, builder, dangers, execute, ids, record,
};

use FindingId::*;
use Severity::{Dangerous, Warning};

/// Asserts what is found on a table, and that a store starts on it only when told to if it is
/// dangerous.
async fn assert_found(place: &Place, expected: &[(FindingId, Severity)]) -> SchemaReport {
    let store = place.unchecked().await;
    let report = store.check_schema(&call()).await.unwrap();
    let found: Vec<_> = report.findings().iter().map(|finding| (finding.id, finding.severity)).collect();
    assert_eq!(found, expected, "{report:?}");
    for finding in report.findings() {
        assert!(finding.what.ends_with('.') && finding.remedy.ends_with('.'), "{finding:?}");
    }
    let is_dangerous = |(id, severity): &(FindingId, Severity)| (*severity == Dangerous).then_some(*id);
    let dangerous: Vec<_> = expected.iter().filter_map(is_dangerous).collect();
    if dangerous.is_empty() {
        place.open().await.close().await;
    } else {
        let error = MysqlMetastore::open(&place.url).await.unwrap_err();
        assert_eq!(dangers(&error), dangerous);
        let told = dangerous.into_iter().fold(builder(), |builder, id| builder.accept(id));
        told.open(&place.url).await.unwrap().close().await;
    }
    store.close().await;
    report
}

/// Runs the statements that a finding's remedy ends with.
async fn mend(place: &Place, report: &SchemaReport, id: FindingId) {
    let finding = report.findings().iter().find(|finding| finding.id == id).unwrap();
    let begin = ["SET time_zone", "ALTER TABLE"].iter().filter_map(|word| finding.remedy.find(word)).min();
    place.execute(finding.remedy[begin.unwrap()..].trim_end_matches('.')).await;
}

/// Our table, changed.
async fn ours_but(change: &str) -> Place {
    let place = Place::migrated(UTF8).await;
    place.execute(&format!("ALTER TABLE encryption_key {change}")).await;
    place
}

#[tokio::test]
async fn on_our_own_table_nothing_is_found() {
    for charset in [UTF8, LATIN1] {
        let place = Place::migrated(charset).await;
        let store = place.open().await;
        for second in 0..300 {
            let inserted = store.insert(&record("_IK_a_svc_prod", NOW + second), &call()).await.unwrap();
            assert_eq!(inserted, Insert::Inserted);
        }
        assert_eq!(store.check_schema(&call()).await.unwrap().findings(), []);
    }
}

#[tokio::test]
async fn on_asherahs_table_its_limits_are_found() {
    let place = Place::holding(ASHERAH, UTF8).await;
    let report = assert_found(&place, &[(CollationFolds, Warning), (EndsIn2038, Warning)]).await;
    assert!(report.findings()[0].what.contains("utf8mb4_general_ci"), "{report:?}");
    let place = Place::holding(ASHERAH, LATIN1).await;
    drop(
        assert_found(&place, &[(Encoding, Warning), (CollationFolds, Warning), (EndsIn2038, Warning)]).await,
    );
}

#[tokio::test]
async fn a_missing_table_is_found() {
    drop(assert_found(&Place::new(UTF8).await, &[(TableMissing, Dangerous)]).await);
}

#[tokio::test]
async fn missing_columns_are_found() {
    drop(assert_found(&ours_but("DROP COLUMN key_record").await, &[(ColumnMissing, Dangerous)]).await);
}

#[tokio::test]
async fn collations_that_fold_are_found() {
    for (collation, what) in [
        ("utf8mb4_general_ci", Some("case")),
        ("utf8mb4_bin", Some("trailing blanks")),
        ("utf8mb4_nopad_bin", None),
        ("utf8mb4_unicode_nopad_ci", Some("case")),
    ] {
        let change = format!("MODIFY id VARCHAR(255) CHARACTER SET utf8mb4 COLLATE {collation} NOT NULL");
        let place = ours_but(&change).await;
        let expected: &[_] = if what.is_some() { &[(CollationFolds, Warning)] } else { &[] };
        let report = assert_found(&place, expected).await;
        assert!(what.is_none_or(|what| report.findings()[0].what.contains(what)), "{report:?}");
    }
}

#[tokio::test]
async fn columns_of_other_types_are_found() {
    for (change, expected) in [
        ("MODIFY id BINARY(255) NOT NULL", vec![(ColumnType, Dangerous)]),
        (
            "MODIFY id VARCHAR(255) CHARACTER SET utf16 COLLATE utf16_nopad_bin NOT NULL",
            vec![(ColumnType, Dangerous)],
        ),
        ("MODIFY id VARBINARY(191) NOT NULL", vec![(ColumnType, Warning)]),
        ("MODIFY created DATE NOT NULL", vec![(ColumnType, Dangerous)]),
        ("MODIFY created BIGINT NOT NULL", vec![(ColumnType, Dangerous)]),
        ("MODIFY created VARCHAR(30) NOT NULL", vec![(ColumnType, Dangerous)]),
        ("MODIFY key_record VARCHAR(500) NOT NULL", vec![(ColumnType, Dangerous)]),
        ("MODIFY key_record TINYTEXT NOT NULL", vec![(ColumnType, Dangerous)]),
        ("MODIFY key_record INT NOT NULL", vec![(ColumnType, Dangerous)]),
        ("MODIFY key_record TEXT NOT NULL", vec![]),
        ("MODIFY key_record LONGBLOB NOT NULL", vec![]),
        ("MODIFY created DATETIME(6) NOT NULL", vec![]),
    ] {
        drop(assert_found(&ours_but(change).await, &expected).await);
    }
}

#[tokio::test]
async fn a_missing_primary_key_is_found_and_mended() {
    let place = ours_but("DROP PRIMARY KEY").await;
    let report = assert_found(&place, &[(PrimaryKeyMissing, Dangerous)]).await;
    mend(&place, &report, PrimaryKeyMissing).await;
    drop(assert_found(&place, &[]).await);
    for key in ["created, id", "id", "id(20), created", "id, created, key_record(10)"] {
        let place = ours_but(&format!("DROP PRIMARY KEY, ADD PRIMARY KEY ({key})")).await;
        drop(assert_found(&place, &[(PrimaryKeyMissing, Dangerous)]).await);
    }
    let place = ours_but("DROP PRIMARY KEY, ADD UNIQUE (id, created)").await;
    drop(assert_found(&place, &[]).await);
    let place = ours_but("ADD UNIQUE only_one (id)").await;
    let report = assert_found(&place, &[(PrimaryKeyMissing, Dangerous)]).await;
    mend(&place, &report, PrimaryKeyMissing).await;
    drop(assert_found(&place, &[]).await);
}

#[tokio::test]
async fn a_column_that_updates_itself_is_found_and_mended() {
    let change = "MODIFY created TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP";
    let place = ours_but(change).await;
    let report = assert_found(&place, &[(EndsIn2038, Warning), (OnUpdate, Dangerous)]).await;
    mend(&place, &report, OnUpdate).await;
    drop(assert_found(&place, &[(EndsIn2038, Warning)]).await);
}

/// As on servers before MySQL 8 and MariaDB 10.10, where Asherah's own statement made it so.
#[tokio::test]
async fn a_column_that_an_old_server_made_update_itself_is_found() {
    let server = MariaDb::start_with(&["--explicit-defaults-for-timestamp=OFF"]);
    let place = Place::at(&server, UTF8).await;
    let table = ASHERAH.replace("TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP", "TIMESTAMP NOT NULL");
    place.execute(&table).await;
    let found = [(CollationFolds, Warning), (EndsIn2038, Warning), (OnUpdate, Dangerous)];
    drop(assert_found(&place, &found).await);
}

#[tokio::test]
async fn engines_without_transactions_are_found_and_mended() {
    for engine in ["MyISAM", "Aria", "MEMORY"] {
        let place = Place::new(UTF8).await;
        let table = "CREATE TABLE encryption_key (id VARBINARY(255) NOT NULL, created DATETIME NOT NULL, \
             key_record VARCHAR(16000) NOT NULL, PRIMARY KEY (id, created)) ENGINE";
        place.execute(&format!("{table} = {engine}")).await;
        let report =
            assert_found(&place, &[(ColumnType, Dangerous), (EngineNotTransactional, Dangerous)]).await;
        assert!(report.findings()[1].what.contains(engine), "{report:?}");
        mend(&place, &report, EngineNotTransactional).await;
        mend(&place, &report, ColumnType).await;
        drop(assert_found(&place, &[]).await);
    }
}

#[tokio::test]
async fn rights_that_are_missing_are_found() {
    let place = Place::migrated(UTF8).await;
    let database = place.url.rsplit_once('/').unwrap().1;
    let rights = [
        ("SELECT, INSERT, UPDATE, DELETE", vec![]),
        ("SELECT, INSERT", vec![(AdminPermissionMissing, Warning)]),
        ("SELECT, INSERT, UPDATE (key_record)", vec![(AdminPermissionMissing, Warning)]),
        ("SELECT", vec![(PermissionMissing, Dangerous), (AdminPermissionMissing, Warning)]),
        ("INSERT", vec![(PermissionMissing, Dangerous)]),
        (
            "SELECT (id, created, key_record), INSERT (id, created, key_record)",
            vec![(AdminPermissionMissing, Warning)],
        ),
    ];
    for (number, (rights, expected)) in rights.into_iter().enumerate() {
        let user = format!("{database}_{number}");
        let grant = format!(
            "CREATE USER {user} IDENTIFIED BY 'less'; GRANT {rights} ON {database}.encryption_key TO {user}"
        );
        execute(shared_mariadb(), &grant).await;
        let place = Place { url: as_user(&place.url, &user, "less") };
        drop(assert_found(&place, &expected).await);
    }
    let nobody = format!("{database}_none");
    execute(shared_mariadb(), &format!("CREATE USER {nobody} IDENTIFIED BY 'less'")).await;
    assert_permanent(MysqlMetastore::open(&as_user(&place.url, &nobody, "less")).await, "Access denied");
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_found() {
    let server = MariaDb::start();
    let place = Place::at(&server, UTF8).await;
    place.migrate().await;
    server.sql(
        "",
        "CREATE USER service IDENTIFIED BY 'less'; GRANT ALL ON *.* TO service; \
                    REVOKE READ_ONLY ADMIN ON *.* FROM service; SET GLOBAL read_only = 1",
    );
    let place = Place { url: as_user(&place.url, "service", "less") };
    drop(assert_found(&place, &[(ReadOnly, Dangerous)]).await);
}

#[tokio::test]
async fn settings_of_the_server_are_found() {
    let args = ["--sql-mode=", "--innodb-flush-log-at-trx-commit=2", "--log-bin", "--sync-binlog=0"];
    let server = MariaDb::start_with(&args);
    let place = Place::at(&server, UTF8).await;
    place.migrate().await;
    let store = place.open().await;
    let report = store.check_schema(&call()).await.unwrap();
    let found: Vec<_> = report.findings().iter().map(|finding| (finding.id, finding.severity)).collect();
    // Our own sessions are strict there too.
    assert_eq!(found, [(NotStrict, Warning), (NotDurable, Warning), (NotDurable, Warning)], "{report:?}");
}

#[tokio::test]
async fn sessions_that_are_set_to_lose_keys_are_found() {
    let place = Place::migrated(UTF8).await;
    for (setting, danger) in [
        ("sql_mode = ''", NotStrict),
        ("autocommit = 0", NotDurable),
        ("NAMES latin1", Encoding),
        ("character_set_results = NULL", Encoding),
    ] {
        let set = || builder().on_connect(format!("SET {setting}"));
        let error = set().open(&place.url).await.unwrap_err();
        assert_eq!(dangers(&error), [danger], "{setting}");
        let told = set().accept(danger).open(&place.url).await.unwrap();
        assert!(ids(&told.check_schema(&call()).await.unwrap()).contains(&danger));
    }
}

#[tokio::test]
async fn rows_that_cannot_be_read_are_found() {
    let place = Place::migrated(UTF8).await;
    for (id, json) in
        [("_IK_a_svc_prod", "{"), ("_IK_b_svc_prod", "{\"Key\":\"AA==\"}"), ("_IK_c_svc_prod", "[]")]
    {
        place.write_row("+00:00", id, "2023-11-14 22:13:20", json).await;
    }
    place
        .write_row(
            "+00:00",
            "_IK_d_svc_prod",
            "2023-11-14 22:13:20",
            &record("_IK_d_svc_prod", NOW).to_json(),
        )
        .await;
    let report = assert_found(&place, &[(DamagedRows, Warning)]).await;
    assert!(report.findings()[0].what.contains("3 of 4 rows looked at"), "{report:?}");
}

#[tokio::test]
async fn a_key_that_several_rows_hold_is_found() {
    for place in [Place::migrated(UTF8).await, Place::holding(ASHERAH, UTF8).await] {
        assert_equal_keys_found(&place.open().await).await;
    }
}
