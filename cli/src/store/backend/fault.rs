//! What a key store's failures mean for someone at a terminal.

use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::io;

use claviger::{BackendError, ErrorChain, InMemoryFault};
#[cfg(feature = "dynamodb")]
use claviger_metastore::DynamoDbFault;
use claviger_metastore::{DangerousSchema, DriverFault, FindingId, SqlFault};

use super::OpenError;
use crate::exit::{Exit, Failure};
use crate::store::StoreChoice;

/// How a run ends by a failure of the key store, and what to do about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) exit: Exit,
    pub(crate) advice: &'static str,
}

/// Reads the class of a failure, and what the server calls it.
pub(crate) fn of(error: &BackendError) -> Fault {
    match kind(error) {
        Kind::Unknown => {
            let advice = "check the user and the password, and from where the server lets this user in";
            Fault { exit: Exit::Permission, advice }
        }
        Kind::Denied => {
            let advice = "the user lacks a right; docs/metastores.md has the statements that grant it";
            Fault { exit: Exit::Permission, advice }
        }
        #[cfg(feature = "dynamodb")]
        Kind::Credentials => {
            let advice = "check the credentials that AWS's tools find here";
            Fault { exit: Exit::Permission, advice }
        }
        Kind::NoDatabase => {
            Fault { exit: Exit::Config, advice: "check the name of the database in --metastore" }
        }
        Kind::Zone => {
            let advice = "check timezone in --metastore, or load the server's time zone tables";
            Fault { exit: Exit::Config, advice }
        }
        Kind::Other if error.is_transient() => {
            let advice = "check that it runs and can be reached, and try again";
            Fault { exit: Exit::Unavailable, advice }
        }
        Kind::Other => Fault { exit: Exit::Unavailable, advice: "check --metastore" },
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Who the user is.
    Unknown,
    /// What the user may.
    Denied,
    NoDatabase,
    /// The server knows no such time zone.
    Zone,
    /// AWS knows them not, or there are none.
    #[cfg(feature = "dynamodb")]
    Credentials,
    Other,
}

fn kind(error: &BackendError) -> Kind {
    #[cfg(feature = "dynamodb")]
    if let Some(kind) = dynamodb_kind(error) {
        return kind;
    }
    let Some(fault) = find::<DriverFault>(error) else { return Kind::Other };
    match (fault.code.as_deref().unwrap_or_default(), mysql_number(&fault.message)) {
        (_, Some("1044" | "1142" | "1143" | "1227" | "1370")) => Kind::Denied,
        ("3D000", _) | (_, Some("1046" | "1049")) => Kind::NoDatabase,
        (_, Some("1298")) => Kind::Zone,
        ("42501", _) => Kind::Denied,
        (code, _) if code.starts_with("28") => Kind::Unknown,
        _ => Kind::Other,
    }
}

#[cfg(feature = "dynamodb")]
fn dynamodb_kind(error: &BackendError) -> Option<Kind> {
    let fault = find::<claviger_metastore::DynamoDbError>(error)?;
    Some(match fault.code.as_deref() {
        Some("AccessDeniedException") => Kind::Denied,
        Some(
            "UnrecognizedClientException"
            | "InvalidSignatureException"
            | "IncompleteSignatureException"
            | "MissingAuthenticationTokenException"
            | "ExpiredTokenException",
        ) => Kind::Credentials,
        // The request did not go out.
        None if fault.message.contains("credentials") => Kind::Credentials,
        _ => Kind::Other,
    })
}

/// MySQL has one SQLSTATE for many errors; its store puts their numbers before the messages.
fn mysql_number(message: &str) -> Option<&str> {
    message.strip_prefix("error ")?.split_once(": ").map(|(number, _)| number)
}

/// What is wrong with the key id that a partition makes, if the store refused it for that. The id is
/// not repeated.
pub(crate) fn of_id(error: &BackendError) -> Option<String> {
    #[cfg(feature = "dynamodb")]
    if let Some(DynamoDbFault::IdTooLong { bytes }) = find(error) {
        return Some(too_long(bytes, "bytes"));
    }
    if let Some(InMemoryFault::IdTooLong { bytes, .. }) = find(error) {
        return Some(too_long(bytes, "bytes"));
    }
    match find(error)? {
        SqlFault::IdTooLong { chars } => Some(too_long(chars, "characters")),
        SqlFault::IdOverColumn { length, unit, .. } => Some(too_long(length, unit)),
        SqlFault::Indistinct(_) => Some(
            "the key store's table takes the partition for another one that differs in case, accents or trailing \
             blanks; mend collation-folds, which claviger schema check explains"
                .to_owned(),
        ),
        SqlFault::CharactersNotHeld { .. } => Some(
            "the key store's table has no room for some characters of the partition; mend encoding, which claviger \
             schema check explains"
                .to_owned(),
        ),
        _ => None,
    }
}

fn too_long(length: impl fmt::Display, unit: &str) -> String {
    format!("the partition makes a key id of {length} {unit}, which the key store cannot hold; shorten it")
}

/// Tells whether the file of a store that must be there is not, is empty, or has no table.
pub(super) fn is_lost(error: &BackendError) -> bool {
    let lacks_table = |dangerous: &DangerousSchema| {
        dangerous.findings.iter().any(|finding| finding.id == FindingId::TableMissing)
    };
    find::<io::Error>(error).is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
        || find::<DangerousSchema>(error).is_some_and(lacks_table)
}

pub(super) fn opening(choice: &StoreChoice, error: &OpenError) -> Failure {
    match error {
        #[cfg(not(all(feature = "postgres", feature = "mysql", feature = "dynamodb")))]
        OpenError::Missing { server, feature } => Failure::new(
            Exit::Config,
            format!(
                "this claviger was built without {server}; build one with its feature: cargo build --release -p \
                 claviger-cli --features {feature}"
            ),
        ),
        OpenError::Store(error) => using(choice, "cannot open", error),
    }
}

/// `doing` is what was tried with the key store.
pub(crate) fn using(choice: &StoreChoice, doing: &str, error: &BackendError) -> Failure {
    if let Some(dangerous) = find::<DangerousSchema>(error) {
        return refused(choice, dangerous);
    }
    if let Some(SqlFault::LogWithoutFile) = find(error) {
        let message = format!(
            "the key store {choice} is gone or empty, and its log {choice}-wal is there, which may hold keys; restore the \
             key store beside it from a copy, or move the log away"
        );
        return Failure::new(Exit::NotFound, message);
    }
    if let (Some(path), Some(error)) = (choice.file(), find::<io::Error>(error)) {
        return Failure::read(&format!("the key store {}", path.display()), error);
    }
    let Fault { exit, advice } = of(error);
    let (exit, advice) = match choice {
        StoreChoice::Embedded(_) | StoreChoice::Sqlite(_) => {
            (exit, "check that it is a SQLite file and try again")
        }
        _ if is_settings(error) => (Exit::Config, "check the URL of --metastore and its parameters"),
        _ => (exit, advice),
    };
    Failure::new(exit, format!("{doing} the key store {choice} ({}); {advice}", ErrorChain::new(error)))
}

/// Tells whether it failed by what we were told, before a server said anything.
fn is_settings(error: &BackendError) -> bool {
    let is_answer = find::<DriverFault>(error).is_some_and(|fault| fault.code.is_some());
    !error.is_transient() && !is_answer && kind(error) == Kind::Other
}

fn refused(choice: &StoreChoice, dangerous: &DangerousSchema) -> Failure {
    let mut message = format!("keys could be lost in the key store {choice}, so nothing was done with it:\n");
    for finding in &dangerous.findings {
        // Writing to a `String` cannot fail.
        let _ = write!(message, "\n{}\n  {}\n  Remedy: {}\n", finding.id, finding.what, finding.remedy);
    }
    if dangerous.findings.iter().any(|finding| finding.id == FindingId::TableMissing) {
        message.push_str("\nMake the table with claviger schema apply");
    } else {
        let flags: Vec<_> =
            dangerous.findings.iter().map(|finding| format!("--accept-finding {}", finding.id)).collect();
        let _ = write!(message, "\nMend it, or go on in spite of it with {}", flags.join(" "));
    }
    Failure::new(Exit::Dangerous, message)
}

/// The first error of this type among the error's sources.
fn find<E: StdError + 'static>(error: &BackendError) -> Option<&E> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        source = error.source();
    }
    None
}
