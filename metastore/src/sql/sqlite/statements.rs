//! The statements.
//!
//! Those that read are one statement each; those that write go through [`write`], which is one
//! transaction.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use claviger::{BackendError, Created, EnvelopeKeyRecord, KeyId, KeyMeta, Latest, Page};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection as _, FromRow, Row as _, SqliteConnection, query, query_as, query_scalar};

use crate::sql::sqlite::fault::backend_error;
use crate::sql::sqlite::text::{
    COUNT, CREATE_TABLE, DELETE, INSERT, LIST, LOAD, LOAD_ALL_FORMS, LOAD_FOLDED, LOAD_LATEST,
    LOAD_LATEST_MANY, LOAD_MANY, LOAD_MANY_OTHER_FORMS, UPDATE,
};
use crate::sql::{FoldedIds, ListedRow, SqlFault, checked_json, read_latest, read_page, read_row};

/// Its time, and its JSON if it is not too long.
type Row = (Option<i64>, Option<Vec<u8>>);

/// The place of what was asked for, and its row.
type AskedRow = (i64, Option<i64>, Option<Vec<u8>>);

impl FromRow<'_, SqliteRow> for ListedRow {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self { id: row.try_get(0)?, created: row.try_get(1)?, json: row.try_get(2)? })
    }
}

/// How many keys one statement looks for: more would keep others from cleaning up the log for long.
const ASKED_MAX: usize = 1_000;

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
    folded: FoldedIds,
) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
    let row: Option<Row> = query_as(LOAD)
        .bind(key.id().as_str())
        .bind(key.created().unix_seconds())
        .fetch_optional(&mut *connection)
        .await
        .map_err(backend_error)?;
    match row {
        Some((created, json)) => Ok(Some(read_row(key.id(), created, json.as_deref())?)),
        None => load_folded(connection, key, folded).await,
    }
}

/// Loads what there is of a version that has no row of its own: one whose id the table takes for its.
async fn load_folded(
    connection: &mut SqliteConnection,
    key: &KeyMeta,
    folded: FoldedIds,
) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
    let row: Option<ListedRow> = query_as(LOAD_FOLDED)
        .bind(key.id().as_str())
        .bind(key.created().unix_seconds())
        .fetch_optional(connection)
        .await
        .map_err(backend_error)?;
    let Some(ListedRow { id, created, json }) = row else { return Ok(None) };
    let read = || read_row(key.id(), created, json.as_deref());
    if id == key.id().as_str().as_bytes() {
        // It was inserted meanwhile.
        return Ok(Some(read()?));
    }
    Ok(folded.answer(key, &id, read)?)
}

pub(super) async fn load_latest(
    connection: &mut SqliteConnection,
    id: &KeyId,
    up_to: Created,
) -> Result<Option<Latest>, BackendError> {
    let rows: Vec<Row> = query_as(LOAD_LATEST)
        .bind(id.as_str())
        .bind(seconds_of(up_to))
        .fetch_all(connection)
        .await
        .map_err(backend_error)?;
    let rows = rows.iter().map(|(created, json)| read_row(id, *created, json.as_deref()));
    Ok(read_latest(rows)?)
}

/// As the statements take a time that others are compared with: there is none past the last.
fn seconds_of(created: Created) -> i64 {
    if created == Created::MAX { i64::MAX } else { created.unix_seconds() }
}

/// Loads what [`load`] loads, of each key.
pub(super) async fn load_many(
    connection: &mut SqliteConnection,
    keys: &[KeyMeta],
    folded: FoldedIds,
) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
    let mut records = Vec::with_capacity(keys.len());
    for keys in keys.chunks(ASKED_MAX) {
        let mut rows = vec![None; keys.len()];
        look_for(connection, LOAD_MANY, keys, &mut rows).await?;
        let missing: Vec<_> =
            keys.iter().zip(&rows).filter(|(_, row)| row.is_none()).map(|(key, _)| key.clone()).collect();
        if !missing.is_empty() {
            let mut others = vec![None; missing.len()];
            look_for(connection, LOAD_MANY_OTHER_FORMS, &missing, &mut others).await?;
            rows.iter_mut().filter(|row| row.is_none()).zip(others).for_each(|(row, other)| *row = other);
        }
        for (key, row) in keys.iter().zip(rows) {
            records.push(match row {
                Some((created, json)) => Some(read_row(key.id(), created, json.as_deref())?),
                None => load_folded(connection, key, folded).await?,
            });
        }
    }
    Ok(records)
}

