//! The statements.
//!
//! Each is one statement, atomic by itself, but for [`rewrite`], which is a transaction.

use claviger::{BackendError, EnvelopeKeyRecord, Insert, KeyId, KeyMeta, Page};
use sqlx::{Connection as _, SqliteConnection, query, query_as, query_scalar};

use crate::sql::sqlite::fault::backend_error;
use crate::sql::{read_page, read_row};

/// A row's `created` in Unix seconds; NULL if it is no form that a known writer uses.
///
/// Ours is text, `YYYY-MM-DD HH:MM:SS`. Others write a `T`, a fraction, a `Z` or an offset, or
/// numbers: seconds, or milliseconds, which are past the year 9999 if taken for seconds.
macro_rules! created_seconds {
    () => {
        "CASE typeof(created) \
           WHEN 'text' THEN unixepoch(created) \
           WHEN 'integer' THEN iif(created > 253402300799, created / 1000, created) \
           WHEN 'real' THEN CAST(created AS INTEGER) END"
    };
}

/// The rows of the id `?1`, byte by byte: a table made by others may fold case.
macro_rules! of_id {
    () => {
        "id = ?1 COLLATE BINARY"
    };
}

/// The JSON of a row, which some writers store as a blob.
macro_rules! json {
    () => {
        "CAST(key_record AS BLOB)"
    };
}

/// Reads the rows of the id `?1`, to be narrowed further: `created` as `seconds`, and the JSON.
macro_rules! rows_of_id {
    () => {
        concat!(
            "SELECT ",
            created_seconds!(),
            " AS seconds, ",
            json!(),
            " FROM encryption_key WHERE ",
            of_id!()
        )
    };
}

/// What is a key, and not a note that Asherah keeps beside the keys.
macro_rules! no_reserved_id {
    () => {
        "id NOT GLOB '__asherah_internal_*'"
    };
}

const CREATE_TABLE: &str = include_str!("../../../migrations/sqlite/0001_encryption_key.sql");

/// First our own form, by the primary key; only if that misses, the id's rows in other forms, an
/// unreadable one last, since it could be the one looked for.
const LOAD: &str = concat!(
    rows_of_id!(),
    " AND created = datetime(?2, 'unixepoch') \
     UNION ALL \
     SELECT * FROM (",
    rows_of_id!(),
    " AND created <> datetime(?2, 'unixepoch') AND (seconds = ?2 OR seconds IS NULL) \
     ORDER BY seconds DESC LIMIT 1) \
     LIMIT 1"
);

/// An unreadable row comes first, since it could be the latest; of two forms of one time, ours.
const LOAD_LATEST: &str = concat!(
    rows_of_id!(),
    " \
     ORDER BY seconds DESC NULLS FIRST, created = datetime(seconds, 'unixepoch') DESC LIMIT 1"
);

const INSERT: &str = concat!(
    "INSERT INTO encryption_key (id, created, key_record) \
     SELECT ?1, datetime(?2, 'unixepoch'), ?3 \
     WHERE NOT EXISTS (SELECT 1 FROM encryption_key WHERE ",
    of_id!(),
    " AND ",
    created_seconds!(),
    " = ?2)"
);

const LOAD_ALL_FORMS: &str = concat!(rows_of_id!(), " AND seconds = ?2");

const UPDATE: &str = concat!(
    "UPDATE encryption_key SET key_record = ?4 \
     WHERE ",
    of_id!(),
    " AND ",
    created_seconds!(),
    " = ?2 AND ",
    json!(),
    " = ?3"
);

const LIST: &str = concat!(
    "SELECT id, ",
    created_seconds!(),
    " AS seconds, ",
    json!(),
    " FROM encryption_key \
     WHERE id >= ?1 AND (id > ?1 OR seconds > ?2) AND ",
    no_reserved_id!(),
    " \
     ORDER BY id, seconds LIMIT ?3"
);

const DELETE: &str = concat!("DELETE FROM encryption_key WHERE ", of_id!());

const COUNT: &str = concat!("SELECT count(*) FROM encryption_key WHERE ", no_reserved_id!());

