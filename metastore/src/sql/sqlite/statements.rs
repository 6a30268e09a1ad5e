//! The statements.
//!
//! Those that read are one statement each; those that write go through [`write`], which is one
//! transaction.

use std::collections::{HashMap, HashSet};
use std::iter;

use claviger::{BackendError, Created, EnvelopeKeyRecord, Insert, KeyId, KeyMeta};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection as _, FromRow, Row as _, SqliteConnection, query, query_as, query_scalar};

use crate::sql::driver::Doing;
use crate::sql::error::SqlError;
use crate::sql::rows::{Row, in_places};
use crate::sql::sqlite::fault;
use crate::sql::sqlite::text::{
    COUNT, CREATE_TABLE, DELETE, DELETE_VERSION, INSERT, LIST, LIST_OF_PREFIX_FIRST, LIST_OF_PREFIX_NEXT,
    LOAD, LOAD_ALL_FORMS, LOAD_FOLDED, LOAD_LATEST, LOAD_LATEST_MANY, LOAD_MANY, LOAD_MANY_OTHER_FORMS,
    UPDATE,
};
use crate::sql::statements::{Found, On, Placed, Statements};
use crate::sql::write::{self, Write, carry_out};
use crate::sql::{SqlFault, checked_json};

/// SQLite.
#[derive(Debug)]
pub(super) struct SqliteDialect;

/// Its time, and its JSON if it is not too long.
type Fields = (Option<i64>, Option<Vec<u8>>);

/// The place of what was asked for, and its row.
type AskedFields = (i64, Option<i64>, Option<Vec<u8>>);

impl FromRow<'_, SqliteRow> for Row {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self { id: row.try_get(0)?, created: row.try_get(1)?, json: row.try_get(2)? })
    }
}

impl Statements for SqliteDialect {
    const STORE: &'static str = "SqliteMetastore";
    /// More would keep others from cleaning up the log for long.
    const ASKED_MAX: usize = 1_000;

    type Session = SqliteConnection;
    type Table = ();

    fn backend_error(error: sqlx::Error, doing: Doing) -> BackendError {
        fault::classified(error, doing)
    }

    async fn find(on: &mut On<'_, Self>, key: &KeyMeta) -> Result<Found, SqlError> {
        let row = query_as(LOAD).bind(key.id().as_str()).bind(key.created().unix_seconds());
        let row: Option<Fields> = row.fetch_optional(&mut *on.session).await?;
        Ok(found(key, row))
    }

    async fn find_many(on: &mut On<'_, Self>, keys: &[KeyMeta]) -> Result<Vec<Found>, SqlError> {
        let mut rows = look_for(on.session, LOAD_MANY, keys.iter()).await?;
        let missing: Vec<_> =
            keys.iter().zip(&rows).filter(|(_, row)| row.is_none()).map(|(key, _)| key).collect();
        if !missing.is_empty() {
            let others = look_for(on.session, LOAD_MANY_OTHER_FORMS, missing.into_iter()).await?;
            rows.iter_mut().filter(|row| row.is_none()).zip(others).for_each(|(row, other)| *row = other);
        }
        Ok(keys.iter().zip(rows).map(|(key, row)| found(key, row)).collect())
    }

    /// In whatever form its time is: first the version's own row.
    async fn find_holder(on: &mut On<'_, Self>, key: &KeyMeta) -> Result<Option<Row>, SqlError> {
        if let Found::Row(row) = Self::find(on, key).await?
            && row.is_of(key)
        {
            return Ok(Some(row));
        }
        let holder = query_as(LOAD_FOLDED).bind(key.id().as_str()).bind(key.created().unix_seconds());
        Ok(holder.fetch_optional(&mut *on.session).await?)
    }

    async fn find_latest(on: &mut On<'_, Self>, id: &KeyId, up_to: Created) -> Result<Vec<Row>, SqlError> {
        let rows = query_as(LOAD_LATEST).bind(id.as_str()).bind(seconds_of(up_to));
        let rows: Vec<Fields> = rows.fetch_all(&mut *on.session).await?;
        Ok(rows.into_iter().map(|(created, json)| Row::of_id(id, created, json)).collect())
    }

    async fn find_latest_many(
        on: &mut On<'_, Self>,
        ids: &[KeyId],
        up_to: Created,
    ) -> Result<Vec<Vec<Row>>, SqlError> {
        let asked = encoded(serde_json::to_string(&ids.iter().map(KeyId::as_str).collect::<Vec<_>>()))?;
        let rows = query_as(LOAD_LATEST_MANY).bind(asked).bind(seconds_of(up_to));
        let rows: Vec<AskedFields> = rows.fetch_all(&mut *on.session).await?;
        let rows = rows.into_iter().map(|(place, created, json)| (place, (created, json)));
        let of_id = |(rows, id): (Vec<Fields>, &KeyId)| {
            rows.into_iter().map(|(created, json)| Row::of_id(id, created, json)).collect()
        };
        Ok(in_places(ids.len(), rows)?.into_iter().zip(ids).map(of_id).collect())
    }

