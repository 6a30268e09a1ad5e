//! Files without a name, which are gone with whoever has them open.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

/// Makes one in a folder, with what the umask leaves of `mode`; `None` where the system has no such files, or
/// could not give it a name later.
#[cfg(target_os = "linux")]
pub(super) fn create(folder: BorrowedFd<'_>, mode: u32) -> io::Result<Option<File>> {
    use rustix::fs::{Mode, OFlags, openat};
    use rustix::io::Errno;

    use crate::folder::is_unheard_of;

    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match openat(folder, ".", flags, Mode::from_raw_mode(mode)) {
        Ok(file) => {
            let file = File::from(file);
            Ok(std::fs::metadata(path(&file)).is_ok().then_some(file))
        }
        // What old kernels say.
        Err(Errno::ISDIR | Errno::NOENT) => Ok(None),
        Err(error) => {
            let error = io::Error::from(error);
            if is_unheard_of(&error) { Ok(None) } else { Err(error) }
        }
    }
}

/// Gives it a name, which must be free.
#[cfg(target_os = "linux")]
pub(super) fn link(file: &File, folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    Ok(linkat(CWD, path(file), folder, name, AtFlags::SYMLINK_FOLLOW)?)
}

/// By which the kernel finds it. Its own way, by the descriptor alone, takes a right that few have.
#[cfg(target_os = "linux")]
fn path(file: &File) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn create(_folder: BorrowedFd<'_>, _mode: u32) -> io::Result<Option<File>> {
    Ok(None)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn link(_file: &File, _folder: BorrowedFd<'_>, _name: &OsStr) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
