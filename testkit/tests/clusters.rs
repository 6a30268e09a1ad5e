//! The servers of clusters: what is promoted, pooled, replicated and balanced does as it should.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use claviger_testkit::{Balancer, Galera, MariaDb, PgBouncer, PoolMode, Postgres};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn psql(url: &str, sql: &str) -> Command {
    let mut psql = Command::new("psql");
    psql.args([url, "--no-psqlrc", "--no-align", "--tuples-only", "--command", sql]);
    psql
}

fn start(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Whether the client still waits for its answer, a moment later.
fn waits(client: &mut Child) -> bool {
    thread::sleep(Duration::from_millis(300));
    client.try_wait().unwrap().is_none()
}

fn wait_until(is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(5));
    }
}

fn with_table() -> Postgres {
    let primary = Postgres::start();
    primary.psql("postgres", "CREATE TABLE t (n int)");
    primary
}

const NUMBERS: &str = "SELECT string_agg(n::text, ',' ORDER BY n) FROM t";

#[test]
fn standby_has_what_the_primary_has_can_be_read_and_is_promoted_to_a_timeline_of_its_own() {
    let mut primary = with_table();
    let standby = Postgres::standby_of(&primary, "second");
    primary.psql("postgres", "INSERT INTO t VALUES (1)");
    wait_until(|| standby.psql("postgres", NUMBERS) == "1");
    let refused = psql(&standby.url("postgres"), "INSERT INTO t VALUES (2)").output().unwrap();
    assert!(said(&refused).contains("read-only transaction"), "{}", said(&refused));
    assert_eq!(primary.timeline(), "00000001");

    primary.kill();
    standby.promote();
    standby.psql("postgres", "INSERT INTO t VALUES (3)");
    assert_eq!(standby.psql("postgres", NUMBERS), "1,3");
    assert_eq!(standby.timeline(), "00000002");
    // Nobody told the old one.
    primary.restart();
    primary.psql("postgres", "INSERT INTO t VALUES (4)");
    assert_eq!((primary.timeline(), primary.psql("postgres", NUMBERS)), ("00000001".into(), "1,4".into()));
}

#[test]
fn what_is_committed_after_the_standby_was_disconnected_is_lost_by_the_fail_over() {
    let mut primary = with_table();
    let standby = Postgres::standby_of(&primary, "second");
    primary.psql("postgres", "INSERT INTO t VALUES (1)");
    wait_until(|| standby.psql("postgres", NUMBERS) == "1");
    standby.disconnect();
    primary.psql("postgres", "INSERT INTO t VALUES (2)");
    assert_eq!(primary.psql("postgres", NUMBERS), "1,2");
    primary.kill();
    standby.promote();
    assert_eq!(standby.psql("postgres", NUMBERS), "1");
}

#[test]
fn commit_waits_for_a_synchronous_standby_from_the_setting_on_until_it_is_taken_back() {
    let primary = with_table();
    let standby = Postgres::standby_of(&primary, "second");
    primary.set("synchronous_standby_names", "second");
    primary.psql("postgres", "INSERT INTO t VALUES (1)");
    standby.pause();
    let mut client = start(psql(&primary.url("postgres"), "INSERT INTO t VALUES (2)"));
    assert!(waits(&mut client));
    standby.resume();
    assert!(client.wait().unwrap().success());

    standby.pause();
    let mut client = start(psql(&primary.url("postgres"), "INSERT INTO t VALUES (3)"));
    assert!(waits(&mut client));
    primary.set("synchronous_standby_names", "");
    assert!(client.wait().unwrap().success());
    primary.psql("postgres", "INSERT INTO t VALUES (4)");
}

#[test]
fn paused_postgres_answers_nothing_and_goes_on_where_it_was() {
    let mut postgres = with_table();
    let url = postgres.url("postgres");
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    let mut client = start(psql(&url, "SELECT pg_sleep(0.2), 'awake'"));
    wait_until(|| postgres.psql("postgres", sleeping) == "1");
    postgres.pause();
    let mut newcomer = start(psql(&url, "SELECT 'new'"));
    assert!(waits(&mut client) && waits(&mut newcomer));
    postgres.resume();
    assert!(said(&client.wait_with_output().unwrap()).contains("awake"));
    assert!(said(&newcomer.wait_with_output().unwrap()).contains("new"));
    postgres.pause();
    postgres.kill();
    postgres.restart();
    assert_eq!(postgres.psql("postgres", "SELECT 1"), "1");
}

