//! How a run ends: the exit codes, and failures as one sentence each.

use std::io::ErrorKind;
use std::panic::Location;
use std::path::Path;
use std::process::ExitCode;

use claviger::{BackendError, Error, ErrorChain, FailureClass};

use crate::store::backend::fault;
use crate::tell::tell;

/// What a run tells the one who started it. The numbers are those of BSD's `sysexits.h` where
/// it has one; `EXIT_CODES` explains them to users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Done = 0,
    /// Everything else was written (`--keep-going`).
    RowsLeftOut = 1,
    Usage = 2,
    /// A check of the key store's table or of the master key found what can lose keys.
    Dangerous = 3,
    BadInput = 65,
    NotFound = 66,
    Unavailable = 69,
    Internal = 70,
    CannotCreate = 73,
    Io = 74,
    Permission = 77,
    Config = 78,
    /// Whoever read the output ended first. Shells show SIGPIPE, which ends other filters, so.
    ReaderGone = 141,
}

/// The table of exit codes, for `--help`. A test holds it and `docs/cli.md` to [`Exit`].
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  done but for the rows that --keep-going left out; they are in the errors file
    2  the command line is wrong, or would have a file of the run written over
    3  keys could be lost as it is: claviger schema check tells why of the key store, claviger
       kms check and repair of the master key
   65  the input is wrong: not CSV, JSON Lines, UTF-8 or a record, or too large
   66  not found or cannot be decrypted: no such input, no such key, another partition,
       a damaged record
   69  the key store, the master key's service or the random generator is unavailable
   70  claviger itself failed; please report it
   73  the output cannot be created
   74  reading or writing failed, as on a full disk
   77  a file may not be read, a file with a secret may be read by others, or the key store or
       the master key's service refuses the user
   78  an option, a CLAVIGER_ variable or the configuration file says what cannot work
  130  stopped by SIGINT; by another signal, 128 and its number (143 SIGTERM)
  141  the program that reads the output ended first, as head does; nothing is told then
";

