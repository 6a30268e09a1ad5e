//! MariaDB: loads of one key.

use claviger::KeyMeta;
use claviger_metastore::MysqlMetastore;
use claviger_testkit::MariaDb;
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection as _, query_scalar};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::{DEADLINE, compare_loads, fill};

pub(crate) async fn run(rounds: usize) {
    let server = MariaDb::start();
    server.create_database("bench", "utf8mb4 COLLATE utf8mb4_general_ci");
    let url = server.url("bench");
    MysqlMetastore::builder().danger_unchecked().migrate().open(&url).await.unwrap();
    let store = MysqlMetastore::open(&url).await.unwrap();
    fill(&store).await;
    // A connection without a pool, since the driver's asks for a sign of life after each query; and with
    // a deadline, since the runtime takes as long to set an alarm as the server to answer.
    let connection = Mutex::new(MySqlConnection::connect(&url).await.unwrap());
    let bare = |key: KeyMeta| {
        let connection = &connection;
        async move {
            let bare = "SELECT key_record FROM encryption_key WHERE id = ? AND created = ?";
            let mut connection = connection.lock().await;
            let query = query_scalar(bare)
                .bind(key.id().as_str())
                .bind("2023-11-14 22:13:20")
                .fetch_one(&mut *connection);
            let record: String = timeout(DEADLINE, query).await.unwrap().unwrap();
            record.len()
        }
    };
    compare_loads("MariaDB", rounds, 500, &store, bare).await;
}