    async fn find_forms(on: &mut On<'_, Self>, key: &KeyMeta) -> Result<Vec<Row>, SqlError> {
        let rows = query_as(LOAD_ALL_FORMS).bind(key.id().as_str()).bind(key.created().unix_seconds());
        let rows: Vec<Fields> = rows.fetch_all(&mut *on.session).await?;
        Ok(rows.into_iter().map(|(created, json)| Row::of_id(key.id(), created, json)).collect())
    }

    async fn insert(on: &mut On<'_, Self>, key: &KeyMeta, json: &str) -> Result<Placed, SqlError> {
        match insert_rows(on.session, iter::once((key, json))).await {
            Ok(inserted) if inserted.is_empty() => Ok(Placed::Nowhere),
            Ok(_) => Ok(Placed::Inserted),
            // The statement has looked for the row, so only a table that folds ids comes here.
            Err(SqlError::Driver(sqlx::Error::Database(error))) if error.is_unique_violation() => {
                Ok(Placed::Refused)
            }
            Err(error) => Err(error),
        }
    }

    async fn update(on: &mut On<'_, Self>, key: &KeyMeta, old: &[u8], new: &str) -> Result<u64, SqlError> {
        let update = query(UPDATE).bind(key.id().as_str()).bind(key.created().unix_seconds());
        Ok(update.bind(old).bind(new).execute(&mut *on.session).await?.rows_affected())
    }

    async fn list(
        on: &mut On<'_, Self>,
        prefix: &str,
        after: Option<&KeyMeta>,
        limit: usize,
    ) -> Result<Vec<Row>, SqlError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let list = match (prefix, after) {
            ("", None) => query_as(LIST).bind("").bind(0).bind(limit),
            ("", Some(key)) => {
                query_as(LIST).bind(key.id().as_str()).bind(seconds_of(key.created())).bind(limit)
            }
            (prefix, None) => query_as(LIST_OF_PREFIX_FIRST).bind(prefix).bind(None::<i64>).bind(limit),
            (prefix, Some(key)) => {
                let list = query_as(LIST_OF_PREFIX_NEXT).bind(key.id().as_str());
                list.bind(seconds_of(key.created())).bind(limit).bind(prefix)
            }
        };
        Ok(list.fetch_all(&mut *on.session).await?)
    }

    async fn delete_version(on: &mut On<'_, Self>, key: &KeyMeta) -> Result<u64, SqlError> {
        let delete = query(DELETE_VERSION).bind(key.id().as_str()).bind(key.created().unix_seconds());
        Ok(delete.execute(&mut *on.session).await?.rows_affected())
    }

    async fn delete(on: &mut On<'_, Self>, id: &KeyId) -> Result<u64, SqlError> {
        Ok(query(DELETE).bind(id.as_str()).execute(&mut *on.session).await?.rows_affected())
    }

    async fn count(on: &mut On<'_, Self>) -> Result<u64, SqlError> {
        let rows: i64 = query_scalar(COUNT).fetch_one(&mut *on.session).await?;
        Ok(rows.unsigned_abs())
    }
}

/// That the table folds ids is not known, so that any version may have another's row.
fn found(key: &KeyMeta, row: Option<Fields>) -> Found {
    row.map_or(Found::HeldPerhaps, |(created, json)| Found::Row(Row::of_id(key.id(), created, json)))
}

/// As the statements take a time that others are compared with: there is none past the last.
fn seconds_of(created: Created) -> i64 {
    if created == Created::MAX { i64::MAX } else { created.unix_seconds() }
}

/// Returns the row of each version that the statement finds, in the place of the version: of several, the last.
async fn look_for(
    connection: &mut SqliteConnection,
    statement: &'static str,
    keys: impl Iterator<Item = &KeyMeta>,
) -> Result<Vec<Option<Fields>>, SqlError> {
    let asked: Vec<_> = keys.map(|key| (key.id().as_str(), key.created().unix_seconds())).collect();
    let rows: Vec<AskedFields> =
        query_as(statement).bind(encoded(serde_json::to_string(&asked))?).fetch_all(connection).await?;
    let rows = rows.into_iter().map(|(place, created, json)| (place, (created, json)));
    Ok(in_places(asked.len(), rows)?.into_iter().map(|mut rows| rows.pop()).collect())
}

/// A list as statements take it.
fn encoded(list: serde_json::Result<String>) -> Result<String, SqlError> {
    Ok(list.map_err(|error| sqlx::Error::Encode(Box::new(error)))?)
}

/// How many rows a write reached.
pub(super) type Outcome = Result<u64, BackendError>;

