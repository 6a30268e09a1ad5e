//! SQLite: loads, and new partitions beside bare commits.

use std::path::Path;
use std::time::{Duration, Instant};

use claviger::{KeyMeta, SecretKey, SessionFactory, StaticKms, SystemRandom};
use claviger_metastore::SqliteMetastore;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, query, query_scalar};
use tokio::task::JoinSet;

use crate::{compare_loads, fill, median, record};

const CALLERS: usize = 64;

pub(crate) async fn run(rounds: usize) {
    let folder = tempfile::tempdir().unwrap();
    loads(folder.path(), rounds).await;
    new_partitions(folder.path(), rounds.div_ceil(2)).await;
}

fn options(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging()
}

async fn open(file: &Path) -> (SqliteMetastore, SqlitePool) {
    let options = SqlitePoolOptions::new().max_connections(4).test_before_acquire(false);
    let pool = options.connect_with(self::options(file)).await.unwrap();
    let store = SqliteMetastore::builder().migrate().open_with(pool.clone()).await.unwrap();
    (store, pool)
}

async fn loads(folder: &Path, rounds: usize) {
    let (store, pool) = open(&folder.join("loads.db")).await;
    fill(&store).await;
    let bare = |key: KeyMeta| {
        let pool = pool.clone();
        async move {
            let bare =
                "SELECT key_record FROM encryption_key WHERE id = ? AND created = datetime(?, 'unixepoch')";
            let record: String = query_scalar(bare)
                .bind(key.id().as_str())
                .bind(key.created().unix_seconds())
                .fetch_one(&pool)
                .await
                .unwrap();
            record.len()
        }
    };
    compare_loads("SQLite", rounds, 1_000, &store, bare).await;
}

/// New partitions by many callers at once through a factory, and one row by one commit for each.
async fn new_partitions(folder: &Path, rounds: usize) {
    const PARTITIONS: usize = 16;
    const COMMITS: usize = 500;
    let (store, pool) = open(&folder.join("partitions.db")).await;
    let master_key = SecretKey::generate(&SystemRandom::new()).unwrap();
    let kms = StaticKms::new(&master_key).unwrap();
    let factory = SessionFactory::builder(store, kms).service("bench").product("claviger").build().unwrap();
    drop(factory.session("first").unwrap().encrypt(b"the system key").await.unwrap());
    let mut bare = options(&folder.join("bare.db")).connect().await.unwrap();
    query("CREATE TABLE encryption_key (id TEXT, created TEXT, key_record TEXT, PRIMARY KEY (id, created))")
        .execute(&mut bare)
        .await
        .unwrap();
    let (mut of_factory, mut of_bare) = (Vec::new(), Vec::new());
    let json = record(0).to_json();
    for round in 0..rounds {
        let begun = Instant::now();
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let factory = factory.clone();
            callers.spawn(async move {
                for partition in 0..PARTITIONS {
                    let session = factory.session(&format!("{round}-{caller}-{partition}")).unwrap();
                    drop(session.encrypt(b"4111").await.unwrap());
                }
            });
        }
        callers.join_all().await;
        of_factory.push(per_second(CALLERS * PARTITIONS, begun.elapsed()));
        let begun = Instant::now();
        for commit in 0..COMMITS {
            query("INSERT INTO encryption_key VALUES (?, '2023-11-14 22:13:20', ?)")
                .bind(format!("_IK_{round}-{commit}_bench_claviger"))
                .bind(&json)
                .execute(&mut bare)
                .await
                .unwrap();
        }
        of_bare.push(per_second(COMMITS, begun.elapsed()));
    }
    let (ours, bare) = (median(of_factory), median(of_bare));
    println!(
        "SQLite: new partitions, {CALLERS} callers   {ours:.0} per second   bare commits {bare:.0} per second   \
         {:.2} x",
        ours / bare
    );
    pool.close().await;
}

fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}
