//! Files with secrets in them: who else could have read one, or put another in its place.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// A file that may hold a secret, open for reading, and whether it is its owner's alone.
///
/// What is told is told of the file that is read, by its descriptor, and of the folders on the way, each
/// of which is held open while the next name is looked up in it: those whom the rule keeps out can exchange
/// nothing in between.
///
/// The file is its owner's alone when
/// - it is a regular file or a pipe,
/// - it belongs to the user whom the process runs as, and nobody else has any right on it; or it
///   belongs to root, and its group may read it and no more: so a secret of Kubernetes is given to a
///   process that is not root's,
/// - not everybody may write to its folder, or the folder is sticky,
/// - where symbolic links lead to it, the same is true of the folders that hold a link or that it
///   leads through; and in a sticky folder the link or folder that is followed is the process's user's
///   or root's. So the links of Kubernetes' volumes (`key -> ..data/key`) are followed, and those that
///   somebody else planted are told.
///
/// ```
/// # use std::io::Read as _;
/// use claviger_kms::PrivateFile;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let file = tempfile::NamedTempFile::new()?;
/// let mut file = PrivateFile::open(file.path())?;
/// if let Some(exposure) = file.exposure() {
///     return Err(exposure.into());
/// }
/// let mut secret = Vec::with_capacity(64);
/// file.read_to_end(&mut secret)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PrivateFile {
    file: File,
    /// Where the file itself is, whatever links led to it.
    folder: OwnedFd,
    exposure: Option<Exposure>,
}

/// Why a file is not its owner's alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exposure {
    /// It is a folder, a device or a socket.
    NoFile,
    /// It belongs to another user, who may have read it or may change it.
    AnotherUser,
    /// Its group or others have a right on it.
    Others,
    /// Everybody may write to its folder, or to one that a link leads through.
    Folder,
    /// A link or folder on the way to it, in a folder that everybody may write to, belongs to another user.
    Way,
}

impl Exposure {
    /// Returns what is wrong, and what to do.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::NoFile => "it is not a regular file",
            Self::AnotherUser => "it belongs to another user; chown it",
            Self::Others => {
                "its group or others have rights on it; chmod 600 it, and replace what is in it if they may have used \
                 them"
            }
            Self::Folder => {
                "everybody may write to its folder, or to one on the way to it; chmod o-w the folder"
            }
            Self::Way => "a link or folder of another user leads to it; name the file itself",
        }
    }
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Exposure {}

/// What is done about a pipe in the file system that nobody has opened for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pipes {
    /// It is waited until somebody does, as by any program that reads.
    Wait,
    NoWait,
}

impl PrivateFile {
    /// Opens the file, whosever it is.
    ///
    /// # Errors
    /// What the system says when it is not there or may not be read.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::open_with(path.as_ref(), Pipes::Wait)
    }

    pub(crate) fn open_with(path: &Path, pipes: Pipes) -> io::Result<Self> {
        let mut way = Way::to(path)?;
        let name = way.go_to_folder()?;
        way.end(&name, pipes)
    }

    /// Returns why a file that is to be made would not be its owner's alone, whatever its mode.
    pub(crate) fn exposure_of_new(path: &Path) -> io::Result<Option<Exposure>> {
        let mut way = Way::to(path)?;
        way.go_to_folder()?;
        Ok(way.exposure)
    }

    /// Returns why it is not its owner's alone, if it is not.
    #[must_use]
    pub const fn exposure(&self) -> Option<Exposure> {
        self.exposure
    }

    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// Opens the folder that the file is in, to sync it.
    pub(crate) fn open_folder(&self) -> io::Result<File> {
        open(&self.folder, OsStr::new("."), OFlags::RDONLY | OFlags::DIRECTORY).map(File::from)
    }
}

impl io::Read for PrivateFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

/// The way to a file, as far as it was gone.
struct Way {
    folder: OwnedFd,
    /// What is still to go, the next name last.
    names: Vec<OsString>,
    links: u32,
    is_linked: bool,
    exposure: Option<Exposure>,
}

impl Way {
    fn to(path: &Path) -> io::Result<Self> {
        if path.as_os_str().is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let folder = open(CWD, OsStr::new("."), PASS | OFlags::DIRECTORY)?;
        let mut way = Self { folder, names: Vec::new(), links: 0, is_linked: false, exposure: None };
        way.go(path)?;
        Ok(way)
    }

    /// Puts a path before what is still to go.
    fn go(&mut self, path: &Path) -> io::Result<()> {
        if path.is_absolute() {
            self.folder = open(CWD, OsStr::new("/"), PASS | OFlags::DIRECTORY)?;
        }
        let names = path.components().rev().filter(|part| !matches!(part, Component::RootDir));
        self.names.extend(names.map(|name| name.as_os_str().to_owned()));
        Ok(())
    }