type Row = (Option<i64>, Vec<u8>);

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

pub(super) async fn load(
    connection: &mut SqliteConnection,
    key: &KeyMeta,
) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
    let row: Option<Row> = query_as(LOAD)
        .bind(key.id().as_str())
        .bind(key.created().unix_seconds())
        .fetch_optional(connection)
        .await
        .map_err(backend_error)?;
    row.map(|(created, json)| Ok(read_row(key.id(), created, &json)?)).transpose()
}

pub(super) async fn load_latest(
    connection: &mut SqliteConnection,
    id: &KeyId,
) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
    let row: Option<Row> =
        query_as(LOAD_LATEST).bind(id.as_str()).fetch_optional(connection).await.map_err(backend_error)?;
    row.map(|(created, json)| Ok(read_row(id, created, &json)?)).transpose()
}

pub(super) async fn insert(
    connection: &mut SqliteConnection,
    record: &EnvelopeKeyRecord,
) -> Result<Insert, BackendError> {
    let result = query(INSERT)
        .bind(record.meta().id().as_str())
        .bind(record.meta().created().unix_seconds())
        .bind(record.to_json())
        .execute(connection)
        .await;
    match result {
        Ok(done) if done.rows_affected() == 0 => Ok(Insert::AlreadyExists),
        Ok(_) => Ok(Insert::Inserted),
        // Only a table that folds ids comes here: the statement has looked for the row itself.
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(Insert::AlreadyExists),
        Err(error) => Err(backend_error(error)),
    }
}

/// How many rows of a key version there were, and how many were changed.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    pub(super) found: u64,
    pub(super) changed: u64,
}

/// Puts what `change` makes of the record in its place, in every form that the key version is
/// stored in; `None` leaves it.
pub(super) async fn rewrite(
    connection: &mut SqliteConnection,
    key: &KeyMeta,
    change: impl Fn(&EnvelopeKeyRecord) -> Option<EnvelopeKeyRecord>,
) -> Result<Rewritten, BackendError> {
    // Immediate: a read that turns into a write fails when another process wrote in between.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(backend_error)?;
    let rows: Vec<Row> = query_as(LOAD_ALL_FORMS)
        .bind(key.id().as_str())
        .bind(key.created().unix_seconds())
        .fetch_all(&mut *transaction)
        .await
        .map_err(backend_error)?;
    let mut rewritten = Rewritten::default();
    for (created, json) in rows {
        rewritten.found += 1;
        let Some(changed) = change(&read_row(key.id(), created, &json)?) else { continue };
        let done = query(UPDATE)
            .bind(key.id().as_str())
            .bind(key.created().unix_seconds())
            .bind(json)
            .bind(changed.to_json())
            .execute(&mut *transaction)
            .await
            .map_err(backend_error)?;
        rewritten.changed += done.rows_affected();
    }
    transaction.commit().await.map_err(backend_error)?;
    Ok(rewritten)
}

pub(super) async fn list(
    connection: &mut SqliteConnection,
    after: Option<&KeyMeta>,
    limit: usize,
) -> Result<Page, BackendError> {
    let (id, created) = after.map_or(("", 0), |key| (key.id().as_str(), key.created().unix_seconds()));
    let rows: Vec<(String, Option<i64>, Vec<u8>)> = query_as(LIST)
        .bind(id)
        .bind(created)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await
        .map_err(backend_error)?;
    Ok(read_page(rows, limit))
}

pub(super) async fn delete(connection: &mut SqliteConnection, id: &KeyId) -> Result<u64, BackendError> {
    let done = query(DELETE).bind(id.as_str()).execute(connection).await.map_err(backend_error)?;
    Ok(done.rows_affected())
}

pub(super) async fn count(connection: &mut SqliteConnection) -> Result<u64, BackendError> {
    let rows: i64 = query_scalar(COUNT).fetch_one(connection).await.map_err(backend_error)?;
    Ok(rows.unsigned_abs())
}

#[cfg(test)]
mod tests;
