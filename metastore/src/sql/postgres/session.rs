//! A session with PostgreSQL: how statements reach it, and how their answers prove themselves.

use std::time::Duration;

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, FromRow, Row as _, ValueRef as _, query, raw_sql};

use crate::sql::dialect::Setup;
use crate::sql::error::SqlError;

/// A statement with parameters.
///
/// Behind a pooler that shares connections but not the names of statements, what is sent for one
/// statement can reach another. So the first parameter of each is its tag: the statement does nothing
/// for another tag, and returns its own with every row of its answer, of which there is always one.
/// Only an answer with the right tag is believed.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) tag: &'static str,
    pub(super) sql: &'static str,
}

/// What a parameter stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Integer(i64),
    Float(f64),
    Texts(&'a [&'a str]),
    Integers(&'a [i64]),
}

/// A connection, and what may be done to it.
#[derive(Debug)]
pub(super) struct PostgresSession {
    pub(super) connection: PgConnection,
    setup: Setup,
    /// How long the server lets statements take; `None` if it has not been told.
    limit: Option<Duration>,
}

/// How long is waited for a lock at most. Others of ours wait for one only while a row of the same
/// key is inserted.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(1);

/// Limits come in few lengths, so that they are seldom changed: twice the time at most.
fn rounded_up(time: Duration) -> Duration {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
    Duration::from_millis(millis.checked_next_power_of_two().unwrap_or(u64::MAX).min(STATEMENT_LIMIT_MAX))
}

/// What PostgreSQL takes for a time at most, in milliseconds.
const STATEMENT_LIMIT_MAX: u64 = i32::MAX as u64;

impl PostgresSession {
    pub(super) fn new(connection: PgConnection, setup: &Setup) -> Self {
        Self { connection, limit: None, setup: setup.clone() }
    }

