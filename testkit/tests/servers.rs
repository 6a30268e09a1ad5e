//! The servers start, die whole, come back with their data, and end with whoever started them.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use claviger_testkit::{
    AwsService, Dynalite, Galera, LocalStack, MariaDb, Moto, PgBouncer, PoolMode, Postgres, SoftHsm,
    shared_dynalite, shared_localstack, shared_mariadb, shared_moto, shared_postgres,
};

/// Starts a client that asks for something that never ends, and waits until the server is at it.
fn hang(mut client: Command, is_at_it: impl Fn() -> bool) -> Child {
    let client = client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !is_at_it() {
        thread::yield_now();
    }
    client
}

#[test]
fn postgres_is_killed_in_mid_query_with_all_its_processes_and_comes_back_with_its_data() {
    let mut postgres = Postgres::start();
    postgres.create_database("d-1");
    let url = postgres.url("d-1");
    postgres.psql("d-1", "CREATE TABLE t (n int)");
    for round in 1..=3 {
        postgres.psql("d-1", &format!("INSERT INTO t VALUES ({round})"));
        let mut psql = Command::new("psql");
        psql.args([&url, "-c", "SELECT pg_sleep(3600)"]);
        let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        let mut client = hang(psql, || postgres.psql("d-1", sleeping) == "1");
        let port = postgres.port();
        postgres.kill();
        assert!(!client.wait().unwrap().success());
        TcpStream::connect(("127.0.0.1", port)).unwrap_err();
        postgres.restart();
        assert_eq!((postgres.port(), postgres.url("d-1")), (port, url.clone()));
        assert_eq!(postgres.psql("d-1", "SELECT count(*), max(n) FROM t"), format!("{round}|{round}"));
    }
}

