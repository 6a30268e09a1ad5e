//! SQLite, which has no way that could break: a file.

use std::path::Path;

use claviger::BoxedMetastore;
use claviger_metastore::SqliteMetastore;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};

use crate::engine::{LONG, Way};

/// A store in a new file of this folder, with so many connections.
pub(crate) async fn way(folder: &Path, connections: u32) -> Way {
    let options = SqliteConnectOptions::new().filename(folder.join("keys.db")).create_if_missing(true);
    let options = options.journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePoolOptions::new().max_connections(connections).connect_lazy_with(options);
    let store = SqliteMetastore::builder().migrate().open_with(pool.clone()).await.unwrap();
    let counts = move || (pool.size(), u32::try_from(pool.num_idle()).unwrap());
    Way {
        store: BoxedMetastore::new(store),
        counts: Box::new(counts),
        connections_max: connections,
        patience: LONG,
    }
}
