//! The file, before SQLite opens it.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use claviger::BackendError;

use crate::sql::SqlFault;
use crate::sql::sqlite::check;

/// Makes the file, unless it must be there already.
pub(super) fn prepare(path: &Path, is_existing: bool) -> Result<(), BackendError> {
    let name = path.as_os_str().as_encoded_bytes();
    if name == b":memory:" || name.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"file:")) {
        return Err(SqlFault::NameOfNoFile.into());
    }
    // The log before the file: it is written to later, so that of a store that is made just now there is no
    // log here, or a file there.
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let has_log = std::fs::metadata(log).is_ok_and(|log| log.len() > 0);
    let length = std::fs::metadata(path).map(|file| file.len());
    if has_log && !length.as_ref().is_ok_and(|length| *length > 0) {
        return Err(SqlFault::LogWithoutFile.into());
    }
    if is_existing {
        return match length.map_err(BackendError::permanent)? {
            0 => Err(check::table_missing()),
            _ => Ok(()),
        };
    }
    create_private(path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            BackendError::permanent(SqlFault::FolderNotWritable(Arc::new(error)))
        }
        _ => BackendError::permanent(error),
    })
}

/// Creates the file for its owner alone. SQLite gives its side files the same mode.
fn create_private(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}
