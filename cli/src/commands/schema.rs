//! Shows, makes and checks the table that a key store keeps its keys in.

use claviger_metastore::{Finding, FindingId, SchemaReport, Severity, look_for_equal_keys};
use claviger_open::StoreOptions;
use serde::Serialize;

use crate::args::{Report, Schema, SchemaApply};
use crate::config::{kms_choice, resolve_store, resolve_store_and_kms};
use crate::exit::{Exit, Failure};
use crate::open::first_use;
use crate::patience::{CALL_WAIT, call};
use crate::print::Printer;
use crate::store::{StoreChoice, Terms};
use crate::{escape, files, runtime};

pub(super) fn run(command: Schema, printer: Printer) -> Result<Exit, Failure> {
    match command {
        Schema::Show(given) => {
            let (choice, _) = resolve_store(given, Vec::new())?;
            files::check_printing(&choice.used())?;
            printer.print_exactly(&choice.schema()?)?;
            Ok(Exit::Done)
        }
        Schema::Apply(given) => apply(given, printer),
        Schema::Check(check) => {
            let (choice, accepted) = resolve_store(check.store, check.accept_finding)?;
            look(&choice, &accepted, check.format, Making::Never, printer)
        }
    }
}

fn apply(given: SchemaApply, printer: Printer) -> Result<Exit, Failure> {
    let SchemaApply { check, kms, new_key_store } = given;
    let (choice, accepted, kms) = resolve_store_and_kms(check.store, check.accept_finding, kms)?;
    if let Some(file) = choice.file() {
        let kms = kms_choice(kms)?;
        let held = first_use::held(&kms);
        let found = runtime::start()?.block_on(choice.open_existing(Terms::any()))?;
        if found.is_none() && held.is_some() && !new_key_store {
            first_use::check_first_use(file, &kms, held)?;
        }
    }
    look(&choice, &accepted, check.format, Making::IfMissing, printer)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Making {
    IfMissing,
    Never,
}

fn look(
    choice: &StoreChoice,
    accepted: &[FindingId],
    format: Report,
    making: Making,
    printer: Printer,
) -> Result<Exit, Failure> {
    files::check_printing(&choice.used())?;
    if let (Making::Never, Some(path)) = (making, choice.file().filter(|path| !path.exists())) {
        let message = format!("there is no key store at {}; check --metastore", path.display());
        return Err(Failure::new(Exit::NotFound, message));
    }
    let report = runtime::start()?.block_on(async {
        if making == Making::IfMissing {
            choice.make_file().await?;
        }
        let unchecked = StoreOptions::new().danger_unchecked();
        let store = choice
            .open(&match making {
                Making::IfMissing => unchecked.migrate(),
                Making::Never => unchecked,
            })
            .await?;
        let looked = async {
            let mut report = store.check_schema(&call()).await?;
            if making == Making::Never {
                look_for_equal_keys(store.admin(), CALL_WAIT, &mut report).await?;
            }
            Ok(report)
        };
        let report = looked.await;
        store.close().await;
        report.map_err(|error| choice.failed("cannot check", &error))
    })?;
    match format {
        Report::Text => printer.print(&text(choice, &report, accepted))?,
        Report::Json => printer.print_json(&JsonReport::new(choice, &report, accepted))?,
    }
    let is_dangerous = report.findings().iter().any(|finding| is_dangerous(finding, accepted));
    Ok(if is_dangerous { Exit::Dangerous } else { Exit::Done })
}

fn is_dangerous(finding: &Finding, accepted: &[FindingId]) -> bool {
    finding.severity == Severity::Dangerous && !accepted.contains(&finding.id)
}

fn text(choice: &StoreChoice, report: &SchemaReport, accepted: &[FindingId]) -> String {
    if report.findings().is_empty() {
        return format!("{choice}: nothing found\n");
    }
    let paragraph = |finding: &Finding| {
        let severity = match finding.severity {
            Severity::Warning => "warning",
            Severity::Dangerous if accepted.contains(&finding.id) => "dangerous, accepted",
            Severity::Dangerous => "dangerous",
        };
        let what = escape::line(&finding.what);
        format!("{} ({severity})\n  {what}\n  Remedy: {}\n", finding.id, finding.remedy)
    };
    report.findings().iter().map(paragraph).collect::<Vec<_>>().join("\n")
}

/// What `--format json` prints; its names are part of the command line's interface.
#[derive(Serialize)]
struct JsonReport<'a> {
    store: String,
    dangerous: bool,
    findings: Vec<JsonFinding<'a>>,
}

#[derive(Serialize)]
struct JsonFinding<'a> {
    id: &'a str,
    severity: &'a str,
    accepted: bool,
    what: &'a str,
    remedy: &'a str,
}

impl<'a> JsonReport<'a> {
    fn new(choice: &StoreChoice, report: &'a SchemaReport, accepted: &[FindingId]) -> Self {
        let findings = report.findings().iter().map(|finding| JsonFinding {
            id: finding.id.as_str(),
            severity: match finding.severity {
                Severity::Warning => "warning",
                Severity::Dangerous => "dangerous",
            },
            accepted: accepted.contains(&finding.id),
            what: &finding.what,
            remedy: &finding.remedy,
        });
        Self {
            store: choice.to_string(),
            dangerous: report.findings().iter().any(|finding| is_dangerous(finding, accepted)),
            findings: findings.collect(),
        }
    }
}
