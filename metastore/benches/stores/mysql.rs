//! MariaDB: loads of one key.

use claviger::KeyMeta;
use claviger_metastore::MysqlMetastore;
use claviger_test_servers::MariaDb;
use sqlx::mysql::MySqlPoolOptions;
use sqlx::query_scalar;

use crate::{compare_loads, fill};

pub(crate) async fn run(rounds: usize) {
    let server = MariaDb::start();
    server.create_database("bench", "utf8mb4 COLLATE utf8mb4_general_ci");
    let url = server.url("bench");
    MysqlMetastore::builder().danger_unchecked().open(&url).await.unwrap().migrate().await.unwrap();
    let store = MysqlMetastore::open(&url).await.unwrap();
    fill(&store).await;
    // Without a round trip before each query, which would hide what differs behind it.
    let pool = MySqlPoolOptions::new().max_connections(4).test_before_acquire(false);
    let pool = pool.connect(&url).await.unwrap();
    let bare = |key: KeyMeta| {
        let pool = pool.clone();
        async move {
            let bare = "SELECT key_record FROM encryption_key WHERE id = ? AND created = ?";
            let record: String = query_scalar(bare)
                .bind(key.id().as_str())
                .bind("2023-11-14 22:13:20")
                .fetch_one(&pool)
                .await
                .unwrap();
            record.len()
        }
    };
    compare_loads("MariaDB", rounds, 500, &store, bare).await;
    pool.close().await;
}
