//! What is asked of the table, and what the answers mean.
//!
//! Each is one statement, atomic by itself.

use std::collections::{HashMap, HashSet};

use claviger::{Created, EnvelopeKeyRecord, Insert, KeyId, KeyMeta, Latest, Page};
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Connection as _, FromRow, Row as _, query, query_as, query_scalar, raw_sql};

use crate::sql::dialect::SqlError;
use crate::sql::driver::Doing;
use crate::sql::mysql::fault::{driver_fault, number};
use crate::sql::mysql::layout::Layout;
use crate::sql::mysql::texts::{
    COUNT, CREATE_TABLE, LIST_FIRST, LIST_NEXT, delete_sql, holder_sql, insert_sql, load_latest_many_sql,
    load_latest_sql, load_many_sql, load_sql, of_id, row, up_to, update_sql,
};
use crate::sql::mysql::utc;
use crate::sql::rewrite::Rewritten;
use crate::sql::{FoldedIds, ListedRow as Row, SqlFault, read_id, read_latest, read_page, read_row};

impl FromRow<'_, MySqlRow> for Row {
    fn from_row(row: &MySqlRow) -> Result<Self, sqlx::Error> {
        let created: Option<String> = row.try_get(1)?;
        let created = created.and_then(|text| utc::seconds(&text));
        Ok(Self { id: row.try_get(0)?, created, json: row.try_get(2)? })
    }
}

/// A row with the text of its time, which sorts as times do, also where it cannot be read as one.
struct TimedRow {
    time: String,
    row: Row,
}

impl FromRow<'_, MySqlRow> for TimedRow {
    fn from_row(row: &MySqlRow) -> Result<Self, sqlx::Error> {
        Ok(Self { time: row.try_get(1)?, row: Row::from_row(row)? })
    }
}

impl Row {
    /// Whether it is that version: the server compares as its collation and its clock do.
    fn is_of(&self, key: &KeyMeta) -> bool {
        self.id == key.id().as_str().as_bytes() && self.created == Some(key.created().unix_seconds())
    }

    fn record(&self, id: &KeyId) -> Result<EnvelopeKeyRecord, SqlFault> {
        read_row(id, self.created, self.json.as_deref())
    }
}

/// `created` as all writers send it.
fn created_text(key: &KeyMeta) -> String {
    utc::text(key.created().unix_seconds())
}

