//! PostgreSQL, as the stores' sessions see it.

use std::pin::Pin;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _, raw_sql};

use crate::schema::SchemaReport;
use crate::sql::dialect::Sharing;
use crate::sql::dialect::{Connected, Dialect, Setup};
use crate::sql::error::{SqlError, SqlFuture};
use crate::sql::hosts::unfit;
use crate::sql::postgres::session::{PostgresSession, Value};
use crate::sql::postgres::statements::PostgresDialect;
use crate::sql::postgres::texts::Texts;
use crate::sql::postgres::{check, fault, pooler, statements};

impl Dialect for PostgresDialect {
    type Options = PgConnectOptions;
    /// Its process and when that began: the system gives the numbers of processes again.
    type Backend = String;

    const NO_TABLE: &'static Texts = Texts::OURS;
    const MAY_SHARE_NAMES: bool = true;

    fn leaves_session_good(error: &sqlx::Error) -> bool {
        fault::leaves_session_good(error)
    }

    fn is_crossed(error: &sqlx::Error) -> bool {
        fault::is_crossed(error)
    }

    fn connect<'a>(options: &'a PgConnectOptions, setup: &'a Setup) -> SqlFuture<'a, Connected<Self>> {
        Box::pin(async move {
            let connection = options.connect().await?;
            introduce(PostgresSession::new(connection, setup), setup).await
        })
    }

    fn farewell(session: PostgresSession) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { drop(session.connection.close().await) })
    }

    fn limit(session: &mut PostgresSession, time: Duration) -> SqlFuture<'_, ()> {
        Box::pin(async move { Ok(session.limit(time).await?) })
    }

    fn end<'a>(session: &'a mut PostgresSession, backends: &'a [String]) -> SqlFuture<'a, Vec<String>> {
        Box::pin(async move { Ok(end(&mut session.connection, backends).await?) })
    }

    fn make_table(session: &mut PostgresSession) -> SqlFuture<'_, ()> {
        Box::pin(statements::make_table(session))
    }

    fn table(session: &mut PostgresSession) -> SqlFuture<'_, Option<&'static Texts>> {
        Box::pin(Texts::of_table(session))
    }

    fn sharing<'a>(
        first: &'a mut PostgresSession,
        second: &'a mut PostgresSession,
    ) -> SqlFuture<'a, Sharing> {
        Box::pin(pooler::sharing(first, second))
    }

    fn report(session: &mut PostgresSession) -> SqlFuture<'_, SchemaReport> {
        check::report(session)
    }
}

const IS_STANDBY: &str = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";

const BACKEND: &str = ", pid::text || ' ' || backend_start::text FROM pg_stat_activity \
     WHERE pid = pg_backend_pid()";

/// After a fail-over the timeline is another, or the whole cluster is: then the last commits may be
/// missing. A standby has none of its own; when it gets one, it was promoted.
const SERVER: &str = "SELECT system_identifier::text || CASE WHEN pg_is_in_recovery() THEN '' \
     ELSE ' ' || left(pg_walfile_name(pg_current_wal_lsn()), 8) END FROM pg_control_system()";

/// Sets the session up, and asks where it leads to.
///
/// What speaks PostgreSQL's protocol need not have its catalogue: what it does not know of itself is
/// done without.
async fn introduce(
    mut session: PostgresSession,
    setup: &Setup,
) -> Result<Connected<PostgresDialect>, SqlError> {
    if let Some(sql) = &setup.on_connect {
        raw_sql(AssertSqlSafe(&**sql)).execute(&mut session.connection).await?;
    }
    let settings = session.settings();
    let row = match known(&mut session, format!("{settings}{IS_STANDBY}{BACKEND}")).await? {
        Some(row) => row,
        None => {
            let sql = AssertSqlSafe(format!("{settings}{IS_STANDBY}"));
            raw_sql(sql).fetch_one(&mut session.connection).await?
        }
    };
    if !setup.role.is_played_by(row.try_get(0)?, row.try_get(1)?) {
        return Err(unfit(setup.role));
    }
    // Behind a pooler it is that of the moment.
    let backend = if setup.shares_connections { None } else { row.try_get(2).ok() };
    let server = known(&mut session, SERVER.to_owned()).await?;
    Ok(Connected { backend, server: server.and_then(|row| row.try_get(0).ok()), session })
}

/// Asks for one row; `None` if the server does not know of what is asked.
async fn known(session: &mut PostgresSession, sql: String) -> Result<Option<PgRow>, sqlx::Error> {
    match raw_sql(AssertSqlSafe(sql)).fetch_optional(&mut session.connection).await {
        Err(sqlx::Error::Database(error)) if error.code().is_some_and(|state| is_unknown(&state)) => Ok(None),
        answer => answer,
    }
}

/// Of functions, tables, columns, features and rights.
fn is_unknown(state: &str) -> bool {
    matches!(state.get(..2), Some("42" | "0A" | "3F"))
}

/// A commit that waits for a standby is not ended: see [`abandoned`](crate::sql::abandoned).
async fn end(connection: &mut PgConnection, backends: &[String]) -> Result<Vec<String>, sqlx::Error> {
    let backends: Vec<_> = backends.iter().map(String::as_str).collect();
    // Materialised: else the server is free to end sessions before it looks which they are.
    let sql = format!(
        "WITH given_up AS MATERIALIZED ( \
           SELECT pid, wait_event, backend FROM pg_stat_activity, \
             LATERAL (SELECT pid::text || ' ' || backend_start::text AS backend) AS named \
           WHERE backend = ANY ({})) \
         SELECT backend, wait_event IS DISTINCT FROM 'SyncRep' AND pg_terminate_backend(pid) FROM given_up",
        Value::Texts(&backends).sql()
    );
    let rows = raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}
