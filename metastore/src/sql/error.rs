//! Why a statement brought nothing.

use std::pin::Pin;

use crate::sql::SqlFault;

/// Why a statement brought nothing.
#[derive(Debug)]
pub(crate) enum SqlError {
    Driver(sqlx::Error),
    /// What the database answered cannot be.
    Fault(SqlFault),
    /// The answer is not to the statement that was sent.
    #[cfg_attr(
        not(any(feature = "postgres", feature = "sqlite")),
        expect(dead_code, reason = "the others' statements have neither names nor places")
    )]
    Crossed,
}

impl From<sqlx::Error> for SqlError {
    fn from(error: sqlx::Error) -> Self {
        Self::Driver(error)
    }
}

impl From<SqlFault> for SqlError {
    fn from(fault: SqlFault) -> Self {
        Self::Fault(fault)
    }
}

pub(crate) type SqlFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, SqlError>> + Send + 'a>>;