    /// Runs the statement and returns its rows, each of which begins with the tag. There is one at
    /// least.
    pub(super) async fn ask(
        &mut self,
        statement: &Statement,
        values: &[Value<'_>],
    ) -> Result<Vec<PgRow>, SqlError> {
        let rows = if self.setup.named_statements {
            let query = query(statement.sql).bind(statement.tag);
            let query = values.iter().fold(query, |query, value| match *value {
                Value::Text(text) => query.bind(text),
                Value::Integer(integer) => query.bind(integer),
                Value::Float(float) => query.bind(float),
                Value::Texts(texts) => query.bind(texts),
                Value::Integers(integers) => query.bind(integers),
            });
            query.fetch_all(&mut self.connection).await?
        } else {
            raw_sql(AssertSqlSafe(self.in_one_flight(statement, values)))
                .fetch_all(&mut self.connection)
                .await?
        };
        let is_of_it = |row: &PgRow| bytes(row, 0).is_ok_and(|tag| tag == statement.tag.as_bytes());
        if rows.is_empty() || !rows.iter().all(is_of_it) {
            return Err(SqlError::Crossed);
        }
        Ok(rows)
    }

    /// Runs a statement without parameters, which is sent as it is.
    pub(super) async fn look<T>(&mut self, sql: &'static str) -> Result<Vec<T>, sqlx::Error>
    where
        T: for<'r> FromRow<'r, PgRow>,
    {
        let rows = raw_sql(sql).fetch_all(&mut self.connection).await?;
        rows.iter().map(T::from_row).collect()
    }

    /// Has the server end statements that take much longer, from now on. A limit that is about as long is left,
    /// as it costs a round trip to change it.
    pub(super) async fn limit(&mut self, time: Duration) -> Result<(), sqlx::Error> {
        let is_near = |limit: Duration| limit >= time && limit <= rounded_up(time) * 2;
        if self.limit.is_some_and(is_near) {
            return Ok(());
        }
        let limit = rounded_up(time);
        if self.sets_sessions() {
            let sql = format!("SET statement_timeout = {}", limit.as_millis());
            raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection).await?;
        }
        self.limit = Some(limit);
        Ok(())
    }

    /// Returns the settings of a session of its own; nothing where sessions share connections.
    pub(super) fn settings(&self) -> String {
        if self.sets_sessions() {
            format!("SET lock_timeout = {}; ", LOCK_WAIT_MAX.as_millis())
        } else {
            String::new()
        }
    }

    const fn sets_sessions(&self) -> bool {
        self.setup.server_timeouts && !self.setup.shares_connections
    }

    /// Returns what limits the one statement that follows.
    fn local_limits(&self) -> String {
        let limit = self.limit.map_or(0, |limit| limit.as_millis());
        let lock = LOCK_WAIT_MAX.as_millis();
        format!("SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {lock}; ")
    }

    /// Writes the values into the statement, for the simple protocol: one message, one answer, one
    /// transaction, which is all that a pooler keeps together.
    fn in_one_flight(&self, statement: &Statement, values: &[Value<'_>]) -> String {
        let mut text = if self.setup.server_timeouts { self.local_limits() } else { String::new() };
        let mut parts = statement.sql.split('$');
        text.push_str(parts.next().unwrap_or_default());
        for part in parts {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            let (number, rest) = part.split_at(end);
            let value = match number.parse::<usize>() {
                Ok(1) => Some(Value::Text(statement.tag)),
                Ok(number) => number.checked_sub(2).and_then(|place| values.get(place)).copied(),
                Err(_) => None,
            };
            match value {
                Some(value) => value.write(&mut text),
                // The server refuses what has no value.
                None => text.push_str("$0"),
            }
            text.push_str(rest);
        }
        text
    }
}

impl Value<'_> {
    /// Returns it as SQL.
    pub(super) fn sql(self) -> String {
        let mut sql = String::new();
        self.write(&mut sql);
        sql
    }

    /// Writes it as SQL. Of a text only letters, digits and what JSON is made of come into the SQL as
    /// they are, so that none can end the literal; the rest are code points, whatever the encoding.
    fn write(self, sql: &mut String) {
        match self {
            Self::Text(text) => {
                sql.push_str("U&'");
                for character in text.chars() {
                    if character.is_ascii_alphanumeric() || "_ .:,-+/={}\"".contains(character) {
                        sql.push(character);
                    } else {
                        sql.push_str(&format!("\\+{:06x}", u32::from(character)));
                    }
                }
                sql.push('\'');
            }
            Self::Integer(integer) => sql.push_str(&format!("({integer})::bigint")),
            Self::Float(float) => sql.push_str(&format!("'{float}'::float8")),
            Self::Texts(texts) => list(sql, texts, "text", |text| Value::Text(text)),
            Self::Integers(integers) => list(sql, integers, "bigint", |integer| Value::Integer(*integer)),
        }
    }
}

fn list<'a, T>(sql: &mut String, items: &'a [T], of_type: &str, value: impl Fn(&'a T) -> Value<'a>) {
    sql.push_str("ARRAY[");
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            sql.push_str(", ");
        }
        value(item).write(sql);
    }
    sql.push_str(&format!("]::{of_type}[]"));
}

/// A text as the server sent it, in whatever encoding, by whichever protocol.
pub(super) fn text(row: &PgRow, column: usize) -> Result<Vec<u8>, sqlx::Error> {
    bytes(row, column).map(<[u8]>::to_vec)
}

/// The same where there may be none.
pub(super) fn text_or_null(row: &PgRow, column: usize) -> Result<Option<Vec<u8>>, sqlx::Error> {
    if row.try_get_raw(column)?.is_null() { Ok(None) } else { text(row, column).map(Some) }
}

fn bytes(row: &PgRow, column: usize) -> Result<&[u8], sqlx::Error> {
    let fault = |source| sqlx::Error::ColumnDecode { index: column.to_string(), source };
    let value = row.try_get_raw(column)?;
    if value.is_null() {
        return Err(fault(Box::new(sqlx::error::UnexpectedNullError)));
    }
    value.as_bytes().map_err(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_character_of_a_text_ends_its_literal() {
        let all: String = (1..=0x2_ffff).filter_map(char::from_u32).collect();
        let sql = Value::Text(&all).sql();
        assert_eq!(sql.matches('\'').count(), 2);
        assert!(sql.is_ascii() && !sql.contains(['$', ';', '\n']));
        assert_eq!(Value::Text("_IK_a'\\\u{1f600}").sql(), r"U&'_IK_a\+000027\+00005c\+01f600'");
        assert_eq!(Value::Texts(&["a", "b"]).sql(), "ARRAY[U&'a', U&'b']::text[]");
        assert_eq!(Value::Integers(&[]).sql(), "ARRAY[]::bigint[]");
    }
}