#[test]
fn setting_is_in_force_at_once_and_one_that_the_server_was_started_with_is_refused() {
    let postgres = Postgres::start_with(&[("work_mem", "1MB")]);
    postgres.set("lock_timeout", "5000");
    assert_eq!(postgres.psql("postgres", "SHOW lock_timeout"), "5s");
    postgres.set("log_line_prefix", "it's ");
    assert_eq!(postgres.psql("postgres", "SHOW log_line_prefix"), "it's");
    let refused = thread::spawn(move || postgres.set("work_mem", "2MB")).join().unwrap_err();
    assert!(refused.downcast_ref::<String>().unwrap().contains("work_mem is not in force"));
}

/// A client that has been answered and does nothing.
struct Idle {
    process: Child,
    _input: ChildStdin,
}

impl Idle {
    fn new(url: &str) -> Self {
        let mut psql = Command::new("psql");
        psql.args([url, "--no-psqlrc", "--no-align", "--tuples-only"]);
        let mut process = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = process.stdin.take().unwrap();
        writeln!(input, "SELECT 'here';").unwrap();
        let mut answer = [0; 5];
        process.stdout.take().unwrap().read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"here\n");
        Self { process, _input: input }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn pgbouncer_shares_a_connection_as_its_mode_says() {
    let postgres = with_table();
    for (mode, name) in [
        (PoolMode::Session, "session"),
        (PoolMode::Transaction, "transaction"),
        (PoolMode::Statement, "statement"),
    ] {
        let bouncer = PgBouncer::start(&postgres, mode, &[("default_pool_size", "1")]);
        assert!(bouncer.admin("SHOW CONFIG").contains(&format!("pool_mode|{name}|")));
        let idle = Idle::new(&bouncer.url("postgres"));
        let mut second = start(psql(&bouncer.url("postgres"), "SELECT 'second'"));
        assert_eq!(waits(&mut second), mode == PoolMode::Session);
        assert_eq!(bouncer.admin("SHOW SERVERS").lines().count(), 1);
        drop(idle);
        assert_eq!(said(&second.wait_with_output().unwrap()), "second\n");
        let begin = psql(&bouncer.url("postgres"), "BEGIN").output().unwrap();
        assert_eq!(begin.status.success(), mode != PoolMode::Statement, "{}", said(&begin));
    }
}

#[test]
fn pgbouncer_forwards_every_database_wants_the_password_and_comes_back() {
    let postgres = Postgres::start();
    postgres.create_database("d-1");
    let mut bouncer = PgBouncer::start(&postgres, PoolMode::Transaction, &[]);
    let me = "SELECT current_user, current_database()";
    assert_eq!(bouncer.psql("d-1", me), "postgres|d-1");
    let stranger = bouncer.url("d-1").replace(":pw", ":no");
    assert!(!psql(&stranger, me).output().unwrap().status.success());
    let (port, url) = (bouncer.port(), bouncer.url("d-1"));
    bouncer.kill();
    TcpStream::connect(("127.0.0.1", port)).unwrap_err();
    bouncer.restart();
    assert_eq!((bouncer.port(), bouncer.url("d-1")), (port, url.clone()));
    assert_eq!(bouncer.psql("d-1", me), "postgres|d-1");
    bouncer.pause();
    let mut client = start(psql(&url, me));
    assert!(waits(&mut client));
    bouncer.resume();
    assert!(client.wait().unwrap().success());
}

#[test]
fn pgbouncer_follows_a_fail_over_when_it_is_told() {
    let mut primary = with_table();
    let standby = Postgres::standby_of(&primary, "second");
    let bouncer = PgBouncer::start(&primary, PoolMode::Transaction, &[]);
    bouncer.psql("postgres", "INSERT INTO t VALUES (1)");
    wait_until(|| standby.psql("postgres", NUMBERS) == "1");
    primary.kill();
    standby.promote();
    bouncer.set_upstream(standby.port());
    bouncer.psql("postgres", "INSERT INTO t VALUES (2)");
    assert_eq!(standby.psql("postgres", NUMBERS), "1,2");
}

/// Has two clients share one connection to the server, each with a prepared statement of the same
/// name, and returns what came of it.
fn share_prepared_statements(bouncer: &PgBouncer) -> Output {
    let mut pgbench = Command::new("pgbench");
    pgbench.args(["--no-vacuum", "--protocol=prepared", "--client=2", "--transactions=20"]);
    pgbench.args(["--file=/dev/stdin", &bouncer.url("postgres")]);
    let mut process =
        pgbench.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    process.stdin.take().unwrap().write_all(b"SELECT 1;\n").unwrap();
    process.wait_with_output().unwrap()
}

#[test]
fn newer_pgbouncer_carries_prepared_statements_from_one_server_connection_to_another() {
    let postgres = Postgres::start();
    let one = ("default_pool_size", "1");
    let settings = [one, ("max_prepared_statements", "10")];
    let newer = PgBouncer::start_newer(&postgres, PoolMode::Transaction, &settings);
    let output = share_prepared_statements(&newer);
    assert!(output.status.success(), "{}", said(&output));
    // With 0 it does as the older one does always.
    let settings = [one, ("max_prepared_statements", "0")];
    let newer = PgBouncer::start_newer(&postgres, PoolMode::Transaction, &settings);
    assert!(said(&share_prepared_statements(&newer)).contains("prepared statement"));
}

/// Connects as a driver does, with these parameters, and returns what comes back first.
fn greeting(port: u16, parameters: &[(&str, &str)]) -> String {
    let mut message = 196_608_u32.to_be_bytes().to_vec();
    for (name, value) in [&[("user", "postgres"), ("database", "postgres")], parameters].concat() {
        message.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    message.push(0);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(&u32::try_from(message.len() + 4).unwrap().to_be_bytes()).unwrap();
    stream.write_all(&message).unwrap();
    let mut answer = [0; 500];
    let length = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(answer.get(..length).unwrap()).into_owned()
}

#[test]
fn pgbouncer_takes_what_sqlx_says_first_but_no_float_digits_or_options_unless_told_to() {
    let postgres = Postgres::start();
    let bouncer = PgBouncer::start(&postgres, PoolMode::Transaction, &[]);
    let always = [("DateStyle", "ISO, MDY"), ("client_encoding", "UTF8"), ("TimeZone", "UTC")];
    let greeting = |port, more: &[(&str, &str)]| greeting(port, &[&always[..], more].concat());
    // `R` asks for the password.
    assert!(greeting(bouncer.port(), &[("application_name", "claviger")]).starts_with('R'));
    for (name, value) in [("extra_float_digits", "2"), ("options", "-c lock_timeout=1000")] {
        let refused = greeting(bouncer.port(), &[(name, value)]);
        assert!(refused.starts_with('E') && refused.contains(name), "{refused}");
        let ignores = [("ignore_startup_parameters", name)];
        let lenient = PgBouncer::start(&postgres, PoolMode::Transaction, &ignores);
        assert!(greeting(lenient.port(), &[(name, value)]).starts_with('R'));
    }
}

/// Runs SQL as the user `claviger`, as whoever has the URL.
fn as_claviger(url: &str, sql: &str) -> String {
    let (password, port) = url.split_once("@127.0.0.1:").unwrap();
    let password = password.strip_prefix("mysql://claviger:").unwrap();
    let port = port.split('/').next().unwrap();
    let mut client = Command::new("mariadb");
    client.args(["--no-defaults", "--host=127.0.0.1", "--user=claviger", "--skip-column-names"]);
    client.args([&format!("--port={port}"), &format!("--password={password}"), "--execute", sql]);
    let output = client.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    said(&output).trim_end().to_owned()
}

#[test]
fn row_written_on_one_galera_node_is_read_on_another_by_the_same_user() {
    let galera = Galera::start(3);
    assert_eq!(galera.nodes(), 3);
    as_claviger(&galera.url(0, ""), "CREATE DATABASE d; CREATE TABLE d.t (n int PRIMARY KEY)");
    for node in 0..3 {
        let insert = format!("SET wsrep_sync_wait = 4; INSERT INTO d.t VALUES ({node})");
        as_claviger(&galera.url(node, ""), &insert);
        let reader = (node + 2) % 3;
        let count = "SET wsrep_sync_wait = 1; SELECT count(*) FROM d.t";
        assert_eq!(as_claviger(&galera.url(reader, "d"), count), (node + 1).to_string());
        assert_eq!(galera.sql(reader, "d", count), (node + 1).to_string());
    }
    assert_eq!(galera.sql(1, "", "SELECT @@port"), galera.port(1).to_string());
}

/// With these the others give a node up after two seconds, not six.
const QUICK: &str = "evs.keepalive_period=PT0.3S;evs.suspect_timeout=PT2S;evs.inactive_timeout=PT4S";

#[test]
fn galera_goes_on_without_a_node_that_dies_or_hangs_and_takes_it_back() {
    let mut galera = Galera::start_with(3, QUICK);
    galera.sql(0, "", "CREATE DATABASE d; CREATE TABLE d.t (n int PRIMARY KEY)");
    let count = "SET wsrep_sync_wait = 1; SELECT count(*) FROM d.t";
    galera.kill(2);
    galera.wait_for_size(2);
    galera.sql(0, "d", "INSERT INTO t VALUES (1)");
    galera.restart(2);
    galera.wait_for_size(3);
    assert_eq!(galera.sql(2, "d", count), "1");

    galera.pause(1);
    galera.wait_for_size(2);
    galera.sql(0, "d", "INSERT INTO t VALUES (2)");
    galera.resume(1);
    galera.wait_for_size(3);
    assert_eq!(galera.sql(1, "d", count), "2");
}

#[test]
fn paused_mariadb_answers_nothing_and_goes_on_where_it_was() {
    let mariadb = MariaDb::start();
    mariadb.pause();
    let url = mariadb.url("");
    let client = thread::spawn(move || as_claviger(&url, "SELECT 1"));
    thread::sleep(Duration::from_millis(300));
    assert!(!client.is_finished());
    mariadb.resume();
    assert_eq!(client.join().unwrap(), "1");
}

/// A server that says one letter to whoever comes.
fn says(letter: u8) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let serving = tokio::spawn(async move {
        let mut clients = Vec::new();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            client.write_all(&[letter]).await.unwrap();
            clients.push(client);
        }
    });
    (address, serving)
}

