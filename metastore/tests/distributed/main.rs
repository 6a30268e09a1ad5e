//! Four processes create keys for the same new partitions at once, while an operator revokes keys and
//! the server is killed and restarted: whatever one of them encrypted, all of them decrypt, and in the
//! end all use one key per partition.

#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test may fail loudly")]

mod child;
#[expect(dead_code, reason = "these ask for one id at a time")]
#[path = "../common/latest.rs"]
mod latest;
mod place;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use claviger::testing::call;
use claviger::{EnvelopeKeyRecord, KeyId, Metastore, MetastoreAdmin};
use claviger_testkit::{Dynalite, MariaDb, Postgres};
use tokio::time::{Instant, sleep, timeout};

use crate::latest::LatestRecord as _;
use crate::place::{PRODUCT, Place, SERVICE};
use crate::process::{Children, Record};

const PROCESSES: usize = 4;
/// How often the server is killed.
const KILLS: usize = 5;
/// How much is encrypted between two kills, by all processes together, at least.
const RECORDS_BETWEEN: usize = 250;
/// How many keys are revoked between two kills, at least.
const REVOKED_BETWEEN: usize = 2;
/// Longer than anything takes, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn s1_1_processes_on_postgres_converge_through_revocations_and_kills() {
    run("s1_1_processes_on_postgres_converge_through_revocations_and_kills", || {
        // The check at the start refuses a server that does not sync.
        let server = Postgres::start_with(&[("fsync", "on")]);
        server.create_database("keys");
        let place = Place::Postgres(server.url("keys"));
        (place, Some(Box::new(server) as Box<dyn Mortal>))
    });
}

#[test]
fn s1_1_processes_on_mariadb_converge_through_revocations_and_kills() {
    run("s1_1_processes_on_mariadb_converge_through_revocations_and_kills", || {
        let server = MariaDb::start();
        server.create_database("keys", "utf8mb4 COLLATE utf8mb4_general_ci");
        let place = Place::MariaDb(server.url("keys"));
        (place, Some(Box::new(server)))
    });
}

#[test]
fn s1_1_processes_on_dynamodb_converge_through_revocations_and_kills() {
    run("s1_1_processes_on_dynamodb_converge_through_revocations_and_kills", || {
        let server = Dynalite::start();
        let place = Place::DynamoDb(server.endpoint());
        (place, Some(Box::new(server)))
    });
}

#[test]
fn s1_1_processes_on_sqlite_converge_through_revocations() {
    let folder = tempfile::tempdir().unwrap();
    run("s1_1_processes_on_sqlite_converge_through_revocations", || {
        (Place::Sqlite(folder.path().join("keys.db").to_str().unwrap().to_owned()), None)
    });
}

/// A server that is killed now and then.
trait Mortal: Send {
    fn kill(&mut self);
    fn restart(&mut self);
}

macro_rules! mortal {
    ($($server:ty)*) => {$(
        impl Mortal for $server {
            fn kill(&mut self) {
                self.kill();
            }

            fn restart(&mut self) {
                self.restart();
            }
        }
    )*};
}
mortal!(Postgres MariaDb Dynalite);

/// Runs the test of this name: in the child its part, else the whole.
fn run(test: &'static str, start: impl FnOnce() -> (Place, Option<Box<dyn Mortal>>)) {
    if child::is_this() {
        return child::run();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (place, server) = start();
        match place.create().await {
            place::Store::Postgres(store) => prove(test, &place, store, server).await,
            place::Store::MariaDb(store) => prove(test, &place, store, server).await,
            place::Store::DynamoDb(store) => prove(test, &place, store, server).await,
            place::Store::Sqlite(store) => prove(test, &place, store, server).await,
        }
    });
}

async fn prove<S: MetastoreAdmin + Clone>(
    test: &str,
    place: &Place,
    store: S,
    server: Option<Box<dyn Mortal>>,
) {
    let mut children = Children::start(test, place, PROCESSES);
    let answered = Arc::new(AtomicUsize::new(0));
    let operator = tokio::spawn(operate(store.clone(), Arc::clone(&answered)));
    let records = encrypt_through_kills(&mut children, server, &answered).await;
    operator.abort();
    assert!(operator.await.is_err(), "the operator stopped by itself");

    let rows = all_rows(&store).await;
    assert_keys_are_unique_and_used(&rows, &records);
    timeout(PATIENCE, children.decrypt_all(&records)).await.unwrap();
    let partitions: BTreeSet<_> = records.iter().map(|record| record.partition.clone()).collect();
    timeout(PATIENCE, converge(&mut children, &store, &partitions)).await.unwrap();
    let revoked = rows.iter().filter(|row| row.is_revoked()).count();
    println!(
        "{test}: {} records of {} partitions, {} keys, {revoked} of them revoked",
        records.len(),
        partitions.len(),
        rows.len()
    );
    assert!(revoked >= 10, "{revoked}");
    let answered = answered.load(Ordering::Relaxed);
    assert!(revoked >= answered, "{revoked} keys are revoked, {answered} revocations were answered");
    children.finish();
}

