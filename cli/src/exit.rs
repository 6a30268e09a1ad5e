//! How a run ends: the exit codes, and failures as one sentence each.

use std::io::ErrorKind;
use std::panic::Location;
use std::path::Path;
use std::process::ExitCode;

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
       a damaged record, a damaged row of the key store
   69  the key store, the master key's service or the random generator is unavailable
   70  claviger itself failed; please report it
   73  the output cannot be created
   74  reading or writing failed, as on a full disk, the key store's too
   77  a file may not be read, a file with a secret may be read by others, the configuration may be
       written by others, the key store takes no writes, or it or the master key's service refuses
       the user
   78  an option, a CLAVIGER_ variable or the configuration file says what cannot work
  130  stopped by SIGINT; by another signal, 128 and its number (143 SIGTERM)
  141  the program that reads the output ended first, as head does; nothing is told then
";

/// The end of a run that failed: a code for scripts and a sentence for people.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    /// What follows it on lines of its own.
    findings: Option<String>,
    /// What `--verbose` adds. It may hold a partition.
    details: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), findings: None, details: None }
    }

    pub(crate) fn with_details(mut self, details: String) -> Self {
        self.details = Some(details);
        self
    }

    /// What was found, on several lines.
    pub(crate) fn with_findings(mut self, findings: String) -> Self {
        self.findings = Some(findings);
        self
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

    /// Leaves out what only `--verbose` tells.
    pub(crate) fn in_short(mut self) -> Self {
        self.details = None;
        self
    }

    /// Says the same in other words.
    pub(crate) fn saying(mut self, message: String) -> Self {
        self.message = message;
        self
    }

    /// Puts `place`, such as a file and line, before the sentence.
    pub(crate) fn at(mut self, place: &str) -> Self {
        self.message.insert_str(0, ": ");
        self.message.insert_str(0, place);
        self
    }

    /// What follows the message on lines of its own.
    pub(crate) fn findings(&self) -> Option<&str> {
        self.findings.as_deref()
    }

    /// What only `--verbose` tells.
    pub(crate) fn details(&self) -> Option<&str> {
        self.details.as_deref()
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
