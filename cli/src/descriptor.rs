//! Descriptors that the program was started with, by the paths that name them: `/dev/stdout`,
//! `/dev/fd/3`, `/proc/self/fd/3`.
//!
//! Such a path is a link to what is behind, but following it is not what is meant: the text of the link may
//! name nothing, or another file by now, and a file that is opened anew begins at its start.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;

/// A descriptor that a path names.
#[derive(Debug)]
pub(crate) struct Descriptor {
    number: i32,
    /// In the folder that the kernel lists descriptors in.
    path: PathBuf,
    /// Another process's can be written to, but not duplicated.
    is_ours: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    /// To look at it.
    Any,
}

/// What the kernel tells of a descriptor.
struct Info {
    flags: OFlags,
    position: u64,
}

impl Descriptor {
    /// Tells whether a name in a folder, of which all links are followed, is a descriptor's.
    pub(crate) fn at(folder: &Path, name: &OsStr) -> Option<Self> {
        let number: i32 = name.to_str()?.parse().ok()?;
        let mut parts = folder.components();
        let is_list = parts.next() == Some(Component::RootDir)
            && parts.next().is_some_and(|part| part.as_os_str() == "proc")
            && parts.next().is_some()
            && folder.file_name().is_some_and(|last| last == "fd");
        is_list.then(|| {
            let ours = fs::canonicalize("/proc/self");
            let is_ours = ours.is_ok_and(|ours| folder.starts_with(ours));
            Self { number, path: folder.join(name), is_ours }
        })
    }

    pub(crate) const fn is_standard_input(&self) -> bool {
        self.is_ours && self.number == 0
    }

    pub(crate) const fn is_standard_output(&self) -> bool {
        self.is_ours && self.number == 1
    }

    /// Returns what is behind, as it is: at its place, and appended to if it was opened so.
    pub(crate) fn open(&self, access: Access) -> io::Result<File> {
        let refuse = |why: &str| {
            let kind = if access == Access::Write { ErrorKind::InvalidInput } else { ErrorKind::NotFound };
            Err(io::Error::new(kind, why))
        };
        let Some(info) = self.info() else { return refuse("there is no such open descriptor") };
        // Ours are closed when a program is run: one that is not is one that we were run with.
        if self.is_ours && info.flags.contains(OFlags::CLOEXEC) {
            return refuse("there is no such open descriptor");
        }
        match (info.flags & OFlags::RWMODE, access) {
            (OFlags::RDONLY, Access::Write) => return refuse("the descriptor is not open for writing"),
            (OFlags::WRONLY, Access::Read) => return refuse("the descriptor is not open for reading"),
            _ => {}
        }
        match self.duplicate() {
            Some(file) => Ok(file),
            None if access == Access::Write => self.append_anew(info.flags),
            None => self.read_anew(info.position),
        }
    }

    fn duplicate(&self) -> Option<File> {
        if !self.is_ours {
            return None;
        }
        let duplicate = match self.number {
            0 => io::stdin().as_fd().try_clone_to_owned(),
            1 => io::stdout().as_fd().try_clone_to_owned(),
            2 => io::stderr().as_fd().try_clone_to_owned(),
            number => duplicate(number),
        };
        duplicate.ok().map(File::from)
    }

    fn read_anew(&self, position: u64) -> io::Result<File> {
        let mut file = File::open(&self.path)?;
        if file.metadata()?.is_file() {
            file.seek(SeekFrom::Start(position))?;
        }
        Ok(file)
    }

    /// Pipes and devices have no place, and a file that is appended to has but one.
    fn append_anew(&self, flags: OFlags) -> io::Result<File> {
        let is_file = fs::metadata(&self.path)?.is_file();
        if is_file && !flags.contains(OFlags::APPEND) {
            return Err(io::Error::new(
                ErrorKind::PermissionDenied,
                "this system does not let a descriptor be duplicated, and a file opened anew would be overwritten from \
                 its start",
            ));
        }
        File::options().write(true).append(is_file).open(&self.path)
    }

    fn info(&self) -> Option<Info> {
        let folder = self.path.parent()?.with_file_name("fdinfo");
        let text = fs::read_to_string(folder.join(self.path.file_name()?)).ok()?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let flags = u32::from_str_radix(field("flags:")?, 8).ok()?;
        Some(Info { flags: OFlags::from_bits_retain(flags), position: field("pos:")?.parse().ok()? })
    }
}

/// Duplicates one of our descriptors by its number. The standard library has this for those alone that
/// somebody holds, since a number proves nothing; the kernel looks the number up.
#[cfg(target_os = "linux")]
fn duplicate(number: i32) -> io::Result<std::os::fd::OwnedFd> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let this = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(this, number, PidfdGetfdFlags::empty())?)
}

#[cfg(not(target_os = "linux"))]
fn duplicate(_: i32) -> io::Result<std::os::fd::OwnedFd> {
    Err(ErrorKind::Unsupported.into())
}
