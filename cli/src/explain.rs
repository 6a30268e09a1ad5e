//! What the library's failures mean for someone at a terminal: the one place that decides what is
//! printed of them.
//!
//! Key ids hold partitions, which come from the data, and what a server says may quote them. So a
//! sentence is made of parts: what failed by class and kind, a key by its [`label`], the chain of causes,
//! which holds no id. All the rest is for `--verbose`.

pub(crate) mod kms;
pub(crate) mod store;

use std::error::Error as StdError;
use std::fmt::Write as _;

use claviger::{BackendError, Error, ErrorChain, FailureClass, FailureKind, InMemoryFault, KeyId};
use claviger_metastore::{DriverFault, SqlFault};
use ring::digest::{SHA256, digest};

use crate::exit::{Exit, Failure};

/// Makes a sentence and an exit code of what the library answered.
pub(crate) fn failure(error: &Error) -> Failure {
    let (exit, message) = sentence(error);
    Failure::new(exit, message).with_details(details(error, error.key_id()))
}

/// The same of a master key that opened no system key.
pub(crate) fn master_key(key: &KeyId, error: &BackendError) -> Failure {
    let (exit, message) = of_kms(error);
    Failure::new(exit, message).with_details(details(error, Some(key)))
}

/// Tells whether the row that asked is at fault, or the keys of its customer: others may still do well.
///
/// A master key that opens nothing is an answer as well, but to all rows; so are a system key that the
/// store cannot hold, and a time that it cannot hold and that new keys have.
pub(crate) fn is_of_one_row(error: &Error) -> bool {
    match error {
        Error::InvalidPartition { .. }
        | Error::MalformedRecord(_)
        | Error::ForeignParent { .. }
        | Error::ForeignRecord
        | Error::Authentication
        | Error::KeyNotFound(_)
        | Error::KeyRevoked(_)
        | Error::TooLarge { .. }
        | Error::Cipher
        | Error::IndistinctKey(_) => true,
        Error::Metastore { operation, key, source, .. } => {
            let is_of_all = key.is_of_system_key()
                || (*operation == INSERT && source.kind() == Some(FailureKind::TimeNotHeld));
            source.class() == FailureClass::Damaged || (source.is_of_one_key() && !is_of_all)
        }
        _ => false,
    }
}

const CIPHER: &str = "the cipher refuses the data, of which it takes less than 64 GiB at once; split it";

/// The trait's method that makes a key.
const INSERT: &str = "insert";

/// Names a key without its partition: by the first digits of the SHA-256 of its id. System keys have
/// none, and are named as they are.
pub(crate) fn label(id: &KeyId) -> String {
    if id.is_of_system_key() {
        return id.as_str().to_owned();
    }
    let digest = digest(&SHA256, id.as_str().as_bytes());
    let kind = if id.as_str().starts_with("_IK_") { "_IK_" } else { "" };
    digest.as_ref().iter().take(4).fold(format!("{kind}#"), |mut label, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(label, "{byte:02x}");
        label
    })
}

/// What `--verbose` adds: all causes, the whole key id, and what a server said in its own words.
pub(crate) fn details(error: &(dyn StdError + 'static), key: Option<&KeyId>) -> String {
    let mut details = format!("causes: {}", ErrorChain::new(error));
    if let Some(key) = key {
        let _ = write!(details, "; key: {key}");
    }
    if let Some(said) = find::<DriverFault>(error) {
        let _ = write!(details, "; the database said: {}", said.message);
    }
    #[cfg(feature = "dynamodb")]
    if let Some(said) = find::<claviger_metastore::DynamoDbError>(error) {
        let _ = write!(details, "; DynamoDB said: {}", said.message);
    }
    details
}

/// The first error of this type among the error and its sources.
pub(crate) fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
}

