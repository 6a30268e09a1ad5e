//! What is asked of the table, and what the answers mean.
//!
//! Each is one statement, atomic by itself.

use claviger::{Created, EnvelopeKeyRecord, FailureKind, Insert, KeyId, KeyMeta, Latest, Page};
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, Row as _, raw_sql};

use crate::sql::dialect::SqlError;
use crate::sql::driver::Doing;
use crate::sql::postgres::session::{PostgresSession, Value, text, text_or_null};
use crate::sql::postgres::texts::{
    COUNT, DELETE, FOLDING_OF_TIMESTAMP, FOLDING_OF_TIMESTAMPTZ, OF_TIMESTAMP, OF_TIMESTAMPTZ, Texts,
};
use crate::sql::rewrite::Rewritten;
use crate::sql::{
    DriverFault, FoldedIds, ListedRow, SqlFault, checked_json, read_latest, read_page, read_row,
};

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

    pub(super) async fn load(
        &self,
        session: &mut PostgresSession,
        key: &KeyMeta,
        folded: FoldedIds,
    ) -> Result<Option<EnvelopeKeyRecord>, SqlError> {
        match self.find(session, key).await? {
            Some(json) => Ok(Some(read_version(key, json.as_deref())?)),
            None => self.load_folded(session, key, folded).await,
        }
    }

    /// Loads what there is of a version that has no row of its own: one whose id the table takes for its.
    async fn load_folded(
        &self,
        session: &mut PostgresSession,
        key: &KeyMeta,
        folded: FoldedIds,
    ) -> Result<Option<EnvelopeKeyRecord>, SqlError> {
        if !self.folds {
            return Ok(None);
        }
        let Some((id, json)) = self.holder(session, key).await? else { return Ok(None) };
        let read = || read_row(key.id(), Some(key.created().unix_seconds()), json.as_deref());
        if id == key.id().as_str().as_bytes() {
            // It was inserted meanwhile.
            return Ok(Some(read()?));
        }
        Ok(folded.answer(key, &id, read)?)
    }

    /// Returns the JSON of the version's row, `None` in its place if it is too long.
    async fn find(
        &self,
        session: &mut PostgresSession,
        key: &KeyMeta,
    ) -> Result<Option<Option<Vec<u8>>>, SqlError> {
        let rows = session.ask(&self.load, &values(key)).await?;
        only(&rows, key.id())?.map(|row| Ok(text_or_null(row, RECORD)?)).transpose()
    }

    pub(super) async fn load_latest(
        &self,
        session: &mut PostgresSession,
        id: &KeyId,
        up_to: Created,
    ) -> Result<Option<Latest>, SqlError> {
        let values = [Value::Text(id.as_str()), Value::Float(after(up_to))];
        let rows = session.ask(&self.load_latest, &values).await?;
        only(&rows, id)?.map_or(Ok(None), |row| latest(id, row))
    }

    /// One answer for each id, in the order asked.
    pub(super) async fn load_latest_many(
        &self,
        session: &mut PostgresSession,
        ids: &[KeyId],
        up_to: Created,
    ) -> Result<Vec<Option<Latest>>, SqlError> {
        let mut records = Vec::with_capacity(ids.len());
        for ids in ids.chunks(ROWS_MAX) {
            let texts: Vec<_> = ids.iter().map(KeyId::as_str).collect();
            let values = [Value::Texts(&texts), Value::Float(after(up_to))];
            let rows = session.ask(&self.load_latest_many, &values).await?;
            for (row, id) in in_order(&rows, ids, |id| id)?.into_iter().zip(ids) {
                records.push(row.map_or(Ok(None), |row| latest(id, row))?);
            }
        }
        Ok(records)
    }

    /// One answer for each key, in the order asked.
    pub(super) async fn load_many(
        &self,
        session: &mut PostgresSession,
        keys: &[KeyMeta],
        folded: FoldedIds,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, SqlError> {
        let mut records = Vec::with_capacity(keys.len());
        for keys in keys.chunks(ROWS_MAX) {
            let (ids, created): (Vec<_>, Vec<_>) =
                keys.iter().map(|key| (key.id().as_str(), key.created().unix_seconds())).unzip();
            let values = [Value::Texts(&ids), Value::Integers(&created)];
            let rows = session.ask(&self.load_many, &values).await?;
            for (row, key) in in_order(&rows, keys, KeyMeta::id)?.into_iter().zip(keys) {
                records.push(match row {
                    Some(row) => Some(read_version(key, text_or_null(row, RECORD)?.as_deref())?),
                    None => self.load_folded(session, key, folded).await?,
                });
            }
        }
        Ok(records)
    }

    pub(super) async fn insert(
        &self,
        session: &mut PostgresSession,
        record: &EnvelopeKeyRecord,
    ) -> Result<Insert, SqlError> {
        let (key, json) = (record.meta(), checked_json(record)?);
        let [id, created] = values(key);
        // More than once, since the row in the way can be deleted before it is looked at.
        for _ in 0..INSERT_ROUNDS {
            match session.ask(&self.insert, &[id, created, Value::Text(&json)]).await {
                Ok(rows) if counted(&rows)? == 1 => return Ok(Insert::Inserted),
                // A trigger or a rule of the table took the row away.
                Ok(_) => return Err(SqlFault::InsertSwallowed(key.clone()).into()),
                Err(SqlError::Driver(sqlx::Error::Database(error))) if error.is_unique_violation() => {}
                Err(error) => return Err(error),
            }
            match self.holder(session, key).await? {
                Some((id, _)) if id == key.id().as_str().as_bytes() => return Ok(Insert::AlreadyExists),
                Some(_) => return Err(SqlFault::Indistinct(key.clone()).into()),
                None => {}
            }
        }
        // Another unique key than that of the version is in the way.
        Err(SqlFault::Indistinct(key.clone()).into())
    }

    /// Returns the id and the JSON of the row that the table takes for this one.
    async fn holder(
        &self,
        session: &mut PostgresSession,
        key: &KeyMeta,
    ) -> Result<Option<(Vec<u8>, Option<Vec<u8>>)>, SqlError> {
        let rows = session.ask(&self.holder, &values(key)).await?;
        let mut holders = rows
            .iter()
            .filter_map(|row| Some((text(row, ID).ok()?, text_or_null(row, HOLDERS_RECORD).ok()?)));
        Ok(holders.next())
    }

    /// Puts what `change` makes of the record in its place, if nobody changed it meanwhile; `None`
    /// leaves it. Returns whether there is a record, and whether it was changed.
    pub(super) async fn rewrite(
        &self,
        session: &mut PostgresSession,
        key: &KeyMeta,
        change: impl Fn(&EnvelopeKeyRecord) -> Option<EnvelopeKeyRecord>,
    ) -> Result<Rewritten, SqlError> {
        let [id, created] = values(key);
        for _ in 0..REWRITES_MAX {
            let Some(old) = self.find(session, key).await? else { return Ok(Rewritten::NotFound) };
            let Some(new) = change(&read_version(key, old.as_deref())?) else { return Ok(Rewritten::Left) };
            // A record is JSON, which it would not have been read as otherwise.
            let (old, new) =
                (String::from_utf8_lossy(old.as_deref().unwrap_or_default()), checked_json(&new)?);
            let rows =
                session.ask(&self.update, &[id, created, Value::Text(&old), Value::Text(&new)]).await?;
            if counted(&rows)? > 0 {
                return Ok(Rewritten::Changed);
            }
        }
        Err(SqlFault::Contended(key.clone()).into())
    }

    pub(super) async fn list(
        &self,
        session: &mut PostgresSession,
        page_end: Option<&KeyMeta>,
        limit: usize,
    ) -> Result<Page, SqlError> {
        let (id, created) = page_end
            .map_or(("", f64::NEG_INFINITY), |key| (key.id().as_str(), at_or_past_all(key.created())));
        let limited = Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = session.ask(&self.list, &[Value::Text(id), Value::Float(created), limited]).await?;
        // An empty page is one row without an id.
        let listed = rows.iter().filter_map(|row| text(row, ID).ok().map(|id| (id, row))).map(|(id, row)| {
            Ok(ListedRow { id, created: row.try_get(2)?, json: text_or_null(row, RECORD)? })
        });
        let listed = listed.collect::<Result<Vec<_>, sqlx::Error>>()?;
        let is_last = listed.len() < limit || limit == 0;
        Ok(read_page(listed, is_last)?)
    }
}

