//! A disk that is full, really.

use claviger::testing::call;
use claviger::{EnvelopeKeyRecord, Insert, Metastore as _};
use claviger_testkit::{MariaDb as MariaDbServer, Postgres as PostgresServer};

use crate::engine::{Engine, MariaDb, Postgres};
use crate::keys::{NOW, record};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_on_a_full_disk_errs_for_a_while_and_loses_nothing() {
    let server = PostgresServer::start_on_small_disk(200);
    let engine = Postgres::create(&server.url("postgres")).await;
    let mut keys = Keys::new();
    // Less than the rest of the log's segment, so that it is a table that finds no room.
    let error = keys.fill_up(&engine, || server.fill_disk(400_000)).await;
    assert!(error.contains("53100"), "{error}");
    // Reads go on, and so does everything once there is room.
    keys.assert_all_there(&engine).await;
    server.free_disk();
    keys.go_on(&engine).await;
}

/// MariaDB itself does not outlive it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_on_a_full_disk_errs_for_a_while_and_loses_nothing() {
    let mut server = MariaDbServer::start_on_small_disk(200);
    let engine = MariaDb::create(&server.url("mysql")).await;
    let mut keys = Keys::new();
    keys.fill_up(&engine, || server.fill_disk(1_000_000)).await;
    server.free_disk();
    server.restart();
    keys.assert_all_there(&engine).await;
    keys.go_on(&engine).await;
}

struct Keys {
    /// What was told to be stored.
    stored: Vec<EnvelopeKeyRecord>,
    created: i64,
}

impl Keys {
    const fn new() -> Self {
        Self { stored: Vec::new(), created: NOW }
    }

    fn next(&mut self) -> EnvelopeKeyRecord {
        self.created += 1;
        let meta = record("alice", self.created).meta().clone();
        EnvelopeKeyRecord::new(meta, incompressible(self.created), None)
    }

    /// Inserts until there is no room, and returns what is said then.
    async fn fill_up(&mut self, engine: &impl Engine, fill: impl Fn()) -> String {
        let store = engine.direct().await;
        self.go_on(engine).await;
        fill();
        let error = loop {
            let record = self.next();
            match store.insert(&record, &call()).await {
                Ok(outcome) => assert_eq!(outcome, Insert::Inserted),
                Err(error) => break error,
            }
            self.stored.push(record);
            assert!(self.stored.len() < 10_000, "it fills up");
        };
        let text = format!("{error:?}");
        assert!(error.is_transient(), "{text}");
        assert!(!text.contains("faults") && !text.contains("claviger"), "{text}");
        text
    }

    async fn go_on(&mut self, engine: &impl Engine) {
        let store = engine.direct().await;
        for _ in 0..3 {
            let record = self.next();
            assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
            self.stored.push(record);
        }
        self.assert_all_there(engine).await;
    }

    async fn assert_all_there(&self, engine: &impl Engine) {
        let store = engine.direct().await;
        for record in &self.stored {
            let loaded = store.load(record.meta(), &call()).await.unwrap();
            assert_eq!(loaded.as_ref(), Some(record));
        }
    }
}

/// Bytes that no server makes smaller.
fn incompressible(seed: i64) -> Vec<u8> {
    let mut state = seed.unsigned_abs() | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..4_000).flat_map(|_| next()).collect()
}
