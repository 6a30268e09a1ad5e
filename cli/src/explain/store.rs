//! What it means that a key store cannot be opened or looked at.

use std::fmt::Write as _;
use std::io;

use claviger::{BackendError, ErrorChain, FailureKind};
use claviger_metastore::{DangerousSchema, DriverFault, FindingId, SqlFault};
use claviger_open::{OpenError, StoreSpec};

use crate::escape;
use crate::exit::{Exit, Failure};
use crate::explain::{self, Fault, find, kms};

pub(crate) fn opening(store: &StoreSpec, error: OpenError) -> Failure {
    match error {
        OpenError::Service(error) => using(store, "cannot open", &error),
        error => kms::opening(error),
    }
}

/// `doing` is what was tried with the key store.
pub(crate) fn using(store: &StoreSpec, doing: &str, error: &BackendError) -> Failure {
    if let Some(dangerous) = find::<DangerousSchema>(error) {
        return refused(store, dangerous);
    }
    if let Some(SqlFault::LogWithoutFile) = find(error) {
        let message = format!(
            "the key store {store} is gone or empty, and its log {store}-wal is there, which may hold keys; restore the \
             key store beside it from a copy, or move the log away"
        );
        return Failure::new(Exit::NotFound, message);
    }
    let failure = |Fault { exit, advice }: Fault| {
        let message = format!("{doing} the key store {store} ({}); {advice}", ErrorChain::new(error));
        Failure::new(exit, message).with_details(explain::details(error, None))
    };
    let Some(path) = store.file() else {
        let settings =
            Fault { exit: Exit::Config, advice: "check the URL of --metastore and its parameters" };
        return failure(if is_settings(error) { settings } else { explain::fault(error) });
    };
    match (of_file(error), find::<io::Error>(error)) {
        (Some(fault), _) => failure(fault),
        (None, Some(error)) => Failure::read(&format!("the key store {}", path.display()), error),
        (None, None) => {
            let advice = "check that it is a SQLite file and try again";
            failure(Fault { exit: Exit::Unavailable, advice })
        }
    }
}

/// What a failure of a file on this machine asks for.
fn of_file(error: &BackendError) -> Option<Fault> {
    let (exit, advice) = match error.kind()? {
        FailureKind::Denied => (Exit::Permission, "see who may read and write the file and its folder"),
        FailureKind::ReadOnly => {
            (Exit::Permission, "copy it to where it can be written, or have its disk mounted so")
        }
        FailureKind::StorageFull => (Exit::Io, "make room on its disk and run it again"),
        FailureKind::Device => (Exit::Io, "check the device it is on"),
        FailureKind::Busy => (Exit::Unavailable, "another program keeps it busy; try again"),
        FailureKind::Corrupt => {
            (Exit::Unavailable, "check that it is a SQLite file, or restore it from a copy")
        }
        _ => return None,
    };
    Some(Fault { exit, advice })
}

/// Tells whether it failed by what we were told, before a server said anything.
fn is_settings(error: &BackendError) -> bool {
    let is_answer = find::<DriverFault>(error).is_some_and(|fault| fault.code.is_some());
    !error.is_transient() && !is_answer && error.kind().is_none()
}

fn refused(store: &StoreSpec, dangerous: &DangerousSchema) -> Failure {
    let message = format!("keys could be lost in the key store {store}, so nothing was done with it:");
    let mut findings = String::new();
    for finding in &dangerous.findings {
        let what = escape::line(&finding.what);
        // Writing to a `String` cannot fail.
        let _ = write!(findings, "\n{}\n  {what}\n  Remedy: {}\n", finding.id, finding.remedy);
    }
    if dangerous.findings.iter().any(|finding| finding.id == FindingId::TableMissing) {
        findings.push_str("\nMake the table with claviger schema apply\n");
    } else {
        let flags: Vec<_> =
            dangerous.findings.iter().map(|finding| format!("--accept-finding {}", finding.id)).collect();
        let _ = writeln!(findings, "\nMend it, or go on in spite of it with {}", flags.join(" "));
    }
    Failure::new(Exit::Dangerous, message).with_findings(findings)
}
