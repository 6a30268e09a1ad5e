//! Metastores for [claviger]: where wrapped keys are kept.
//!
//! Each back end is a cargo feature, and none is on by default:
//!
//! | feature | metastore | for |
//! |---|---|---|
//! | `sqlite` | `SqliteMetastore` | one machine, any number of processes, one file |
//!
//! All of them hold keys as Asherah does, so that both can work on one store.

#[cfg(feature = "sqlite")]
mod sql;

#[cfg(feature = "sqlite")]
pub use sql::SqlFault;
#[cfg(feature = "sqlite")]
pub use sql::sqlite::SqliteMetastore;
