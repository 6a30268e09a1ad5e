//! MariaDB.

use std::sync::OnceLock;

use claviger_testkit::MariaDb;

use super::{Client, documented_sql, with_password};
use crate::said::assert_says_nothing_of_anybody;

/// One for all tests here, each with a database of its own.
fn server() -> &'static MariaDb {
    static SERVER: OnceLock<MariaDb> = OnceLock::new();
    SERVER.get_or_init(MariaDb::start)
}

fn database(name: &str) -> String {
    server().create_database(name, "utf8mb4 COLLATE utf8mb4_general_ci");
    server().url(name)
}

#[test]
fn mysql_keys_are_made_and_found_again() {
    Client::new(database("made")).starts_from_nothing();
}

/// Asherah's table as its documentation has it.
const ASHERAH: &str = "CREATE TABLE encryption_key (id VARCHAR(255) NOT NULL, \
    created TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, \
    key_record TEXT NOT NULL, PRIMARY KEY (id, created))";

#[test]
fn mysql_fault_is_found_refused_and_accepted() {
    let client = Client::new(database("fault"));
    server().sql("fault", ASHERAH);
    client.has_fault("on-update");
}

#[test]
fn mysql_shown_schema_is_the_one_that_is_applied() {
    let shown = Client::new("mysql://".to_owned()).ends_with(0, &["schema", "show"]);
    let client = Client::new(database("shown"));
    server().sql("shown", shown.text());
    assert!(client.dangers(0).is_empty());
    Client::new(database("applied")).ends_with(0, &["schema", "apply"]);
    let create = "SHOW CREATE TABLE encryption_key";
    let by_hand = server().sql("shown", create);
    assert_eq!(server().sql("applied", create), by_hand);
    assert!(by_hand.contains("key_record"), "{by_hand}");
}

#[test]
fn mysql_wrong_password_and_missing_rights_are_told_with_77() {
    let url = database("rights");
    let says =
        ["cannot open the key store mysql://claviger@127.0.0.1:", "28000", "check the user and the password"];
    Client::new(with_password(&url, "NotThePassword")).fails(77, &says);
    Client::new(url.clone()).ends_with(0, &["schema", "apply"]);
    server().sql(
        "rights",
        "CREATE USER reader@127.0.0.1 IDENTIFIED BY 'reading'; GRANT SELECT ON rights.* TO reader@127.0.0.1",
    );
    let mut client = Client::new(url.clone());
    client.lets_a_reader_decrypt(format!("mysql://reader:reading@{}", url.split_once('@').unwrap().1));
    assert_eq!(client.dangers(3), ["permission-missing"]);
    client.kit.write("payload", "x");
    let accept = ["encrypt", "payload", "-p", "new", "--accept-finding", "permission-missing"];
    let run = client.run(&accept);
    run.assert_failed(77);
    assert!(run.stderr.contains("docs/metastores.md"), "{}", run.stderr);
}

#[test]
fn mysql_customer_in_trouble_is_left_out_and_not_told_of() {
    server().create_database("trouble", "latin1 COLLATE latin1_swedish_ci");
    server().sql("trouble", ASHERAH.replace(" ON UPDATE CURRENT_TIMESTAMP", "").as_str());
    let client = Client::new(server().url("trouble"));
    for refused in ["eve \u{3042}", "BOB "] {
        client.leaves_out_the_row_in_trouble(refused, |_, _| {
            server()
                .sql("trouble", "UPDATE encryption_key SET key_record = '{' WHERE id LIKE '\\_IK\\_eve%'");
        });
        server().sql("trouble", "DELETE FROM encryption_key WHERE id LIKE '\\_IK\\_eve%'");
    }
    server().sql(
        "trouble",
        "CREATE TRIGGER refuse BEFORE INSERT ON encryption_key FOR EACH ROW \
         SIGNAL SQLSTATE '42000' SET MYSQL_ERRNO = 1142, MESSAGE_TEXT = 'no eve@example.com'",
    );
    let run = client.ends_with(77, &["encrypt", "rows.jsonl", "-p", "eve2@example.com"]);
    assert_says_nothing_of_anybody(&client.kit, &run, "a trigger");
}

#[test]
fn mysql_zone_that_is_advised_is_utc_where_rows_are_in_it_and_not_that_of_the_machine() {
    let url = database("system");
    server().sql("system", ASHERAH.replace(" ON UPDATE CURRENT_TIMESTAMP", "").as_str());
    let mut client = Client::new(format!("{url}?timezone=SYSTEM"));
    client.there_and_back();
    assert!(client.dangers(0).is_empty());
    client.url = format!("{url}?timezone=-08:00");
    assert_eq!(client.dangers(3), ["zone-mismatch"]);
    let told = client.ends_with(3, &["schema", "check"]);
    assert!(told.text().contains("timezone in the URL, or set it to +00:00"), "{}", told.text());
}

