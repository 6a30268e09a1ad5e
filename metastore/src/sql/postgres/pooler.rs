//! Whether a pooler lies between, and what it does with statements.

use std::collections::BTreeSet;

use sqlx::{Executor, Postgres, Row as _, query_scalar, raw_sql};

use crate::sql::dialect::Sharing;
use crate::sql::error::SqlError;
use crate::sql::postgres::fault::is_crossed;
use crate::sql::postgres::session::PostgresSession;

/// How often both sessions are asked in turn. A pooler that is used by others may give each of them
/// the same server connection several times in a row.
const ROUNDS: usize = 12;

/// Both sessions are new, so that the driver gives their first statements one and the same name.
const OF_FIRST: &str = "SELECT 'claviger.first'::text WHERE $1 = 'claviger.first'";
const OF_SECOND: &str = "SELECT 'claviger.second'::text WHERE $1 = 'claviger.second'";

pub(super) async fn sharing(
    first: &mut PostgresSession,
    second: &mut PostgresSession,
) -> Result<Sharing, SqlError> {
    if !share_connections(&mut first.connection, &mut second.connection).await? {
        return Ok(Sharing::Nothing);
    }
    for _ in 0..ROUNDS {
        if !(knows(first, OF_FIRST, "claviger.first").await?
            && knows(second, OF_SECOND, "claviger.second").await?)
        {
            return Ok(Sharing::Names);
        }
    }
    Ok(Sharing::Connections)
}

/// Returns `true` if the server's process changes under a session, or is that of both.
pub(super) async fn share_connections<F, S>(first: &mut F, second: &mut S) -> Result<bool, sqlx::Error>
where
    for<'c> &'c mut F: Executor<'c, Database = Postgres>,
    for<'c> &'c mut S: Executor<'c, Database = Postgres>,
{
    let (mut of_first, mut of_second) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..ROUNDS {
        of_first.insert(process(&mut *first).await?);
        of_second.insert(process(&mut *second).await?);
    }
    Ok(of_first.len() > 1 || of_second.len() > 1 || of_first == of_second)
}

/// Returns the server's process that answers.
async fn process<'c>(session: impl Executor<'c, Database = Postgres>) -> Result<i32, sqlx::Error> {
    raw_sql("SELECT pg_backend_pid()").fetch_one(session).await?.try_get(0)
}

/// Returns `true` if the statement that the session prepared is what the server runs for it.
async fn knows(session: &mut PostgresSession, sql: &'static str, tag: &str) -> Result<bool, sqlx::Error> {
    let answer: Result<Option<String>, _> =
        query_scalar(sql).bind(tag).fetch_optional(&mut session.connection).await;
    match answer {
        Ok(answer) => Ok(answer.as_deref() == Some(tag)),
        Err(error) if is_crossed(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