#[test]
fn postgres_takes_settings_and_wants_the_password() {
    let postgres = Postgres::start_with(&[("timezone", "America/Los_Angeles")]);
    assert_eq!(postgres.psql("postgres", "SHOW timezone"), "America/Los_Angeles");
    let stranger = postgres.url("postgres").replace(":pw", ":no");
    let output = Command::new("psql").args([&stranger, "-c", "SELECT 1"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("password authentication failed"));
}

#[test]
#[should_panic(expected = "syntax error")]
fn sql_that_postgres_refuses_ends_the_test() {
    Postgres::start().psql("postgres", "SELEC 1");
}

#[test]
fn mariadb_is_killed_in_mid_query_and_comes_back_with_its_data() {
    let mut mariadb = MariaDb::start_with(&["--default-time-zone=-08:00"]);
    mariadb.create_database("d-1", "latin1 COLLATE latin1_swedish_ci");
    mariadb.sql("d-1", "CREATE TABLE t (n int)");
    for round in 1..=3 {
        mariadb.sql("d-1", &format!("INSERT INTO t VALUES ({round})"));
        let mut client = Command::new("mariadb");
        let password = mariadb.url("").split([':', '@']).nth(2).unwrap().to_owned();
        client.args(["--no-defaults", "--host=127.0.0.1", "--user=claviger", "--execute=DO SLEEP(3600)"]);
        client.arg(format!("--port={}", mariadb.port())).arg(format!("--password={password}"));
        let sleeping = "SELECT count(*) FROM information_schema.processlist WHERE state = 'User sleep'";
        let mut client = hang(client, || mariadb.sql("", sleeping) == "1");
        let port = mariadb.port();
        mariadb.kill();
        assert!(!client.wait().unwrap().success());
        TcpStream::connect(("127.0.0.1", port)).unwrap_err();
        mariadb.restart();
        assert_eq!(mariadb.port(), port);
        assert_eq!(mariadb.sql("d-1", "SELECT count(*), max(n) FROM t"), format!("{round}\t{round}"));
    }
    assert_eq!(mariadb.sql("d-1", "SELECT @@time_zone, @@collation_database"), "-08:00\tlatin1_swedish_ci");
}

#[test]
fn mariadb_knows_time_zones_by_name() {
    let mariadb = MariaDb::start();
    let zoned = "SELECT CONVERT_TZ('2026-07-01 12:00:00', 'UTC', 'America/Los_Angeles')";
    assert_eq!(mariadb.sql("", zoned), "2026-07-01 05:00:00");
}

#[test]
fn dynalite_comes_back_with_its_tables() {
    let mut dynalite = Dynalite::start();
    let endpoint = dynalite.endpoint();
    let ask = |operation: &str, body: &str| AwsService::DynamoDb.ask(&endpoint, "us-east-1", operation, body);
    let created = ask(
        "CreateTable",
        r#"{"TableName":"abc","BillingMode":"PAY_PER_REQUEST",
            "AttributeDefinitions":[{"AttributeName":"Id","AttributeType":"S"}],
            "KeySchema":[{"AttributeName":"Id","KeyType":"HASH"}]}"#,
    )
    .unwrap();
    assert!(created.contains("TableDescription"), "{created}");
    dynalite.kill();
    ask("ListTables", "{}").unwrap_err();
    dynalite.restart();
    let tables = ask("ListTables", "{}").unwrap();
    assert!(tables.ends_with(r#"{"TableNames":["abc"]}"#), "{tables}");
}

#[test]
fn moto_comes_back() {
    let mut moto = Moto::start();
    let address = moto.endpoint().strip_prefix("http://").unwrap().to_owned();
    TcpStream::connect(&address).unwrap();
    moto.kill();
    TcpStream::connect(&address).unwrap_err();
    moto.restart();
    TcpStream::connect(&address).unwrap();
}

#[test]
fn localstack_refuses_a_disabled_key_and_forgets_it_when_it_dies() {
    let mut localstack = LocalStack::start();
    let endpoint = localstack.endpoint();
    let ask = |operation: &str, body: &str| AwsService::Kms.ask(&endpoint, "us-east-1", operation, body);
    let created = ask("CreateKey", "{}").unwrap();
    let (_, id) = created.split_once("\"KeyId\": \"").or_else(|| created.split_once("\"KeyId\":\"")).unwrap();
    let key = format!(r#"{{"KeyId":"{}"}}"#, id.split('"').next().unwrap());
    let data_key = key.replace('}', r#","KeySpec":"AES_256"}"#);
    let made = ask("GenerateDataKey", &data_key).unwrap();
    assert!(made.contains("CiphertextBlob"), "{made}");
    ask("DisableKey", &key).unwrap();
    let refused = ask("GenerateDataKey", &data_key).unwrap();
    assert!(refused.contains("DisabledException"), "{refused}");
    localstack.kill();
    ask("ListKeys", "{}").unwrap_err();
    localstack.restart();
    let keys = ask("ListKeys", "{}").unwrap();
    assert!(keys.contains("\"Keys\"") && !keys.contains("KeyArn"), "{keys}");
}

#[test]
fn shared_servers_are_started_once() {
    for (shared, scheme) in [
        (shared_postgres as fn() -> &'static str, "postgres://"),
        (shared_mariadb, "mysql://"),
        (shared_dynalite, "http://127.0.0.1:"),
        (shared_moto, "http://127.0.0.1:"),
        (shared_localstack, "http://127.0.0.1:"),
    ] {
        assert!(shared().starts_with(scheme), "{}", shared());
        assert_eq!(shared(), shared());
    }
    assert!(shared_mariadb().ends_with('/'));
}

/// Tells whether a process of this machine is in the folder, or was when it was removed.
fn is_worked_in(folder: &Path) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| fs::read_link(process.path().join("cwd")).ok())
        .any(|cwd| cwd.starts_with(folder))
}

/// What the test below looks for in vain in a process of its own.
const MISSING: &str = "CLAVIGER_TEST_MISSING";

#[test]
fn a_server_that_is_missing_fails_its_test_which_says_what_brings_it() {
    let servers: [(&str, fn()); 8] = [
        ("PostgreSQL", || drop(Postgres::start())),
        ("MariaDB", || drop(MariaDb::start())),
        ("dynalite", || drop(Dynalite::start())),
        ("moto_server", || drop(Moto::start())),
        ("LocalStack", || drop(LocalStack::start())),
        ("SoftHSM", || drop(SoftHsm::token("missing"))),
        ("Galera", || drop(Galera::start(1))),
        ("PgBouncer", || drop(PgBouncer::start(&Postgres::start(), PoolMode::Session, &[]))),
    ];
    if let Ok(missing) = env::var(MISSING) {
        return servers.iter().find(|(name, _)| *name == missing).unwrap().1();
    }
    let nowhere = tempfile::tempdir().unwrap();
    for (name, _) in servers {
        let mut process = Command::new(env::current_exe().unwrap());
        process.args(["a_server_that_is_missing_fails_its_test_which_says_what_brings_it", "--exact"]);
        process.env(MISSING, name).env("CARGO_TARGET_DIR", nowhere.path());
        for variable in match name {
            "PostgreSQL" => &["CLAVIGER_POSTGRES_BIN"][..],
            "MariaDB" => &["CLAVIGER_MARIADB_BIN"],
            "SoftHSM" => &["CLAVIGER_SOFTHSM_LIB"],
            "Galera" => &["CLAVIGER_GALERA_LIB"],
            "PgBouncer" => &["CLAVIGER_PGBOUNCER_BIN"],
            // Their variables name the programs, which are looked for elsewhere as well.
            _ => &["CLAVIGER_DYNALITE_BIN", "CLAVIGER_MOTO_BIN", "CLAVIGER_LOCALSTACK_PYTHON", "PATH"],
        } {
            process.env(variable, nowhere.path());
        }
        let output = process.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(!output.status.success(), "{name}: {said}");
        let sentence = format!("{name} is missing: run `cargo xtask test`, which installs it");
        assert!(said.contains(&sentence), "{said}");
    }
}

/// What the test below starts in a process of its own.
const ORPHANS: &str = "CLAVIGER_TEST_ORPHANS";

#[test]
fn servers_end_with_their_process_and_leave_no_file() {
    if env::var_os(ORPHANS).is_some() {
        // From a thread that ends before the process does.
        let start = || (Postgres::start(), Moto::start(), Postgres::start());
        let servers = thread::spawn(start).join().unwrap();
        servers.2.pause();
        let folder = servers.0.psql("postgres", "SHOW data_directory");
        println!("\n{folder} {} {}", servers.0.port(), servers.1.endpoint().rsplit_once(':').unwrap().1);
        loop {
            thread::park();
        }
    }
    let name = "servers_end_with_their_process_and_leave_no_file";
    let mut process = Command::new(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(ORPHANS, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.starts_with('/')).unwrap();
    let [folder, postgres, moto] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
    for port in [postgres, moto] {
        TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    }
    process.kill().unwrap();
    process.wait().unwrap();
    let root = Path::new(folder).ancestors().nth(2).unwrap();
    assert!(root.file_name().unwrap().to_str().unwrap().starts_with("claviger-servers-"), "{folder}");
    let is_over = || {
        let is_down = |port| TcpStream::connect(format!("127.0.0.1:{port}")).is_err();
        is_down(postgres) && is_down(moto) && !root.exists() && !is_worked_in(root)
    };
    // Asked for up to a minute; it takes some milliseconds.
    assert!((0..6_000).any(|_| is_over() || {
        thread::sleep(Duration::from_millis(10));
        false
    }));
}
