//! The statements.
//!
//! Each is one statement, atomic by itself. Their text is made by macros, so that the rustdoc of
//! [`PostgresMetastore`](super::PostgresMetastore) shows what is run.

use claviger::{EnvelopeKeyRecord, Insert, KeyId, KeyMeta, Page};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection as _, Row as _, query, query_scalar, raw_sql};

use crate::sql::pool::SqlError;
use crate::sql::rewrite::Rewritten;
use crate::sql::{CREATED_MAX, SqlFault, read_page, read_row};

/// The rows of the id `$1`, byte by byte: a table made by others may fold case. The first condition
/// finds them by the primary key.
macro_rules! of_id {
    () => {
        "id = $1 AND id::text COLLATE \"C\" = $1"
    };
}

/// A row's `created` in Unix seconds, whatever the session's time zone is; NULL before all times.
macro_rules! seconds {
    () => {
        "CASE WHEN created = 'infinity' THEN 9223372036854775807\n       \
         WHEN isfinite(created) THEN floor(extract(epoch FROM created))::bigint END"
    };
}

/// What is a key, and not a note that Asherah keeps beside the keys.
macro_rules! no_reserved_id {
    () => {
        "left(id::text, 19) COLLATE \"C\" <> '__asherah_internal_'"
    };
}

/// Makes the transaction that the statement is commit durably, where the session would not. A
/// setting of the session could be another session's behind a pooler.
macro_rules! durably {
    () => {
        "(current_setting('synchronous_commit') <> 'off'\n       \
         OR set_config('synchronous_commit', 'on', true) = 'on')"
    };
}

// `$utc` is what makes a TIMESTAMP of a TIMESTAMPTZ, for tables whose column is one.

macro_rules! load_sql {
    ($utc:literal) => {
        concat!(
            "SELECT key_record::text FROM encryption_key\n",
            "WHERE ",
            of_id!(),
            " AND created = to_timestamp($2)",
            $utc
        )
    };
}

macro_rules! load_latest_sql {
    () => {
        concat!(
            "SELECT ",
            seconds!(),
            ",\n       key_record::text FROM encryption_key\n",
            "WHERE ",
            of_id!(),
            "\nORDER BY created DESC LIMIT 1"
        )
    };
}

macro_rules! load_many_sql {
    ($utc:literal) => {
        concat!(
            "SELECT asked.n, found.key_record\n",
            "FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS asked (id, created, n)\n",
            "CROSS JOIN LATERAL (\n  SELECT key_record::text FROM encryption_key AS k\n  ",
            "WHERE k.id = asked.id AND k.id::text COLLATE \"C\" = asked.id\n    ",
            "AND k.created = to_timestamp(asked.created)",
            $utc,
            "\n  LIMIT 1\n) AS found"
        )
    };
}

macro_rules! load_latest_many_sql {
    () => {
        concat!(
            "SELECT asked.n, latest.seconds, latest.key_record\n",
            "FROM unnest($1::text[]) WITH ORDINALITY AS asked (id, n)\n",
            "CROSS JOIN LATERAL (\n  SELECT ",
            seconds!(),
            " AS seconds,\n       ",
            "key_record::text FROM encryption_key AS k\n  ",
            "WHERE k.id = asked.id AND k.id::text COLLATE \"C\" = asked.id\n  ",
            "ORDER BY k.created DESC LIMIT 1\n) AS latest"
        )
    };
}

macro_rules! insert_sql {
    ($utc:literal) => {
        concat!(
            "INSERT INTO encryption_key (id, created, key_record)\n",
            "SELECT $1, to_timestamp($2)",
            $utc,
            ", $3::json\nWHERE ",
            durably!()
        )
    };
}

macro_rules! update_sql {
    ($utc:literal) => {
        concat!(
            "UPDATE encryption_key SET key_record = $4::json\n",
            "WHERE ",
            of_id!(),
            " AND created = to_timestamp($2)",
            $utc,
            "\n  AND key_record::text COLLATE \"C\" = $3 AND ",
            durably!()
        )
    };
}

