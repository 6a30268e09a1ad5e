//! The service's own table. It stores records and knows nothing of keys.

use std::path::Path;
use std::time::Duration;

use claviger::{BackendError, DataRowRecord, Persistence};
use claviger_metastore::SqliteMetastore;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;

pub(crate) struct Notes(SqlitePool);

/// One customer's notes.
pub(crate) struct CustomerNotes<'a> {
    pool: &'a SqlitePool,
    customer: &'a str,
}

impl Notes {
    pub(crate) async fn open(path: &Path) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            // How long another process may keep a request waiting.
            .busy_timeout(Duration::from_secs(1));
        let pool = SqlitePool::connect_with(options).await?;
        sqlx::query(
            "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, customer TEXT NOT NULL, record TEXT NOT NULL)",
        )
        .execute(&pool)
        .await?;
        Ok(Self(pool))
    }

    pub(crate) const fn of<'a>(&'a self, customer: &'a str) -> CustomerNotes<'a> {
        CustomerNotes { pool: &self.0, customer }
    }

    pub(crate) async fn close(&self) {
        self.0.close().await;
    }
}

impl Persistence for CustomerNotes<'_> {
    type Key = i64;

    async fn store(&self, record: &DataRowRecord) -> Result<i64, BackendError> {
        let stored = sqlx::query("INSERT INTO notes (customer, record) VALUES (?, ?)")
            .bind(self.customer)
            .bind(record.to_json())
            .execute(self.pool)
            .await
            .map_err(SqliteMetastore::classify)?;
        Ok(stored.last_insert_rowid())
    }

    async fn load(&self, id: &i64) -> Result<Option<DataRowRecord>, BackendError> {
        let json: Option<String> =
            sqlx::query_scalar("SELECT record FROM notes WHERE customer = ? AND id = ?")
                .bind(self.customer)
                .bind(id)
                .fetch_optional(self.pool)
                .await
                .map_err(SqliteMetastore::classify)?;
        json.map(|json| DataRowRecord::from_json(json.as_bytes())).transpose().map_err(BackendError::damaged)
    }
}
