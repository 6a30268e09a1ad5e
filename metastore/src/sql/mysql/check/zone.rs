//! In which time zone rows were written.
//!
//! All programs send `created` as UTC text. A `TIMESTAMP` column takes it for a time in the session's
//! zone and gives it back in the reader's: with two zones every key is missed, and minted anew. The
//! time that the writer meant stands in the record, so the rows tell.

use std::collections::BTreeMap;

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, query_as, query_scalar};

use crate::schema::{Finding, FindingId, SchemaReport};
use crate::sql::error::SqlError;
use crate::sql::mysql::utc;

pub(super) async fn check(
    connection: &mut MySqlConnection,
    zone: &str,
    has_timestamps: bool,
) -> Result<SchemaReport, SqlError> {
    let mut report = SchemaReport::default();
    let rows = sample(connection).await?;
    let damaged = rows.iter().filter(|row| row.read.is_none() || row.meant.is_none()).count();
    if damaged > 0 {
        report.add(Finding::warning(
            FindingId::DamagedRows,
            format!("{damaged} of {} rows looked at cannot be read.", rows.len()),
            "`MetastoreAdmin::list` names them; what was encrypted under them needs a backup of these rows.",
        ));
    }
    let rows: Vec<_> = rows.into_iter().filter(|row| row.read.is_some() && row.meant.is_some()).collect();
    let server = server(connection).await?;
    if rows.iter().any(|row| row.read != row.meant) {
        report.add(if has_timestamps { mismatch(&rows, zone, &server) } else { shifted(&rows) });
    } else if has_timestamps && !server.is_as_session {
        report.add(Finding::warning(
            FindingId::ZoneMismatch,
            format!(
                "Sessions are in the zone {zone}, the server in {}: Asherah takes the server's, and would not find \
                 the keys that are stored here, nor the other way round.",
                server.name()
            ),
            "Before an Asherah shares the table, make created a DATETIME (ends-in-2038), which no zone changes.",
        ));
    }
    Ok(report)
}

/// A row, in Unix seconds.
struct Row {
    /// What its `created` reads as in this session.
    read: Option<i64>,
    /// What it would read as in the zone of sessions that choose none, and in the machine's.
    by_default: Option<i64>,
    by_system: Option<i64>,
    /// The time that is stored.
    stored: Option<i64>,
    /// What the writer meant.
    meant: Option<i64>,
}

/// `CONVERT_TZ` from UTC is never ambiguous, and takes the zones that a session takes.
const ROW: &str = "SELECT HEX(LEFT(id, 255)), CAST(created AS CHAR), \
     CAST(CONVERT_TZ(TIMESTAMPADD(SECOND, CAST(UNIX_TIMESTAMP(created) AS SIGNED), '1970-01-01 00:00:00'), \
         '+00:00', @@GLOBAL.time_zone) AS CHAR), \
     CAST(CONVERT_TZ(TIMESTAMPADD(SECOND, CAST(UNIX_TIMESTAMP(created) AS SIGNED), '1970-01-01 00:00:00'), \
         '+00:00', 'SYSTEM') AS CHAR), \
     CAST(UNIX_TIMESTAMP(created) AS SIGNED), \
     IF(CHAR_LENGTH(key_record) <= 65536 AND JSON_VALID(CONVERT(key_record USING utf8mb4)), \
         CAST(JSON_UNQUOTE(JSON_EXTRACT(CONVERT(key_record USING utf8mb4), '$.Created')) AS SIGNED), NULL) \
     FROM encryption_key";

/// From both ends of the primary key, and the latest where an index finds them.
const ENDS: [&str; 2] = ["id, created", "id DESC, created DESC"];
const LATEST: &str = "created DESC";
const ROWS_PER_END: usize = 100;

const INDEXED_BY_TIME: &str = "SELECT COUNT(*) FROM information_schema.statistics \
     WHERE table_schema = DATABASE() AND table_name = 'encryption_key' AND column_name = 'created' \
     AND seq_in_index = 1";

async fn sample(connection: &mut MySqlConnection) -> Result<Vec<Row>, SqlError> {
    type Columns = (String, Option<String>, Option<String>, Option<String>, Option<i64>, Option<i64>);
    let indexed: i64 = query_scalar(INDEXED_BY_TIME).fetch_one(&mut *connection).await?;
    // In a small table the ends overlap.
    let mut rows = BTreeMap::new();
    for order in ENDS.into_iter().chain((indexed > 0).then_some(LATEST)) {
        let sql = format!("{ROW} ORDER BY {order} LIMIT {ROWS_PER_END}");
        let found: Vec<Columns> = query_as(AssertSqlSafe(sql)).fetch_all(&mut *connection).await?;
        let seconds = |text: Option<String>| text.and_then(|text| utc::seconds(&text));
        rows.extend(found.into_iter().map(|(id, created, by_default, by_system, stored, meant)| {
            // Where clocks are set back two times read as one.
            let key = (id, created.clone(), stored);
            let (by_default, by_system) = (seconds(by_default), seconds(by_system));
            (key, Row { read: seconds(created), by_default, by_system, stored, meant })
        }));
    }
    Ok(rows.into_values().collect())
}