macro_rules! list_sql {
    ($utc:literal) => {
        concat!(
            "SELECT id::text, ",
            seconds!(),
            ",\n       key_record::text FROM encryption_key AS k\n",
            "WHERE (id, created) > ($1, to_timestamp($2)",
            $utc,
            ") AND ",
            no_reserved_id!(),
            "\nORDER BY k.id, k.created LIMIT $3"
        )
    };
}

macro_rules! delete_sql {
    () => {
        concat!("DELETE FROM encryption_key\nWHERE ", of_id!(), " AND ", durably!())
    };
}

macro_rules! count_sql {
    () => {
        concat!("SELECT count(*) FROM encryption_key\nWHERE ", no_reserved_id!())
    };
}

pub(super) use {
    count_sql, delete_sql, durably, insert_sql, list_sql, load_latest_many_sql, load_latest_sql,
    load_many_sql, load_sql, no_reserved_id, of_id, seconds, update_sql,
};

/// The texts that depend on the type of `created`.
#[derive(Debug)]
pub(super) struct Texts {
    pub(super) load: &'static str,
    pub(super) load_many: &'static str,
    pub(super) insert: &'static str,
    pub(super) update: &'static str,
    pub(super) list: &'static str,
}

macro_rules! texts {
    ($utc:literal) => {
        Texts {
            load: load_sql!($utc),
            load_many: load_many_sql!($utc),
            insert: insert_sql!($utc),
            update: update_sql!($utc),
            list: list_sql!($utc),
        }
    };
}

static OF_TIMESTAMPTZ: Texts = texts!("");
static OF_TIMESTAMP: Texts = texts!(" AT TIME ZONE 'UTC'");

pub(super) const LOAD_LATEST: &str = load_latest_sql!();
pub(super) const LOAD_LATEST_MANY: &str = load_latest_many_sql!();
const DELETE: &str = delete_sql!();
const COUNT: &str = count_sql!();

const CREATED_TYPE: &str = "SELECT atttypid::regtype::text FROM pg_attribute \
     WHERE attrelid = to_regclass('encryption_key') AND attname = 'created' AND NOT attisdropped";

const CREATE_TABLE: &str = include_str!("../../../migrations/postgres/0001_encryption_key.sql");
const CREATE_TRIGGER: &str = include_str!("../../../migrations/postgres/0002_notify.sql");

/// Creates the table and its trigger, both or neither, unless there is a table.
pub(super) async fn migrate(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    // Of several that come first at once the others wait, and find it made.
    query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK).execute(&mut *transaction).await?;
    let is_there = "SELECT to_regclass('encryption_key') IS NOT NULL";
    if !query_scalar::<_, bool>(is_there).fetch_one(&mut *transaction).await? {
        raw_sql(CREATE_TABLE).execute(&mut *transaction).await?;
        raw_sql(CREATE_TRIGGER).execute(&mut *transaction).await?;
    }
    transaction.commit().await
}

/// Any number that others are unlikely to lock.
const MIGRATION_LOCK: i64 = 0x636c_6176_6967_6572;

impl Texts {
    /// Those of our own table. If there is none, the statement will say so.
    pub(super) const OURS: &'static Self = &OF_TIMESTAMPTZ;