/// How often an insert is begun anew when the row in its way was gone.
const INSERT_ROUNDS: usize = 3;

/// How often a rewrite is begun anew when others rewrite the same record. They do so once or twice
/// in its life.
const REWRITES_MAX: usize = 20;

/// How many keys one statement asks for. Its parameters and its answer are a few megabytes then.
const ROWS_MAX: usize = 10_000;

/// The latest record of an id and the one before it, from the row that has both.
fn latest(id: &KeyId, row: &PgRow) -> Result<Option<Latest>, SqlError> {
    let read = |record, seconds| -> Result<_, sqlx::Error> {
        Ok(read_row(id, row.try_get(seconds)?, text_or_null(row, record)?.as_deref()))
    };
    // Where there is no earlier row, there is no time.
    let has_earlier = row.try_get::<Option<i64>, _>(EARLIER_SECONDS)?.is_some();
    let earlier = has_earlier.then(|| read(EARLIER_RECORD, EARLIER_SECONDS)).transpose()?;
    let rows = [Some(read(RECORD, SECONDS)?), earlier];
    Ok(read_latest(rows.into_iter().flatten())?)
}

pub(super) async fn delete(session: &mut PostgresSession, id: &KeyId) -> Result<u64, SqlError> {
    counted(&session.ask(&DELETE, &[Value::Text(id.as_str())]).await?)
}

pub(super) async fn count(session: &mut PostgresSession) -> Result<u64, SqlError> {
    counted(&session.ask(&COUNT, &[]).await?)
}

fn read_version(key: &KeyMeta, json: Option<&[u8]>) -> Result<EnvelopeKeyRecord, SqlError> {
    Ok(read_row(key.id(), Some(key.created().unix_seconds()), json)?)
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

/// The row that was found for the one key that was asked for.
fn only<'a>(rows: &'a [PgRow], id: &KeyId) -> Result<Option<&'a PgRow>, SqlError> {
    match rows {
        [row] => found(row, id),
        _ => Err(SqlError::Crossed),
    }
}

/// The rows that were found, each in the place of what was asked, which the server counts from one.
fn in_order<'a, T>(
    rows: &'a [PgRow],
    asked: &[T],
    id_of: impl Fn(&T) -> &KeyId,
) -> Result<Vec<Option<&'a PgRow>>, SqlError> {
    let mut answers = vec![None; asked.len()];
    for row in rows {
        let place = usize::try_from(row.try_get::<i64, _>(4)? - 1).unwrap_or(usize::MAX);
        match (asked.get(place), answers.get_mut(place)) {
            (Some(asked), Some(answer @ None)) => *answer = Some(found(row, id_of(asked))?),
            _ => return Err(SqlError::Crossed),
        }
    }
    answers.into_iter().map(|answer| answer.ok_or(SqlError::Crossed)).collect()
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
