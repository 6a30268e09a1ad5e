//! What is asked of the table, and what the answers mean.

use claviger::{BackendError, Created, FailureKind, KeyId, KeyMeta};
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, Row as _, raw_sql};

use crate::sql::driver::Doing;
use crate::sql::error::SqlError;
use crate::sql::postgres::fault::backend_error;
use crate::sql::postgres::session::{PostgresSession, Value, text, text_or_null};
use crate::sql::postgres::texts::{
    COUNT, DELETE, FOLDING_OF_TIMESTAMP, FOLDING_OF_TIMESTAMPTZ, OF_TIMESTAMP, OF_TIMESTAMPTZ, Texts,
};
use crate::sql::rows::{Row, in_places};
use crate::sql::statements::{Found, On, Placed, Statements};
use crate::sql::{DriverFault, SqlFault};

/// PostgreSQL.
#[derive(Debug)]
pub(super) struct PostgresDialect;

impl Statements for PostgresDialect {
    const STORE: &'static str = "PostgresMetastore";
    /// Its parameters and its answer are a few megabytes then.
    const ASKED_MAX: usize = 10_000;

    type Session = PostgresSession;
    type Table = &'static Texts;

    fn backend_error(error: sqlx::Error, doing: Doing) -> BackendError {
        backend_error(error, doing)
    }

    async fn find(on: &mut On<'_, Self>, key: &KeyMeta) -> Result<Found, SqlError> {
        match &on.session.ask(&on.table.load, &values(key)).await?[..] {
            [row] => version(on.table, key, row),
            _ => Err(SqlError::Crossed),
        }
    }

    async fn find_many(on: &mut On<'_, Self>, keys: &[KeyMeta]) -> Result<Vec<Found>, SqlError> {
        let (ids, created): (Vec<_>, Vec<_>) =
            keys.iter().map(|key| (key.id().as_str(), key.created().unix_seconds())).unzip();
        let values = [Value::Texts(&ids), Value::Integers(&created)];
        let rows = on.session.ask(&on.table.load_many, &values).await?;
        in_order(&rows, keys)?.map(|(row, key)| version(on.table, key, row)).collect()
    }

    async fn find_holder(on: &mut On<'_, Self>, key: &KeyMeta) -> Result<Option<Row>, SqlError> {
        let rows = on.session.ask(&on.table.holder, &values(key)).await?;
        let holder = |row| {
            let (id, json) = (text(row, ID).ok()?, text_or_null(row, HOLDERS_RECORD).ok()?);
            Some(Row { id, created: Some(key.created().unix_seconds()), json })
        };
        Ok(rows.iter().find_map(holder))
    }

    async fn find_latest(on: &mut On<'_, Self>, id: &KeyId, up_to: Created) -> Result<Vec<Row>, SqlError> {
        let values = [Value::Text(id.as_str()), Value::Float(after(up_to))];
        match &on.session.ask(&on.table.load_latest, &values).await?[..] {
            [row] => latest(id, row),
            _ => Err(SqlError::Crossed),
        }
    }

    async fn find_latest_many(
        on: &mut On<'_, Self>,
        ids: &[KeyId],
        up_to: Created,
    ) -> Result<Vec<Vec<Row>>, SqlError> {
        let asked: Vec<_> = ids.iter().map(KeyId::as_str).collect();
        let values = [Value::Texts(&asked), Value::Float(after(up_to))];
        let rows = on.session.ask(&on.table.load_latest_many, &values).await?;
        in_order(&rows, ids)?.map(|(row, id)| latest(id, row)).collect()
    }

    async fn insert(on: &mut On<'_, Self>, key: &KeyMeta, json: &str) -> Result<Placed, SqlError> {
        let [id, created] = values(key);
        match on.session.ask(&on.table.insert, &[id, created, Value::Text(json)]).await {
            Ok(rows) if counted(&rows)? == 1 => Ok(Placed::Inserted),
            Ok(_) => Ok(Placed::Nowhere),
            Err(SqlError::Driver(sqlx::Error::Database(error))) if error.is_unique_violation() => {
                Ok(Placed::Refused)
            }
            Err(error) => Err(error),
        }
    }

