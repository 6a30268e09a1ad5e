//! A file that a run uses, and what it is for.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::named::Named;

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Input,
    /// `is_replaced` as a whole at the end, or else written to as rows are read.
    Output {
        is_replaced: bool,
    },
    Errors,
    KeyStore,
    /// What SQLite keeps beside its file.
    KeyStoreLog,
    MasterKey,
    Config,
    /// The file of an option that says `@FILE`.
    Option,
    /// A file with a PIN, a token, a certificate.
    Secret,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "INPUT",
            Self::Output { .. } => "OUT",
            Self::Errors => "the errors file",
            Self::KeyStore => "the key store",
            Self::KeyStoreLog => "a part of the key store",
            Self::MasterKey => "the master key",
            Self::Config => "the configuration file",
            Self::Option => "the file of an option",
            Self::Secret => "a file with a secret or certificate",
        })
    }
}

/// A file that is read, or kept.
#[derive(Clone, Debug)]
pub(crate) struct Used {
    pub(crate) role: Role,
    pub(crate) path: PathBuf,
}

impl Used {
    pub(crate) fn new(role: Role, path: impl Into<PathBuf>) -> Self {
        Self { role, path: path.into() }
    }

    pub(crate) fn all<'a>(role: Role, paths: impl IntoIterator<Item = &'a Path>) -> Vec<Self> {
        paths.into_iter().map(|path| Self::new(role, path)).collect()
    }
}

/// The files of a key store that is one: SQLite keeps its log beside the file itself, links followed.
pub(crate) fn of_key_store(path: &Path) -> Vec<Used> {
    let file = match Named::by(path) {
        Ok(Named::Entry(entry)) => entry.path(),
        _ => path.to_owned(),
    };
    let beside = |suffix: &str| {
        let mut path = OsString::from(&file);
        path.push(suffix);
        Used::new(Role::KeyStoreLog, path)
    };
    let logs = ["-wal", "-shm", "-journal"].map(beside);
    [Used::new(Role::KeyStore, path)].into_iter().chain(logs).collect()
}
