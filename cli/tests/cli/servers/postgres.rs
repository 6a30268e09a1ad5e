//! PostgreSQL.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::OnceLock;

use claviger_testkit::Postgres;

use super::{Client, documented_sql, with_password};
use crate::said::assert_says_nothing_of_anybody;

/// One for all tests here, each with a database of its own.
fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(Postgres::start)
}

fn database(name: &str) -> String {
    server().create_database(name);
    server().url(name)
}

#[test]
fn postgres_keys_are_made_and_found_again() {
    Client::new(database("made")).starts_from_nothing();
}

#[test]
fn postgres_fault_is_found_refused_and_accepted() {
    let client = Client::new(database("fault"));
    client.ends_with(0, &["schema", "apply"]);
    server().psql("fault", "ALTER TABLE encryption_key DROP CONSTRAINT encryption_key_pkey");
    client.has_fault("primary-key-missing");
}

#[test]
fn postgres_shown_schema_is_the_one_that_is_applied() {
    let shown = Client::new("postgres://".to_owned()).ends_with(0, &["schema", "show"]);
    let client = Client::new(database("shown"));
    server().psql("shown", shown.text());
    assert!(client.dangers(0).is_empty());
    let columns = "SELECT column_name, data_type, is_nullable FROM information_schema.columns \
                   WHERE table_name = 'encryption_key' ORDER BY 1";
    let by_hand = server().psql("shown", columns);
    Client::new(database("applied")).ends_with(0, &["schema", "apply"]);
    assert_eq!(server().psql("applied", columns), by_hand);
    assert!(by_hand.contains("key_record"), "{by_hand}");
}

#[test]
fn postgres_password_is_taken_from_the_drivers_own_places() {
    let url = database("places");
    let password = url.split('@').next().unwrap().rsplit(':').next().unwrap();
    let without = url.replacen(&format!(":{password}@"), "@", 1);
    Client::with(without.clone(), &[("PGPASSWORD", password)]).ends_with(0, &["schema", "apply"]);
    let client = Client::new(without.clone());
    let file = client.kit.write("pgpass", format!("127.0.0.1:*:*:postgres:{password}\n"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let variables = [("PGPASSFILE", file.to_str().unwrap())];
    Client::with(without.clone(), &variables).ends_with(0, &["schema", "check"]);
    // The URL without it may stand on the command line.
    let mut command = client.kit.command(&["schema", "check", "--metastore", &without]);
    let run = crate::kit::finish(command.env("PGPASSWORD", password));
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}

#[test]
fn postgres_wrong_password_and_missing_rights_are_told_with_77() {
    let url = database("rights");
    let says = [
        "cannot open the key store postgres://postgres@127.0.0.1:",
        "28P01",
        "check the user and the password",
    ];
    Client::new(with_password(&url, "NotThePassword")).fails(77, &says);
    Client::new(url.clone()).ends_with(0, &["schema", "apply"]);
    server().psql(
        "rights",
        "CREATE ROLE reader LOGIN PASSWORD 'reading'; GRANT SELECT ON encryption_key TO reader",
    );
    let reader = url.split_once('@').unwrap().1;
    let mut client = Client::new(url.clone());
    client.lets_a_reader_decrypt(format!("postgres://reader:reading@{reader}"));
    assert_eq!(client.dangers(3), ["permission-missing"]);
    client.kit.write("payload", "x");
    let accept = ["encrypt", "payload", "-p", "new", "--accept-finding", "permission-missing"];
    let run = client.run(&accept);
    run.assert_failed(77);
    assert!(run.stderr.contains("42501") && run.stderr.contains("docs/metastores.md"), "{}", run.stderr);
}

#[test]
fn postgres_customer_in_trouble_is_left_out_and_not_told_of() {
    let latin = "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    server().psql("postgres", latin);
    let client = Client::new(server().url("latin"));
    client.ends_with(0, &["schema", "apply"]);
    client.leaves_out_the_row_in_trouble("eve \u{3042}", |_, _| {
        server().psql(
            "latin",
            "UPDATE encryption_key SET key_record = '{\"Key\":7}' WHERE id LIKE '\\_IK\\_eve%'",
        );
    });
    // What a trigger says in its own words, with the id in them.
    server().psql(
        "latin",
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'no %', NEW.id USING ERRCODE = '42501'; END $$; \
         CREATE TRIGGER refuse BEFORE INSERT ON encryption_key FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    let run = client.ends_with(77, &["encrypt", "rows.jsonl", "-p", "eve2@example.com"]);
    assert_says_nothing_of_anybody(&client.kit, &run, "a trigger");
}

#[test]
fn postgres_documented_rights_are_enough() {
    let url = database("keys");
    let host = url.split_once('@').unwrap().1;
    server()
        .psql("keys", "CREATE ROLE checkout LOGIN PASSWORD 'pw1'; CREATE ROLE keeper LOGIN PASSWORD 'pw2'");
    let grants = documented_sql("PostgreSQL, with the table in the schema");
    let (schema, tables): (Vec<&str>, Vec<&str>) =
        grants.lines().partition(|grant| !grant.contains("ON encryption_key"));
    server().psql("keys", &schema.join("\n"));
    let (service, keeper) =
        (format!("postgres://checkout:pw1@{host}"), format!("postgres://keeper:pw2@{host}"));
    let mut client = Client::new(keeper.clone());
    client.ends_with(0, &["schema", "apply"]);
    server().psql("keys", "ALTER TABLE encryption_key OWNER TO postgres");
    client.url = service;
    assert_eq!(client.dangers(3), ["permission-missing"]);
    server().psql("keys", &tables.join("\n"));
    client.has_rights(false);
    client.url = keeper;
    client.has_rights(true);
}

#[test]
fn postgres_database_that_is_not_there_is_told_with_78() {
    Client::new(server().url("nowhere")).fails(78, &["3D000", "check the name of the database"]);
}

#[test]
fn postgres_server_that_is_down_is_told_with_69() {
    let mut server = Postgres::start();
    server.create_database("keys");
    let client = Client::new(server.url("keys"));
    client.ends_with(0, &["schema", "apply"]);
    server.kill();
    client.fails(69, &["cannot open the key store postgres://", "check that it runs and can be reached"]);
    server.restart();
    client.there_and_back();
}
