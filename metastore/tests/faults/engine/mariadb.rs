//! MariaDB.

use std::num::NonZeroU32;
use std::str::FromStr as _;
use std::time::Duration;

use claviger::MetastoreAdmin as _;
use claviger::testing::call;
use claviger_metastore::MysqlMetastore;
use claviger_testkit::shared_mariadb;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use crate::engine::{Engine, Way, host_and_port, new_name};

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
        let builder = MysqlMetastore::builder().danger_unchecked().migrate();
        builder.open_with(engine.0.clone()).await.unwrap();
        engine
    }

    async fn open(&self, address: &str, connections: u32) -> MysqlMetastore {
        let (host, port) = host_and_port(address);
        let builder = MysqlMetastore::builder().danger_unchecked();
        let builder = builder.max_connections(NonZeroU32::new(connections).unwrap());
        builder.open_with(self.0.clone().host(host).port(port)).await.unwrap()
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
        Way::over(self.open(address, connections).await, connections, patience)
    }

    async fn rows(&self) -> u64 {
        self.open(&self.address(), 1).await.count(&call()).await.unwrap()
    }
}