    /// Goes as far as the folder that the file is in, or would be, and returns its name there.
    fn go_to_folder(&mut self) -> io::Result<OsString> {
        loop {
            // A path such as `/` ends with a folder.
            let name = self.names.pop().unwrap_or_else(|| OsString::from("."));
            let is_last = self.names.is_empty();
            let found = match rustix::fs::statat(&self.folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) if is_last => None,
                found => Some(found?),
            };
            let is_link = found.is_some_and(|found| is_link(&found)) && self.links_are_followed()?;
            if self.is_linked || is_link || is_last {
                // Of the file itself its descriptor tells the owner.
                let passed = found.filter(|_| is_link || !is_last);
                self.check_folder(passed.map(|passed| passed.st_uid))?;
            }
            if is_link {
                self.follow(&name)?;
            } else if is_last {
                return Ok(name);
            } else {
                self.folder = open(&self.folder, &name, PASS | OFlags::DIRECTORY | self.no_links()?)?;
            }
        }
    }

    fn follow(&mut self, name: &OsStr) -> io::Result<()> {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Errno::LOOP.into());
        }
        self.is_linked = true;
        let target = rustix::fs::readlinkat(&self.folder, name, Vec::new())?;
        self.go(Path::new(OsStr::from_bytes(target.as_bytes())))
    }

    /// Whether somebody else could have put into the folder what is looked up in it; `passed` is the
    /// owner of a link or folder that is passed through.
    fn check_folder(&mut self, passed: Option<u32>) -> io::Result<()> {
        let mode = rustix::fs::fstat(&self.folder)?.st_mode;
        let found = match mode & (WRITABLE_BY_OTHERS | STICKY) {
            WRITABLE_BY_OTHERS => Exposure::Folder,
            WRITABLE_IF_OWN if passed.is_some_and(|owner| !is_trusted(owner)) => Exposure::Way,
            _ => return Ok(()),
        };
        self.exposure = self.exposure.or(Some(found));
        Ok(())
    }

    /// Opens the file.
    fn end(self, name: &OsStr, pipes: Pipes) -> io::Result<PrivateFile> {
        let flags = OFlags::RDONLY | self.no_links()?;
        // Without NONBLOCK opening a pipe would wait for a writer.
        let mut file = File::from(open(&self.folder, name, flags | OFlags::NONBLOCK)?);
        let mut metadata = file.metadata()?;
        if metadata.file_type().is_fifo() && pipes == Pipes::Wait {
            file = open(&self.folder, name, flags)?.into();
            metadata = file.metadata()?;
        }
        let exposure = self.exposure.or_else(|| exposure(&metadata));
        Ok(PrivateFile { file, folder: self.folder, exposure })
    }

    /// What was found to be no link must not be one when it is opened.
    fn no_links(&self) -> io::Result<OFlags> {
        Ok(if self.links_are_followed()? { OFlags::NOFOLLOW } else { OFlags::empty() })
    }

    /// Tells whether links in the folder are paths. In `/proc/self/fd` they stand for what is open, and the
    /// system alone can follow them.
    fn links_are_followed(&self) -> io::Result<bool> {
        #[cfg(target_os = "linux")]
        return Ok(rustix::fs::fstatfs(&self.folder)?.f_type != rustix::fs::PROC_SUPER_MAGIC);
        #[cfg(not(target_os = "linux"))]
        Ok(true)
    }
}

fn is_link(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::Symlink
}

fn exposure(metadata: &Metadata) -> Option<Exposure> {
    if !metadata.is_file() && !metadata.file_type().is_fifo() {
        return Some(Exposure::NoFile);
    }
    exposure_to(metadata.uid(), metadata.mode(), rustix::process::geteuid().as_raw())
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

fn is_trusted(owner: u32) -> bool {
    owner == ROOT || owner == rustix::process::geteuid().as_raw()
}

fn open(folder: impl AsFd, name: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(folder, name, flags | OFlags::CLOEXEC, Mode::empty())?)
}

/// How a folder is opened that is passed through: without the right to list it, where that can be.
#[cfg(target_os = "linux")]
const PASS: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const PASS: OFlags = OFlags::RDONLY;

const ROOT: u32 = 0;
const OPEN_TO_OTHERS: u32 = 0o077;
const OPEN_BUT_READ_BY_GROUP: u32 = 0o037;
const WRITABLE_BY_OTHERS: u32 = 0o002;
const STICKY: u32 = 0o1000;
const WRITABLE_IF_OWN: u32 = WRITABLE_BY_OTHERS | STICKY;
/// As many as Linux follows.
const LINKS_MAX: u32 = 40;

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
}