    async fn update(on: &mut On<'_, Self>, key: &KeyMeta, old: &[u8], new: &str) -> Result<u64, SqlError> {
        let [id, created] = values(key);
        // A record is JSON, which it would not have been read as otherwise.
        let old = String::from_utf8_lossy(old);
        let values = [id, created, Value::Text(&old), Value::Text(new)];
        counted(&on.session.ask(&on.table.update, &values).await?)
    }

    async fn list(
        on: &mut On<'_, Self>,
        prefix: &str,
        after: Option<&KeyMeta>,
        limit: usize,
    ) -> Result<Vec<Row>, SqlError> {
        let (id, created) =
            after.map_or(("", f64::NEG_INFINITY), |key| (key.id().as_str(), at_or_past_all(key.created())));
        let limited = Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX));
        let values = [Value::Text(id), Value::Float(created), limited, Value::Text(prefix)];
        let rows = on.session.ask(&on.table.list, &values).await?;
        // An empty page is one row without an id.
        let listed = rows.iter().filter_map(|row| text(row, ID).ok().map(|id| (id, row)));
        let listed = listed
            .map(|(id, row)| Ok(Row { id, created: row.try_get(2)?, json: text_or_null(row, RECORD)? }));
        listed.collect()
    }

    async fn delete_version(on: &mut On<'_, Self>, key: &KeyMeta) -> Result<u64, SqlError> {
        counted(&on.session.ask(&on.table.delete_version, &values(key)).await?)
    }

    async fn delete(on: &mut On<'_, Self>, id: &KeyId) -> Result<u64, SqlError> {
        counted(&on.session.ask(&DELETE, &[Value::Text(id.as_str())]).await?)
    }

    async fn count(on: &mut On<'_, Self>) -> Result<u64, SqlError> {
        counted(&on.session.ask(&COUNT, &[]).await?)
    }
}

/// What the row of an answer says of the version that was asked for.
fn version(texts: &Texts, key: &KeyMeta, row: &PgRow) -> Result<Found, SqlError> {
    Ok(match found(row, key.id())? {
        Some(row) => Found::Row(Row::of_version(key, text_or_null(row, RECORD)?)),
        None if texts.folds => Found::HeldPerhaps,
        None => Found::Nothing,
    })
}

/// The latest row of an id and the one before it, from the row that has both.
fn latest(id: &KeyId, row: &PgRow) -> Result<Vec<Row>, SqlError> {
    let Some(row) = found(row, id)? else { return Ok(Vec::new()) };
    let of = |record, seconds: Option<i64>| -> Result<_, sqlx::Error> {
        Ok(Row::of_id(id, seconds, text_or_null(row, record)?))
    };
    let mut rows = vec![of(RECORD, row.try_get(SECONDS)?)?];
    // Where there is no earlier row, there is no time.
    if let Some(seconds) = row.try_get::<Option<i64>, _>(EARLIER_SECONDS)? {
        rows.push(of(EARLIER_RECORD, Some(seconds))?);
    }
    Ok(rows)
}

/// What names a version to a statement.
fn values(key: &KeyMeta) -> [Value<'_>; 2] {
    [Value::Text(key.id().as_str()), Value::Integer(key.created().unix_seconds())]
}

// Where in an answer is what; the tag is first.
/// The id that was asked for.
const ID: usize = 1;
/// Whether there is a row.
const IS_FOUND: usize = 2;
const RECORD: usize = 3;
/// The place of what was asked.
const PLACE: usize = 4;
/// Where a latest one has its time, and what is before it.
const SECONDS: usize = 5;
const EARLIER_RECORD: usize = 6;
const EARLIER_SECONDS: usize = 7;
/// Where the holder's is.
const HOLDERS_RECORD: usize = 2;

/// The row that was found, if any. An answer to another question is none to this one.
fn found<'a>(row: &'a PgRow, id: &KeyId) -> Result<Option<&'a PgRow>, SqlError> {
    if text(row, ID)? != id.as_str().as_bytes() {
        return Err(SqlError::Crossed);
    }
    Ok(row.try_get::<bool, _>(IS_FOUND)?.then_some(row))
}

