//! We and the Rust one in one SQLite file; the Go one has no driver for it.

use claviger_metastore::SqliteMetastore;

use crate::clauses::clauses;
use crate::peer::{Package, Place};
use crate::world::World;

clauses!(world());

async fn world() -> World<SqliteMetastore> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    let store = SqliteMetastore::migrate(&path).await.unwrap();
    World::new(store, Place::Sqlite(path), &[Package::Rust], folder)
}
