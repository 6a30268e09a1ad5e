//! A sample of the rows: whether they can be read, and in which time zone they were written.

use std::collections::BTreeMap;

use claviger::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};
use sqlx::{AssertSqlSafe, Row as _, raw_sql};

use crate::schema::{Finding, FindingId, SchemaReport};
use crate::sql::error::SqlError;
use crate::sql::postgres::session::{PostgresSession, Value, text, text_or_null};
use crate::sql::postgres::texts::{no_reserved_id, record, seconds};

/// Both ends of the primary key, which cost the same in a table of any size: system keys, the latest
/// of each first, and intermediate keys.
const SAMPLE: &str = concat!(
    "SELECT left(id::text, 255), ",
    seconds!(),
    ", ",
    record!("sample"),
    ", date_trunc('second', created) <> created FROM (\
       (SELECT id, created, key_record FROM encryption_key ORDER BY id DESC, created DESC LIMIT 200) \
       UNION ALL \
       (SELECT id, created, key_record FROM encryption_key ORDER BY id, created LIMIT 200)) AS sample \
     WHERE ",
    no_reserved_id!()
);

#[derive(Debug, Default)]
struct Sample {
    rows: usize,
    damaged: usize,
    fractions: usize,
    shifted: Vec<Shifted>,
}

/// A row that says one time, and whose record says another.
#[derive(Debug)]
struct Shifted {
    row: i64,
    record: i64,
}

/// No zone is further from UTC, and none lies between the quarters of an hour.
const SHIFT_MAX: u64 = 15 * 60 * 60;
const SHIFT_STEP: u64 = 15 * 60;

pub(super) async fn check(session: &mut PostgresSession, report: &mut SchemaReport) -> Result<(), SqlError> {
    let sample = sample(session).await?;
    if sample.damaged > 0 {
        report.add(Finding::warning(
            FindingId::DamagedRows,
            format!(
                "{} of {} sampled rows cannot be read: calls that need them fail.",
                sample.damaged, sample.rows
            ),
            "`MetastoreAdmin::list` names them; restore them from a backup.",
        ));
    }
    if sample.fractions > 0 {
        report.add(Finding::dangerous(
            FindingId::CreatedForms,
            format!(
                "{} of {} sampled rows hold fractions of a second: their keys are not found, and are made anew.",
                sample.fractions, sample.rows
            ),
            "UPDATE encryption_key SET created = date_trunc('second', created) where it differs.",
        ));
    }
    if let Some(first) = sample.shifted.first() {
        let zones = zones_that_fit(session, &sample.shifted).await?;
        report.add(zone_mismatch(&sample, first, &zones));
    }
    Ok(())
}

async fn sample(session: &mut PostgresSession) -> Result<Sample, SqlError> {
    // In a small table the ends overlap.
    let mut rows = BTreeMap::new();
    for row in raw_sql(SAMPLE).fetch_all(&mut session.connection).await? {
        let id = String::from_utf8_lossy(&text(&row, 0)?).into_owned();
        let created: Option<i64> = row.try_get(1)?;
        let is_fraction: Option<bool> = row.try_get(3)?;
        rows.insert((id, created), (text_or_null(&row, 2)?, is_fraction == Some(true)));
    }
    let mut sample = Sample { rows: rows.len(), ..Sample::default() };
    for ((id, row), (json, is_fraction)) in rows {
        // One that is too long is none.
        let record = json.and_then(|json| own_created(&id, &json));
        match (row, record) {
            _ if is_fraction => sample.fractions += 1,
            (Some(row), Some(record)) if row == record => {}
            (Some(row), Some(record)) if is_zone_shift(row.abs_diff(record)) => {
                sample.shifted.push(Shifted { row, record });
            }
            _ => sample.damaged += 1,
        }
    }
    Ok(sample)
}

const fn is_zone_shift(seconds: u64) -> bool {
    seconds <= SHIFT_MAX && seconds.is_multiple_of(SHIFT_STEP)
}