/// The rows of an answer, one for each that was asked for, with what was. The server counts from one.
fn in_order<'a, T>(
    rows: &'a [PgRow],
    asked: &'a [T],
) -> Result<impl Iterator<Item = (&'a PgRow, &'a T)>, SqlError> {
    let places = rows.iter().map(|row| Ok((row.try_get::<i64, _>(PLACE)? - 1, row)));
    let placed = in_places(asked.len(), places.collect::<Result<Vec<_>, sqlx::Error>>()?)?;
    let one_each = placed.into_iter().map(|rows| match rows[..] {
        [row] => Ok(row),
        _ => Err(SqlError::Crossed),
    });
    Ok(one_each.collect::<Result<Vec<_>, _>>()?.into_iter().zip(asked))
}

/// How many rows a statement counted.
fn counted(rows: &[PgRow]) -> Result<u64, SqlError> {
    let [row] = rows else { return Err(SqlError::Crossed) };
    Ok(row.try_get::<i64, _>(1)?.unsigned_abs())
}

/// A time as `to_timestamp` takes it. The last one stands for all that are past it, where the server begins
/// to count in floating fractions: no key is among them.
#[expect(clippy::cast_precision_loss, reason = "the year 9999 ends below 2^53")]
fn at_or_past_all(created: Created) -> f64 {
    if created == Created::MAX { f64::INFINITY } else { created.unix_seconds() as f64 }
}

/// What all times of the second are before; those of a foreign writer may have fractions of one.
fn after(created: Created) -> f64 {
    at_or_past_all(created) + 1.0
}

impl Texts {
    /// Returns those that the table takes; `None` if there is no table.
    pub(super) async fn of_table(session: &mut PostgresSession) -> Result<Option<&'static Self>, SqlError> {
        let tables: Vec<(String, bool)> = session.look(TABLE).await?;
        Ok(tables.first().map(|(created_type, folds)| match (created_type.as_str(), folds) {
            ("timestamp without time zone", false) => &OF_TIMESTAMP,
            ("timestamp without time zone", true) => &FOLDING_OF_TIMESTAMP,
            (_, false) => &OF_TIMESTAMPTZ,
            (_, true) => &FOLDING_OF_TIMESTAMPTZ,
        }))
    }
}

/// The type of `created`, and whether the comparison of ids takes two for one. That of `citext` and of
/// `CHAR` with a text, which ours are, does not.
const TABLE: &str = "SELECT created.atttypid::regtype::text, NOT coalesce(c.collisdeterministic, true) \
     FROM pg_attribute AS created JOIN pg_attribute AS id USING (attrelid) \
     LEFT JOIN pg_collation AS c ON c.oid = id.attcollation \
     WHERE attrelid = to_regclass('encryption_key') AND created.attname = 'created' \
       AND id.attname = 'id' AND NOT created.attisdropped AND NOT id.attisdropped";

const CREATE_TABLE: &str = include_str!("../../../migrations/postgres/0001_encryption_key.sql");
const CREATE_TRIGGER: &str = include_str!("../../../migrations/postgres/0002_notify.sql");

/// Makes the table and its trigger, both or neither, unless there is a table.
pub(super) async fn make_table(session: &mut PostgresSession) -> Result<(), SqlError> {
    migrate(session).await.map_err(|error| match &error {
        sqlx::Error::Database(cause) if cause.code().is_some_and(|code| MAY_NOT_CREATE.contains(&&*code)) => {
            // No key is in what is said.
            let kind = Some(FailureKind::Denied);
            SqlFault::TableNotMade(DriverFault::new(error, Doing::Connecting, kind)).into()
        }
        _ => error.into(),
    })
}

/// The user has not the right, in any schema of the search path or in its first.
const MAY_NOT_CREATE: [&str; 2] = ["3F000", "42501"];

async fn migrate(session: &mut PostgresSession) -> Result<(), sqlx::Error> {
    let mut transaction = session.connection.begin().await?;
    // Of several that come first at once the others wait, and find it made.
    raw_sql(LOCK_MIGRATION).execute(&mut *transaction).await?;
    let is_there = raw_sql("SELECT to_regclass('encryption_key') IS NOT NULL");
    if !is_there.fetch_one(&mut *transaction).await?.try_get::<bool, _>(0)? {
        raw_sql(CREATE_TABLE).execute(&mut *transaction).await?;
        raw_sql(CREATE_TRIGGER).execute(&mut *transaction).await?;
    }
    transaction.commit().await
}

/// A number that others are unlikely to lock: `claviger` in ASCII.
const LOCK_MIGRATION: &str = "SELECT pg_advisory_xact_lock(7164208268442035570)";
