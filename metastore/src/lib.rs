//! Metastores for [claviger]: where wrapped keys are kept.
//!
//! Each back end is a cargo feature, and none is on by default:
//!
//! | feature | metastore | for |
//! |---|---|---|
//! | `sqlite` | `SqliteMetastore` | one machine, any number of processes, one file |
//! | `postgres` | `PostgresMetastore` | PostgreSQL, and what speaks its protocol |
//! | `mysql` | `MysqlMetastore` | MySQL and MariaDB, and what speaks their protocol |
//! | `dynamodb` | `DynamoDbMetastore` | Amazon DynamoDB, global tables included |
//!
//! All of them hold keys as Asherah does, so that both can work on one store. Each looks at its
//! table before it starts ([`SchemaReport`]) and refuses one on which keys could be lost.

#[cfg(feature = "dynamodb")]
mod dynamodb;
#[cfg(any(feature = "_sql", feature = "dynamodb"))]
mod equal_keys;
#[cfg(any(feature = "_sql", feature = "dynamodb"))]
mod schema;
#[cfg(feature = "_sql")]
mod sql;
#[cfg(any(feature = "_sql", feature = "dynamodb"))]
mod task;

#[cfg(feature = "dynamodb")]
pub use dynamodb::client::DynamoDbBuilder;
#[cfg(feature = "dynamodb")]
pub use dynamodb::{DynamoDbError, DynamoDbFault, DynamoDbMetastore};
#[cfg(any(feature = "_sql", feature = "dynamodb"))]
pub use equal_keys::look_for_equal_keys;
#[cfg(any(feature = "_sql", feature = "dynamodb"))]
pub use schema::{DangerousSchema, Finding, FindingId, SchemaReport, Severity};
#[cfg(feature = "mysql")]
pub use sql::mysql::MysqlMetastore;
#[cfg(feature = "mysql")]
pub use sql::mysql::builder::MysqlBuilder;
#[cfg(feature = "postgres")]
pub use sql::postgres::PostgresMetastore;
#[cfg(feature = "postgres")]
pub use sql::postgres::builder::PostgresBuilder;
#[cfg(feature = "postgres")]
pub use sql::postgres::invalidations::PostgresInvalidations;
#[cfg(feature = "sqlite")]
pub use sql::sqlite::SqliteMetastore;
#[cfg(feature = "sqlite")]
pub use sql::sqlite::builder::SqliteBuilder;
#[cfg(feature = "_sql")]
pub use sql::{DriverFault, SqlFault};
/// The crate `sqlx` in the version that this crate uses. `connect` takes its options, and `classify` its
/// errors.
#[cfg(feature = "_sql")]
#[doc(no_inline)]
pub use sqlx;
