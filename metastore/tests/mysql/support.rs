//! Helpers: databases of their own, tables as others make them, records, errors.

use std::sync::atomic::{AtomicU32, Ordering};

use claviger_metastore::{FindingId, MysqlBuilder, MysqlMetastore, SchemaReport};
use claviger_testkit::{MariaDb, shared_mariadb};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, raw_sql};

pub(crate) use crate::told::{
    NOW, assert_permanent, assert_transient, chain, dangers, meta, password, record,
};

/// The table as Asherah's documentation has it.
pub(crate) const ASHERAH: &str = "CREATE TABLE encryption_key (id VARCHAR(255) NOT NULL, \
     created TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, key_record TEXT NOT NULL, \
     PRIMARY KEY (id, created), INDEX (created))";

/// What a server without option files has, and what Debian's has.
pub(crate) const LATIN1: &str = "latin1 COLLATE latin1_swedish_ci";
pub(crate) const UTF8: &str = "utf8mb4 COLLATE utf8mb4_general_ci";

/// A database of its own, left there when the test ends.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) url: String,
}

impl Place {
    /// An empty one on the shared server.
    pub(crate) async fn new(charset: &str) -> Self {
        Self::on(shared_mariadb(), charset).await
    }

    /// An empty one on a server of the test.
    pub(crate) async fn at(server: &MariaDb, charset: &str) -> Self {
        Self::on(&server.url(""), charset).await
    }

    async fn on(server: &str, charset: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let url = format!("{server}{name}");
        execute(server, &format!("CREATE DATABASE {name} CHARACTER SET {charset}")).await;
        Self { url }
    }

    /// One with our own table.
    pub(crate) async fn migrated(charset: &str) -> Self {
        let place = Self::new(charset).await;
        place.migrate().await;
        place
    }

    /// One with a table that others made.
    pub(crate) async fn holding(table: &str, charset: &str) -> Self {
        let place = Self::new(charset).await;
        place.execute(table).await;
        place
    }

    pub(crate) async fn open(&self) -> MysqlMetastore {
        builder().open(&self.url).await.unwrap()
    }

    pub(crate) async fn unchecked(&self) -> MysqlMetastore {
        builder().danger_unchecked().open(&self.url).await.unwrap()
    }

    /// Makes our own table if there is none.
    pub(crate) async fn migrate(&self) -> MysqlMetastore {
        builder().danger_unchecked().migrate().open(&self.url).await.unwrap()
    }

    /// Runs SQL as another program does.
    pub(crate) async fn execute(&self, sql: &str) {
        execute(&self.url, sql).await;
    }

    /// Returns the first columns, as text.
    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        let mut connection = MySqlConnection::connect(&self.url).await.unwrap();
        let texts = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        texts
    }

    /// Writes a row as another program does, in a session of this zone: UTC text as a parameter.
    pub(crate) async fn write_row(&self, zone: &str, id: &str, created: &str, json: &str) {
        let options: MySqlConnectOptions = self.url.parse().unwrap();
        let mut connection = options.timezone(Some(zone.to_owned())).connect().await.unwrap();
        sqlx::query("INSERT INTO encryption_key (id, created, key_record) VALUES (?, ?, ?)")
            .bind(id)
            .bind(created)
            .bind(json)
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    }
}

pub(crate) fn builder() -> MysqlBuilder {
    MysqlMetastore::builder()
}

pub(crate) async fn execute(url: &str, sql: &str) {
    let mut connection = MySqlConnection::connect(url).await.unwrap();
    raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// The URL for another user.
pub(crate) fn as_user(url: &str, user: &str, password: &str) -> String {
    format!("mysql://{user}:{password}@{}", url.rsplit_once('@').unwrap().1)
}

pub(crate) fn ids(report: &SchemaReport) -> Vec<FindingId> {
    report.findings().iter().map(|finding| finding.id).collect()
}

/// What no error says: statements, and how to connect.
pub(crate) fn never_said() -> [&'static str; 6] {
    ["SELECT ", "INSERT INTO", "UPDATE ", "WHERE", "mysql://", password(shared_mariadb())]
}
