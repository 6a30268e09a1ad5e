//! What a driver's failure says, without what does not belong in an error.

use std::io;
use std::sync::Arc;

/// What the database, or the way to it, reported.
///
/// It holds the server's code and message, never a connection string, a statement or a row: the
/// driver's own error prints the row that a constraint refused, and can print a password.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}{}", in_brackets(.code.as_deref()))]
#[non_exhaustive]
pub struct DriverFault {
    /// The SQLSTATE, or the database's own code where it has none.
    pub code: Option<String>,
    /// What it said.
    pub message: String,
    /// The input or output error behind it.
    pub source: Option<Arc<io::Error>>,
}

impl DriverFault {
    pub(crate) fn new(error: sqlx::Error) -> Self {
        let plain = |message: &str| Self { code: None, message: message.into(), source: None };
        match error {
            sqlx::Error::Database(error) => {
                Self { code: error.code().map(Into::into), message: error.message().into(), source: None }
            }
            sqlx::Error::Io(error) => {
                Self { source: Some(Arc::new(error)), ..plain("the connection failed") }
            }
            sqlx::Error::Tls(error) => plain(&format!("TLS failed: {error}")),
            sqlx::Error::Protocol(message) => plain(&format!("the server broke the protocol: {message}")),
            sqlx::Error::PoolTimedOut => plain("no connection became free, or could be made, in time"),
            sqlx::Error::PoolClosed => plain("the connections are closed"),
            sqlx::Error::WorkerCrashed => plain("the database's thread died"),
            // Of the configuration, a value or a column: it may quote what it was given.
            sqlx::Error::Configuration(_) => plain("the configuration of the connection is wrong"),
            sqlx::Error::ColumnDecode { index, .. } => plain(&format!("column {index} cannot be read")),
            sqlx::Error::ColumnNotFound(name) => plain(&format!("there is no column {name}")),
            _ => plain("the driver failed"),
        }
    }
}

fn in_brackets(code: Option<&str>) -> String {
    code.map(|code| format!(" ({code})")).unwrap_or_default()
}
