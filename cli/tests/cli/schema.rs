//! `claviger schema` on a SQLite file.

use std::path::Path;

use serde_json::Value;

use crate::kit::Kit;

const STORE: [&str; 2] = ["--metastore", "sqlite:keys.db"];

/// Runs SQL on the file `keys.db`.
fn sql(kit: &Kit, statement: &str) {
    sql_in(&kit.path("keys.db"), statement);
}

pub(crate) fn sql_in(file: &Path, statement: &str) {
    use sqlx::{ConnectOptions as _, Connection as _};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).create_if_missing(true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = options.connect().await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}

fn schema(command: &str) -> Vec<&str> {
    [&["schema", command][..], &STORE].concat()
}

#[test]
fn a_table_that_was_applied_is_clean() {
    let kit = Kit::new();
    let missing = kit.fails(66, &schema("check"));
    assert!(missing.stderr.contains("there is no key store at keys.db"), "{}", missing.stderr);
    assert!(!kit.path("keys.db").exists());
    kit.ok(&schema("apply"));
    assert_eq!(kit.ok(&schema("check")).text(), "keys.db: nothing found\n");
    let json = kit.ok(&[&schema("check")[..], &["--format", "json"]].concat());
    assert_eq!(json.text(), "{\"store\":\"keys.db\",\"dangerous\":false,\"findings\":[]}\n");
    // A second time it changes nothing.
    kit.ok(&schema("apply"));
}

#[test]
fn the_embedded_store_is_the_default() {
    let kit = Kit::new();
    kit.fails(66, &["schema", "check"]);
    kit.ok(&["schema", "apply"]);
    assert!(kit.path("home/keys.db").exists());
    assert!(kit.ok(&["schema", "check"]).text().ends_with("home/keys.db: nothing found\n"));
}

#[test]
fn the_shown_schema_is_the_one_that_is_applied() {
    let kit = Kit::new();
    let shown = kit.ok(&schema("show"));
    assert!(!kit.path("keys.db").exists(), "it connects to nothing");
    sql(&kit, shown.text());
    assert_eq!(kit.ok(&schema("check")).text(), "keys.db: nothing found\n");
    assert_eq!(kit.ok(&["schema", "show"]).text(), shown.text());
}

#[test]
fn a_file_without_the_table_is_told_and_left_as_it_is() {
    let kit = Kit::new();
    sql(&kit, "CREATE TABLE something_else (x)");
    for _ in 0..2 {
        let run = kit.run(&schema("check"));
        assert_eq!(run.code, Some(3), "{}{}", run.text(), run.stderr);
        assert!(run.text().starts_with("table-missing (dangerous)\n"), "{}", run.text());
    }
}

#[test]
fn a_planted_fault_is_found_refused_and_accepted() {
    let kit = Kit::new();
    kit.write("payload", "x");
    sql(
        &kit,
        "CREATE TABLE encryption_key (id VARCHAR(255) NOT NULL, created TIMESTAMP NOT NULL, key_record TEXT NOT NULL)",
    );
    let json = kit.run(&[&schema("check")[..], &["--format", "json"]].concat());
    assert_eq!(json.code, Some(3), "{}", json.stderr);
    let report: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(report["dangerous"], true);
    assert_eq!(report["findings"][0]["id"], "primary-key-missing");
    assert_eq!(report["findings"][0]["severity"], "dangerous");
    assert_eq!(report["findings"][0]["accepted"], false);
    // Applying leaves a table that is there as it is, and says what is wrong with it.
    let applied = kit.run(&schema("apply"));
    assert_eq!(applied.code, Some(3));
    assert!(applied.text().starts_with("primary-key-missing (dangerous)\n"), "{}", applied.text());

    let encrypt =
        [&["encrypt", "payload", "-p", "me", "-o", "record", "--kms", "local:key"][..], &STORE].concat();
    let refused = kit.run(&encrypt);
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(refused.stderr.contains("keys could be lost in the key store keys.db"), "{}", refused.stderr);
    assert!(
        refused.stderr.trim_end().ends_with("--accept-finding primary-key-missing"),
        "{}",
        refused.stderr
    );
    assert!(!kit.path("record").exists());

    let flag = ["--accept-finding", "primary-key-missing"];
    kit.ok(&[&encrypt[..], &flag].concat());
    kit.ok(&[&schema("check")[..], &flag].concat());
    kit.write(
        "claviger.toml",
        "accept-finding = [\"primary-key-missing\"]\nmetastore = \"sqlite:keys.db\"\n",
    );
    let file = ["--config", "claviger.toml"];
    let opened = kit.ok(&[&["decrypt", "record", "-p", "me", "--kms", "local:key"][..], &file].concat());
    assert_eq!(opened.text(), "x");
    kit.ok(&[&["schema", "check"][..], &file].concat());
    let mut command = kit.command(&encrypt);
    let accepted = crate::kit::finish(command.env("CLAVIGER_ACCEPT_FINDING", "expiry,primary-key-missing"));
    assert_eq!(accepted.code, Some(0), "{}", accepted.stderr);
}

#[test]
fn findings_that_there_are_not_are_refused_with_those_there_are() {
    let kit = Kit::new();
    kit.write("payload", "x");
    let encrypt = ["encrypt", "payload", "-p", "me"];
    let run = kit.run(&[&encrypt[..], &["--accept-finding", "colation-folds"]].concat());
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("collation-folds") && run.stderr.contains("on-update"), "{}", run.stderr);
    kit.write("claviger.toml", "service = \"a\"\naccept-finding = [\"colation-folds\"]\n");
    let run = kit.fails(78, &[&encrypt[..], &["--config", "claviger.toml"]].concat());
    assert!(
        run.stderr.contains("claviger.toml:2: no such finding; there are table-missing, "),
        "{}",
        run.stderr
    );
}

#[test]
fn a_store_in_memory_has_no_schema() {
    let run = Kit::new().fails(78, &["schema", "check", "--metastore", "memory:"]);
    assert!(run.stderr.contains("memory: has no schema"), "{}", run.stderr);
}

#[test]
fn a_key_that_two_partitions_have_is_found_wherever_it_lies() {
    let kit = Kit::new();
    kit.ok(&schema("apply"));
    // Far from both ends, of which the other checks see a sample.
    sql(
        &kit,
        "WITH RECURSIVE n (n) AS (SELECT 10000 UNION ALL SELECT n + 1 FROM n WHERE n < 13000)
         INSERT INTO encryption_key SELECT '_IK_' || n || '_svc_prod', '2023-11-14 22:13:20',
             json_object('Created', 1700000000, 'Key', 'AAAA' || n || 'AAA') FROM n;
         INSERT INTO encryption_key SELECT '_IK_11500_mallory_svc_prod', created, key_record
             FROM encryption_key WHERE id = '_IK_11400_svc_prod'",
    );
    let found = kit.run(&schema("check"));
    assert_eq!(found.code, Some(3), "{}", found.stderr);
    let named = "_IK_11400_svc_prod@1700000000 = _IK_11500_mallory_svc_prod@1700000000";
    assert!(found.text().starts_with("equal-keys (dangerous)\n") && found.text().contains(named));
    assert!(!found.text().contains("AAAA"), "no key's bytes");
    let accepted = [&schema("check")[..], &["--accept-finding", "equal-keys"]].concat();
    assert!(kit.ok(&accepted).text().contains("equal-keys (dangerous, accepted)"));
}
