//! Files without a name, which are gone with whoever has them open.

use std::fs::File;
use std::io;
use std::path::Path;

/// Makes one in a folder, with what the umask leaves of `mode`; `None` where the system has no such files, or
/// could not give it a name later.
#[cfg(target_os = "linux")]
pub(super) fn create(folder: &Path, mode: u32) -> io::Result<Option<File>> {
    use std::os::unix::fs::OpenOptionsExt as _;

    use rustix::fs::OFlags;
    use rustix::io::Errno;

    use crate::folder::is_unheard_of;

    let mut options = File::options();
    options.read(true).write(true).mode(mode).custom_flags(OFlags::TMPFILE.bits().cast_signed());
    match options.open(folder) {
        Ok(file) => Ok(std::fs::metadata(path(&file)).is_ok().then_some(file)),
        Err(error) if is_unheard_of(&error) => Ok(None),
        // What old kernels say.
        Err(error)
            if [Errno::ISDIR, Errno::NOENT]
                .iter()
                .any(|it| error.raw_os_error() == Some(it.raw_os_error())) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Gives it a name, which must be free.
#[cfg(target_os = "linux")]
pub(super) fn link(file: &File, to: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    Ok(linkat(CWD, path(file), CWD, to, AtFlags::SYMLINK_FOLLOW)?)
}

/// By which the kernel finds it. Its own way, by the descriptor alone, takes a right that few have.
#[cfg(target_os = "linux")]
fn path(file: &File) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn create(_folder: &Path, _mode: u32) -> io::Result<Option<File>> {
    Ok(None)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn link(_file: &File, _to: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
