//! The statements.
//!
//! Those that read are one statement each; those that write go through [`write`], which is one
//! transaction.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use claviger::{BackendError, Created, DamagedRow, EnvelopeKeyRecord, KeyId, KeyMeta, Page};
use sqlx::{Connection as _, SqliteConnection, query, query_as, query_scalar};

use crate::sql::sqlite::fault::backend_error;
use crate::sql::sqlite::text::{
    COUNT, CREATE_TABLE, DELETE, INSERT, LIST, LOAD, LOAD_ALL_FORMS, LOAD_FOLDED, LOAD_LATEST,
    LOAD_LATEST_MANY, LOAD_MANY, LOAD_MANY_OTHER_FORMS, UPDATE,
};
use crate::sql::{FoldedIds, SqlFault, read_page, read_row};

type Row = (Option<i64>, Vec<u8>);

/// With its id, which may be no UTF-8.
type ListedRow = (Vec<u8>, Option<i64>, Vec<u8>);

/// The place of what was asked for, and its row.
type AskedRow = (i64, Option<i64>, Vec<u8>);

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
        Some((created, json)) => Ok(Some(read_row(key.id(), created, &json)?)),
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
    let Some((id, created, json)) = row else { return Ok(None) };
    if id == key.id().as_str().as_bytes() {
        // It was inserted meanwhile.
        return Ok(Some(read_row(key.id(), created, &json)?));
    }
    Ok(folded.answer(key, id, || read_row(key.id(), created, &json))?)
}

pub(super) async fn load_latest(
    connection: &mut SqliteConnection,
    id: &KeyId,
) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
    let row: Option<Row> =
        query_as(LOAD_LATEST).bind(id.as_str()).fetch_optional(connection).await.map_err(backend_error)?;
    row.map(|(created, json)| Ok(read_row(id, created, &json)?)).transpose()
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
                Some((created, json)) => Some(read_row(key.id(), created, &json)?),
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
    look_for_json(connection, statement, serde_json::to_string(&asked), rows).await
}

/// Loads what [`load_latest`] loads, of each id.
pub(super) async fn load_latest_many(
    connection: &mut SqliteConnection,
    ids: &[KeyId],
) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
    let mut records = Vec::with_capacity(ids.len());
    for ids in ids.chunks(ASKED_MAX) {
        let mut rows = vec![None; ids.len()];
        let asked: Vec<_> = ids.iter().map(KeyId::as_str).collect();
        look_for_json(connection, LOAD_LATEST_MANY, serde_json::to_string(&asked), &mut rows).await?;
        for (id, row) in ids.iter().zip(rows) {
            records.push(row.map(|(created, json)| read_row(id, created, &json)).transpose()?);
        }
    }
    Ok(records)
}

/// Puts each row found into its place; of several, the last.
async fn look_for_json(
    connection: &mut SqliteConnection,
    statement: &'static str,
    asked: serde_json::Result<String>,
    rows: &mut [Option<Row>],
) -> Result<(), BackendError> {
    let asked = asked.map_err(BackendError::permanent)?;
    let found: Vec<AskedRow> =
        query_as(statement).bind(asked).fetch_all(connection).await.map_err(backend_error)?;
    for (place, created, json) in found {
        if let Some(row) = usize::try_from(place).ok().and_then(|place| rows.get_mut(place)) {
            *row = Some((created, json));
        }
    }
    Ok(())
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
            rows.push((id, created, record.to_json()));
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
        match read_row(key.id(), created, &json) {
            Ok(record) => changes.extend(change(&record).map(|changed| (json, changed.to_json()))),
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
    let (id, created) = after.map_or(("", 0), |key| (key.id().as_str(), key.created().unix_seconds()));
    let mut rows: Vec<ListedRow> = query_as(LIST)
        .bind(id)
        .bind(created)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await
        .map_err(backend_error)?;
    let next = if rows.len() < limit { None } else { end_page(&mut rows)? };
    let (mut named, mut nameless) = (Vec::with_capacity(rows.len()), Vec::new());
    for (id, created, json) in rows {
        match String::from_utf8(id) {
            Ok(id) => named.push((id, created, json)),
            Err(error) => {
                let id = KeyId::new(String::from_utf8_lossy(error.as_bytes()));
                let created = created.and_then(Created::new);
                nameless.push(DamagedRow::new(id, created, SqlFault::IdUnreadable.into()));
            }
        }
    }
    // As the last one: the next page is known already.
    let mut page = read_page(named, usize::MAX);
    page.damaged.extend(nameless);
    page.next = next;
    Ok(page)
}

/// Cuts off what ends the page and has no place that the next one could go on from; it comes again
/// then. Returns the place.
fn end_page(rows: &mut Vec<ListedRow>) -> Result<Option<KeyMeta>, SqlFault> {
    let place = |(id, created, _): &ListedRow| {
        let created = created.and_then(Created::new)?;
        Some(KeyMeta::new(KeyId::new(str::from_utf8(id).ok()?), created))
    };
    if let Some((last, place)) =
        rows.iter().enumerate().rev().find_map(|(number, row)| Some((number, place(row)?)))
    {
        rows.truncate(last + 1);
        return Ok(Some(place));
    }
    // None has a place: beyond the first second of the last one's id, no key is as old as that.
    let Some((id, ..)) = rows.last() else { return Ok(None) };
    match str::from_utf8(id) {
        Ok(id) => Ok(Some(KeyMeta::new(KeyId::new(id), Created::MIN))),
        Err(_) => Err(SqlFault::IdUnreadable),
    }
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
