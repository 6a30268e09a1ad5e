//! PostgreSQL.

use std::str::FromStr as _;
use std::time::Duration;

use claviger::{BoxedMetastore, MetastoreAdmin as _};
use claviger_metastore::PostgresMetastore;
use claviger_test_servers::shared_postgres;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::engine::{Engine, LONG, Way, host_and_port, new_name};

/// Of the password `faults`, hashed once and not 4096 times: the tests connect thousands of times.
const VERIFIER: &str = "SCRAM-SHA-256$1:MDEyMzQ1Njc4OWFiY2RlZg==\
                        $aIsmDRStGhiBs5wRkIN8CQZLL1+bfoiala6/pvBZmVE=:\
                        suNN00bKFXcGzoEp5ScHdGqf1HCaprQ3rmdvdIk5BHk=";

pub(crate) struct Postgres(pub(crate) PgConnectOptions);

impl Postgres {
    /// A new database of the server at `url`, with our table.
    pub(crate) async fn create(url: &str) -> Self {
        let options = PgConnectOptions::from_str(url).unwrap();
        let name = new_name();
        let mut connection = options.clone().connect().await.unwrap();
        for statement in [
            format!("CREATE ROLE {name} LOGIN PASSWORD '{VERIFIER}'"),
            format!("CREATE DATABASE {name} OWNER {name}"),
        ] {
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
        }
        connection.close().await.unwrap();
        let engine = Self(options.database(&name).username(&name).password("faults"));
        Self::open(engine.pool(&engine.address(), 1), LONG).await.migrate().await.unwrap();
        engine
    }

    pub(crate) async fn open(pool: PgPool, patience: Duration) -> PostgresMetastore {
        let builder = PostgresMetastore::builder().danger_unchecked().deadline(patience);
        builder.pool(pool).await.unwrap()
    }

    fn pool(&self, address: &str, connections: u32) -> PgPool {
        let (host, port) = host_and_port(address);
        PgPoolOptions::new()
            .max_connections(connections)
            .test_before_acquire(false)
            .connect_lazy_with(self.0.clone().host(host).port(port))
    }
}

impl Engine for Postgres {
    const NAME: &str = "postgres";

    async fn shared() -> Self {
        Self::create(shared_postgres()).await
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
