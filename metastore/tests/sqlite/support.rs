//! Helpers: a file in a folder of its own, records, rows written past the metastore.

use std::error::Error;
use std::path::{Path, PathBuf};

use claviger::{BackendError, Created, EnvelopeKeyRecord, KeyId, KeyMeta};
use claviger_metastore::{DangerousSchema, FindingId, SqliteMetastore};
pub(crate) use claviger_testkit::chain;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tempfile::TempDir;

/// 2023-11-14 22:13:20.
pub(crate) const NOW: i64 = 1_700_000_000;

/// A key file in a folder that goes with it.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
    pub(crate) file: PathBuf,
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(work)
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.db");
        Self { folder, file }
    }

    /// In a folder in this one.
    pub(crate) fn at(folder: &Path) -> Self {
        let folder = tempfile::tempdir_in(folder).unwrap();
        let file = folder.path().join("keys.db");
        Self { folder, file }
    }

    /// The file and its table are made if they are not there.
    pub(crate) async fn open(&self) -> SqliteMetastore {
        SqliteMetastore::migrate(&self.file).await.unwrap()
    }

    /// Connections of the kind that another program has.
    pub(crate) async fn pool(&self) -> SqlitePool {
        SqlitePool::connect_with(SqliteConnectOptions::new().filename(&self.file)).await.unwrap()
    }

    /// Writes a row as another program does: `created` is an SQL expression.
    pub(crate) async fn write_row(&self, id: &str, created: &str, json: &str) {
        let pool = self.pool().await;
        let insert =
            format!("INSERT INTO encryption_key (id, created, key_record) VALUES (?1, {created}, ?2)");
        sqlx::query(sqlx::AssertSqlSafe(insert)).bind(id).bind(json).execute(&pool).await.unwrap();
        pool.close().await;
    }

    pub(crate) async fn rows_of(&self, id: &str) -> i64 {
        let pool = self.pool().await;
        let count = "SELECT count(*) FROM encryption_key WHERE id = ?1";
        let rows = sqlx::query_scalar(count).bind(id).fetch_one(&pool).await.unwrap();
        pool.close().await;
        rows
    }
}

pub(crate) fn meta(id: &str, created: i64) -> KeyMeta {
    KeyMeta::new(KeyId::new(id), Created::new(created).unwrap())
}

pub(crate) fn record(id: &str, created: i64) -> EnvelopeKeyRecord {
    let parent = meta("_SK_svc_prod", NOW - 60);
    EnvelopeKeyRecord::new(meta(id, created), format!("{id}@{created}").into_bytes(), Some(parent))
}

#[track_caller]
pub(crate) fn assert_permanent<T: std::fmt::Debug>(answer: Result<T, BackendError>, says: &str) {
    let error = answer.unwrap_err();
    let text = chain(&error);
    assert!(!error.is_transient(), "{text}");
    assert!(text.contains(says), "{text}");
    assert_shows_no_sql(&text);
}

/// Asserts that a store did not start, for this reason and no other.
#[track_caller]
pub(crate) fn assert_dangerous(answer: Result<SqliteMetastore, BackendError>, id: FindingId, says: &str) {
    let error = answer.unwrap_err();
    assert!(!error.is_transient(), "{error:?}");
    let dangerous = error.source().unwrap().downcast_ref::<DangerousSchema>().unwrap();
    assert_eq!(dangerous.findings.iter().map(|finding| finding.id).collect::<Vec<_>>(), [id]);
    assert!(dangerous.findings[0].what.contains(says), "{dangerous}");
}

#[track_caller]
pub(crate) fn assert_shows_no_sql(text: &str) {
    for word in ["SELECT", "INSERT", "UPDATE", "WHERE", "PRAGMA", "keys.db"] {
        assert!(!text.contains(word), "{text}");
    }
}
