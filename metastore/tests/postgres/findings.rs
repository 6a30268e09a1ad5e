//! What the check of a table finds, each fault planted.

use claviger::testing::call;
use claviger::{Insert, Metastore as _};
use claviger_metastore::{FindingId, PostgresMetastore, Severity};
use claviger_testkit::Postgres;

use crate::equal_keys::assert_equal_keys_found;
use crate::latest::LatestRecord as _;
use crate::support::{ASHERAH, NOW, Place, as_user, dangers, ids, record};

/// Asserts what is found on a table, and that a store starts on it only when told to if it is
/// dangerous.
async fn assert_found(place: &Place, expected: &[(FindingId, Severity)]) {
    let store = place.unchecked().await;
    let report = store.check_schema(&call()).await.unwrap();
    let expected_ids: Vec<_> = expected.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids(&report), expected_ids, "{report:?}");
    for finding in report.findings().iter().filter(|finding| expected_ids.contains(&finding.id)) {
        if !finding.what.starts_with("fsync is off") {
            assert!(expected.contains(&(finding.id, finding.severity)), "{finding:?}");
        }
        assert!(finding.what.ends_with('.') && finding.remedy.ends_with('.'), "{finding:?}");
    }
    let dangerous: Vec<_> =
        expected.iter().filter(|(_, severity)| *severity == Severity::Dangerous).map(|(id, _)| *id).collect();
    if dangerous.is_empty() {
        place.open().await.close().await;
        return;
    }
    let error = PostgresMetastore::open(&place.url).await.unwrap_err();
    assert_eq!(dangers(&error), dangerous);
    let told = dangerous.into_iter().fold(PostgresMetastore::builder(), |builder, id| builder.accept(id));
    told.open(&place.url).await.unwrap().close().await;
    store.close().await;
}

async fn assert_found_on(table: &str, expected: &[(FindingId, Severity)]) {
    assert_found(&Place::holding(table).await, expected).await;
}

use FindingId::*;
use Severity::{Dangerous, Warning};

#[tokio::test]
async fn on_a_sound_table_nothing_is_found() {
    let server = Postgres::start_with(&[("fsync", "on")]);
    for (name, table) in [("ours", ""), ("asherah", ASHERAH)] {
        server.create_database(name);
        let url = server.url(name);
        if table.is_empty() {
            PostgresMetastore::migrate(&url).await.unwrap();
        } else {
            server.psql(name, table);
        }
        let store = PostgresMetastore::open(&url).await.unwrap();
        for second in 0..5 {
            let inserted = store.insert(&record("_IK_a_svc_prod", NOW + second), &call()).await.unwrap();
            assert_eq!(inserted, Insert::Inserted);
        }
        assert_eq!(store.check_schema(&call()).await.unwrap().findings(), [], "{name}");
    }
}

#[tokio::test]
async fn settings_that_lose_writes_in_a_power_cut_are_found() {
    let server = Postgres::start_with(&[("fsync", "off"), ("full_page_writes", "off")]);
    server.psql("postgres", ASHERAH);
    let report =
        PostgresMetastore::open(&server.url("postgres")).await.unwrap().check_schema(&call()).await.unwrap();
    let found: Vec<_> = report.findings().iter().map(|finding| (finding.id, finding.severity)).collect();
    assert_eq!(found, [(NotDurable, Warning); 2], "{report:?}");
}