#[test]
fn mysql_documented_rights_are_enough() {
    let url = database("keydb");
    let host = url.split_once('@').unwrap().1;
    server().sql(
        "",
        "CREATE USER checkout@127.0.0.1 IDENTIFIED BY 'pw1'; CREATE USER keeper@127.0.0.1 IDENTIFIED BY 'pw2'",
    );
    let grants = documented_sql("MySQL and MariaDB:").replace("10.%", "127.0.0.1");
    let (service, keeper): (Vec<&str>, Vec<&str>) =
        grants.lines().partition(|grant| grant.contains("checkout"));
    assert_eq!((service.len(), keeper.len()), (1, 1));
    server().sql("", keeper[0]);
    let mut client = Client::new(format!("mysql://keeper:pw2@{host}"));
    client.ends_with(0, &["schema", "apply"]);
    server().sql("", service[0]);
    client.url = format!("mysql://checkout:pw1@{host}");
    client.has_rights(false);
    client.url = format!("mysql://keeper:pw2@{host}");
    client.has_rights(true);
}

#[test]
fn mysql_partition_that_the_table_cannot_hold_is_told_with_65_and_not_repeated() {
    let client = Client::new(database("folds"));
    server().sql("folds", ASHERAH.replace(" ON UPDATE CURRENT_TIMESTAMP", "").as_str());
    client.kit.write("payload", "x");
    client.ends_with(0, &["encrypt", "payload", "-p", "alice", "-o", "record"]);
    let run = client.run(&["encrypt", "payload", "-p", "ALICE"]);
    run.assert_failed(65);
    assert!(run.stderr.contains("mend collation-folds"), "{}", run.stderr);
    assert!(!run.stderr.to_lowercase().contains("alice"), "{}", run.stderr);
    let run = client.run(&["encrypt", "payload", "-p", &"x".repeat(255)]);
    run.assert_failed(65);
    assert!(run.stderr.contains("a key id of 276 characters"), "{}", run.stderr);
}

/// As Asherah leaves it: sealed for Alice, under the row of alice.
#[test]
fn mysql_record_whose_key_has_a_folded_id_is_told_with_66_and_decrypts_when_told_in_any_way() {
    let client = Client::new(database("folded"));
    server().sql("folded", ASHERAH.replace(" ON UPDATE CURRENT_TIMESTAMP", "").as_str());
    client.kit.write("payload", "x");
    client.ends_with(0, &["encrypt", "payload", "-p", "Alice", "-o", "record"]);
    let rename = "UPDATE encryption_key SET id = '_IK_alice_claviger_default', created = created \
                  WHERE id = '_IK_Alice_claviger_default'";
    server().sql("folded", rename);
    let decrypt = ["decrypt", "record", "-p", "Alice"];
    let run = client.run(&decrypt);
    run.assert_failed(66);
    assert!(run.stderr.contains("under another id") && run.stderr.contains("--folded-ids"), "{}", run.stderr);
    assert!(!run.stderr.to_lowercase().contains("alice"), "{}", run.stderr);

    assert_eq!(client.ends_with(0, &[&decrypt[..], &["--folded-ids"]].concat()).text(), "x");
    client.kit.write("claviger.toml", "folded-ids = true\n");
    let by_file = [&decrypt[..], &["--config", "claviger.toml"]].concat();
    assert_eq!(client.ends_with(0, &by_file).text(), "x");
    client.ends_with(66, &[&by_file[..], &["--folded-ids=false"]].concat());
    let told = Client { variables: &[("CLAVIGER_FOLDED_IDS", "yes")], ..client };
    assert_eq!(told.ends_with(0, &decrypt).text(), "x");
    let check = told.ends_with(0, &["schema", "check"]);
    assert!(check.text().contains("--folded-ids"), "{}", check.text());
}

#[test]
fn mysql_time_zone_is_a_parameter_of_the_url() {
    let url = database("zone");
    server().sql("zone", ASHERAH.replace(" ON UPDATE CURRENT_TIMESTAMP", "").as_str());
    let berlin = Client::new(url.clone() + "?timezone=Europe/Berlin");
    berlin.there_and_back();
    assert!(berlin.dangers(0).is_empty());
    assert_eq!(Client::new(url.clone() + "?timezone=America/Los_Angeles").dangers(3), ["zone-mismatch"]);
    Client::new(url.clone() + "?timezone=Europe/Berlln").fails(78, &["1298", "check timezone"]);
    Client::new(url + "?timezone=a%27b").fails(78, &["check the URL of --metastore and its parameters"]);
}

#[test]
fn mysql_server_that_is_down_is_told_with_69() {
    let mut server = MariaDb::start();
    server.create_database("made", "utf8mb4");
    let client = Client::new(server.url("made"));
    client.ends_with(0, &["schema", "apply"]);
    server.kill();
    client.fails(69, &["cannot open the key store mysql://", "check that it runs and can be reached"]);
    server.restart();
    client.there_and_back();
}
