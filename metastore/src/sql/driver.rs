//! What a driver's failure says, without what does not belong in an error.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use claviger::FailureKind;

/// What the database, or the way to it, reported.
///
/// It holds the server's code and message, never a connection string, a statement or a row: the
/// driver's own error prints the row that a constraint refused, and can print a password.
///
/// What a server says of a statement may quote what it was sent, the key id with its partition: that
/// message is in a field, for a caller that asks for it, and `Display` says in our words what it is about.
/// What it says of a connection is shown, since it was told no more than the user that connects.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DriverFault {
    /// The SQLSTATE, or the database's own code where it has none.
    pub code: Option<String>,
    /// `MySQL`'s number of the error; an SQLSTATE stands for many of them, and manuals list them by it.
    pub number: Option<u16>,
    /// What it said. It may hold a key id.
    pub message: String,
    /// The input or output error behind it.
    pub source: Option<Arc<io::Error>>,
    words: Words,
}

/// What is shown of it.
#[derive(Clone, Copy, Debug)]
enum Words {
    Message,
    Ours(Option<FailureKind>),
}

/// What a failure is about that no server reported.
pub(crate) fn kind_of_way(error: &sqlx::Error) -> Option<FailureKind> {
    match error {
        // So TLS says that a certificate is not good, or what was decrypted is not.
        sqlx::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => Some(FailureKind::Tls),
        sqlx::Error::Io(_) => Some(FailureKind::Unreachable),
        sqlx::Error::Tls(_) => Some(FailureKind::Tls),
        sqlx::Error::Configuration(_) => Some(FailureKind::Settings),
        sqlx::Error::PoolTimedOut => Some(FailureKind::Busy),
        _ => None,
    }
}

/// What was done when a driver failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// The server knew the user that connects, and no key.
    Connecting,
    Asking,
}

impl DriverFault {
    pub(crate) fn new(error: sqlx::Error, doing: Doing, kind: Option<FailureKind>) -> Self {
        let plain = |message: &str| Self {
            code: None,
            number: None,
            message: message.into(),
            source: None,
            words: Words::Message,
        };
        match error {
            sqlx::Error::Database(error) => Self {
                code: error.code().map(Into::into),
                words: if doing == Doing::Connecting { Words::Message } else { Words::Ours(kind) },
                ..plain(error.message())
            },
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

    /// Adds the server's number of the error.
    #[cfg(feature = "mysql")]
    pub(crate) const fn numbered(mut self, number: Option<u16>) -> Self {
        self.number = number;
        self
    }
}

impl fmt::Display for DriverFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.words {
            Words::Message => f.write_str(&self.message)?,
            Words::Ours(None) => f.write_str("the database refused the statement")?,
            Words::Ours(Some(kind)) => write!(f, "the database refused the statement: {kind}")?,
        }
        match (self.number, self.code.as_deref()) {
            (Some(number), Some(code)) => write!(f, " (error {number}, {code})"),
            (Some(number), None) => write!(f, " (error {number})"),
            (None, Some(code)) => write!(f, " ({code})"),
            (None, None) => Ok(()),
        }
    }
}

impl Error for DriverFault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
