//! What is asked of the table, and what the answers mean.

use std::collections::{HashMap, HashSet};

use claviger::{BackendError, Created, EnvelopeKeyRecord, KeyId, KeyMeta};
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Connection as _, FromRow, Row as _, query, query_as, query_scalar, raw_sql};

use crate::sql::SqlFault;
use crate::sql::driver::Doing;
use crate::sql::error::SqlError;
use crate::sql::mysql::fault::{backend_error, driver_fault, number};
use crate::sql::mysql::layout::Layout;
use crate::sql::mysql::texts::{
    COUNT, CREATE_TABLE, LIST_FIRST, LIST_NEXT, LIST_OF_PREFIX_FIRST, LIST_OF_PREFIX_NEXT, delete_sql,
    delete_version_sql, holder_sql, insert_sql, load_latest_many_sql, load_latest_sql, load_many_sql,
    load_sql, of_id, row, up_to, update_sql,
};
use crate::sql::mysql::utc;
use crate::sql::rows::Row;
use crate::sql::statements::{Found, On, Placed, Statements};

/// MySQL and MariaDB.
#[derive(Debug)]
pub(super) struct MysqlDialect;

impl Statements for MysqlDialect {
    const STORE: &'static str = "MysqlMetastore";
    /// With more, MariaDB makes a table of them first.
    const ASKED_MAX: usize = 512;

    type Session = MySqlConnection;
    type Table = Layout;

    fn backend_error(error: sqlx::Error, doing: Doing) -> BackendError {
        backend_error(error, doing)
    }

    fn check_id(layout: Layout, id: &KeyId) -> Result<(), SqlFault> {
        layout.check_id(id)
    }

    fn check_place(layout: Layout, place: &KeyMeta) -> Result<(), SqlFault> {
        layout.check_characters(place.id())
    }

    fn checked_json(layout: Layout, record: &EnvelopeKeyRecord) -> Result<String, SqlFault> {
        layout.checked_json(record)
    }

    async fn find(on: &mut On<'_, Self>, key: &KeyMeta) -> Result<Found, SqlError> {
        Ok(match find_row(on.session, key).await? {
            Some(row) => Found::Row(row),
            None if on.table.folds => Found::HeldPerhaps,
            None => Found::Nothing,
        })
    }

    async fn find_many(on: &mut On<'_, Self>, keys: &[KeyMeta]) -> Result<Vec<Found>, SqlError> {
        let sql = load_many_sql!("{}", "{}").replace("{}", &placeholders(keys.len()));
        let query =
            padded(keys).fold(query_as(AssertSqlSafe(sql)), |query, key| query.bind(key.id().as_str()));
        let query = padded(keys).fold(query, |query, key| query.bind(created_text(key)));
        let rows: Vec<Row> = query.fetch_all(&mut *on.session).await?;
        let found: HashMap<_, _> = rows.iter().map(|row| ((row.id.as_slice(), row.created), row)).collect();
        // A row that the table takes for a version came too: without one of its time there is none.
        let times: HashSet<_> = rows.iter().map(|row| row.created).collect();
        let of_key = |key: &KeyMeta| {
            let created = Some(key.created().unix_seconds());
            match found.get(&(key.id().as_str().as_bytes(), created)) {
                Some(row) => Found::Row((*row).clone()),
                None if on.table.folds && times.contains(&created) => Found::HeldPerhaps,
                None => Found::Nothing,
            }
        };
        Ok(keys.iter().map(of_key).collect())
    }

    async fn find_holder(on: &mut On<'_, Self>, key: &KeyMeta) -> Result<Option<Row>, SqlError> {
        let holder = query_as(holder_sql!()).bind(key.id().as_str()).bind(created_text(key));
        Ok(holder.fetch_optional(&mut *on.session).await?)
    }

    async fn find_latest(on: &mut On<'_, Self>, id: &KeyId, up_to: Created) -> Result<Vec<Row>, SqlError> {
        let sql = if on.table.is_zoned { load_latest_sql!(zoned) } else { load_latest_sql!(unzoned) };
        let latest = query_as(sql).bind(id.as_str()).bind(id.as_str().as_bytes());
        Ok(latest.bind(utc::text(up_to.unix_seconds())).fetch_all(&mut *on.session).await?)
    }

    async fn find_latest_many(
        on: &mut On<'_, Self>,
        ids: &[KeyId],
        up_to: Created,
    ) -> Result<Vec<Vec<Row>>, SqlError> {
        let zoned = on.table.is_zoned;
        let sql =
            if zoned { load_latest_many_sql!("{}", zoned) } else { load_latest_many_sql!("{}", unzoned) };
        let (sql, up_to) = (sql.replace("{}", &placeholders(ids.len())), utc::text(up_to.unix_seconds()));
        let query = padded(ids).fold(query_as(AssertSqlSafe(sql)), |query, id| query.bind(id.as_str()));
        let mut rows: Vec<TimedRow> = query.bind(&up_to).bind(&up_to).fetch_all(&mut *on.session).await?;
        rows.sort_by(|one, other| other.time.cmp(&one.time));
        let mut found: HashMap<_, Vec<_>> = HashMap::new();
        for TimedRow { row, .. } in rows {
            found.entry(row.id.clone()).or_default().push(row);
        }
        let of_id = |id: &KeyId| found.get(id.as_str().as_bytes()).cloned().unwrap_or_default();
        Ok(ids.iter().map(of_id).collect())
    }