/// What the server does with sessions that choose no zone.
struct Server {
    default_zone: String,
    system_zone: String,
    is_as_session: bool,
}

// Of winter and of summer, since zones can be the same in one of them.
const SERVER: &str = "SELECT CAST(@@GLOBAL.time_zone AS CHAR), CAST(@@GLOBAL.system_time_zone AS CHAR), \
     COALESCE(CAST(FROM_UNIXTIME(1768478400) AS CHAR) = \
         CAST(CONVERT_TZ('2026-01-15 12:00:00', '+00:00', @@GLOBAL.time_zone) AS CHAR) \
     AND CAST(FROM_UNIXTIME(1784116800) AS CHAR) = \
         CAST(CONVERT_TZ('2026-07-15 12:00:00', '+00:00', @@GLOBAL.time_zone) AS CHAR), 0)";

async fn server(connection: &mut MySqlConnection) -> Result<Server, SqlError> {
    let (default_zone, system_zone, is_as_session): (String, String, i64) =
        query_as(SERVER).fetch_one(connection).await?;
    Ok(Server { default_zone, system_zone, is_as_session: is_as_session == 1 })
}

impl Server {
    fn name(&self) -> String {
        if self.default_zone == SYSTEM {
            format!("SYSTEM, now {}", self.system_zone)
        } else {
            self.default_zone.clone()
        }
    }
}

/// In a `TIMESTAMP` column: rows of another zone.
fn mismatch(rows: &[Row], zone: &str, server: &Server) -> Finding {
    let wrong = rows.iter().filter(|row| row.read != row.meant).count();
    let remedy = match fitting_zone(rows, server) {
        Some(zone) if zone == UTC => format!(
            "Leave out MysqlBuilder::session_time_zone, and timezone in the URL, or set it to {UTC}: there all of \
             them read as meant."
        ),
        Some(zone) if zone == SYSTEM => format!(
            "Set MysqlBuilder::session_time_zone, or timezone in the URL, to {SYSTEM}: there all of them read as meant. \
             It is the zone of the server's machine, now {}: all servers that are failed over to must have it.",
            server.system_zone
        ),
        Some(zone) => format!(
            "Set MysqlBuilder::session_time_zone, or timezone in the URL, to {zone}: there all of them read as meant."
        ),
        None => format!(
            "No zone fits all of them: their writers had sessions at {}. Put those of the fewer right with \
             UPDATE encryption_key SET created = …, with all programs stopped.",
            offsets(rows).join(", ")
        ),
    };
    Finding::dangerous(
        FindingId::ZoneMismatch,
        format!(
            "The times of {wrong} of {} rows looked at are in another time zone than this session's, {zone}: their \
             keys are not found, and are made anew.",
            rows.len()
        ),
        remedy,
    )
}

/// What sessions are in unless told otherwise.
const UTC: &str = "+00:00";
const SYSTEM: &str = "SYSTEM";

fn fitting_zone(rows: &[Row], server: &Server) -> Option<String> {
    // Also where the machine's zone is UTC: it may not always be, nor that of another machine.
    if offsets(rows) == [UTC] {
        return Some(UTC.to_owned());
    }
    if rows.iter().all(|row| row.by_default == row.meant) {
        return Some(server.default_zone.clone());
    }
    if rows.iter().all(|row| row.by_system == row.meant) {
        return Some(SYSTEM.to_owned());
    }
    match offsets(rows).as_slice() {
        [one] => Some(one.clone()),
        _ => None,
    }
}

/// The offsets of the sessions that wrote the rows: what they meant, less what was stored.
fn offsets(rows: &[Row]) -> Vec<String> {
    let mut counted = BTreeMap::<i64, usize>::new();
    for (meant, stored) in rows.iter().filter_map(|row| row.meant.zip(row.stored)) {
        *counted.entry(meant - stored).or_default() += 1;
    }
    counted.keys().map(|&seconds| offset(seconds)).collect()
}

fn offset(seconds: i64) -> String {
    let sign = if seconds < 0 { '-' } else { '+' };
    let minutes = seconds.abs() / 60;
    format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

/// In a `DATETIME` column: rows of a program that does not send UTC.
fn shifted(rows: &[Row]) -> Finding {
    let wrong = rows.iter().filter(|row| row.read != row.meant);
    let mut shifts: Vec<_> =
        wrong.clone().filter_map(|row| Some(row.read? - row.meant?)).map(offset).collect();
    shifts.sort();
    shifts.dedup();
    Finding::dangerous(
        FindingId::ZoneMismatch,
        format!(
            "The times of {} of {} rows looked at are not UTC, but at {}: their keys are not found, and are made \
             anew.",
            wrong.count(),
            rows.len(),
            shifts.join(", ")
        ),
        "Have the program that wrote them send UTC (connectionTimeZone=UTC for a Java one), and put their created \
         right with UPDATE, with all programs stopped.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_written_as_servers_take_them() {
        for (seconds, written) in [(0, "+00:00"), (-28_800, "-08:00"), (20_700, "+05:45"), (50_400, "+14:00")]
        {
            assert_eq!(offset(seconds), written);
        }
    }
}
