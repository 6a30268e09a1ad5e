//! What can be wrong with a description, and with what it describes.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;

use claviger::BackendError;

/// Why a description cannot be used. No secret is in it, and nothing that may be a piece of one.
#[derive(Debug)]
pub struct SpecError {
    at: Option<usize>,
    fault: SpecFault,
}

/// What is wrong with a description.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecFault {
    /// It says what cannot be.
    #[error("{0}")]
    Wrong(String),
    /// A file with a secret, or one that says what is done, is not its owner's alone.
    #[error("{0}")]
    Exposed(String),
    /// A file cannot be read.
    #[error("cannot read {what}")]
    #[non_exhaustive]
    Unreadable {
        /// What is in it, and its path.
        what: String,
        /// Why.
        source: io::Error,
    },
}

impl SpecError {
    pub(crate) fn wrong(message: &str) -> Self {
        Self::wrong_at(None, message)
    }

    pub(crate) fn wrong_at(at: Option<usize>, message: &str) -> Self {
        Self { at, fault: SpecFault::Wrong(message.to_owned()) }
    }

    pub(crate) fn exposed(message: String) -> Self {
        Self { at: None, fault: SpecFault::Exposed(message) }
    }

    pub(crate) fn unreadable(what: &str, source: io::Error) -> Self {
        Self { at: None, fault: SpecFault::Unreadable { what: what.to_owned(), source } }
    }

    /// Gives it a place, unless it has one.
    pub(crate) fn or_at(self, at: Option<usize>) -> Self {
        Self { at: self.at.or(at), ..self }
    }

    /// Puts where it is before the message.
    pub(crate) fn within(mut self, place: &str) -> Self {
        if let SpecFault::Wrong(message) | SpecFault::Exposed(message) = &mut self.fault {
            message.insert_str(0, place);
        }
        self
    }

    /// Returns where in the text of its table it is, in bytes, if that is known.
    #[must_use]
    pub const fn at(&self) -> Option<usize> {
        self.at
    }

    /// Returns what is wrong.
    #[must_use]
    pub fn into_fault(self) -> SpecFault {
        self.fault
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault.fmt(f)
    }
}

impl StdError for SpecError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.fault.source()
    }
}

/// Why a metastore or a KMS could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// By what the description says, or by a file that it names.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// This program was built without it.
    #[error(
        "this program was built without {service}; build it with the feature `{feature}` of claviger-open"
    )]
    #[non_exhaustive]
    MissingFeature {
        /// What it cannot open.
        service: &'static str,
        /// The cargo feature that it lacks.
        feature: &'static str,
    },
    /// A static master key is one that anybody can guess.
    #[error("the master key{} is one that anybody can guess ({reason})", of(.file.as_ref()))]
    #[non_exhaustive]
    GuessableKey {
        /// The file that it is in, if it is in one.
        file: Option<PathBuf>,
        /// By what.
        reason: String,
    },
    /// A metastore, or a KMS, refused or cannot be reached. Of a local master key the source is a
    /// [`LocalKmsError`](claviger_kms::LocalKmsError).
    #[error("cannot open the service")]
    Service(#[source] BackendError),
    /// What is described does not fit together.
    #[error("cannot build what is described")]
    Build(#[source] BackendError),
}

fn of(file: Option<&PathBuf>) -> String {
    file.map(|file| format!(" {}", file.display())).unwrap_or_default()
}

impl From<BackendError> for OpenError {
    fn from(error: BackendError) -> Self {
        Self::Service(error)
    }
}