/// Connects so many times, and returns who answered, `-` for nobody.
async fn asked(balancer: &Balancer, times: usize) -> (String, Vec<tokio::net::TcpStream>) {
    let (mut answers, mut streams) = (String::new(), Vec::new());
    for _ in 0..times {
        let mut stream = tokio::net::TcpStream::connect(balancer.address()).await.unwrap();
        answers.push(stream.read_u8().await.map_or('-', char::from));
        streams.push(stream);
    }
    (answers, streams)
}

#[tokio::test]
async fn balancer_gives_each_target_its_turn_and_skips_those_that_refuse() {
    let servers = [says(b'a'), says(b'b'), says(b'c')];
    let [a, b, c] = [0, 1, 2].map(|n: usize| servers[n].0.clone());
    let balancer = Balancer::start(&[a.clone(), b.clone(), c.clone()]).await;
    let (answers, mut old) = asked(&balancer, 6).await;
    assert_eq!((&*answers, balancer.connections()), ("abcabc", 6));

    servers[1].1.abort();
    wait_until_async(async || tokio::net::TcpStream::connect(&b).await.is_err()).await;
    assert_eq!(asked(&balancer, 4).await.0, "acac");

    balancer.set_targets(&[c]);
    assert_eq!(asked(&balancer, 2).await.0, "cc");
    balancer.set_targets(&[b]);
    assert_eq!(asked(&balancer, 1).await.0, "-");
    balancer.set_targets(&[]);
    assert_eq!(asked(&balancer, 1).await.0, "-");

    // Open ones stayed where they were, until now.
    balancer.cut_all();
    assert!(old[0].read_u8().await.is_err());
    wait_until_async(async || balancer.connections() == 0).await;
    assert_eq!(balancer.accepted(), 14);
    assert_eq!(balancer.address(), format!("127.0.0.1:{}", balancer.port()));
}

async fn wait_until_async(is_so: impl AsyncFn() -> bool) {
    while !is_so().await {
        tokio::task::yield_now().await;
    }
}