    /// Returns those that the table takes; `None` if there is no table.
    pub(super) async fn of_table(connection: &mut PgConnection) -> Result<Option<&'static Self>, SqlError> {
        let created_type: Option<String> = query_scalar(CREATED_TYPE).fetch_optional(connection).await?;
        Ok(created_type.map(|created_type| match created_type.as_str() {
            "timestamp without time zone" => &OF_TIMESTAMP,
            _ => &OF_TIMESTAMPTZ,
        }))
    }

    pub(super) async fn load(
        &self,
        connection: &mut PgConnection,
        key: &KeyMeta,
    ) -> Result<Option<EnvelopeKeyRecord>, SqlError> {
        let row = self.find(connection, key).await?;
        row.map(|row| read_version(key, &bytes(&row, 0)?)).transpose()
    }

    async fn find(&self, connection: &mut PgConnection, key: &KeyMeta) -> Result<Option<PgRow>, sqlx::Error> {
        let (id, created) = (key.id().as_str(), key.created().unix_seconds());
        query(self.load).bind(id).bind(created).fetch_optional(connection).await
    }

    /// One answer for each key, in the order asked.
    pub(super) async fn load_many(
        &self,
        connection: &mut PgConnection,
        keys: &[KeyMeta],
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, SqlError> {
        let mut records = vec![None; keys.len()];
        for (keys, records) in keys.chunks(ROWS_MAX).zip(records.chunks_mut(ROWS_MAX)) {
            let (ids, created): (Vec<_>, Vec<_>) =
                keys.iter().map(|key| (key.id().as_str(), key.created().unix_seconds())).unzip();
            let rows = query(self.load_many).bind(ids).bind(created).fetch_all(&mut *connection).await?;
            for row in rows {
                let place = place(&row)?;
                if let (Some(key), Some(record)) = (keys.get(place), records.get_mut(place)) {
                    *record = Some(read_version(key, &bytes(&row, 1)?)?);
                }
            }
        }
        Ok(records)
    }

    pub(super) async fn insert(
        &self,
        connection: &mut PgConnection,
        record: &EnvelopeKeyRecord,
    ) -> Result<Insert, SqlError> {
        let key = record.meta();
        let result = query(self.insert)
            .bind(key.id().as_str())
            .bind(key.created().unix_seconds())
            .bind(record.to_json())
            .execute(&mut *connection)
            .await;
        match result {
            Ok(done) if done.rows_affected() == 1 => Ok(Insert::Inserted),
            // A trigger or a rule of the table took the row away.
            Ok(_) => Err(SqlFault::InsertSwallowed(key.clone()).into()),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                // By the collation of a table made by others it may be another key that is there.
                let is_there = self.find(connection, key).await?.is_some();
                if is_there {
                    Ok(Insert::AlreadyExists)
                } else {
                    Err(SqlFault::Indistinct(key.clone()).into())
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Puts what `change` makes of the record in its place, if nobody changed it meanwhile; `None`
    /// leaves it. Tells whether there is a record, and whether it was changed.
    pub(super) async fn rewrite(
        &self,
        connection: &mut PgConnection,
        key: &KeyMeta,
        change: impl Fn(&EnvelopeKeyRecord) -> Option<EnvelopeKeyRecord>,
    ) -> Result<Rewritten, SqlError> {
        for _ in 0..REWRITES_MAX {
            let Some(row) = self.find(connection, key).await? else { return Ok(Rewritten::NotFound) };
            let old: String = row.try_get(0)?;
            let Some(new) = change(&read_version(key, old.as_bytes())?) else {
                return Ok(Rewritten::Left);
            };
            let done = query(self.update)
                .bind(key.id().as_str())
                .bind(key.created().unix_seconds())
                .bind(old)
                .bind(new.to_json())
                .execute(&mut *connection)
                .await?;
            if done.rows_affected() > 0 {
                return Ok(Rewritten::Changed);
            }
        }
        Err(SqlFault::Contended(key.clone()).into())
    }

    pub(super) async fn list(
        &self,
        connection: &mut PgConnection,
        after: Option<&KeyMeta>,
        limit: usize,
    ) -> Result<Page, SqlError> {
        let (id, created) = after.map_or(("", f64::NEG_INFINITY), |key| {
            (key.id().as_str(), listed_after(key.created().unix_seconds()))
        });
        let rows = query(self.list)
            .bind(id)
            .bind(created)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(connection)
            .await?;
        let rows = rows.iter().map(|row| {
            // In a database without an encoding an id may be any bytes.
            let id = String::from_utf8_lossy(&bytes(row, 0)?).into_owned();
            Ok((id, row.try_get(1)?, bytes(row, 2)?))
        });
        Ok(read_page(rows.collect::<Result<_, sqlx::Error>>()?, limit))
    }
}

/// How often a rewrite is begun anew when others rewrite the same record. They do so once or twice
/// in its life.
const REWRITES_MAX: usize = 20;

/// How many keys one statement asks for. Its parameters and its answer are a few megabytes then.
const ROWS_MAX: usize = 10_000;

pub(super) async fn load_latest(
    connection: &mut PgConnection,
    id: &KeyId,
) -> Result<Option<EnvelopeKeyRecord>, SqlError> {
    let row = query(LOAD_LATEST).bind(id.as_str()).fetch_optional(connection).await?;
    row.map(|row| Ok(read_row(id, row.try_get(0)?, &bytes(&row, 1)?)?)).transpose()
}

/// One answer for each id, in the order asked.
pub(super) async fn load_latest_many(
    connection: &mut PgConnection,
    ids: &[KeyId],
) -> Result<Vec<Option<EnvelopeKeyRecord>>, SqlError> {
    let mut records = vec![None; ids.len()];
    for (ids, records) in ids.chunks(ROWS_MAX).zip(records.chunks_mut(ROWS_MAX)) {
        let texts: Vec<_> = ids.iter().map(KeyId::as_str).collect();
        let rows = query(LOAD_LATEST_MANY).bind(texts).fetch_all(&mut *connection).await?;
        for row in rows {
            let place = place(&row)?;
            if let (Some(id), Some(record)) = (ids.get(place), records.get_mut(place)) {
                *record = Some(read_row(id, row.try_get(1)?, &bytes(&row, 2)?)?);
            }
        }
    }
    Ok(records)
}

pub(super) async fn delete(connection: &mut PgConnection, id: &KeyId) -> Result<u64, SqlError> {
    Ok(query(DELETE).bind(id.as_str()).execute(connection).await?.rows_affected())
}

pub(super) async fn count(connection: &mut PgConnection) -> Result<u64, SqlError> {
    Ok(query_scalar::<_, i64>(COUNT).fetch_one(connection).await?.unsigned_abs())
}

fn read_version(key: &KeyMeta, json: &[u8]) -> Result<EnvelopeKeyRecord, SqlError> {
    Ok(read_row(key.id(), Some(key.created().unix_seconds()), json)?)
}

/// A text as the server sent it.
pub(super) fn bytes(row: &PgRow, column: usize) -> Result<Vec<u8>, sqlx::Error> {
    row.try_get_unchecked(column)
}

/// Where in what was asked the row belongs; the server counts from one.
fn place(row: &PgRow) -> Result<usize, sqlx::Error> {
    let n: i64 = row.try_get(0)?;
    Ok(usize::try_from(n - 1).unwrap_or(usize::MAX))
}

/// The time after which a page goes on, as `to_timestamp` takes it.
///
/// What is past the year 9999, where the server begins to count in floating fractions, stands for all
/// the rest of an id's rows: no key is among them.
#[expect(clippy::cast_precision_loss, reason = "the year 9999 ends below 2^53")]
const fn listed_after(seconds: i64) -> f64 {
    if seconds > CREATED_MAX { f64::INFINITY } else { seconds as f64 }
}

#[cfg(test)]
mod tests {
    #[test]
    fn reserved_ids_begin_as_the_statements_say() {
        let (_, prefix) = no_reserved_id!().split_once("<> ").unwrap();
        let prefix = prefix.trim_matches('\'');
        assert!(claviger::is_reserved_id(prefix));
        assert!(!claviger::is_reserved_id(&prefix[1..]));
        assert!(no_reserved_id!().contains(&format!("left(id::text, {})", prefix.len())));
    }
}
