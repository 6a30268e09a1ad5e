//! What the check asks.

use sqlx::{SqliteConnection, query, query_as, query_scalar};

/// Takes the right to write, and writes nothing. `BEGIN IMMEDIATE` does not do: on a file that takes
/// no writes it begins to read.
pub(super) async fn try_to_write(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    query("DELETE FROM encryption_key WHERE FALSE").execute(connection).await.map(drop)
}

/// Returns `true` if what is written comes to a file that stays.
pub(super) async fn has_file(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let file = "SELECT file FROM pragma_database_list WHERE name = 'main'";
    let file: Option<Option<String>> = query_scalar(file).fetch_optional(connection).await?;
    Ok(file.flatten().is_some_and(|file| !file.is_empty()))
}

/// A column of the table, if there is one.
pub(super) struct Column {
    pub(super) name: String,
    /// Its type, as the table's maker wrote it.
    pub(super) declared: String,
}

pub(super) async fn columns(connection: &mut SqliteConnection) -> Result<Vec<Column>, sqlx::Error> {
    let columns = "SELECT name, type FROM pragma_table_info('encryption_key')";
    let columns: Vec<(String, String)> = query_as(columns).fetch_all(connection).await?;
    Ok(columns.into_iter().map(|(name, declared)| Column { name, declared }).collect())
}

/// Returns `true` if the table's types are enforced.
pub(super) async fn is_strict(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let strict = "SELECT strict FROM pragma_table_list('encryption_key') WHERE schema = 'main'";
    Ok(query_scalar(strict).fetch_optional(connection).await?.unwrap_or(false))
}

/// A column, or an expression, of a unique key over all rows.
pub(super) struct UniqueColumn {
    pub(super) key: String,
    pub(super) name: Option<String>,
    pub(super) collation: String,
}

pub(super) async fn unique_columns(
    connection: &mut SqliteConnection,
) -> Result<Vec<UniqueColumn>, sqlx::Error> {
    let columns: Vec<(String, Option<String>, String)> = query_as(
        "SELECT list.name, info.name, info.coll \
         FROM pragma_index_list('encryption_key') AS list, pragma_index_xinfo(list.name) AS info \
         WHERE list.\"unique\" AND NOT list.partial AND info.key",
    )
    .fetch_all(connection)
    .await?;
    Ok(columns.into_iter().map(|(key, name, collation)| UniqueColumn { key, name, collation }).collect())
}

/// A row as the check looks at it.
pub(super) struct SampledRow {
    /// Its bytes, if it is a text.
    pub(super) id: Option<Vec<u8>>,
    pub(super) is_our_form: bool,
    pub(super) created: Option<i64>,
    /// The time that the record says.
    pub(super) says: Option<i64>,
    /// `None` if it is too long.
    pub(super) json: Option<Vec<u8>>,
}

/// The same as the driver has it.
type Fields = (Option<Vec<u8>>, bool, Option<i64>, Option<i64>, Option<Vec<u8>>);

/// Returns rows from both ends of the table in the order of the key, if it has one.
pub(super) async fn sample(
    connection: &mut SqliteConnection,
    has_key: bool,
) -> Result<Vec<SampledRow>, sqlx::Error> {
    let rows: Vec<Fields> = query_as(if has_key { ENDS } else { ANY }).fetch_all(connection).await?;
    let sample = rows.into_iter().map(|(id, is_our_form, created, says, json)| SampledRow {
        id,
        is_our_form,
        created,
        says,
        json,
    });
    Ok(sample.collect())
}

macro_rules! looked_at {
    () => {
        concat!(
            "SELECT id, coalesce(created = datetime(",
            created_seconds!(),
            ", 'unixepoch'), FALSE) AS is_our_form, ",
            created_seconds!(),
            " AS created, \
             CASE WHEN json_valid(CAST(record AS TEXT)) \
             AND json_type(CAST(record AS TEXT), '$.Created') = 'integer' \
             THEN json_extract(CAST(record AS TEXT), '$.Created') END AS says, record FROM "
        )
    };
}

/// With no more of a row than a whole one may have.
macro_rules! some_rows {
    ($order:literal) => {
        concat!(
            "(SELECT CASE typeof(id) WHEN 'text' THEN ",
            row_id!(),
            " END AS id, iif(octet_length(created) <= 64, created, NULL) AS created, ",
            json!(),
            " AS record FROM encryption_key WHERE id NOT GLOB '__asherah_internal_*'",
            $order,
            " LIMIT 500)"
        )
    };
}

const ANY: &str = concat!(looked_at!(), some_rows!(""));
// In a small table the ends overlap: a UNION has each row once.
const ENDS: &str = concat!(
    looked_at!(),
    "(SELECT * FROM ",
    some_rows!(" ORDER BY encryption_key.id"),
    " UNION SELECT * FROM ",
    some_rows!(" ORDER BY encryption_key.id DESC"),
    ")"
);

/// How large the log beside the file is; `None` if there is no file.
pub(super) async fn log_mebibytes(connection: &mut SqliteConnection) -> Result<Option<u64>, sqlx::Error> {
    let file: Option<String> = query_scalar("SELECT file FROM pragma_database_list WHERE name = 'main'")
        .fetch_one(connection)
        .await?;
    let log = file.filter(|file| !file.is_empty()).map(|file| format!("{file}-wal"));
    Ok(log.and_then(|log| std::fs::metadata(log).ok()).map(|log| log.len() >> 20))
}
