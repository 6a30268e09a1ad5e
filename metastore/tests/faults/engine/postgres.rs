//! PostgreSQL.

use std::str::FromStr as _;
use std::time::Duration;

use claviger::{BoxedMetastore, MetastoreAdmin as _};
use claviger_metastore::PostgresMetastore;
use claviger_test_servers::shared_postgres;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::engine::{Engine, host_and_port, new_name};

pub(crate) struct Postgres(pub(crate) PgConnectOptions);

impl Postgres {
    /// A new database of the server at `url`, with our table.
    pub(crate) async fn create(url: &str) -> Self {
        let options = PgConnectOptions::from_str(url).unwrap();
        let database = new_name();
        let mut connection = options.clone().connect().await.unwrap();
        let create = format!("CREATE DATABASE {database}");
        sqlx::query(sqlx::AssertSqlSafe(create)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let engine = Self(options.database(&database));
        engine.open(&engine.address(), Duration::from_secs(10)).await.migrate().await.unwrap();
        engine
    }

    async fn open(&self, address: &str, patience: Duration) -> PostgresMetastore {
        let builder = PostgresMetastore::builder().danger_unchecked().deadline(patience);
        builder.pool(self.pool(address, 1)).await.unwrap()
    }

    pub(crate) fn pool(&self, address: &str, connections: u32) -> PgPool {
        let (host, port) = host_and_port(address);
        PgPoolOptions::new()
            .max_connections(connections)
            .test_before_acquire(false)
            .connect_lazy_with(self.0.clone().host(host).port(port))
    }
}

impl Engine for Postgres {
    const NAME: &str = "postgres";
    const CONNECTIONS: usize = 48;

    async fn shared() -> Self {
        Self::create(shared_postgres()).await
    }

    fn address(&self) -> String {
        format!("{}:{}", self.0.get_host(), self.0.get_port())
    }

    async fn store(&self, address: &str, patience: Duration) -> BoxedMetastore {
        BoxedMetastore::new(self.open(address, patience).await)
    }

    async fn rows(&self) -> u64 {
        self.open(&self.address(), Duration::from_secs(10)).await.count().await.unwrap()
    }
}
