//! What a database server of one make is to the stores: how it is reached, and what it says.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use claviger::BackendError;

use crate::schema::SchemaReport;
use crate::sql::SqlFault;
use crate::sql::driver::Doing;
use crate::sql::hosts::Role;
use crate::sql::look::Sharing;

/// A make of servers.
pub(crate) trait Dialect: Sized + Send + Sync + 'static {
    /// How one server is reached.
    type Options: Clone + Send + Sync + 'static;
    /// A connection on which statements can be run.
    type Session: Send + 'static;
    /// What the server calls a session. No other session of any server is called so.
    type Backend: Clone + PartialEq + fmt::Debug + Send + Sync + 'static;
    /// What a call must know of the table that is there.
    type Table: Copy + Send + Sync + 'static;

    /// What a call takes the table for while there is none.
    const NO_TABLE: Self::Table;

    /// Classifies a failure, and strips what does not belong in an error.
    fn backend_error(error: sqlx::Error, doing: Doing) -> BackendError;

    /// Returns `true` if the session is as good as before: the server answered to the end, and will
    /// not answer every other call on it in the same way.
    fn leaves_session_good(error: &sqlx::Error) -> bool;

    /// Returns `true` if the server answered what another session had asked.
    fn is_crossed(error: &sqlx::Error) -> bool;

    /// Connects to one server, and makes the session what the statements need.
    fn connect<'a>(options: &'a Self::Options, setup: &'a Setup) -> SqlFuture<'a, Connected<Self>>;

    /// Says goodbye. How that goes is of no consequence.
    fn farewell(session: Self::Session) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Lets statements of this session take so long from now on.
    fn allow(session: &mut Self::Session, deadline: Duration) -> SqlFuture<'_, ()>;

    /// Ends what the server still does for these sessions, and the sessions with it; returns those
    /// that it has not let go of yet.
    fn end<'a>(
        session: &'a mut Self::Session,
        backends: &'a [Self::Backend],
    ) -> SqlFuture<'a, Vec<Self::Backend>>;

    /// Makes our own table unless there is one.
    fn make_table(session: &mut Self::Session) -> SqlFuture<'_, ()>;

    /// Looks at the table; `None` if there is none.
    fn table(session: &mut Self::Session) -> SqlFuture<'_, Option<Self::Table>>;

    /// Whether prepared statements have names that a pooler could mix up.
    const MAY_SHARE_NAMES: bool;

    /// Finds out what a pooler between does. Both sessions are new.
    fn sharing<'a>(first: &'a mut Self::Session, second: &'a mut Self::Session) -> SqlFuture<'a, Sharing>;

    /// Looks for what is wrong, and changes nothing.
    fn report(session: &mut Self::Session) -> SqlFuture<'_, SchemaReport>;
}

/// What sessions are to be.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Which of several servers will do.
    pub(crate) role: Role,
    /// How long a load or an insert may take.
    pub(crate) deadline: Duration,
    /// The server is told to give up when the caller does.
    pub(crate) server_timeouts: bool,
    /// Statements have names on the server.
    pub(crate) named_statements: bool,
    /// A server connection serves several sessions: what is set on it would be set for others.
    pub(crate) shares_connections: bool,
    /// SQL of the caller's that each new session runs.
    pub(crate) on_connect: Option<Arc<str>>,
}

/// A new session, and what it says of where it leads to.
pub(crate) struct Connected<D: Dialect> {
    pub(crate) session: D::Session,
    /// `None` if the server cannot tell, or a pooler may change it.
    pub(crate) backend: Option<D::Backend>,
    /// Which data it has: two servers that never lose each other's commits have one name. `None` if
    /// it cannot tell.
    pub(crate) server: Option<String>,
}

/// Why a statement brought nothing.
#[derive(Debug)]
pub(crate) enum SqlError {
    Driver(sqlx::Error),
    /// What the database answered cannot be.
    Fault(SqlFault),
    /// The answer is not to the statement that was sent.
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "others' statements have no names"))]
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
    pub(crate) fn classified<D: Dialect>(self) -> BackendError {
        self.classified_when::<D>(Doing::Asking)
    }

    pub(crate) fn classified_when<D: Dialect>(self, doing: Doing) -> BackendError {
        match self {
            Self::Driver(error) => D::backend_error(error, doing),
            Self::Fault(fault) => fault.into(),
            Self::Crossed => BackendError::transient(SqlFault::Crossed),
        }
    }
}

pub(crate) type SqlFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, SqlError>> + Send + 'a>>;
