//! Why a statement brought nothing.

use std::pin::Pin;

use claviger::BackendError;

use crate::sql::SqlFault;
use crate::sql::driver::Doing;
use crate::sql::statements::Statements;

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

impl SqlError {
    pub(crate) fn classified<D: Statements>(self) -> BackendError {
        self.classified_when::<D>(Doing::Asking)
    }

    pub(crate) fn classified_when<D: Statements>(self, doing: Doing) -> BackendError {
        match self {
            Self::Driver(error) => D::backend_error(error, doing),
            Self::Fault(fault) => fault.into(),
            Self::Crossed => BackendError::transient(SqlFault::Crossed),
        }
    }
}

pub(crate) type SqlFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, SqlError>> + Send + 'a>>;
