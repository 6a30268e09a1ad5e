//! PostgreSQL.

use std::num::NonZeroU32;
use std::str::FromStr as _;
use std::time::Duration;

use claviger::MetastoreAdmin as _;
use claviger::testing::call;
use claviger_metastore::PostgresMetastore;
use claviger_testkit::shared_postgres;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use crate::engine::{Engine, Way, host_and_port, new_name};

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
        let builder = PostgresMetastore::builder().danger_unchecked().migrate();
        builder.open_with(engine.0.clone()).await.unwrap();
        engine
    }

    async fn open(&self, address: &str, connections: u32) -> PostgresMetastore {
        let (host, port) = host_and_port(address);
        let builder = PostgresMetastore::builder().danger_unchecked();
        let builder = builder.max_connections(NonZeroU32::new(connections).unwrap());
        builder.open_with(self.0.clone().host(host).port(port)).await.unwrap()
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
        Way::over(self.open(address, connections).await, connections, patience)
    }

    async fn rows(&self) -> u64 {
        self.open(&self.address(), 1).await.count(&call()).await.unwrap()
    }
}
