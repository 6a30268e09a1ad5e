//! What `claviger kms` prints.

use std::time::Duration;

use claviger::{BackendError, ErrorChain, FailureClass, Rewrap, RewrapReport};
use claviger_kms::CopyCheck;
use serde::Serialize;

use crate::args::Report;
use crate::exit::Failure;
use crate::print::json_line;
use crate::store::StoreChoice;
use crate::tell::harmless;

pub(super) fn checks(checks: &[CopyCheck], format: Report) -> Result<String, Failure> {
    match format {
        Report::Text => Ok(harmless(&checks.iter().map(check_line).collect::<String>())),
        Report::Json => json_line(&JsonChecks {
            good: checks.iter().all(CopyCheck::is_good),
            copies: checks.iter().map(JsonCheck::new).collect(),
        }),
    }
}

fn check_line(check: &CopyCheck) -> String {
    let part = |name: &str, result: &Result<Duration, BackendError>| match result {
        Ok(time) => format!("{name} {:.1} ms", milliseconds(*time)),
        Err(error) => format!("{name} failed: {}", ErrorChain::new(error)),
    };
    let unwrap = check.unwrap.as_ref().map(|unwrap| format!(", {}", part("unwrap", unwrap)));
    format!("{}: {}{}\n", check.name, part("wrap", &check.wrap), unwrap.unwrap_or_default())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// What `kms check --format json` prints; its names are part of the command line's interface.
#[derive(Serialize)]
struct JsonChecks<'a> {
    good: bool,
    copies: Vec<JsonCheck<'a>>,
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

pub(super) fn report(choice: &StoreChoice, report: &RewrapReport, format: Report) -> Result<String, Failure> {
    let keys = report.keys.iter().map(|(meta, done)| {
        let (outcome, missing, error) = outcome(done);
        JsonKey {
            id: meta.id().as_str(),
            created: Some(meta.created().unix_seconds()),
            outcome,
            missing,
            error,
        }
    });
    let damaged = report.damaged.iter().map(|row| JsonKey {
        id: row.id.as_str(),
        created: row.created.map(|created| created.unix_seconds()),
        outcome: "damaged",
        missing: &[],
        error: Some(ErrorChain::new(&row.error).to_string()),
    });
    let keys: Vec<JsonKey<'_>> = keys.chain(damaged).collect();
    match format {
        Report::Text => Ok(harmless(&keys.iter().map(key_line).collect::<String>())),
        Report::Json => json_line(&JsonReport { store: choice.to_string(), keys }),
    }
}

fn outcome(done: &Rewrap) -> (&'static str, &[String], Option<String>) {
    match done {
        Rewrap::UpToDate => ("up-to-date", &[], None),
        Rewrap::Rewrapped { missing } => ("rewrapped", missing, None),
        Rewrap::Due { missing } => ("due", missing, None),
        Rewrap::Gone => ("gone", &[], None),
        Rewrap::Failed(error) => ("failed", &[], Some(Failure::crypt(error).message().to_owned())),
        _ => ("other", &[], None),
    }
}

fn key_line(key: &JsonKey<'_>) -> String {
    let what = match key.outcome {
        "up-to-date" => "as it should be",
        "rewrapped" => "wrapped anew",
        "due" => "to be wrapped anew",
        "gone" => "deleted meanwhile",
        "damaged" => "its row cannot be read",
        other => other,
    };
    let missing = match key.missing {
        [] => String::new(),
        missing => format!(", lacks a copy of {}", missing.join(", ")),
    };
    let error = key.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    let created = key.created.map(|created| format!(" of {created}")).unwrap_or_default();
    format!("{}{created}: {what}{missing}{error}\n", key.id)
}

/// What `kms repair` and `kms rewrap` print with `--format json`.
#[derive(Serialize)]
struct JsonReport<'a> {
    store: String,
    keys: Vec<JsonKey<'a>>,
}

#[derive(Serialize)]
struct JsonKey<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<i64>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    missing: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}
