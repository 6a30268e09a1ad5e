//! The contract suites, run on every back end.

#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a helper fails its test by panicking")]

use claviger_metastore::SqliteMetastore;
use tempfile::TempDir;

async fn in_a_folder() -> (SqliteMetastore, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteMetastore::open(folder.path().join("keys.db")).await.unwrap();
    (store, folder)
}

mod sqlite {
    claviger::testing::metastore_contract!(guarded super::in_a_folder());
}

mod sqlite_admin {
    claviger::testing::metastore_admin_contract!(guarded super::in_a_folder());
}