/// The `Created` of a record that can be read.
///
/// A record is read only under the time that stands in it; a parent's stands there too.
fn own_created(id: &str, json: &[u8]) -> Option<i64> {
    let record = str::from_utf8(json).ok()?;
    let times = record.split("\"Created\"").skip(1).filter_map(|rest| {
        let rest = rest.trim_start().strip_prefix(':')?.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest.get(..end)?.parse().ok()
    });
    times.into_iter().find(|time| {
        Created::new(*time).is_some_and(|created| {
            EnvelopeKeyRecord::from_json(KeyMeta::new(KeyId::new(id), created), json).is_ok()
        })
    })
}

/// The time zones in which all of these rows would have been written.
async fn zones_that_fit(session: &mut PostgresSession, rows: &[Shifted]) -> Result<Vec<String>, SqlError> {
    let (as_read, meant): (Vec<i64>, Vec<i64>) = rows.iter().map(|row| (row.row, row.record)).unzip();
    let (as_read, meant) = (Value::Integers(&as_read).sql(), Value::Integers(&meant).sql());
    let sql = format!(
        "SELECT name FROM pg_timezone_names \
         WHERE name LIKE '%/%' AND name NOT LIKE 'posix/%' AND NOT EXISTS ( \
           SELECT FROM unnest({as_read}, {meant}) AS sample (as_read, meant) \
           WHERE to_timestamp(meant) AT TIME ZONE name <> to_timestamp(as_read) AT TIME ZONE 'UTC') \
         ORDER BY name LIMIT 10"
    );
    let rows = raw_sql(AssertSqlSafe(sql)).fetch_all(&mut session.connection).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

fn zone_mismatch(sample: &Sample, first: &Shifted, zones: &[String]) -> Finding {
    let shift = first.row - first.record;
    let (sign, minutes) = (if shift < 0 { '-' } else { '+' }, shift.unsigned_abs() / 60);
    let what = format!(
        "{} of {} sampled rows were written in another time zone than UTC, such as one at \
         UTC{sign}{:02}:{:02}: their keys are not found, and are made anew.",
        sample.shifted.len(),
        sample.rows,
        minutes / 60,
        minutes % 60
    );
    let remedy = if zones.is_empty() {
        "No one zone fits all of them: correct them one by one, by the Created of their records.".to_owned()
    } else if sample.shifted.len() < sample.rows {
        format!(
            "Set the time zone of the programs that wrote them, which may be {}, to UTC, and correct the rows \
             by the Created of their records.",
            zones.join(", ")
        )
    } else {
        format!(
            "Stop all programs that write, and ALTER TABLE encryption_key ALTER COLUMN created TYPE TIMESTAMPTZ \
             USING created AT TIME ZONE the zone they were written in; these fit: {}.",
            zones.join(", ")
        )
    };
    Finding::dangerous(FindingId::ZoneMismatch, what, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_record_is_its_own_not_its_parents() {
        let parent_first =
            r#"{"ParentKeyMeta":{"KeyId":"_SK_s_p","Created":60},"Key":"AAAA", "Created" : 120}"#;
        assert_eq!(own_created("_IK_a_s_p", parent_first.as_bytes()), Some(120));
        let own_first = r#"{"Created":120,"Key":"AAAA","ParentKeyMeta":{"KeyId":"_SK_s_p","Created":60}}"#;
        assert_eq!(own_created("_IK_a_s_p", own_first.as_bytes()), Some(120));
        for garbage in ["", "{", r#"{"Created":}"#, r#"{"Created":0,"Key":"AAAA"}"#, r#"{"Created":5}"#] {
            assert_eq!(own_created("_IK_a_s_p", garbage.as_bytes()), None, "{garbage}");
        }
    }

    #[test]
    fn a_shift_is_a_zones_if_it_is_of_quarters_of_an_hour() {
        for hours_and_minutes in [(8, 0), (7, 0), (5, 30), (5, 45), (14, 0)] {
            let (hours, minutes) = hours_and_minutes;
            assert!(is_zone_shift(hours * 3_600 + minutes * 60));
        }
        for seconds in [1, 60, 3_601, 16 * 3_600] {
            assert!(!is_zone_shift(seconds));
        }
    }
}
