//! The service's own table. It stores records and knows nothing of keys.

use std::time::Duration;

use claviger::{BackendError, DataRowRecord, Persistence};
use claviger_metastore::PostgresMetastore;
use sqlx::postgres::PgPoolOptions;
use sqlx::types::Json;
use sqlx::{Error, PgPool};

/// How long the database may take: no request waits for ever for one that hangs.
const DEADLINE: Duration = Duration::from_secs(3);

#[derive(Clone)]
pub(crate) struct Notes(PgPool);

/// The place of one note, filled or not.
pub(crate) struct Place<'a> {
    pub(crate) notes: &'a Notes,
    pub(crate) customer: &'a str,
    pub(crate) name: &'a str,
}

impl Notes {
    /// Makes the table if there is none.
    pub(crate) async fn open(url: &str) -> Result<Self, BackendError> {
        let pool = PgPoolOptions::new().acquire_timeout(DEADLINE).connect_lazy(url);
        let notes = Self(pool.map_err(PostgresMetastore::classify)?);
        in_time(notes.migrate()).await?;
        Ok(notes)
    }

    async fn migrate(&self) -> Result<(), Error> {
        let mut transaction = self.0.begin().await?;
        // Of several that start at once the others wait, and find it made.
        sqlx::query("SELECT pg_advisory_xact_lock(2025)").execute(&mut *transaction).await?;
        sqlx::query(
            "CREATE TABLE IF NOT EXISTS notes (
                customer TEXT NOT NULL, name TEXT NOT NULL, record JSONB NOT NULL,
                PRIMARY KEY (customer, name)
            )",
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    pub(crate) async fn answers(&self) -> bool {
        in_time(sqlx::query("SELECT 1").execute(&self.0)).await.is_ok()
    }

    pub(crate) async fn close(&self) {
        self.0.close().await;
    }
}

/// A note that is stored twice is there once, so that a request whose answer was lost can be made
/// again.
impl Persistence for Place<'_> {
    type Key = ();

    async fn store(&self, record: &DataRowRecord) -> Result<(), BackendError> {
        let store = sqlx::query(
            "INSERT INTO notes (customer, name, record) VALUES ($1, $2, $3)
             ON CONFLICT (customer, name) DO UPDATE SET record = EXCLUDED.record",
        );
        let store = store.bind(self.customer).bind(self.name).bind(Json(record));
        in_time(store.execute(&self.notes.0)).await.map(drop)
    }

    async fn load(&self, (): &()) -> Result<Option<DataRowRecord>, BackendError> {
        let load = sqlx::query_scalar("SELECT record FROM notes WHERE customer = $1 AND name = $2");
        let load = load.bind(self.customer).bind(self.name);
        let record: Option<Json<DataRowRecord>> = in_time(load.fetch_optional(&self.notes.0)).await?;
        Ok(record.map(|Json(record)| record))
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, BackendError> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(outcome) => outcome.map_err(PostgresMetastore::classify),
        Err(elapsed) => Err(BackendError::transient(elapsed)),
    }
}
