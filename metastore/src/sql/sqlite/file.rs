//! The file, before SQLite opens it.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use claviger::{BackendError, FailureKind};

use crate::sql::SqlFault;
use crate::sql::sqlite::check;

/// What keeps a file from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Nothing: what is missing is made.
    IsMade,
    /// That it is not there.
    LacksFile,
    /// That it is not there, or has no table.
    LacksTable,
}

/// Looks for the file, and makes it if it may be made.
pub(super) fn prepare(path: &Path, missing: Missing) -> Result<(), BackendError> {
    let name = path.as_os_str().as_encoded_bytes();
    if name == b":memory:" || name.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"file:")) {
        return Err(SqlFault::NameOfNoFile.into());
    }
    // The log before the file: it is written to later, so that of a store that is made just now there is no
    // log here, or a file there.
    let has_log = has_log(path);
    let length = fs::metadata(path).map(|file| file.len());
    if has_log && !length.as_ref().is_ok_and(|length| *length > 0) {
        return Err(SqlFault::LogWithoutFile.into());
    }
    if missing == Missing::IsMade {
        return create_private(path).map_err(creation_error);
    }
    match length.map_err(BackendError::permanent)? {
        0 if missing == Missing::LacksTable => Err(check::table_missing()),
        _ => Ok(()),
    }
}

/// Returns `true` if what was written last is in the log beside the file.
pub(super) fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    fs::metadata(log).is_ok_and(|log| log.len() > 0)
}

/// Why a file could not be made, or is not to be found by this user.
fn creation_error(error: io::Error) -> BackendError {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => FailureKind::Denied,
        io::ErrorKind::ReadOnlyFilesystem => FailureKind::ReadOnly,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            return BackendError::transient(error).with_kind(FailureKind::StorageFull);
        }
        _ => return BackendError::permanent(error),
    };
    BackendError::from(SqlFault::FolderNotWritable(Arc::new(error))).with_kind(kind)
}

/// Creates the file for its owner alone. SQLite gives its side files the same mode.
fn create_private(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}