/// The end of a run that failed: a code for scripts and a sentence for people.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// What the library answered.
    pub(crate) fn crypt(error: &Error) -> Self {
        let (exit, message) = explain(error);
        Self { exit, message }
    }

    /// An input or key file could not be read.
    pub(crate) fn read(what: &str, error: &std::io::Error) -> Self {
        let (exit, advice) = match error.kind() {
            ErrorKind::NotFound => (Exit::NotFound, "check the path"),
            ErrorKind::PermissionDenied => (Exit::Permission, "check who may read it"),
            ErrorKind::IsADirectory => (Exit::NotFound, "name a file"),
            _ => (Exit::Io, "check the device it is on"),
        };
        Self::new(exit, format!("cannot read {what}: {error}; {advice}"))
    }

    /// The output could not be opened.
    pub(crate) fn create(path: &Path, error: &std::io::Error) -> Self {
        if error.kind() == ErrorKind::StorageFull {
            return Self::write(&path.display().to_string(), error);
        }
        let advice = match error.kind() {
            ErrorKind::NotFound => "make its folder first",
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => "choose a folder you may write to",
            ErrorKind::IsADirectory => "name a file",
            _ => "choose another path",
        };
        Self::new(Exit::CannotCreate, format!("cannot create {}: {error}; {advice}", path.display()))
    }

    /// The output was open and could not be written.
    pub(crate) fn write(what: &str, error: &std::io::Error) -> Self {
        let exit = if error.kind() == ErrorKind::BrokenPipe { Exit::ReaderGone } else { Exit::Io };
        let advice = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room and run it again",
            ErrorKind::FileTooLarge => "raise the limit on files (ulimit -f) and run it again",
            _ => "check the device it is on",
        };
        Self::new(exit, format!("cannot write {what}: {error}; {advice}"))
    }

    /// Something that should never happen.
    pub(crate) fn internal(what: &str) -> Self {
        Self::new(Exit::Internal, format!("{what}; this is a fault of claviger, please report it"))
    }

    /// A fault of claviger's own. Only where: what was the matter may quote data.
    pub(crate) fn of_panic(location: Option<&Location<'_>>) -> Self {
        let place = location.map(|location| format!(" at {location}")).unwrap_or_default();
        Self::internal(&format!("the run broke off{place}"))
    }

    /// Tells it, and how the run ends. A reader that ends first does so on purpose, and wants to hear
    /// of nothing.
    pub(crate) fn tell(&self) -> Exit {
        if self.exit != Exit::ReaderGone {
            tell(self.message());
        }
        self.exit
    }

    /// Puts `place`, such as a file and line, before the sentence.
    pub(crate) fn at(mut self, place: &str) -> Self {
        self.message.insert_str(0, ": ");
        self.message.insert_str(0, place);
        self
    }

    pub(crate) const fn exit(&self) -> Exit {
        self.exit
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What the library's error means for someone at a terminal.
///
/// Key ids hold partition ids, which come from the data: they are not repeated here.
fn explain(error: &Error) -> (Exit, String) {
    match error {
        Error::InvalidConfig { reason } => {
            (Exit::Config, format!("the options do not fit together: {reason}; see claviger --help"))
        }
        Error::InvalidPartition { reason } => {
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
        Error::KeyNotFound(_) => (
            Exit::NotFound,
            "the key store does not hold the record's key; check --metastore or restore the key store"
                .to_owned(),
        ),
        Error::KeyRevoked(_) => {
            (Exit::NotFound, "the record's key is revoked; ask who revoked it".to_owned())
        }
        Error::ForeignParent { .. } | Error::IndistinctKey(_) => (
            Exit::NotFound,
            format!("the key store holds a wrong key record ({}); restore it", without_ids(error)),
        ),
        Error::TooLarge { bytes_max, .. } => {
            (Exit::BadInput, format!("the data is over the limit of {bytes_max} bytes; split it"))
        }
        Error::Metastore { source, .. } if source.class() == FailureClass::Folded => (
            Exit::NotFound,
            "the key store's table keeps the record's key under another id, which differs in case, accents or \
             trailing blanks; decrypt with --folded-ids, and see to collation-folds, which claviger schema check \
             explains"
                .to_owned(),
        ),
        Error::Metastore { source, .. } if let Some(message) = fault::of_id(source) => {
            (Exit::BadInput, message)
        }
        Error::Metastore { source, .. } => {
            let fault = fault::of(source);
            (fault.exit, format!("the key store failed ({}); {}", ErrorChain::new(source), fault.advice))
        }
        Error::Kms { source, .. } => of_kms(source),
        Error::ClockSkew(_) => (
            Exit::Unavailable,
            "the key store holds a key from the future; set this machine's clock and try again".to_owned(),
        ),
        Error::Random(_)
        | Error::Memory(_)
        | Error::CreationRace(_)
        | Error::Deadline(_)
        | Error::Overloaded => {
            (Exit::Unavailable, format!("the keys are unavailable ({}); try again", without_ids(error)))
        }
        _ => {
            (Exit::Internal, format!("{}; this is a fault of claviger, please report it", without_ids(error)))
        }
    }
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
        _ => (
            Exit::Permission,
            format!(
                "the master key's service refuses ({cause}); see to its rights and its keys, or check --kms"
            ),
        ),
    }
}

/// What went wrong, without the key id that its text would carry.
fn without_ids(error: &Error) -> String {
    match error {
        Error::ForeignParent { .. } => "it names a foreign parent".to_owned(),
        Error::IndistinctKey(_) => "a key is there but is not given out".to_owned(),
        Error::CreationRace(_) => "other programs kept making the same key".to_owned(),
        Error::Memory(source) => ErrorChain::new(source).to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_by_its_place() {
        let failure = Failure::of_panic(Some(Location::caller()));
        assert!(failure.message().contains("the run broke off at cli/src/exit.rs:"), "{}", failure.message());
        assert_eq!(failure.exit(), Exit::Internal);
    }
}
