//! What `claviger kms` prints.

use std::time::Duration;

use claviger::{BackendError, Created, ErrorChain, FailureClass, Rewrap, RewrapReport};
use claviger_kms::CopyCheck;
use serde::Serialize;
use time::OffsetDateTime;

use crate::args::Report;
use crate::escape::line;
use crate::exit::Failure;
use crate::explain;
use crate::print::Printer;

/// What was found in a key store, or done there.
pub(super) struct Held {
    pub(super) store: String,
    pub(super) report: RewrapReport,
}

pub(super) fn checks(
    checks: &[CopyCheck],
    held: Option<&Held>,
    format: Report,
    printer: Printer,
) -> Result<(), Failure> {
    let keys = held.map(|held| keys(&held.report));
    match format {
        Report::Text => {
            let copies: String = checks.iter().map(check_line).collect();
            let keys = keys.zip(held).map(|(keys, held)| match &*keys {
                [] => format!("{}: no system keys to unwrap\n", line(&held.store)),
                keys => keys.iter().map(key_line).collect(),
            });
            printer.print(&(copies + &keys.unwrap_or_default()))
        }
        Report::Json => printer.print_json(&JsonChecks {
            good: checks.iter().all(CopyCheck::is_good)
                && keys.iter().flatten().all(|key| key.outcome == UP_TO_DATE),
            copies: checks.iter().map(JsonCheck::new).collect(),
            store: held.map(|held| &*held.store),
            keys,
        }),
    }
}

fn check_line(check: &CopyCheck) -> String {
    let part = |name: &str, result: &Result<Duration, BackendError>| match result {
        Ok(time) => format!("{name} {:.1} ms", milliseconds(*time)),
        Err(error) => format!("{name} failed: {}", line(&ErrorChain::new(error).to_string())),
    };
    let unwrap = check.unwrap.as_ref().map(|unwrap| format!(", {}", part("unwrap", unwrap)));
    format!("{}: {}{}\n", line(&check.name), part("wrap", &check.wrap), unwrap.unwrap_or_default())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// What `kms check --format json` prints; its names are part of the command line's interface.
#[derive(Serialize)]
struct JsonChecks<'a> {
    good: bool,
    copies: Vec<JsonCheck<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<JsonKey<'a>>>,
}

#[derive(Serialize)]
struct JsonCheck<'a> {
    name: &'a str,
    good: bool,
    wrap: JsonCall,
    #[serde(skip_serializing_if = "Option::is_none")]
    unwrap: Option<JsonCall>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case", untagged)]
enum JsonCall {
    Good { ms: f64 },
    Failed { class: &'static str, error: String },
}

impl<'a> JsonCheck<'a> {
    fn new(check: &'a CopyCheck) -> Self {
        let call = |result: &Result<Duration, BackendError>| match result {
            Ok(time) => JsonCall::Good { ms: milliseconds(*time) },
            Err(error) => JsonCall::Failed { class: class(error), error: ErrorChain::new(error).to_string() },
        };
        Self {
            name: &check.name,
            good: check.is_good(),
            wrap: call(&check.wrap),
            unwrap: check.unwrap.as_ref().map(call),
        }
    }
}

fn class(error: &BackendError) -> &'static str {
    match error.class() {
        FailureClass::Transient => "transient",
        FailureClass::Damaged => "damaged",
        _ => "permanent",
    }
}

pub(super) fn report(held: &Held, format: Report, printer: Printer) -> Result<(), Failure> {
    let keys = keys(&held.report);
    match format {
        Report::Text => printer.print(&keys.iter().map(key_line).collect::<String>()),
        Report::Json => printer.print_json(&JsonReport { store: &held.store, keys }),
    }
}

fn keys(report: &RewrapReport) -> Vec<JsonKey<'_>> {
    let keys = report.keys.iter().map(|(meta, done)| {
        let (outcome, missing, error) = outcome(done);
        JsonKey {
            id: meta.id().as_str(),
            created: Some(meta.created().unix_seconds()),
            created_at: rfc3339(meta.created()),
            outcome,
            missing,
            error,
        }
    });
    let damaged = report.damaged.iter().map(|row| JsonKey {
        id: row.id.as_str(),
        created: row.created.map(Created::unix_seconds),
        created_at: row.created.and_then(rfc3339),
        outcome: "damaged",
        missing: &[],
        error: Some(ErrorChain::new(&row.error).to_string()),
    });
    keys.chain(damaged).collect()
}

/// As RFC 3339 has it; nothing for a time past the year 9999, which it cannot say.
fn rfc3339(created: Created) -> Option<String> {
    let at = OffsetDateTime::from_unix_timestamp(created.unix_seconds()).ok()?;
    let (date, (hour, minute, second)) = (at.date(), at.to_hms());
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

fn outcome(done: &Rewrap) -> (&'static str, &[String], Option<String>) {
    match done {
        Rewrap::UpToDate => (UP_TO_DATE, &[], None),
        Rewrap::Rewrapped { missing } => ("rewrapped", missing, None),
        Rewrap::Due { missing } => ("due", missing, None),
        Rewrap::LeftOut => ("left-out", &[], None),
        Rewrap::Gone => ("gone", &[], None),
        Rewrap::Failed(error) => ("failed", &[], Some(explain::failure(error).message().to_owned())),
        _ => ("other", &[], None),
    }
}

fn key_line(key: &JsonKey<'_>) -> String {
    let what = match key.outcome {
        UP_TO_DATE => "as it should be",
        "rewrapped" => "wrapped anew",
        "due" => "to be wrapped anew",
        "left-out" => "left out, since it was created later",
        "gone" => "deleted meanwhile",
        "damaged" => "its row cannot be read",
        other => other,
    };
    let missing = match key.missing {
        [] => String::new(),
        missing => format!(", lacks a copy of {}", line(&missing.join(", "))),
    };
    let error = key.error.as_ref().map(|error| format!(": {}", line(error))).unwrap_or_default();
    let seconds = || key.created.map(|created| created.to_string());
    let created = key.created_at.clone().or_else(seconds);
    let created = created.map(|created| format!(" of {created}")).unwrap_or_default();
    format!("{}{created}: {what}{missing}{error}\n", line(key.id))
}

/// What `kms repair` and `kms rewrap` print with `--format json`.
#[derive(Serialize)]
struct JsonReport<'a> {
    store: &'a str,
    keys: Vec<JsonKey<'a>>,
}

const UP_TO_DATE: &str = "up-to-date";

#[derive(Serialize)]
struct JsonKey<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    missing: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}