fn sentence(error: &Error) -> (Exit, String) {
    match error {
        Error::InvalidConfig { reason, .. } => {
            (Exit::Config, format!("the options do not fit together: {reason}; see claviger --help"))
        }
        Error::InvalidPartition { reason, .. } => {
            (Exit::BadInput, format!("the partition {reason}; give one that names its customer"))
        }
        Error::MalformedRecord(malformed) => (
            Exit::BadInput,
            format!("this is no whole record ({malformed}); was it encrypted with claviger?"),
        ),
        Error::ForeignRecord => (
            Exit::NotFound,
            "the record was sealed for another partition, service or product; check the partition, --service, \
             --product and --region-suffix"
                .to_owned(),
        ),
        Error::Authentication => (
            Exit::NotFound,
            "the record does not open: it is damaged, or sealed under another key; restore it from a copy"
                .to_owned(),
        ),
        Error::KeyNotFound(key) => (
            Exit::NotFound,
            format!(
                "the key store does not hold the record's key ({}); check --metastore or restore the key store",
                label(key.id())
            ),
        ),
        Error::KeyRevoked(key) => {
            (Exit::NotFound, format!("the record's key ({}) is revoked; ask who revoked it", label(key.id())))
        }
        Error::ForeignParent { key, .. } | Error::IndistinctKey(key) => (
            Exit::NotFound,
            format!("the key store holds a wrong record of key {} ({error}); restore it", label(key.id())),
        ),
        Error::TooLarge { max_bytes, .. } => {
            (Exit::BadInput, format!("the data is over the limit of {max_bytes} bytes; split it"))
        }
        Error::Cipher => (Exit::BadInput, CIPHER.to_owned()),
        Error::Metastore { key, source, .. } if source.class() == FailureClass::Folded => (
            Exit::NotFound,
            format!(
                "the key store's table keeps the record's key ({}) under another id, which differs in case, accents or \
                 trailing blanks; decrypt with --folded-ids, and see to collation-folds, which claviger schema check \
                 explains",
                label(key)
            ),
        ),
        Error::Metastore { operation, key, source, .. } => of_store(operation, key, source),
        Error::Kms { source, .. } => of_kms(source),
        Error::ClockSkew(_) | Error::ClockNotSet { .. } => (
            Exit::Unavailable,
            "this machine's clock is wrong, or was set back just now; set it and try again".to_owned(),
        ),
        Error::Random(_)
        | Error::Memory(_)
        | Error::CreationRace(_)
        | Error::Deadline { .. }
        | Error::NoRuntime(_)
        | Error::Overloaded { .. } => {
            (Exit::Unavailable, format!("the keys are unavailable ({}); try again", ErrorChain::new(error)))
        }
        _ => (
            Exit::Internal,
            format!("{}; this is a fault of claviger, please report it", ErrorChain::new(error)),
        ),
    }
}

fn of_store(operation: &str, key: &KeyId, source: &BackendError) -> (Exit, String) {
    if source.class() == FailureClass::Damaged {
        let message = format!(
            "the key store's row of key {} cannot be read ({}); restore it from a copy",
            label(key),
            ErrorChain::new(source)
        );
        return (Exit::NotFound, message);
    }
    match of_key(operation, key, source) {
        Some(of_key) => of_key,
        None => {
            let fault = fault(source);
            (fault.exit, format!("the key store failed ({}); {}", ErrorChain::new(source), fault.advice))
        }
    }
}

/// What is wrong with the one key that was asked for, if the store refused it for that.
fn of_key(operation: &str, key: &KeyId, source: &BackendError) -> Option<(Exit, String)> {
    let kind = source.kind().filter(|kind| kind.is_of_one_key())?;
    if key.is_of_system_key() {
        let message = format!(
            "the key store cannot hold the system key {} ({}); check --service, --product and --region-suffix",
            label(key),
            ErrorChain::new(source)
        );
        return Some((Exit::Config, message));
    }
    let message = match kind {
        FailureKind::IdTooLong => {
            format!("the partition makes a key id of {}, which the key store cannot hold; shorten it", length(source))
        }
        FailureKind::Indistinct => {
            "the key store's table takes the partition for another one that differs in case, accents or trailing \
             blanks; mend collation-folds, which claviger schema check explains"
                .to_owned()
        }
        FailureKind::Encoding => {
            "the key store's table has no room for some characters of the partition; mend encoding, which claviger \
             schema check explains"
                .to_owned()
        }
        FailureKind::TimeNotHeld if operation == INSERT => {
            let message = "the key store's table cannot hold the time of a new key; mend ends-in-2038, which claviger \
                           schema check explains";
            return Some((Exit::Unavailable, message.to_owned()));
        }
        FailureKind::TimeNotHeld => {
            "the record names a key of a time that no key has; was it encrypted with claviger?".to_owned()
        }
        _ => format!(
            "the key store cannot hold key {} ({}); give another partition, or see claviger schema check",
            label(key),
            ErrorChain::new(source)
        ),
    };
    Some((Exit::BadInput, message))
}

