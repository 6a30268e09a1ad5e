//! The service as it is deployed: its program, on a real PostgreSQL.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

mod observed;
mod program;

use std::sync::LazyLock;

use claviger_testkit::Postgres;

use program::{Program, wait_until};

const READY: &str = r#"{"ready":true,"database":true,"keys_can_be_made":true,"kms":true}"#;
const DOWN: &str = r#"{"ready":false,"database":false,"keys_can_be_made":false,"kms":true}"#;
const TODO: &str = "/customers/alice/notes/todo";

/// A database of a test's own, empty, on one server.
struct Database(&'static str);

static SERVER: LazyLock<Postgres> = LazyLock::new(Postgres::start);

impl Database {
    fn new(name: &'static str) -> Self {
        SERVER.create_database(name);
        Self(name)
    }

    fn start(&self) -> Program {
        Program::start(&SERVER.url(self.0))
    }

    fn psql(&self, sql: &str) -> String {
        SERVER.psql(self.0, sql)
    }
}

#[test]
fn every_route_answers_on_a_database_that_was_empty() {
    let database = Database::new("routes");
    let service = database.start();
    assert_eq!(service.get("/healthz"), (200, "ok\n".into()));
    assert_eq!(service.get("/readyz"), (200, READY.into()));
    assert_eq!(service.get(TODO).0, 404);
    assert_eq!(service.put(TODO, b"call back on Monday"), (204, String::new()));
    assert_eq!(service.get(TODO), (200, "call back on Monday".into()));
    // A request that is made again changes nothing.
    service.put(TODO, b"or on Tuesday");
    service.put(TODO, b"or on Tuesday");
    assert_eq!(service.get(TODO), (200, "or on Tuesday".into()));
    assert_eq!(service.get("/customers/bob/notes/todo").0, 404);
    assert_eq!(service.put("/customers/Zo%C3%AB/notes/a%20b", b"").0, 204);
    assert_eq!(service.get("/customers/Zo%C3%AB/notes/a%20b"), (200, String::new()));

    let metrics = service.get("/metrics").1;
    for series in [
        r#"claviger_cached_keys{system_key="_SK_notes_example",level="intermediate"} 2"#,
        r#"claviger_cached_keys{system_key="_SK_notes_example",level="system"} 1"#,
        r#"claviger_breaker_open{system_key="_SK_notes_example",dependency="metastore_reads"} 0"#,
    ] {
        assert!(metrics.lines().any(|shown| shown == series), "{series}: {metrics}");
    }
}

#[test]
fn a_note_is_a_json_record_that_the_database_can_look_into_and_not_read() {
    let database = Database::new("json");
    let service = database.start();
    service.put(TODO, b"call back on Monday");
    let id = database.psql("SELECT record->'Key'->'ParentKeyMeta'->>'KeyId' FROM notes");
    assert_eq!(id, "_IK_alice_notes_example");
    assert_eq!(database.psql("SELECT pg_typeof(record) FROM notes"), "jsonb");
    assert!(!database.psql("SELECT record FROM notes").contains("Monday"));
}

#[test]
fn what_cannot_be_a_note_is_refused_as_a_mistake_of_the_one_who_asked() {
    let database = Database::new("mistakes");
    let service = database.start();
    let long = format!("/customers/alice/notes/{}", "n".repeat(101));
    for path in ["/customers/%00/notes/a", "/customers/a%0Ab/notes/a", "/customers/alice/notes/%7F", &long] {
        assert_eq!((service.put(path, b"text").0, service.get(path).0), (400, 400), "{path}");
    }
    assert_eq!(service.put(TODO, &[0xff]).0, 400);
    assert_eq!(service.put(TODO, &[b'x'; 64 << 10]).0, 204);
    assert_eq!(service.put(TODO, &[b'x'; (64 << 10) + 1]), (413, "the note is too long\n".into()));
    assert_eq!(service.put(TODO, &[b'x'; 200 << 10]).0, 413);
    assert_eq!(service.get("/customers").0, 404);
}

#[test]
fn a_note_that_was_moved_or_altered_or_lost_its_key_is_not_shown_nor_whose_it_is() {
    let database = Database::new("altered");
    let service = database.start();
    for name in ["moved", "altered", "replaced", "lost"] {
        service.put(&format!("/customers/alice/notes/{name}"), b"secret");
    }
    database.psql("UPDATE notes SET customer = 'bob' WHERE name = 'moved'");
    database.psql("UPDATE notes SET record = '{}' WHERE name = 'replaced'");
    let zeros = format!("'\"{}=\"'", "A".repeat(43));
    let altered =
        format!("UPDATE notes SET record = jsonb_set(record, '{{Data}}', {zeros}) WHERE name = 'altered'");
    database.psql(&altered);
    let assert_unreadable = |path: &str| {
        assert_eq!(service.get(path), (500, "the stored note cannot be read\n".into()), "{path}");
    };
    assert_unreadable("/customers/bob/notes/moved");
    assert_unreadable("/customers/alice/notes/altered");
    assert_eq!(service.get("/customers/alice/notes/replaced").0, 500);

    // The database tells of it.
    database.psql("DELETE FROM encryption_key WHERE id LIKE '%alice%'");
    wait_until("the key is given up", || service.get("/customers/alice/notes/lost").0 != 200);
    assert_unreadable("/customers/alice/notes/lost");
}

#[test]
fn without_its_database_it_is_not_ready_and_says_when_to_ask_again_and_then_goes_on() {
    let mut server = Postgres::start();
    let service = Program::start(&server.url("postgres"));
    service.put(TODO, b"call back");
    server.kill();
    assert_down(&service);
    server.restart();
    assert_comes_back(&service);
    // What claviger counts is there.
    let lost = r#"claviger_events_total{system_key="_SK_notes_example",event="invalidations_lost"} 1"#;
    wait_until("the event is counted", || service.get("/metrics").1.lines().any(|line| line == lost));
    server.pause();
    assert_down(&service);
    server.resume();
    assert_comes_back(&service);
}

fn assert_down(service: &Program) {
    assert_eq!(service.get("/readyz"), (503, DOWN.into()));
    for answer in [service.answer("GET", TODO, b""), service.answer("PUT", TODO, b"call back")] {
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    }
    assert_eq!((service.get("/healthz").0, service.get("/metrics").0), (200, 200));
}

fn assert_comes_back(service: &Program) {
    wait_until("it is ready", || service.get("/readyz") == (200, READY.into()));
    assert_eq!(service.get(TODO), (200, "call back".into()));
}

#[test]
fn told_to_end_it_answers_what_is_under_way_and_takes_nothing_new() {
    let database = Database::new("end");
    let mut service = database.start();
    let under_way = service.begin_put(TODO, b"call back on Monday");
    service.terminate();
    wait_until("it takes nothing new", || !service.accepts());
    assert_eq!(under_way.end(), (204, String::new()));
    assert!(service.wait().success());
    assert_eq!(database.psql("SELECT count(*) FROM notes"), "1");
}

#[test]
fn several_may_start_at_once_on_an_empty_database() {
    let database = Database::new("several");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert_eq!(database.start().get("/readyz"), (200, READY.into())));
        }
    });
}