/// Writes all of them in one transaction and tells of each how many rows it reached. On an error of the
/// database, such as that of one that the table does not take, nothing is written.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    writes: &[Write],
) -> Result<Vec<Outcome>, BackendError> {
    write_all(connection, writes).await.map_err(SqlError::classified::<SqliteDialect>)
}

async fn write_all(connection: &mut SqliteConnection, writes: &[Write]) -> Result<Vec<Outcome>, SqlError> {
    if writes.iter().all(|write| matches!(write, Write::Insert(_))) {
        // One statement, and so a transaction by itself.
        return write_in_transaction(connection, writes).await;
    }
    // Immediate: a read that turns into a write fails when another process wrote in between.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let outcomes = write_in_transaction(&mut transaction, writes).await?;
    transaction.commit().await?;
    Ok(outcomes)
}

async fn write_in_transaction(
    connection: &mut SqliteConnection,
    writes: &[Write],
) -> Result<Vec<Outcome>, SqlError> {
    let records = writes.iter().filter_map(|write| match write {
        Write::Insert(record) => Some(record),
        _ => None,
    });
    let mut inserted = insert_all(connection, &records.collect::<Vec<_>>()).await?.into_iter();
    let mut outcomes = Vec::with_capacity(writes.len());
    for write in writes {
        outcomes.push(match write {
            Write::Insert(_) => inserted.next().unwrap_or(Ok(0)),
            write => outcome(carry_out(&mut on(connection), write).await)?,
        });
    }
    Ok(outcomes)
}

fn on(session: &mut SqliteConnection) -> On<'_, SqliteDialect> {
    On { session, table: () }
}

/// A fault is of one write; a failure of the database is of all.
fn outcome(answer: Result<u64, SqlError>) -> Result<Outcome, SqlError> {
    match answer {
        Ok(rows) => Ok(Ok(rows)),
        Err(SqlError::Fault(fault)) => Ok(Err(fault.into())),
        Err(error) => Err(error),
    }
}

/// Inserts the records of which there is no row yet; of several of one version, the first.
async fn insert_all(
    connection: &mut SqliteConnection,
    records: &[&EnvelopeKeyRecord],
) -> Result<Vec<Outcome>, SqlError> {
    let mut firsts = HashMap::new();
    for record in records {
        firsts.entry(record.meta()).or_insert(record);
    }
    let inserted = match records {
        // By itself, so that what is in its way is looked at.
        [] | [_] => HashSet::new(),
        _ => {
            let rows = firsts.values().map(|record| Ok((record.meta(), checked_json(record)?)));
            let rows = rows.collect::<Result<Vec<_>, SqlFault>>()?;
            insert_rows(connection, rows.iter().map(|(key, json)| (*key, json.as_str()))).await?
        }
    };
    let mut outcomes = Vec::with_capacity(records.len());
    let mut told: HashMap<&KeyMeta, Outcome> = HashMap::new();
    for record in records {
        let key = record.meta();
        let answer = match told.get(key) {
            // Another of the same version came before, whatever became of it.
            Some(first) => first.clone().map(|_rows| 0),
            None if inserted.contains(key) => Ok(1),
            None => {
                let answer = write::insert(&mut on(connection), record).await;
                outcome(answer.map(|answer| u64::from(answer == Insert::Inserted)))?
            }
        };
        told.entry(key).or_insert_with(|| answer.clone());
        outcomes.push(answer);
    }
    Ok(outcomes)
}

/// Inserts the rows of versions that have none, without repetitions. Returns which they were.
async fn insert_rows<'a>(
    connection: &mut SqliteConnection,
    rows: impl Iterator<Item = (&'a KeyMeta, &'a str)>,
) -> Result<HashSet<KeyMeta>, SqlError> {
    let rows: Vec<_> =
        rows.map(|(key, json)| (key.id().as_str(), key.created().unix_seconds(), json)).collect();
    let inserted: Vec<(String, i64)> =
        query_as(INSERT).bind(encoded(serde_json::to_string(&rows))?).fetch_all(connection).await?;
    let key = |(id, seconds)| Some(KeyMeta::new(KeyId::new(id), Created::new(seconds)?));
    Ok(inserted.into_iter().filter_map(key).collect())
}

pub(super) async fn create_table(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    query(CREATE_TABLE).execute(connection).await.map(drop)
}

pub(super) async fn journal_mode(connection: &mut SqliteConnection) -> Result<String, sqlx::Error> {
    query_scalar("PRAGMA journal_mode").fetch_one(connection).await
}

/// Asks for WAL mode and returns the mode that the file is in then.
pub(super) async fn enter_wal_mode(connection: &mut SqliteConnection) -> Result<String, sqlx::Error> {
    query_scalar("PRAGMA journal_mode = WAL").fetch_one(connection).await
}

pub(super) async fn synchronous(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    query_scalar("PRAGMA synchronous").fetch_one(connection).await
}

#[cfg(test)]
mod tests;
