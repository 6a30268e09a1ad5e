//! Helpers: databases of their own on the shared server, tables as others make them, records.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use claviger_metastore::{FindingId, PostgresMetastore, SchemaReport};
use claviger_testkit::shared_postgres;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

pub(crate) use crate::told::{
    NOW, assert_permanent, assert_transient, chain, dangers, meta, password, record,
};

/// More time than any call needs on a busy machine.
pub(crate) const PLENTY: Duration = Duration::from_secs(60);

/// The table as Asherah's documentation has it.
pub(crate) const ASHERAH: &str = "CREATE TABLE encryption_key (id VARCHAR(255) NOT NULL, \
     created TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, key_record TEXT NOT NULL, \
     PRIMARY KEY (id, created))";

/// A database of its own on the shared server, left there when the test ends.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) url: String,
}

impl Place {
    /// An empty one.
    pub(crate) async fn new() -> Self {
        Self::with("").await
    }

    /// One that is created with these options.
    pub(crate) async fn with(options: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{count}", std::process::id());
        execute(shared_postgres(), &format!("CREATE DATABASE {name} {options}")).await;
        let url = at_database(shared_postgres(), &name);
        Self { name, url }
    }

    /// One with our own table.
    pub(crate) async fn migrated() -> Self {
        let place = Self::new().await;
        place.migrate().await;
        place
    }

    /// One with a table that others made.
    pub(crate) async fn holding(table: &str) -> Self {
        let place = Self::new().await;
        place.execute(table).await;
        place
    }

    pub(crate) async fn open(&self) -> PostgresMetastore {
        PostgresMetastore::builder().open(&self.url).await.unwrap()
    }

    pub(crate) async fn unchecked(&self) -> PostgresMetastore {
        PostgresMetastore::builder().danger_unchecked().open(&self.url).await.unwrap()
    }

    /// Makes our own table if there is none.
    pub(crate) async fn migrate(&self) -> PostgresMetastore {
        PostgresMetastore::builder().danger_unchecked().migrate().open(&self.url).await.unwrap()
    }

    /// Runs SQL as another program does.
    pub(crate) async fn execute(&self, sql: &str) {
        execute(&self.url, sql).await;
    }

    /// Returns the first column of the first row.
    pub(crate) async fn text(&self, sql: &str) -> String {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        let text = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        text
    }

    /// Writes a row as another program does: `created` is an SQL expression.
    pub(crate) async fn write_row(&self, id: &str, created: &str, json: &str) {
        let [id, json] = [id, json].map(|text| text.replace('\'', "''"));
        self.execute(&format!("INSERT INTO encryption_key VALUES ('{id}', {created}, '{json}')")).await;
    }
}

pub(crate) async fn execute(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    connection.execute(AssertSqlSafe(sql)).await.unwrap();
    connection.close().await.unwrap();
}

pub(crate) fn at_database(url: &str, name: &str) -> String {
    format!("{}/{name}", url.rsplit_once('/').unwrap().0)
}

/// The URL for another user.
pub(crate) fn as_user(url: &str, user: &str, password: &str) -> String {
    format!("postgres://{user}:{password}@{}", url.rsplit_once('@').unwrap().1)
}

/// The ids of what the report says, but for what the shared server is set to.
pub(crate) fn ids(report: &SchemaReport) -> Vec<FindingId> {
    let is_of_server = |what: &str| what.starts_with("fsync is off");
    let findings = report.findings().iter().filter(|finding| !is_of_server(&finding.what));
    findings.map(|finding| finding.id).collect()
}

/// What no error says: statements, and how to connect.
pub(crate) fn never_said() -> [&'static str; 6] {
    ["'claviger.", "INSERT INTO", "WHERE", "key_record", "postgres://", password(shared_postgres())]
}