/// Puts the row of each version that the statement finds into its place.
async fn look_for(
    connection: &mut SqliteConnection,
    statement: &'static str,
    keys: &[KeyMeta],
    rows: &mut [Option<Row>],
) -> Result<(), BackendError> {
    let asked: Vec<_> = keys.iter().map(|key| (key.id().as_str(), key.created().unix_seconds())).collect();
    let asked = serde_json::to_string(&asked).map_err(BackendError::permanent)?;
    let found: Vec<AskedRow> =
        query_as(statement).bind(asked).fetch_all(connection).await.map_err(backend_error)?;
    // Of several, the last.
    for (place, created, json) in found {
        if let Some(row) = usize::try_from(place).ok().and_then(|place| rows.get_mut(place)) {
            *row = Some((created, json));
        }
    }
    Ok(())
}

/// Loads what [`load_latest`] loads, of each id.
pub(super) async fn load_latest_many(
    connection: &mut SqliteConnection,
    ids: &[KeyId],
    up_to: Created,
) -> Result<Vec<Option<Latest>>, BackendError> {
    let mut records = Vec::with_capacity(ids.len());
    for ids in ids.chunks(ASKED_MAX) {
        let asked: Vec<_> = ids.iter().map(KeyId::as_str).collect();
        let asked = serde_json::to_string(&asked).map_err(BackendError::permanent)?;
        let found: Vec<AskedRow> = query_as(LOAD_LATEST_MANY)
            .bind(asked)
            .bind(seconds_of(up_to))
            .fetch_all(&mut *connection)
            .await
            .map_err(backend_error)?;
        let mut found = found.into_iter().peekable();
        for (place, id) in ids.iter().enumerate() {
            let mut rows = Vec::with_capacity(2);
            while let Some((_, created, json)) =
                found.next_if(|(asked, ..)| usize::try_from(*asked) == Ok(place))
            {
                rows.push(read_row(id, created, json.as_deref()));
            }
            records.push(read_latest(rows)?);
        }
    }
    Ok(records)
}

/// Something to be written.
pub(super) enum Write {
    Insert(EnvelopeKeyRecord),
    Revoke(KeyMeta),
    Replace { key: KeyMeta, old: Arc<[u8]>, new: Arc<[u8]> },
    Delete(KeyId),
}

/// How many rows a write reached.
pub(super) type Outcome = Result<u64, BackendError>;

/// Writes all of them in one transaction and tells of each how many rows it reached. On an error,
/// such as that of one that the table does not take, nothing is written.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    writes: &[Write],
) -> Result<Vec<Outcome>, BackendError> {
    if writes.iter().all(|write| matches!(write, Write::Insert(_))) {
        // One statement, and so a transaction by itself.
        return write_in_transaction(connection, writes).await;
    }
    // Immediate: a read that turns into a write fails when another process wrote in between.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(backend_error)?;
    let outcomes = write_in_transaction(&mut transaction, writes).await?;
    transaction.commit().await.map_err(backend_error)?;
    Ok(outcomes)
}

async fn write_in_transaction(
    connection: &mut SqliteConnection,
    writes: &[Write],
) -> Result<Vec<Outcome>, BackendError> {
    let records = writes.iter().filter_map(|write| match write {
        Write::Insert(record) => Some(record),
        _ => None,
    });
    let mut inserted = insert(connection, &records.collect::<Vec<_>>()).await?.into_iter();
    let mut outcomes = Vec::with_capacity(writes.len());
    for write in writes {
        outcomes.push(match write {
            Write::Insert(_) => inserted.next().unwrap_or(Ok(0)),
            Write::Delete(id) => Ok(delete(connection, id).await?),
            Write::Revoke(key) => {
                let revoke =
                    |record: &EnvelopeKeyRecord| (!record.is_revoked()).then(|| record.clone().revoked(true));
                rewrite(connection, key, revoke).await?.map(|rows| rows.found).map_err(Into::into)
            }
            Write::Replace { key, old, new } => {
                let replace = |record: &EnvelopeKeyRecord| {
                    (record.wrapped_key() == old).then(|| {
                        let parent = record.parent().cloned();
                        let replaced = EnvelopeKeyRecord::new(key.clone(), Arc::clone(new), parent);
                        replaced.revoked(record.is_revoked())
                    })
                };
                rewrite(connection, key, replace).await?.map(|rows| rows.changed).map_err(Into::into)
            }
        });
    }
    Ok(outcomes)
}

