//! What a database server of one make is to the stores: how it is reached, and what it says.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::schema::SchemaReport;
use crate::sql::error::SqlFuture;
use crate::sql::statements::Statements;

/// What a server must be for a session to stay with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "PostgreSQL's URLs alone name them all"))]
pub(crate) enum Role {
    #[default]
    Any,
    /// It follows no other server.
    Primary,
    /// It follows another server.
    Standby,
    /// It takes writes.
    ReadWrite,
    /// It takes none.
    ReadOnly,
}

impl Role {
    /// Returns `true` if a server that is this will do.
    pub(crate) const fn is_played_by(self, is_standby: bool, is_read_only: bool) -> bool {
        match self {
            Self::Any => true,
            Self::Primary => !is_standby,
            Self::Standby => is_standby,
            Self::ReadWrite => !is_read_only,
            Self::ReadOnly => is_read_only,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
        }
    }
}

/// What a pooler between does with server connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "others' statements have no names"))]
pub(crate) enum Sharing {
    /// There is none, or each session has a connection of its own.
    Nothing,
    /// Sessions share connections, and each keeps its own prepared statements.
    Connections,
    /// Sessions share connections and the names of statements.
    Names,
}

/// A make of servers.
pub(crate) trait Dialect: Statements {
    /// How one server is reached.
    type Options: Clone + Send + Sync + 'static;
    /// What the server calls a session. No other session of any server is called so.
    type Backend: Clone + PartialEq + fmt::Debug + Send + Sync + 'static;

    /// What a call takes the table for while there is none.
    const NO_TABLE: Self::Table;

    /// Returns `true` if the session is as good as before: the server answered to the end, and will
    /// not answer every other call on it in the same way.
    fn leaves_session_good(error: &sqlx::Error) -> bool;

    /// Returns `true` if the server answered what another session had asked.
    fn is_crossed(error: &sqlx::Error) -> bool;

    /// Connects to one server, and makes the session what the statements need.
    fn connect<'a>(options: &'a Self::Options, setup: &'a Setup) -> SqlFuture<'a, Connected<Self>>;

    /// Says goodbye. How that goes is of no consequence.
    fn farewell(session: Self::Session) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Has the server end statements of this session that take longer, from now on.
    fn limit(session: &mut Self::Session, time: Duration) -> SqlFuture<'_, ()>;

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