/// Makes our own table unless there is one, which needs the right to only then.
pub(super) async fn make_table(connection: &mut MySqlConnection) -> Result<(), SqlError> {
    if Layout::read(connection).await?.is_some() {
        return Ok(());
    }
    match raw_sql(CREATE_TABLE).execute(connection).await {
        Ok(_made) => Ok(()),
        Err(error) if number(&error).is_some_and(|number| MAY_NOT_CREATE.contains(&number)) => {
            // No key is in what is said.
            Err(SqlFault::TableNotMade(driver_fault(error, Doing::Connecting)).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// The user has not the right, in the database or of the command.
const MAY_NOT_CREATE: [u16; 3] = [1044, 1142, 1227];

pub(super) async fn load(
    connection: &mut MySqlConnection,
    key: &KeyMeta,
) -> Result<Option<EnvelopeKeyRecord>, SqlError> {
    let row = load_row(connection, key).await?;
    Ok(row.map(|row| row.record(key.id())).transpose()?)
}

/// Loads what there is of a version that has no row of its own: one whose id the table takes for its.
pub(super) async fn load_folded(
    connection: &mut MySqlConnection,
    key: &KeyMeta,
    folded: FoldedIds,
) -> Result<Option<EnvelopeKeyRecord>, SqlError> {
    let holder = holder(connection, key).await?;
    let holder = holder.filter(|row| row.created == Some(key.created().unix_seconds()));
    let Some(row) = holder else { return Ok(None) };
    if row.is_of(key) {
        // It was inserted meanwhile.
        return Ok(Some(row.record(key.id())?));
    }
    Ok(folded.answer(key, &row.id, || row.record(key.id()))?)
}

async fn holder(connection: &mut MySqlConnection, key: &KeyMeta) -> Result<Option<Row>, sqlx::Error> {
    query_as(holder_sql!()).bind(key.id().as_str()).bind(created_text(key)).fetch_optional(connection).await
}

async fn load_row(connection: &mut MySqlConnection, key: &KeyMeta) -> Result<Option<Row>, SqlError> {
    let row: Option<Row> = query_as(load_sql!())
        .bind(key.id().as_str())
        .bind(key.id().as_str().as_bytes())
        .bind(created_text(key))
        .fetch_optional(connection)
        .await?;
    Ok(row.filter(|row| row.is_of(key)))
}

pub(super) async fn load_latest(
    connection: &mut MySqlConnection,
    id: &KeyId,
    up_to: Created,
    zoned: bool,
) -> Result<Option<Latest>, SqlError> {
    let sql = if zoned { load_latest_sql!(zoned) } else { load_latest_sql!(unzoned) };
    let rows: Vec<Row> = query_as(sql)
        .bind(id.as_str())
        .bind(id.as_str().as_bytes())
        .bind(utc::text(up_to.unix_seconds()))
        .fetch_all(connection)
        .await?;
    Ok(read_latest(rows.iter().map(|row| row.record(id)))?)
}

/// How many keys one statement asks for: with more, MariaDB makes a table of them first.
const KEYS_PER_STATEMENT: usize = 512;

/// Loads what [`load`] loads, of each key, and with `folded`, on a table that folds ids, what
/// [`load_folded`] does.
pub(super) async fn load_many(
    connection: &mut MySqlConnection,
    keys: &[KeyMeta],
    folded: Option<FoldedIds>,
) -> Result<Vec<Option<EnvelopeKeyRecord>>, SqlError> {
    let mut records = Vec::with_capacity(keys.len());
    for keys in keys.chunks(KEYS_PER_STATEMENT) {
        let sql = load_many_sql!("{}", "{}").replace("{}", &placeholders(keys.len()));
        let query =
            padded(keys).fold(query_as(AssertSqlSafe(sql)), |query, key| query.bind(key.id().as_str()));
        let query = padded(keys).fold(query, |query, key| query.bind(created_text(key)));
        let rows: Vec<Row> = query.fetch_all(&mut *connection).await?;
        let found: HashMap<_, _> = rows.iter().map(|row| ((row.id.as_slice(), row.created), row)).collect();
        // A row that the table takes for a version came too: without one of its time there is none.
        let times: HashSet<_> = rows.iter().map(|row| row.created).collect();
        for key in keys {
            let created = Some(key.created().unix_seconds());
            records.push(match (found.get(&(key.id().as_str().as_bytes(), created)), folded) {
                (Some(row), _) => Some(row.record(key.id())?),
                (None, Some(folded)) if times.contains(&created) => {
                    load_folded(connection, key, folded).await?
                }
                (None, _) => None,
            });
        }
    }
    Ok(records)
}

pub(super) async fn load_latest_many(
    connection: &mut MySqlConnection,
    ids: &[KeyId],
    up_to: Created,
    zoned: bool,
) -> Result<Vec<Option<Latest>>, SqlError> {
    let up_to = utc::text(up_to.unix_seconds());
    let sql = if zoned { load_latest_many_sql!("{}", zoned) } else { load_latest_many_sql!("{}", unzoned) };
    let mut records = Vec::with_capacity(ids.len());
    for ids in ids.chunks(KEYS_PER_STATEMENT) {
        let sql = sql.replace("{}", &placeholders(ids.len()));
        let query = padded(ids).fold(query_as(AssertSqlSafe(sql)), |query, id| query.bind(id.as_str()));
        let mut rows: Vec<TimedRow> = query.bind(&up_to).bind(&up_to).fetch_all(&mut *connection).await?;
        rows.sort_by(|one, other| other.time.cmp(&one.time));
        let mut found: HashMap<_, Vec<_>> = HashMap::new();
        for TimedRow { row, .. } in &rows {
            found.entry(row.id.as_slice()).or_default().push(row);
        }
        for id in ids {
            let rows = found.get(id.as_str().as_bytes()).into_iter().flatten();
            records.push(read_latest(rows.map(|row| row.record(id)))?);
        }
    }
    Ok(records)
}

/// As many as [`padded`] gives. Lengths are powers of two, so that a connection prepares a handful of
/// statements and not hundreds.
fn placeholders(keys: usize) -> String {
    vec!["?"; keys.next_power_of_two()].join(", ")
}

/// Repeats the last of `keys` until they are a power of two.
fn padded<T>(keys: &[T]) -> impl Iterator<Item = &T> {
    let padding = keys.len().next_power_of_two() - keys.len();
    keys.iter().chain(keys.last().into_iter().cycle().take(padding))
}

/// Inserts a row. A duplicate is one only if the row is there, byte for byte: otherwise the table
/// takes another key for this one.
pub(super) async fn insert(
    connection: &mut MySqlConnection,
    key: &KeyMeta,
    json: &str,
) -> Result<Insert, SqlError> {
    // More than once, since the row in the way can be deleted before it is looked at.
    for _ in 0..INSERT_ROUNDS {
        let inserted = query(insert_sql!())
            .bind(key.id().as_str())
            .bind(created_text(key))
            .bind(json)
            .execute(&mut *connection)
            .await;
        match inserted {
            Ok(done) if done.rows_affected() == 0 => {
                return Err(SqlFault::InsertSwallowed(key.clone()).into());
            }
            Ok(_) => return Ok(Insert::Inserted),
            Err(error) if number(&error).is_some_and(is_out_of_range) => {
                return Err(SqlFault::CreatedNotHeld(key.created()).into());
            }
            Err(error) if !is_duplicate(&error) => return Err(error.into()),
            Err(_) => {}
        }
        match holder(connection, key).await? {
            Some(holder) if holder.is_of(key) => return Ok(Insert::AlreadyExists),
            Some(_) => return Err(SqlFault::Indistinct(key.clone()).into()),
            None => {}
        }
    }
    Err(SqlFault::Contended(key.clone()).into())
}

const INSERT_ROUNDS: usize = 3;

fn is_duplicate(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.is_unique_violation())
}

/// "Incorrect datetime value", "Out of range value": the one value of ours that only the server can
/// judge is `created`, by the ends of its type and by the hour that clocks skip.
const fn is_out_of_range(number: u16) -> bool {
    matches!(number, 1264 | 1292)
}

/// As [`insert`], on a server that may change what it is given: what it kept is looked at before it
/// counts.
pub(super) async fn insert_looked_at(
    connection: &mut MySqlConnection,
    key: &KeyMeta,
    json: &str,
) -> Result<Insert, SqlError> {
    let mut transaction = connection.begin().await?;
    let answer = insert(&mut transaction, key, json).await?;
    if answer == Insert::Inserted {
        let kept = load_row(&mut transaction, key).await?;
        if kept.is_none_or(|row| row.json.as_deref() != Some(json.as_bytes())) {
            transaction.rollback().await?;
            return Err(SqlFault::NotKept(key.clone()).into());
        }
    }
    transaction.commit().await?;
    Ok(answer)
}

/// Puts what `change` makes of the record in its place, if nobody else changed it meanwhile; else
/// again, for as long as the call may take. `None` leaves it.
pub(super) async fn rewrite(
    connection: &mut MySqlConnection,
    key: &KeyMeta,
    change: impl Fn(&EnvelopeKeyRecord) -> Result<Option<String>, SqlFault>,
) -> Result<Rewritten, SqlError> {
    loop {
        let Some(row) = load_row(connection, key).await? else { return Ok(Rewritten::NotFound) };
        let Some(json) = change(&row.record(key.id())?)? else { return Ok(Rewritten::Left) };
        let done = query(update_sql!())
            .bind(json)
            .bind(key.id().as_str())
            .bind(key.id().as_str().as_bytes())
            .bind(created_text(key))
            .bind(row.json)
            .execute(&mut *connection)
            .await?;
        if done.rows_affected() > 0 {
            return Ok(Rewritten::Changed);
        }
    }
}

pub(super) async fn list(
    connection: &mut MySqlConnection,
    after: Option<&KeyMeta>,
    limit: usize,
) -> Result<Page, SqlError> {
    let after = after.map(|key| (key.id().as_str().as_bytes().to_vec(), created_text(key)));
    let mut rows = list_rows(connection, after, limit).await?;
    let mut is_last = rows.len() < limit || limit == 0;
    // The next page begins after a text. Where a foreign writer's id is none, the page goes on: a
    // text made of it would sort elsewhere, and rows would be listed twice or never.
    while let Some(last) = rows.last().filter(|last| !is_last && is_no_text(&last.id)) {
        let created = last.created.map_or_else(|| ZERO_DATE.to_owned(), utc::text);
        let more = list_rows(connection, Some((last.id.clone(), created)), 1).await?;
        is_last = more.is_empty();
        rows.extend(more);
    }
    Ok(read_page(rows, is_last)?)
}

/// Whether it is a whole id, and no key's.
fn is_no_text(id: &[u8]) -> bool {
    matches!(read_id(id), Err(SqlFault::IdUnreadable))
}

/// What servers make of times that they cannot hold. It sorts before all others.
const ZERO_DATE: &str = "0000-00-00 00:00:00";

async fn list_rows(
    connection: &mut MySqlConnection,
    after: Option<(Vec<u8>, String)>,
    limit: usize,
) -> Result<Vec<Row>, SqlError> {
    let query = match &after {
        None => query_as(LIST_FIRST),
        // As text where it is: bytes would be compared as bytes, whatever the primary key's order.
        Some((id, created)) => match std::str::from_utf8(id) {
            Ok(id) => query_as(LIST_NEXT).bind(id).bind(id).bind(created),
            Err(_) => query_as(LIST_NEXT).bind(id).bind(id).bind(created),
        },
    };
    Ok(query.bind(i64::try_from(limit).unwrap_or(i64::MAX)).fetch_all(connection).await?)
}

pub(super) async fn delete(connection: &mut MySqlConnection, id: &KeyId) -> Result<u64, SqlError> {
    let done =
        query(delete_sql!()).bind(id.as_str()).bind(id.as_str().as_bytes()).execute(connection).await?;
    Ok(done.rows_affected())
}

pub(super) async fn count(connection: &mut MySqlConnection) -> Result<u64, SqlError> {
    let rows: i64 = query_scalar(COUNT).fetch_one(connection).await?;
    Ok(rows.unsigned_abs())
}
