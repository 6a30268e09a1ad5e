//! A disk that is full, really.

use claviger::{Consistency, EnvelopeKeyRecord, Insert, Metastore as _};
use claviger_test_servers::{MariaDb as MariaDbServer, Postgres as PostgresServer};

use crate::engine::{Engine, MariaDb, Postgres};
use crate::keys::{NOW, record};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_on_a_full_disk_errs_for_a_while_and_loses_nothing() {
    let server = PostgresServer::start_on_small_disk(200);
    let engine = Postgres::create(&server.url("postgres")).await;
    // Less than the rest of the log's segment, so that it is a table that finds no room.
    fills_up(&engine, "53100", || server.fill_disk(400_000), || server.free_disk()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_on_a_full_disk_errs_for_a_while_and_loses_nothing() {
    let server = MariaDbServer::start_on_small_disk(200);
    let engine = MariaDb::create(&server.url("mysql")).await;
    fills_up(&engine, "1114", || server.fill_disk(1_000_000), || server.free_disk()).await;
}

async fn fills_up(engine: &impl Engine, code: &str, fill: impl Fn(), free: impl Fn()) {
    let store = engine.direct().await;
    let mut stored = Vec::new();
    let mut created = NOW;
    let mut next = || {
        created += 1;
        EnvelopeKeyRecord::new(record("alice", created).meta().clone(), incompressible(created), None)
    };
    stored.push(next());
    assert_eq!(store.insert(&stored[0]).await.unwrap(), Insert::Inserted);
    fill();
    let error = loop {
        let record = next();
        match store.insert(&record).await {
            Ok(outcome) => assert_eq!(outcome, Insert::Inserted),
            Err(error) => break error,
        }
        stored.push(record);
        assert!(stored.len() < 10_000, "it fills up");
    };
    let text = format!("{error:?}");
    assert!(error.is_transient() && text.contains(code), "{text}");
    assert!(!text.contains("faults") && !text.contains("claviger"), "{text}");
    // Reads go on, and so does everything once there is room.
    let last = stored.last().unwrap();
    assert_eq!(store.load_latest(last.meta().id()).await.unwrap().as_ref(), Some(last));
    free();
    for _ in 0..3 {
        stored.push(next());
        assert_eq!(store.insert(stored.last().unwrap()).await.unwrap(), Insert::Inserted);
    }
    for record in &stored {
        let loaded = store.load(record.meta(), Consistency::Strong).await.unwrap();
        assert_eq!(loaded.as_ref(), Some(record));
    }
    assert_eq!(engine.rows().await, stored.len() as u64);
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
