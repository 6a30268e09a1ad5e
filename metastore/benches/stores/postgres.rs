//! PostgreSQL: loads of one key, and of a thousand.

use std::time::Instant;

use claviger::testing::call;
use claviger::{KeyMeta, Metastore as _};
use claviger_metastore::PostgresMetastore;
use claviger_testkit::Postgres;
use sqlx::{Connection as _, PgConnection, query_scalar};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::{DEADLINE, compare_loads, fill, print_ratio, shuffled};

pub(crate) async fn run(rounds: usize) {
    let server = Postgres::start();
    let url = server.url("postgres");
    PostgresMetastore::builder().danger_unchecked().migrate().open(&url).await.unwrap();
    let store = PostgresMetastore::open(&url).await.unwrap();
    fill(&store).await;
    // A connection without a pool, since the driver's asks for a sign of life after each query; and with
    // a deadline, since the runtime takes as long to set an alarm as the server to answer.
    let connection = Mutex::new(PgConnection::connect(&url).await.unwrap());
    let bare = |key: KeyMeta| {
        let connection = &connection;
        async move {
            let bare =
                "SELECT key_record::text FROM encryption_key WHERE id = $1 AND created = to_timestamp($2)";
            let mut connection = connection.lock().await;
            let query = query_scalar(bare)
                .bind(key.id().as_str())
                .bind(key.created().unix_seconds() as f64)
                .fetch_one(&mut *connection);
            let record: String = timeout(DEADLINE, query).await.unwrap().unwrap();
            record.len()
        }
    };
    compare_loads("PostgreSQL", rounds, 500, &store, bare).await;
    let unnamed = format!("{url}?prepared-statements=off");
    let unnamed = PostgresMetastore::open(&unnamed).await.unwrap();
    compare_loads("PostgreSQL, statements without names", rounds, 500, &unnamed, bare).await;
    many(&store, rounds.div_ceil(4)).await;
}

/// A thousand keys in one call, and in as many calls.
async fn many(store: &PostgresMetastore, rounds: usize) {
    let keys: Vec<_> = shuffled().take(1_000).collect();
    let (mut at_once, mut one_by_one) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let begun = Instant::now();
        let found = store.load_many(&keys, &call()).await.unwrap();
        at_once.push(begun.elapsed());
        assert_eq!(found.into_iter().flatten().count(), keys.len());
        let begun = Instant::now();
        for key in &keys {
            assert!(store.load(key, &call()).await.unwrap().is_some());
        }
        one_by_one.push(begun.elapsed());
    }
    print_ratio("PostgreSQL: load 1 000 keys", "load_many", at_once, "one by one", one_by_one);
}
