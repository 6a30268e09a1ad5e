//! By whom a file could have been read or written: the rules.

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::PathBuf;

use rustix::process::geteuid;

/// Why a file is not its owner's alone, or could be another's work.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exposure {
    /// It is a folder, a device or a socket.
    NoFile,
    /// It belongs to another user, who may have read it or may change it.
    AnotherUser,
    /// Its group or others have a right on it.
    Others,
    /// Its group or others may write to it.
    Writable,
    /// The group of this folder on the way to it or others may write there.
    Folder(PathBuf),
    /// This folder on the way to it belongs to another user.
    ForeignFolder(PathBuf),
    /// This link on the way to it belongs to another user.
    ForeignLink(PathBuf),
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFile => f.write_str("it is not a regular file"),
            Self::AnotherUser => f.write_str("it belongs to another user; chown it"),
            Self::Others => f.write_str(
                "its group or others have rights on it; chmod 600 it, and replace what is in it if they may have used \
                 them",
            ),
            Self::Writable => f.write_str("its group or others may write to it; chmod go-w it"),
            Self::Folder(folder) => {
                let folder = folder.display();
                write!(f, "others may write to the folder {folder} on the way to it; chmod go-w {folder}")
            }
            Self::ForeignFolder(folder) => {
                write!(f, "the folder {} on the way to it belongs to another user; chown it", folder.display())
            }
            Self::ForeignLink(link) => {
                write!(f, "the link {} of another user leads to it; name the file itself", link.display())
            }
        }
    }
}

impl std::error::Error for Exposure {}

/// Returns why a file is not its owner's alone.
pub(super) fn exposure(file: &Metadata) -> Option<Exposure> {
    if !file.is_file() && !file.file_type().is_fifo() {
        return Some(Exposure::NoFile);
    }
    exposure_to(file.uid(), file.mode(), geteuid().as_raw())
}

/// Returns why a file could be another's work. `is_open`: it was named as a descriptor that the process has
/// open. What has no name besides, as a pipe between two programs, only those have written to whom whoever
/// started the process gave it, whatever its owner and mode are.
pub(super) fn intrusion(file: &Metadata, is_open: bool) -> Option<Exposure> {
    let kind = file.file_type();
    if is_open && (kind.is_fifo() || file.nlink() == 0) {
        return None;
    }
    // Devices of characters keep nothing of what is written to them: `/dev/null` is everybody's.
    let mode = if kind.is_char_device() { 0 } else { file.mode() };
    intrusion_by(file.uid(), mode, geteuid().as_raw())
}

/// What a file of `owner` with this mode is to a process of `user`. That root's group may read is the
/// rule that PostgreSQL has for its keys, too.
const fn exposure_to(owner: u32, mode: u32, user: u32) -> Option<Exposure> {
    match owner {
        _ if owner != user && owner != ROOT => Some(Exposure::AnotherUser),
        _ if mode & OPEN_TO_OTHERS == 0 => None,
        ROOT if user != ROOT && mode & OPEN_BUT_READ_BY_GROUP == 0 => None,
        _ => Some(Exposure::Others),
    }
}

const fn intrusion_by(owner: u32, mode: u32, user: u32) -> Option<Exposure> {
    match owner {
        _ if owner != user && owner != ROOT => Some(Exposure::AnotherUser),
        _ if mode & WRITABLE_BY_OTHERS != 0 => Some(Exposure::Writable),
        _ => None,
    }
}

/// Returns `true` if files of this owner are as good as the process's user's own.
pub(super) fn is_trusted(owner: u32) -> bool {
    owner == ROOT || owner == geteuid().as_raw()
}

pub(super) const WRITABLE_BY_OTHERS: u32 = 0o022;
pub(super) const STICKY: u32 = 0o1000;
const ROOT: u32 = 0;
const OPEN_TO_OTHERS: u32 = 0o077;
const OPEN_BUT_READ_BY_GROUP: u32 = 0o037;

#[cfg(test)]
mod tests {
    use super::*;

    const USER: u32 = 1_000;

    #[test]
    fn a_file_is_its_owners_alone_by_owner_and_mode() {
        for mode in [0o600, 0o400, 0o700] {
            assert_eq!(exposure_to(USER, mode, USER), None, "{mode:o}");
            assert_eq!(exposure_to(ROOT, mode, ROOT), None, "{mode:o}");
            assert_eq!(exposure_to(USER + 1, mode, USER), Some(Exposure::AnotherUser), "{mode:o}");
            assert_eq!(exposure_to(USER, mode, ROOT), Some(Exposure::AnotherUser), "{mode:o}");
        }
        for bit in 0..6 {
            let mode = 0o600 | 1 << bit;
            assert_eq!(exposure_to(USER, mode, USER), Some(Exposure::Others), "{mode:o}");
            assert_eq!(exposure_to(ROOT, mode, ROOT), Some(Exposure::Others), "{mode:o}");
        }
    }

    #[test]
    fn of_roots_files_the_group_may_read_and_nothing_else() {
        assert_eq!(exposure_to(ROOT, 0o640, USER), None);
        assert_eq!(exposure_to(ROOT, 0o440, USER), None);
        for mode in [0o660, 0o650, 0o644, 0o642, 0o641] {
            assert_eq!(exposure_to(ROOT, mode, USER), Some(Exposure::Others), "{mode:o}");
        }
    }

    #[test]
    fn a_file_could_be_anothers_work_by_owner_and_by_who_may_write() {
        for mode in [0o600, 0o644, 0o755, 0o444] {
            assert_eq!(intrusion_by(USER, mode, USER), None, "{mode:o}");
            assert_eq!(intrusion_by(ROOT, mode, USER), None, "{mode:o}");
            assert_eq!(intrusion_by(USER + 1, mode, USER), Some(Exposure::AnotherUser), "{mode:o}");
            assert_eq!(intrusion_by(USER, mode, ROOT), Some(Exposure::AnotherUser), "{mode:o}");
        }
        for mode in [0o664, 0o620, 0o646, 0o602] {
            assert_eq!(intrusion_by(USER, mode, USER), Some(Exposure::Writable), "{mode:o}");
            assert_eq!(intrusion_by(ROOT, mode, USER), Some(Exposure::Writable), "{mode:o}");
        }
    }
}