#[tokio::test]
async fn settings_of_the_database_are_found() {
    let place = Place::migrated().await;
    place.execute(&format!("ALTER DATABASE {} SET synchronous_commit = off", place.name)).await;
    assert_found(&place, &[(NotDurable, Warning)]).await;
    let place = Place::migrated().await;
    place.execute(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", place.name)).await;
    assert_found(&place, &[(ReadOnly, Dangerous)]).await;
}

#[tokio::test]
async fn commits_that_do_not_wait_for_the_standbys_that_are_named_are_found() {
    let server = Postgres::start_with(&[("synchronous_standby_names", "second")]);
    let local = "SET synchronous_commit = local; ";
    server.psql(
        "postgres",
        &format!("{local}{ASHERAH}; ALTER DATABASE postgres SET synchronous_commit = local"),
    );
    let url = server.url("postgres");
    let found =
        async || ids(&PostgresMetastore::open(&url).await.unwrap().check_schema(&call()).await.unwrap());
    assert_eq!(found().await, [NotDurable]);
    server.psql("postgres", &format!("{local}ALTER DATABASE postgres RESET synchronous_commit"));
    assert_eq!(found().await, []);
}

#[tokio::test]
async fn an_encoding_that_lacks_characters_is_found() {
    let place = Place::with("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0").await;
    place.execute(ASHERAH).await;
    assert_found(&place, &[(Encoding, Warning)]).await;
}

#[tokio::test]
async fn a_missing_table_is_found() {
    assert_found(&Place::new().await, &[(TableMissing, Dangerous)]).await;
}

#[tokio::test]
async fn missing_columns_are_found() {
    let table = "CREATE TABLE encryption_key (id VARCHAR(255) NOT NULL, made TIMESTAMP NOT NULL, \
                 PRIMARY KEY (id, made))";
    let found = [(ColumnMissing, Dangerous), (ColumnMissing, Dangerous), (PrimaryKeyMissing, Dangerous)];
    assert_found_on(table, &found).await;
}

#[tokio::test]
async fn columns_of_types_that_do_not_hold_keys_are_found() {
    let cases = [
        ("id BYTEA, created TIMESTAMP, key_record TEXT", Dangerous),
        ("id VARCHAR(254), created TIMESTAMP, key_record TEXT", Dangerous),
        ("id TEXT, created DATE, key_record TEXT", Dangerous),
        ("id TEXT, created BIGINT, key_record TEXT", Dangerous),
        ("id TEXT, created TIMESTAMP, key_record VARCHAR(1000)", Warning),
        ("id TEXT, created TIMESTAMP, key_record XML", Dangerous),
    ];
    for (columns, severity) in cases {
        let place =
            Place::holding(&format!("CREATE TABLE encryption_key ({columns}, PRIMARY KEY (id, created))"))
                .await;
        let report = place.unchecked().await.check_schema(&call()).await.unwrap();
        assert_eq!(ids(&report), [ColumnType], "{columns}");
        let finding = report.findings().iter().find(|finding| finding.id == ColumnType).unwrap();
        assert_eq!(finding.severity, severity, "{columns}");
    }
}

#[tokio::test]
async fn types_that_hold_keys_are_taken() {
    for columns in [
        "id VARCHAR(255), created TIMESTAMP(0), key_record TEXT",
        "id VARCHAR(1000), created TIMESTAMPTZ(3), key_record VARCHAR",
        "id VARCHAR, created TIMESTAMPTZ, key_record VARCHAR(65535)",
        "id TEXT, created TIMESTAMP, key_record JSON",
        "id TEXT, created TIMESTAMPTZ, key_record JSONB",
    ] {
        let table = format!("CREATE TABLE encryption_key ({columns}, PRIMARY KEY (id, created))");
        assert_found_on(&table, &[]).await;
    }
}

#[tokio::test]
async fn a_table_without_a_key_that_keeps_rows_apart_is_found() {
    let columns = "id VARCHAR(255) NOT NULL, created TIMESTAMP NOT NULL, key_record TEXT NOT NULL";
    for keys in [
        "",
        "CREATE INDEX ON encryption_key (id, created)",
        "CREATE UNIQUE INDEX ON encryption_key (id, created) WHERE id > 'a'",
        "CREATE UNIQUE INDEX ON encryption_key (id, created, key_record)",
        "CREATE UNIQUE INDEX ON encryption_key (lower(id), created)",
    ] {
        let table = format!("CREATE TABLE encryption_key ({columns}); {keys}");
        assert_found_on(&table, &[(PrimaryKeyMissing, Dangerous)]).await;
    }
    let table = format!("CREATE TABLE encryption_key ({columns}, PRIMARY KEY (created, id))");
    assert_found_on(&table, &[(PrimaryKeyMissing, Warning)]).await;
    let table = format!(
        "CREATE TABLE encryption_key ({columns}); \
         CREATE UNIQUE INDEX ON encryption_key (id, created) INCLUDE (key_record)"
    );
    assert_found_on(&table, &[]).await;
}

#[tokio::test]
async fn ids_that_are_taken_for_one_are_found() {
    let rest = "created TIMESTAMP NOT NULL, key_record TEXT NOT NULL, PRIMARY KEY (id, created)";
    let collation = "CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level1', \
                     deterministic = false)";
    for (before, id) in [
        (collation, "VARCHAR(255) COLLATE folding"),
        ("CREATE EXTENSION citext", "CITEXT"),
        ("SELECT 1", "CHAR(255)"),
    ] {
        let table = format!("{before}; CREATE TABLE encryption_key (id {id} NOT NULL, {rest})");
        assert_found_on(&table, &[(CollationFolds, Dangerous)]).await;
    }
}

#[tokio::test]
async fn a_table_that_a_crash_empties_is_found() {
    let table = ASHERAH.replace("CREATE TABLE", "CREATE UNLOGGED TABLE");
    assert_found_on(&table, &[(NotDurable, Dangerous)]).await;
}

#[tokio::test]
async fn missing_rights_are_found() {
    let place = Place::migrated().await;
    // Another program's column is none of ours.
    place.execute("ALTER TABLE encryption_key ADD COLUMN note TEXT").await;
    let cases: [(&str, &[FindingId]); 8] = [
        ("ALL", &[]),
        ("SELECT, INSERT, UPDATE, DELETE", &[]),
        ("SELECT, INSERT, UPDATE (key_record), DELETE", &[]),
        ("SELECT (id, created, key_record), INSERT (id, created, key_record)", &[AdminPermissionMissing]),
        ("SELECT, INSERT, UPDATE", &[AdminPermissionMissing]),
        ("SELECT", &[PermissionMissing, AdminPermissionMissing]),
        ("INSERT", &[PermissionMissing, AdminPermissionMissing]),
        ("SELECT (id, created), INSERT", &[PermissionMissing, AdminPermissionMissing]),
    ];
    for (number, (rights, expected)) in cases.into_iter().enumerate() {
        let user = format!("{}_{number}", place.name);
        place
            .execute(&format!(
                "CREATE ROLE {user} LOGIN PASSWORD 'word'; GRANT {rights} ON encryption_key TO {user}"
            ))
            .await;
        let of_user = Place { url: as_user(&place.url, &user, "word"), ..place.clone() };
        let severity = |id: &FindingId| if *id == PermissionMissing { Dangerous } else { Warning };
        let expected: Vec<_> = expected.iter().map(|id| (*id, severity(id))).collect();
        assert_found(&of_user, &expected).await;
    }
}

#[tokio::test]
async fn row_security_that_hides_rows_is_found() {
    let place = Place::migrated().await;
    let user = format!("{}_hidden", place.name);
    place
        .execute(&format!(
            "CREATE ROLE {user} LOGIN PASSWORD 'word'; GRANT ALL ON encryption_key TO {user}; \
             ALTER TABLE encryption_key ENABLE ROW LEVEL SECURITY"
        ))
        .await;
    let of_user = Place { url: as_user(&place.url, &user, "word"), ..place.clone() };
    assert_found(&of_user, &[(PermissionMissing, Dangerous)]).await;
    // The owner sees all rows.
    assert_found(&place, &[]).await;
}

#[tokio::test]
async fn rows_written_in_another_zone_are_found_and_the_zone_is_named() {
    let place = Place::holding(ASHERAH).await;
    // As Asherah in Rust writes in a session of this zone, in winter and in summer.
    for (id, created) in [("_SK_svc_prod", NOW), ("_IK_a_svc_prod", NOW - 150 * 86_400)] {
        let json = record(id, created).to_json();
        place
            .execute(&format!(
                "SET TIME ZONE 'America/Los_Angeles'; \
                 INSERT INTO encryption_key VALUES ('{id}', to_timestamp({created}), '{json}')"
            ))
            .await;
    }
    assert_found(&place, &[(ZoneMismatch, Dangerous)]).await;
    let report = place.unchecked().await.check_schema(&call()).await.unwrap();
    let finding = report.findings().iter().find(|finding| finding.id == ZoneMismatch).unwrap();
    assert!(finding.what.contains("2 of 2"), "{finding}");
    assert!(finding.what.contains("UTC-07:00") || finding.what.contains("UTC-08:00"), "{finding}");
    assert!(finding.remedy.contains("America/Los_Angeles"), "{finding}");
    assert!(!finding.remedy.contains("Europe/"), "{finding}");
    // The remedy mends it.
    place
        .execute(
            "ALTER TABLE encryption_key ALTER COLUMN created TYPE TIMESTAMPTZ \
             USING created AT TIME ZONE 'America/Los_Angeles'",
        )
        .await;
    assert_found(&place, &[]).await;
    let found = place.open().await.latest(record("_SK_svc_prod", NOW).meta().id()).await.unwrap();
    assert_eq!(found, Some(record("_SK_svc_prod", NOW)));
}

#[tokio::test]
async fn rows_of_a_mixed_fleet_are_found() {
    let place = Place::holding(ASHERAH).await;
    let right = record("_SK_svc_prod", NOW);
    place.write_row("_SK_svc_prod", "'2023-11-14 22:13:20'", &right.to_json()).await;
    let shifted = record("_IK_a_svc_prod", NOW).to_json();
    place.write_row("_IK_a_svc_prod", "'2023-11-15 03:58:20'", &shifted).await;
    assert_found(&place, &[(ZoneMismatch, Dangerous)]).await;
    let report = place.unchecked().await.check_schema(&call()).await.unwrap();
    let finding = report.findings().iter().find(|finding| finding.id == ZoneMismatch).unwrap();
    assert!(finding.what.contains("1 of 2") && finding.what.contains("UTC+05:45"), "{finding}");
    assert!(
        finding.remedy.contains("Asia/Kathmandu") && finding.remedy.contains("by the Created"),
        "{finding}"
    );
}

#[tokio::test]
async fn rows_that_cannot_be_read_are_found() {
    let cases = [
        ("'2023-11-14 22:13:20'", "{"),
        ("'2023-11-14 22:13:21'", &record("_IK_a_svc_prod", NOW).to_json()),
        ("'infinity'", &record("_IK_a_svc_prod", NOW).to_json()),
        ("'-infinity'", &record("_IK_a_svc_prod", NOW).to_json()),
    ];
    for (created, json) in cases {
        let place = Place::holding(ASHERAH).await;
        place.write_row("_IK_a_svc_prod", created, json).await;
        assert_found(&place, &[(DamagedRows, Warning)]).await;
    }
}

#[tokio::test]
async fn times_with_fractions_are_found() {
    let place = Place::holding(ASHERAH).await;
    let json = record("_IK_a_svc_prod", NOW).to_json();
    place.write_row("_IK_a_svc_prod", "'2023-11-14 22:13:20.25'", &json).await;
    assert_found(&place, &[(CreatedForms, Dangerous)]).await;
}

#[tokio::test]
async fn what_asherah_keeps_beside_the_keys_is_no_finding() {
    let place = Place::holding(ASHERAH).await;
    let guard = "__asherah_internal_config_drift_guard_v1__:P4Box1cXU9ICNy3lMjV2RM_mKi3TyS-zYHPowt-w2-Y";
    place.write_row(guard, "'1999-12-31 16:00:00'", "{\"Created\":946684800,\"Key\":\"AAAA\"}").await;
    assert_found(&place, &[]).await;
}

#[tokio::test]
async fn a_key_that_several_rows_hold_is_found() {
    for place in [Place::migrated().await, Place::holding(ASHERAH).await] {
        assert_equal_keys_found(&place.open().await).await;
    }
}