/// Lets all processes encrypt, and kills the server again and again.
async fn encrypt_through_kills(
    children: &mut Children,
    server: Option<Box<dyn Mortal>>,
    revoked: &AtomicUsize,
) -> Vec<Record> {
    let mut records = Vec::new();
    children.tell("go");
    timeout(PATIENCE, async {
        let mut server = server;
        for _ in 0..KILLS {
            encrypt_for_a_while(children, &mut records, revoked).await;
            // Both wait for the server to end and to come back.
            server = tokio::task::spawn_blocking(|| {
                let mut server = server;
                if let Some(server) = &mut server {
                    server.kill();
                    server.restart();
                }
                server
            })
            .await
            .unwrap();
        }
        encrypt_for_a_while(children, &mut records, revoked).await;
        children.stop(&mut records).await;
        // It lives until the test ends.
        std::mem::forget(server);
    })
    .await
    .unwrap();
    records
}

/// Lets the processes encrypt until there is enough to go on with, of records and of revocations.
async fn encrypt_for_a_while(children: &mut Children, records: &mut Vec<Record>, revoked: &AtomicUsize) {
    let goal = revoked.load(Ordering::Relaxed) + REVOKED_BETWEEN;
    children.collect(records, RECORDS_BETWEEN).await;
    while revoked.load(Ordering::Relaxed) < goal {
        children.collect(records, 1).await;
    }
}

/// Revokes keys, now an intermediate key, now the system key, for as long as it is let, and counts
/// those that the store answered.
async fn operate(store: impl MetastoreAdmin, revoked: Arc<AtomicUsize>) {
    for turn in 0_usize.. {
        // The pace of somebody in a hurry.
        sleep(Duration::from_millis(40)).await;
        let Ok(page) = store.list("", None, 10_000, &call()).await else { continue };
        let is_system = |row: &&EnvelopeKeyRecord| row.parent().is_none();
        let wants_system = turn % 20 == 19;
        let mut candidates: Vec<_> =
            page.records.iter().filter(|row| !row.is_revoked() && is_system(row) == wants_system).collect();
        candidates.sort_by_key(|row| row.meta().created());
        // While the server is down it fails, and some other key is next.
        if let Some(row) = candidates.get(turn * 7 % candidates.len().max(1)) {
            let answer = store.revoke(row.meta(), &call()).await;
            revoked.fetch_add(usize::from(matches!(answer, Ok(true))), Ordering::Relaxed);
        }
    }
}

async fn all_rows(store: &impl MetastoreAdmin) -> Vec<EnvelopeKeyRecord> {
    let mut rows = Vec::new();
    let mut after = None;
    loop {
        let page = store.list("", after.as_ref(), 500, &call()).await.unwrap();
        assert!(page.damaged.is_empty(), "{:?}", page.damaged);
        rows.extend(page.records);
        match page.next {
            Some(next) => after = Some(next),
            None => return rows,
        }
    }
}

/// Each version is there once, and what was encrypted was so under one of them.
fn assert_keys_are_unique_and_used(rows: &[EnvelopeKeyRecord], records: &[Record]) {
    let keys: BTreeSet<_> = rows.iter().map(|row| (row.meta().id().as_str(), row.meta().created())).collect();
    assert_eq!(keys.len(), rows.len());
    for record in records {
        let parent = record.sealed.parent().unwrap();
        assert!(keys.contains(&(parent.id().as_str(), parent.created())), "{parent}");
    }
}

/// Asks all processes which key they use for each partition, until it is one, and the latest there is.
async fn converge(children: &mut Children, store: &impl Metastore, partitions: &BTreeSet<String>) {
    let begin = Instant::now();
    loop {
        let used: Vec<BTreeMap<_, _>> = children.keys_used(partitions).await;
        let mut latest = BTreeMap::new();
        for partition in partitions {
            let id = KeyId::new(format!("_IK_{partition}_{SERVICE}_{PRODUCT}"));
            let row = store.latest(&id).await.unwrap().unwrap();
            assert!(!row.is_revoked(), "{id} is revoked and in use");
            latest.insert(partition.clone(), row.meta().created().unix_seconds());
        }
        if used.iter().all(|used| *used == latest) {
            return;
        }
        // Processes look at the store once a second.
        assert!(begin.elapsed() < PATIENCE, "{used:?} {latest:?}");
    }
}