/// Inserts the records of which there is no row yet; of several of one version, the first.
async fn insert(
    connection: &mut SqliteConnection,
    records: &[&EnvelopeKeyRecord],
) -> Result<Vec<Outcome>, BackendError> {
    let mut outcomes: Vec<Outcome> = records.iter().map(|_| Ok(0)).collect();
    let (mut firsts, mut rows) = (HashMap::new(), Vec::new());
    for (record, outcome) in records.iter().zip(&mut outcomes) {
        let (id, created) = (record.meta().id().as_str(), record.meta().created().unix_seconds());
        if let Entry::Vacant(first) = firsts.entry((id, created)) {
            first.insert(outcome);
            rows.push((id, created, checked_json(record)?));
        }
    }
    if rows.is_empty() {
        return Ok(outcomes);
    }
    let rows = serde_json::to_string(&rows).map_err(BackendError::permanent)?;
    match query_as::<_, (String, i64)>(INSERT).bind(rows).fetch_all(connection).await {
        Ok(inserted) => {
            for (id, created) in &inserted {
                if let Some(outcome) = firsts.get_mut(&(id.as_str(), *created)) {
                    **outcome = Ok(1);
                }
            }
            Ok(outcomes)
        }
        Err(error) => Err(match (error, records) {
            // The statement has looked for the row, so only a table that folds ids comes here.
            (sqlx::Error::Database(error), [record]) if error.is_unique_violation() => {
                SqlFault::Indistinct(record.meta().clone()).into()
            }
            (error, _) => backend_error(error),
        }),
    }
}

/// How many rows of a key version there were, and how many were changed.
#[derive(Debug, Default)]
struct Rewritten {
    found: u64,
    changed: u64,
}

/// Puts what `change` makes of the record in its place, in every form that the key version is
/// stored in; `None` leaves it. One that cannot be read keeps all as they are.
async fn rewrite(
    connection: &mut SqliteConnection,
    key: &KeyMeta,
    change: impl Fn(&EnvelopeKeyRecord) -> Option<EnvelopeKeyRecord>,
) -> Result<Result<Rewritten, SqlFault>, BackendError> {
    let rows: Vec<Row> = query_as(LOAD_ALL_FORMS)
        .bind(key.id().as_str())
        .bind(key.created().unix_seconds())
        .fetch_all(&mut *connection)
        .await
        .map_err(backend_error)?;
    let mut rewritten = Rewritten { found: rows.len() as u64, changed: 0 };
    let mut changes = Vec::new();
    for (created, json) in rows {
        let changed = read_row(key.id(), created, json.as_deref())
            .and_then(|record| change(&record).map(|changed| checked_json(&changed)).transpose());
        match changed {
            Ok(changed) => changes.extend(changed.map(|changed| (json, changed))),
            Err(fault) => return Ok(Err(fault)),
        }
    }
    for (old, new) in changes {
        let done = query(UPDATE)
            .bind(key.id().as_str())
            .bind(key.created().unix_seconds())
            .bind(old)
            .bind(new)
            .execute(&mut *connection)
            .await
            .map_err(backend_error)?;
        rewritten.changed += done.rows_affected();
    }
    Ok(Ok(rewritten))
}

pub(super) async fn list(
    connection: &mut SqliteConnection,
    after: Option<&KeyMeta>,
    limit: usize,
) -> Result<Page, BackendError> {
    let (id, created) = after.map_or(("", 0), |key| (key.id().as_str(), seconds_of(key.created())));
    let rows: Vec<ListedRow> = query_as(LIST)
        .bind(id)
        .bind(created)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await
        .map_err(backend_error)?;
    let is_last = rows.len() < limit;
    Ok(read_page(rows, is_last)?)
}

async fn delete(connection: &mut SqliteConnection, id: &KeyId) -> Result<u64, BackendError> {
    let done = query(DELETE).bind(id.as_str()).execute(connection).await.map_err(backend_error)?;
    Ok(done.rows_affected())
}

pub(super) async fn count(connection: &mut SqliteConnection) -> Result<u64, BackendError> {
    let rows: i64 = query_scalar(COUNT).fetch_one(connection).await.map_err(backend_error)?;
    Ok(rows.unsigned_abs())
}

#[cfg(test)]
mod tests;
