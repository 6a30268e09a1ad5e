//! MariaDB.

use std::str::FromStr as _;
use std::time::Duration;

use claviger::{BoxedMetastore, MetastoreAdmin as _};
use claviger_metastore::MysqlMetastore;
use claviger_test_servers::shared_mariadb;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::engine::{Engine, LONG, Way, host_and_port, new_name};

pub(crate) struct MariaDb(pub(crate) MySqlConnectOptions);

impl MariaDb {
    /// A new database of the server at `url`, with our table.
    pub(crate) async fn create(url: &str) -> Self {
        let options = MySqlConnectOptions::from_str(url).unwrap();
        let database = new_name();
        let mut connection = options.clone().connect().await.unwrap();
        let create = format!("CREATE DATABASE {database}");
        sqlx::query(sqlx::AssertSqlSafe(create)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let engine = Self(options.database(&database));
        Self::open(engine.pool(&engine.address(), 1), LONG).await.migrate().await.unwrap();
        engine
    }

    pub(crate) async fn open(pool: MySqlPool, patience: Duration) -> MysqlMetastore {
        let builder = MysqlMetastore::builder().danger_unchecked().deadline(patience);
        builder.pool(pool).await.unwrap()
    }

    fn pool(&self, address: &str, connections: u32) -> MySqlPool {
        let (host, port) = host_and_port(address);
        MySqlPoolOptions::new()
            .max_connections(connections)
            .test_before_acquire(false)
            .connect_lazy_with(self.0.clone().host(host).port(port))
    }
}

impl Engine for MariaDb {
    const NAME: &str = "mariadb";

    async fn shared() -> Self {
        Self::create(shared_mariadb()).await
    }

    fn address(&self) -> String {
        format!("{}:{}", self.0.get_host(), self.0.get_port())
    }

    async fn way(&self, address: &str, connections: u32, patience: Duration) -> Way {
        let pool = self.pool(address, connections);
        let store = Self::open(pool.clone(), patience).await;
        Way::over(BoxedMetastore::new(store), pool, connections)
    }

    async fn rows(&self) -> u64 {
        Self::open(self.pool(&self.address(), 1), LONG).await.count().await.unwrap()
    }
}