    /// On a server that may change what it is given, what it kept is looked at before it counts.
    async fn insert(on: &mut On<'_, Self>, key: &KeyMeta, json: &str) -> Result<Placed, SqlError> {
        if on.table.is_strict {
            return insert(on.session, key, json).await;
        }
        let mut transaction = on.session.begin().await?;
        let placed = insert(&mut transaction, key, json).await?;
        if placed == Placed::Inserted {
            let kept = find_row(&mut transaction, key).await?;
            if kept.is_none_or(|row| row.json.as_deref() != Some(json.as_bytes())) {
                transaction.rollback().await?;
                return Err(SqlFault::NotKept(key.clone()).into());
            }
        }
        transaction.commit().await?;
        Ok(placed)
    }

    async fn update(on: &mut On<'_, Self>, key: &KeyMeta, old: &[u8], new: &str) -> Result<u64, SqlError> {
        let update =
            query(update_sql!()).bind(new).bind(key.id().as_str()).bind(key.id().as_str().as_bytes());
        Ok(update.bind(created_text(key)).bind(old).execute(&mut *on.session).await?.rows_affected())
    }

    async fn list(
        on: &mut On<'_, Self>,
        prefix: &str,
        after: Option<&KeyMeta>,
        limit: usize,
    ) -> Result<Vec<Row>, SqlError> {
        let list = match (prefix, after) {
            ("", None) => query_as(LIST_FIRST),
            ("", Some(_)) => query_as(LIST_NEXT),
            (_, None) => query_as(LIST_OF_PREFIX_FIRST),
            (_, Some(_)) => query_as(LIST_OF_PREFIX_NEXT),
        };
        let list = match after {
            None => list,
            Some(key) => list.bind(key.id().as_str()).bind(key.id().as_str()).bind(created_text(key)),
        };
        let pattern = pattern_of(prefix);
        let list = if prefix.is_empty() { list } else { list.bind(&pattern).bind(pattern.as_bytes()) };
        Ok(list.bind(i64::try_from(limit).unwrap_or(i64::MAX)).fetch_all(&mut *on.session).await?)
    }

    async fn delete_version(on: &mut On<'_, Self>, key: &KeyMeta) -> Result<u64, SqlError> {
        let id = key.id().as_str();
        let delete = query(delete_version_sql!()).bind(id).bind(id.as_bytes()).bind(created_text(key));
        Ok(delete.execute(&mut *on.session).await?.rows_affected())
    }

    async fn delete(on: &mut On<'_, Self>, id: &KeyId) -> Result<u64, SqlError> {
        let delete = query(delete_sql!()).bind(id.as_str()).bind(id.as_str().as_bytes());
        Ok(delete.execute(&mut *on.session).await?.rows_affected())
    }

    async fn count(on: &mut On<'_, Self>) -> Result<u64, SqlError> {
        let rows: i64 = query_scalar(COUNT).fetch_one(&mut *on.session).await?;
        Ok(rows.unsigned_abs())
    }
}

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

/// What is like every text that begins with the prefix.
fn pattern_of(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for character in prefix.chars() {
        if matches!(character, '%' | '_' | '|') {
            pattern.push('|');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

/// `created` as all writers send it.
fn created_text(key: &KeyMeta) -> String {
    utc::text(key.created().unix_seconds())
}

async fn find_row(connection: &mut MySqlConnection, key: &KeyMeta) -> Result<Option<Row>, SqlError> {
    let row: Option<Row> = query_as(load_sql!())
        .bind(key.id().as_str())
        .bind(key.id().as_str().as_bytes())
        .bind(created_text(key))
        .fetch_optional(connection)
        .await?;
    Ok(row.filter(|row| row.is_of(key)))
}

async fn insert(connection: &mut MySqlConnection, key: &KeyMeta, json: &str) -> Result<Placed, SqlError> {
    let insert = query(insert_sql!()).bind(key.id().as_str()).bind(created_text(key)).bind(json);
    match insert.execute(connection).await {
        Ok(done) if done.rows_affected() == 0 => Ok(Placed::Nowhere),
        Ok(_) => Ok(Placed::Inserted),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(Placed::Refused),
        Err(error) if number(&error).is_some_and(is_out_of_range) => {
            Err(SqlFault::CreatedNotHeld(key.created()).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// "Incorrect datetime value", "Out of range value": the one value of ours that only the server can
/// judge is `created`, by the ends of its type and by the hour that clocks skip.
const fn is_out_of_range(number: u16) -> bool {
    matches!(number, 1264 | 1292)
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
