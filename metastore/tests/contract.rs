//! The contract suites, run on SQLite: on our table, and on tables that fold ids.

#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a helper fails its test by panicking")]

use claviger_metastore::{FindingId, SqliteMetastore};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tempfile::TempDir;

async fn in_a_folder() -> (SqliteMetastore, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteMetastore::migrate(folder.path().join("keys.db")).await.unwrap();
    (store, folder)
}

mod sqlite {
    claviger::testing::metastore_contract!(guarded super::in_a_folder());
}

mod sqlite_admin {
    claviger::testing::metastore_admin_contract!(guarded super::in_a_folder());
}

/// A table made by somebody who declared the ids' collation so.
async fn in_a_folder_folding(collation: &str) -> (SqliteMetastore, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.db");
    let create = format!(
        "CREATE TABLE encryption_key (id VARCHAR(255) COLLATE {collation} NOT NULL, created TIMESTAMP NOT \
         NULL DEFAULT CURRENT_TIMESTAMP, key_record TEXT NOT NULL, PRIMARY KEY (id, created))"
    );
    let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(create)).execute(&pool).await.unwrap();
    pool.close().await;
    let store = SqliteMetastore::builder().accept(FindingId::CollationFolds).open(file).await.unwrap();
    (store, folder)
}

mod sqlite_nocase {
    claviger::testing::metastore_legacy_contract!(guarded super::in_a_folder_folding("NOCASE"));
}

mod sqlite_nocase_admin {
    claviger::testing::metastore_admin_legacy_contract!(guarded super::in_a_folder_folding("NOCASE"));
}

mod sqlite_rtrim {
    claviger::testing::metastore_legacy_contract!(guarded super::in_a_folder_folding("RTRIM"));
}

mod sqlite_rtrim_admin {
    claviger::testing::metastore_admin_legacy_contract!(guarded super::in_a_folder_folding("RTRIM"));
}
