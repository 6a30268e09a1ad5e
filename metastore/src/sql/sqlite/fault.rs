//! Which of SQLite's failures may pass by themselves.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Arc;

use claviger::{BackendError, FailureClass, FailureKind};

use crate::sql::driver::{Doing, kind_of_way};
use crate::sql::{DriverFault, SqlFault};

/// Classifies a failure. What SQLite says of it is not shown: a trigger may say what it likes.
pub(super) fn backend_error(error: sqlx::Error) -> BackendError {
    classified(error, Doing::Asking)
}

pub(super) fn classified(error: sqlx::Error, doing: Doing) -> BackendError {
    let class = if is_transient(&error) { FailureClass::Transient } else { FailureClass::Permanent };
    let kind = kind(&error);
    BackendError::new(class, DriverFault::new(error, doing, kind)).with_kind(kind)
}

fn kind(error: &sqlx::Error) -> Option<FailureKind> {
    match error {
        // Of what it does not know of it has one code for all.
        sqlx::Error::Database(said) if said.message().starts_with("no such table") => {
            Some(FailureKind::NoSuchTable)
        }
        sqlx::Error::Database(_) => kind_of_code(code(error)?),
        sqlx::Error::Io(_) => Some(FailureKind::Device),
        error => kind_of_way(error),
    }
}

/// What an SQLite result code, extended or not, is about.
const fn kind_of_code(code: i32) -> Option<FailureKind> {
    // The index of the log cannot grow.
    if code == IOERR_SHMSIZE {
        return Some(FailureKind::StorageFull);
    }
    Some(match code & PRIMARY_CODE {
        PERM | AUTH | CANTOPEN => FailureKind::Denied,
        READONLY => FailureKind::ReadOnly,
        BUSY | LOCKED | PROTOCOL => FailureKind::Busy,
        FULL => FailureKind::StorageFull,
        IOERR => FailureKind::Device,
        CORRUPT | NOTADB => FailureKind::Corrupt,
        TOOBIG => FailureKind::RecordTooLong,
        _ => return None,
    })
}

/// Returns `true` if the file, or this connection to it, takes no writes.
pub(super) fn is_read_only(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| code & PRIMARY_CODE == READONLY)
}

/// As [`backend_error`], of an error met while a file that is there was opened.
pub(super) fn opening_error(error: sqlx::Error, path: &Path) -> BackendError {
    let is_of_folder = code(&error)
        .is_some_and(|code| code & PRIMARY_CODE == CANTOPEN || code == READONLY_DIRECTORY)
        && path.is_file();
    if is_of_folder {
        let of_medium = is_on_read_only_medium(path).then_some(FailureKind::ReadOnly);
        let kind = of_medium.or_else(|| kind(&error));
        let fault = DriverFault::new(error, Doing::Connecting, kind);
        BackendError::from(SqlFault::FolderNotWritable(Arc::new(fault))).with_kind(kind)
    } else {
        // No key was asked for yet.
        classified(error, Doing::Connecting)
    }
}

/// Returns `true` if no user of this machine can change the file, whatever the rights.
pub(super) fn is_on_read_only_medium(path: &Path) -> bool {
    let opened = OpenOptions::new().append(true).open(path);
    opened.is_err_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem)
}

fn code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

pub(super) fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(_) => code(error).is_some_and(is_transient_code),
        // No connection became free in time, or the thread of one died and the pool makes another.
        sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed | sqlx::Error::Io(_) => true,
        _ => false,
    }
}

/// Returns `true` if an SQLite result code, extended or not, stands for something that passes.
const fn is_transient_code(code: i32) -> bool {
    match code & PRIMARY_CODE {
        // Another connection writes, or the schema was changed under the statement.
        BUSY | LOCKED | PROTOCOL | SCHEMA | INTERRUPT => true,
        // Memory, disk space and failing disks come back as a server does after an outage.
        NOMEM | FULL | IOERR => true,
        // The rest needs somebody: rights (PERM, READONLY, AUTH), a path (CANTOPEN), a file that is
        // damaged (CORRUPT) or none of SQLite's (NOTADB), a table that is not there (ERROR).
        _ => false,
    }
}

/// The low byte; the others say more about it.
const PRIMARY_CODE: i32 = 0xff;
const PERM: i32 = 3;
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const NOMEM: i32 = 7;
const READONLY: i32 = 8;
const INTERRUPT: i32 = 9;
const IOERR: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const PROTOCOL: i32 = 15;
const SCHEMA: i32 = 17;
const TOOBIG: i32 = 18;
const AUTH: i32 = 23;
const NOTADB: i32 = 26;
const IOERR_SHMSIZE: i32 = IOERR | 19 << 8;
const READONLY_DIRECTORY: i32 = READONLY | 6 << 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_code_has_its_class() {
        let transient = [5, 6, 7, 9, 10, 13, 15, 17];
        for code in 1..=28 {
            assert_eq!(is_transient_code(code), transient.contains(&code), "code {code}");
        }
    }

    #[test]
    fn each_result_code_has_its_kind() {
        use FailureKind as Kind;
        let kinds = [
            (Kind::Denied, &[3, 14, 23, 526][..]),
            (Kind::ReadOnly, &[8, 1_032, 1_544]),
            (Kind::Busy, &[5, 6, 15, 517]),
            (Kind::StorageFull, &[13, 4_874]),
            (Kind::Device, &[10, 1_034]),
            (Kind::Corrupt, &[11, 26, 779]),
            (Kind::RecordTooLong, &[18]),
        ];
        for code in (1..=28).chain([517, 526, 779, 1_032, 1_034, 1_544, 4_874]) {
            let kind = kinds.iter().find(|(_, codes)| codes.contains(&code)).map(|(kind, _)| *kind);
            assert_eq!(kind_of_code(code), kind, "code {code}");
        }
    }

    #[test]
    fn extended_codes_have_the_class_of_their_primary_code() {
        // BUSY_SNAPSHOT, IOERR_FSYNC, READONLY_DBMOVED, CANTOPEN_ISDIR, CORRUPT_INDEX
        let codes = [(517, true), (1034, true), (1032, false), (526, false), (779, false)];
        for (code, transient) in codes {
            assert_eq!(is_transient_code(code), transient, "code {code}");
        }
    }

    #[test]
    fn a_pool_without_a_free_connection_is_transient_and_a_closed_one_is_not() {
        assert!(is_transient(&sqlx::Error::PoolTimedOut));
        assert!(!is_transient(&sqlx::Error::PoolClosed));
    }
}
