//! What is wrong with the columns.

use super::Column;
use crate::schema::{Finding, FindingId, SchemaReport};
use crate::sql::UNFOLD_OR_READ;
use crate::sql::mysql::layout::Encoding;

pub(super) const NAMES: [&str; 3] = ["id", "created", "key_record"];

pub(super) fn check(columns: &[Column], zone: Option<&str>, report: &mut SchemaReport) {
    let [id, created, record] = NAMES.map(|name| columns.iter().find(|column| column.name == name));
    for (name, column) in NAMES.iter().zip([id, created, record]) {
        if column.is_none() {
            report.add(Finding::dangerous(
                FindingId::ColumnMissing,
                format!("The table has no column {name}."),
                "Use a table of its own: `claviger schema apply` in an empty database makes it.",
            ));
        }
    }
    if let Some(id) = id {
        check_id(id, report);
    }
    if let Some(created) = created {
        check_created(created, zone, report);
    }
    if let Some(record) = record {
        check_record(record, report);
    }
}

/// Makes a time of the text that it is in the zone that rows are read in.
fn as_datetime(zone: Option<&str>) -> String {
    let Some(zone) = zone else {
        return "Mend zone-mismatch, and look again: the statements depend on it.".to_owned();
    };
    format!(
        "With all programs stopped, SET time_zone = '{zone}', \
         sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'); \
         ALTER TABLE encryption_key MODIFY created DATETIME NOT NULL."
    )
}

/// Makes a column of bytes of the ids. Where they fold that alone would part records from their keys.
fn as_bytes(id: &Column) -> &'static str {
    if id.folds() {
        UNFOLD_OR_READ
    } else if Encoding::of(id) == Encoding::Any {
        "ALTER TABLE encryption_key MODIFY id VARBINARY(255) NOT NULL."
    } else {
        // A column's bytes are those of its encoding.
        "With all programs stopped, ALTER TABLE encryption_key MODIFY id VARCHAR(255) CHARACTER SET utf8mb4 \
         COLLATE utf8mb4_bin NOT NULL; ALTER TABLE encryption_key MODIFY id VARBINARY(255) NOT NULL."
    }
}

fn check_id(id: &Column, report: &mut SchemaReport) {
    let encoding = Encoding::of(id);
    if !["varchar", "varbinary", "char"].contains(&id.kind.as_str()) || encoding == Encoding::Foreign {
        report.add(Finding::dangerous(
            FindingId::ColumnType,
            format!("The column id is a {} {}: ids read back as others.", id.kind, id.charset)
                .replace(" :", ":"),
            as_bytes(id),
        ));
        return;
    }
    if let Some(limit) = id.chars_max.filter(|&limit| limit < 255) {
        report.add(Finding::warning(
            FindingId::ColumnType,
            format!("The column id ends at {limit}: longer ids are refused here, and elsewhere maybe cut."),
            as_bytes(id),
        ));
    }
    if encoding != Encoding::Any {
        report.add(Finding::warning(
            FindingId::Encoding,
            format!(
                "The column id is in {}: ids with characters {} are refused.",
                id.charset,
                if encoding == Encoding::Ascii { "beyond ASCII" } else { "that it lacks" },
            ),
            as_bytes(id),
        ));
    }
    if id.folds() {
        report.add(Finding::warning(
            FindingId::CollationFolds,
            format!(
                "By its collation {} the table takes ids for one another that differ by {}: other programs seal \
                 for one under the other's key, and name an id that has no row.",
                id.collation,
                if id.collation.ends_with("_bin") { "trailing blanks" } else { "case, accents or trailing blanks" },
            ),
            UNFOLD_OR_READ,
        ));
    }
}

fn check_created(created: &Column, zone: Option<&str>, report: &mut SchemaReport) {
    match created.kind.as_str() {
        "datetime" => {}
        "timestamp" => report.add(Finding::warning(
            FindingId::EndsIn2038,
            "The column created is a TIMESTAMP: it ends in January 2038, and its values depend on the time zone of \
             the session, which must be the same in all programs.",
            as_datetime(zone),
        )),
        kind => report.add(Finding::dangerous(
            FindingId::ColumnType,
            format!("The column created is a {kind}: it does not hold times as all programs send them."),
            "Use a table of its own: `claviger schema apply` in an empty database makes it.",
        )),
    }
    if created.extra.contains("on update") {
        let kind = created.kind.to_uppercase();
        report.add(Finding::dangerous(
            FindingId::OnUpdate,
            "The column created is ON UPDATE CURRENT_TIMESTAMP: when another program updates a row, its key is \
             found no more.",
            format!("ALTER TABLE encryption_key MODIFY created {kind} NOT NULL DEFAULT CURRENT_TIMESTAMP."),
        ));
    }
}

fn check_record(record: &Column, report: &mut SchemaReport) {
    let is_text = matches!(
        record.kind.as_str(),
        "char"
            | "varchar"
            | "varbinary"
            | "tinytext"
            | "tinyblob"
            | "text"
            | "blob"
            | "mediumtext"
            | "mediumblob"
            | "longtext"
            | "longblob"
            | "json"
    );
    let is_short = record.bytes_max.is_some_and(|limit| limit < TEXT_BYTES);
    if !is_text || is_short {
        let limit = record.bytes_max.filter(|_| is_short).map(|limit| format!(" of {limit} bytes"));
        report.add(Finding::dangerous(
            FindingId::ColumnType,
            format!(
                "The column key_record is a {}{}: what does not fit is refused here, and elsewhere maybe cut, \
                 and then the key is lost.",
                record.kind,
                limit.unwrap_or_default(),
            ),
            "ALTER TABLE encryption_key MODIFY key_record MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin \
             NOT NULL.",
        ));
    }
}

/// What Asherah's own column holds: enough for a key that several regions wrap.
const TEXT_BYTES: u64 = 65_535;
