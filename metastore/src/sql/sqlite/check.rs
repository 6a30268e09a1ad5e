//! What can be wrong with a file and its table.

mod queries;

use std::collections::{BTreeMap, BTreeSet};

use claviger::{BackendError, ErrorChain, KeyId};
use sqlx::SqliteConnection;

use crate::schema::{DangerousSchema, Finding, FindingId, SchemaReport};
use crate::sql::UNFOLD_OR_READ;
use crate::sql::rows::{read_id, read_row};
use crate::sql::sqlite::check::queries::{Column, SampledRow, UniqueColumn};
use crate::sql::sqlite::fault::{backend_error, is_read_only, is_transient};
use crate::sql::sqlite::statements;

/// Why a store that must be there already is not opened on a file without the table.
pub(super) fn table_missing() -> BackendError {
    BackendError::permanent(DangerousSchema { findings: vec![missing_table()] })
}

pub(super) async fn has_table(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    Ok(!queries::columns(connection).await?.is_empty())
}

fn missing_table() -> Finding {
    Finding::dangerous(
        FindingId::TableMissing,
        "There is no table encryption_key.",
        "Make it by `claviger schema apply`, or by SqliteMetastore::migrate.",
    )
}

/// Looks at the connection, the table and a sample of its rows.
pub(super) async fn check(connection: &mut SqliteConnection) -> Result<SchemaReport, BackendError> {
    let mut report = SchemaReport::default();
    if !queries::has_file(connection).await.map_err(backend_error)? {
        report.add(Finding::dangerous(
            FindingId::NotDurable,
            "The database is in memory, or a temporary one, so its keys are gone with its last connection.",
            "Open a file. Where keys may be forgotten, as in tests, there is `InMemoryMetastore`.",
        ));
        // Each connection may have its own, so that nothing else of it says anything.
        return Ok(report);
    }
    check_durable(connection, &mut report).await?;
    let columns = queries::columns(connection).await.map_err(backend_error)?;
    if columns.is_empty() {
        report.add(missing_table());
        return Ok(report);
    }
    let is_strict = queries::is_strict(connection).await.map_err(backend_error)?;
    check_columns(&columns, is_strict, &mut report);
    let has_all = COLUMNS.iter().all(|name| columns.iter().any(|column| column.name == *name));
    let unique = queries::unique_columns(connection).await.map_err(backend_error)?;
    let has_key = check_keys(&unique, &mut report);
    check_writable(connection, &mut report).await?;
    if has_all {
        match queries::sample(connection, has_key).await {
            Ok(rows) => check_rows(&rows, &mut report),
            Err(error) if is_transient(&error) => return Err(backend_error(error)),
            // What can be read of a damaged file is needed more than ever.
            Err(error) => report.add(Finding::warning(
                FindingId::DamagedRows,
                format!("A sample of the rows cannot be read: {}.", ErrorChain::new(&backend_error(error))),
                "Restore the file from a backup.",
            )),
        }
    }
    Ok(report)
}

const COLUMNS: [&str; 3] = ["id", "created", "key_record"];

async fn check_durable(
    connection: &mut SqliteConnection,
    report: &mut SchemaReport,
) -> Result<(), BackendError> {
    let mode = statements::journal_mode(connection).await.map_err(backend_error)?;
    if mode != "wal" {
        report.add(Finding::dangerous_to_write(
            FindingId::NotDurable,
            format!(
                "journal_mode is {mode}, so who reads and who writes stand in each other's way, and \
                     what a power cut leaves was not tested."
            ),
            "Run `PRAGMA journal_mode = WAL`, once for the file.",
        ));
    }
    let synchronous = statements::synchronous(connection).await.map_err(backend_error)?;
    if synchronous < SYNCHRONOUS_FULL {
        report.add(Finding::dangerous_to_write(
            FindingId::NotDurable,
            format!(
                "synchronous is {synchronous}, so a power cut can lose keys that data is encrypted \
                     under already."
            ),
            "Open each connection with `PRAGMA synchronous = FULL`.",
        ));
    }
    if let Some(mebibytes) = queries::log_mebibytes(connection).await.map_err(backend_error)?
        && mebibytes >= LOG_MEBIBYTES_MAX
    {
        report.add(Finding::warning(
            FindingId::LogGrows,
            format!(
                "The log beside the file (-wal) has {mebibytes} MiB: somebody reads without an end, so that it \
                     cannot be begun anew, and opening the file takes longer and longer."
            ),
            "End the transaction that is left open, and run `PRAGMA wal_checkpoint(TRUNCATE)`.",
        ));
    }
    Ok(())
}

/// It is begun anew after some 4 MiB, when nobody reads what is before.
const LOG_MEBIBYTES_MAX: u64 = 64;

/// What `PRAGMA synchronous` answers for `FULL`; `EXTRA` is 3.
const SYNCHRONOUS_FULL: i64 = 2;

fn check_columns(columns: &[Column], is_strict: bool, report: &mut SchemaReport) {
    for name in COLUMNS {
        let Some(column) = columns.iter().find(|column| column.name == name) else {
            report.add(Finding::dangerous(
                FindingId::ColumnMissing,
                format!("The table has no column {name}."),
                "Create the table anew, as `claviger schema show` writes it, and copy the rows.",
            ));
            continue;
        };
        let declared = column.declared.to_ascii_uppercase();
        let holds_text = if is_strict {
            ["TEXT", "ANY"].contains(&declared.as_str())
        } else {
            // Other columns turn text that looks like a number into one, which no time and no record
            // does, but an id can.
            name != "id" || declared.is_empty() || is_of_text(&declared)
        };
        if !holds_text {
            report.add(Finding::dangerous(
                FindingId::ColumnType,
                format!("Column {name} is {declared}, which does not keep every text as it is."),
                "Create the table anew, as `claviger schema show` writes it, and copy the rows.",
            ));
        }
    }
}