fn length(source: &BackendError) -> String {
    match find(source) {
        Some(SqlFault::IdTooLong { chars }) => return format!("{chars} characters"),
        Some(SqlFault::IdOverColumn { length, unit, .. }) => return format!("{length} {unit}"),
        _ => {}
    }
    if let Some(InMemoryFault::IdTooLong { bytes, .. }) = find(source) {
        return format!("{bytes} bytes");
    }
    #[cfg(feature = "dynamodb")]
    if let Some(claviger_metastore::DynamoDbFault::IdTooLong { bytes }) = find(source) {
        return format!("{bytes} bytes");
    }
    "too many characters".to_owned()
}

/// How a run ends by a failure of the key store, and what to do about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) exit: Exit,
    pub(crate) advice: &'static str,
}

pub(crate) fn fault(error: &BackendError) -> Fault {
    let is_transient = error.is_transient();
    let (exit, advice) = match error.kind() {
        Some(FailureKind::Unauthenticated) if is_of_aws(error) => {
            (Exit::Permission, "check the credentials that AWS's tools find here")
        }
        Some(FailureKind::Unauthenticated) => {
            (Exit::Permission, "check the user and the password, and from where the server lets this user in")
        }
        Some(FailureKind::Denied) => {
            (Exit::Permission, "the user lacks a right; docs/metastores.md has the statements that grant it")
        }
        Some(FailureKind::ReadOnly) if !is_transient => {
            (Exit::Permission, "see who may write it, and whether its disk may be written")
        }
        Some(FailureKind::ReadOnly) => (Exit::Unavailable, "connect to the primary, and try again"),
        Some(FailureKind::StorageFull) => (Exit::Io, "make room where it keeps its data, and try again"),
        Some(FailureKind::Device) => (Exit::Io, "check the device it is on"),
        Some(FailureKind::Corrupt) => (Exit::Unavailable, "restore it from a copy"),
        Some(FailureKind::NoSuchDatabase) => (Exit::Config, "check the name of the database in --metastore"),
        Some(FailureKind::NoSuchTable) => {
            (Exit::Config, "make the table with claviger schema apply, or check --metastore")
        }
        Some(FailureKind::TimeZone) => {
            (Exit::Config, "check timezone in --metastore, or load the server's time zone tables")
        }
        Some(FailureKind::Tls | FailureKind::Settings) => {
            (Exit::Config, "check the URL of --metastore and its parameters")
        }
        Some(FailureKind::Busy) => (Exit::Unavailable, "others keep it busy; try again"),
        _ if is_transient => (Exit::Unavailable, "check that it runs and can be reached, and try again"),
        _ => (Exit::Unavailable, "check --metastore"),
    };
    Fault { exit, advice }
}

#[cfg(feature = "dynamodb")]
fn is_of_aws(error: &BackendError) -> bool {
    find::<claviger_metastore::DynamoDbError>(error).is_some()
}

#[cfg(not(feature = "dynamodb"))]
const fn is_of_aws(_: &BackendError) -> bool {
    false
}

fn of_kms(source: &BackendError) -> (Exit, String) {
    let cause = ErrorChain::new(source);
    match source.class() {
        FailureClass::Transient => (
            Exit::Unavailable,
            format!(
                "the master key cannot be used now ({cause}); claviger kms check tells more, or try again"
            ),
        ),
        FailureClass::Damaged => {
            (Exit::NotFound, format!("the master key does not open the system key ({cause}); check --kms"))
        }
        _ => {
            let advice = match source.kind() {
                Some(FailureKind::Unauthenticated) => "check the credentials for it",
                Some(FailureKind::Denied) => "grant the right, or check --kms",
                Some(FailureKind::NoSuchKey) => "make the key, or check --kms",
                Some(FailureKind::KeyDisabled) => "enable the key, or check --kms",
                _ => "see to its rights and its keys, or check --kms",
            };
            (Exit::Permission, format!("the master key's service refuses ({cause}); {advice}"))
        }
    }
}

#[cfg(test)]
mod tests;