/// SQLite's own rule of which declared types keep text.
fn is_of_text(declared: &str) -> bool {
    let says = |words: &[&str]| words.iter().any(|word| declared.contains(word));
    !says(&["INT"]) && says(&["CHAR", "CLOB", "TEXT", "BLOB"])
}

/// Returns `true` if there is a key over what names a version.
fn check_keys(columns: &[UniqueColumn], report: &mut SchemaReport) -> bool {
    let mut keys = BTreeMap::<_, BTreeSet<_>>::new();
    for column in columns {
        keys.entry(column.key.as_str()).or_default().insert(column.name.as_deref());
    }
    let has_key = keys.values().any(|names| *names == BTreeSet::from([Some("id"), Some("created")]));
    if !has_key {
        report.add(Finding::dangerous(
            FindingId::PrimaryKeyMissing,
            "No key is unique over (id, created), so two processes can store two different keys as one \
             version.",
            "Run `CREATE UNIQUE INDEX encryption_key_version ON encryption_key (id, created)`.",
        ));
    }
    let folding = columns.iter().find(|column| {
        column.name.as_deref().is_some_and(|name| COLUMNS.contains(&name)) && column.collation != "BINARY"
    });
    if let Some(UniqueColumn { collation, .. }) = folding {
        report.add(Finding::dangerous(
            FindingId::CollationFolds,
            format!(
                "Ids are compared by {collation}, so other programs seal for one partition under the key of \
                     another whose id it takes for the same, and name an id that has no row."
            ),
            UNFOLD_OR_READ,
        ));
    }
    has_key
}

async fn check_writable(
    connection: &mut SqliteConnection,
    report: &mut SchemaReport,
) -> Result<(), BackendError> {
    let Err(error) = queries::try_to_write(connection).await else { return Ok(()) };
    if is_read_only(&error) {
        report.add(Finding::warning(
            FindingId::ReadOnly,
            "The file takes no writes: what is there can be decrypted, new keys cannot be stored.",
            "Give this user the right to write the file, its -wal and -shm files and its folder.",
        ));
    } else if !is_transient(&error) {
        return Err(backend_error(error));
    }
    // Else another process is writing, so it can be written.
    Ok(())
}

/// How a row's time relates to the one in its record, which is always in UTC.
enum Sampled {
    Whole,
    /// They differ as the clocks of a zone do from UTC, by this many seconds.
    OtherZone(i64),
    Damaged,
}

fn check_rows(rows: &[SampledRow], report: &mut SchemaReport) {
    let (mut zones, mut damaged) = (BTreeMap::<_, usize>::new(), 0);
    for row in rows {
        match sampled(row) {
            Sampled::Whole => {}
            Sampled::OtherZone(ahead) => *zones.entry(ahead).or_default() += 1,
            Sampled::Damaged => damaged += 1,
        }
    }
    let of = rows.len();
    for (ahead, rows) in zones {
        let zone = in_words(ahead);
        report.add(Finding::dangerous(
            FindingId::ZoneMismatch,
            format!(
                "The times of {rows} of {of} rows looked at are in a zone {zone} of UTC; such keys are not \
                 found, and would be made anew."
            ),
            format!("Have all writers write UTC, stop them, and run `{REWRITE_CREATED}`."),
        ));
    }
    if damaged > 0 {
        report.add(Finding::warning(
            FindingId::DamagedRows,
            format!(
                "{damaged} of {of} rows looked at cannot be read, nor what is encrypted under their keys."
            ),
            "List all rows to find them, and restore them from a backup.",
        ));
    }
    let other_forms = rows.iter().filter(|row| !row.is_our_form).count();
    if other_forms > 0 {
        report.add(Finding::warning(
            FindingId::CreatedForms,
            format!(
                "The `created` of {other_forms} of {of} rows looked at is in another form than \
                 `YYYY-MM-DD HH:MM:SS` in UTC, in which other programs may not find them."
            ),
            format!("Stop all writers, and run `{REWRITE_CREATED}`."),
        ));
    }
}

/// Gives every row the time that its record says, in our form.
const REWRITE_CREATED: &str = "UPDATE encryption_key SET created = \
     datetime(json_extract(CAST(key_record AS TEXT), '$.Created'), 'unixepoch')";

fn sampled(row: &SampledRow) -> Sampled {
    let Some(id) = row.id.as_deref().and_then(|id| read_id(id).ok()).map(KeyId::new) else {
        return Sampled::Damaged;
    };
    if read_row(&id, row.created, row.json.as_deref()).is_ok() {
        return Sampled::Whole;
    }
    match (row.created, row.says) {
        (Some(created), Some(says)) if read_row(&id, row.says, row.json.as_deref()).is_ok() => {
            let ahead = created.saturating_sub(says);
            let is_of_a_zone = ahead % ZONES_APART == 0 && ahead.saturating_abs() <= ZONE_MAX;
            if is_of_a_zone { Sampled::OtherZone(ahead) } else { Sampled::Damaged }
        }
        _ => Sampled::Damaged,
    }
}

/// Zones differ by quarters of an hour, and from UTC by up to 14 hours.
const ZONES_APART: i64 = 900;
const ZONE_MAX: i64 = 14 * 3_600;

fn in_words(ahead: i64) -> String {
    let side = if ahead < 0 { "behind" } else { "ahead" };
    let minutes = ahead.unsigned_abs() / 60;
    format!("{}:{:02} hours {side}", minutes / 60, minutes % 60)
}
