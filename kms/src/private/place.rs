//! The way to a file, gone step by step.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::exposure::{Exposure, STICKY, WRITABLE_BY_OTHERS, is_trusted};

/// A name in a folder that is held open, and which users could have led us to another one.
///
/// It is found as the kernel finds it, link by link; but each folder is held open while the next name is
/// looked up in it, and what is told of it is told of what is open. So what is found safe cannot be
/// exchanged by those whom the rules keep out:
/// - each folder on the way, from the root on, is the user's whom the process runs as, or root's;
/// - nobody else may write to it, or it is sticky and the next on the way is one of these two's;
/// - the same holds of links, and the way through them.
///
/// Whoever owns the root folder can exchange everything, and is taken for root: so it is in user namespaces
/// that know no root.
#[derive(Debug)]
pub struct Place {
    folder: OwnedFd,
    /// The folder's path, without links.
    path: PathBuf,
    name: OsString,
    exposure: Option<Exposure>,
    foreign_link: Option<PathBuf>,
    is_open: bool,
}

impl Place {
    /// Finds what `path` names, whether or not it is there. Its folder must be.
    ///
    /// Links are followed, but for those by which the system lists descriptors (`/proc/self/fd/3`): they are
    /// no paths.
    ///
    /// # Errors
    /// What the system says when a folder on the way is not there or may not be entered.
    pub fn find(path: impl AsRef<Path>) -> io::Result<Self> {
        Way::to(path.as_ref())?.end()
    }

    /// The folder. It may be open for passing through only (`O_PATH`).
    #[must_use]
    pub fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Returns the folder's path, without links, as far as that is known.
    #[must_use]
    pub fn folder_path(&self) -> &Path {
        &self.path
    }

    /// The name in the folder. It is `.` or `..` where the path says so, or ends with a slash.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Returns by what others could have led us here, whatever the file itself is.
    #[must_use]
    pub const fn exposure(&self) -> Option<&Exposure> {
        self.exposure.as_ref()
    }

    /// Returns a link on the way that is neither the process's user's nor root's.
    #[must_use]
    pub fn foreign_link(&self) -> Option<&Path> {
        self.foreign_link.as_deref()
    }

    /// Returns `true` if the name stands for what some process has open.
    pub(super) const fn is_open(&self) -> bool {
        self.is_open
    }

    /// Opens what is there, unless it has become a link.
    pub(super) fn open(&self, flags: OFlags) -> io::Result<File> {
        let no_link = if self.is_open { OFlags::empty() } else { OFlags::NOFOLLOW };
        open(&self.folder, &self.name, flags | no_link).map(File::from)
    }

    pub(super) fn open_folder(&self) -> io::Result<File> {
        open(&self.folder, OsStr::new("."), OFlags::RDONLY | OFlags::DIRECTORY).map(File::from)
    }
}

/// The way to a place, as far as it was gone.
struct Way {
    folder: OwnedFd,
    path: PathBuf,
    /// What is still to go, the next name last.
    names: Vec<OsString>,
    links: u32,
    exposure: Option<Exposure>,
    foreign_link: Option<PathBuf>,
    /// Whose the root folder is.
    roots_owner: u32,
}

impl Way {
    fn to(path: &Path) -> io::Result<Self> {
        if path.as_os_str().is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut way = Self {
            folder: open(CWD, OsStr::new("."), PASS)?,
            path: std::env::current_dir().unwrap_or_else(|_nameless| PathBuf::from(".")),
            names: Vec::new(),
            links: 0,
            exposure: None,
            foreign_link: None,
            roots_owner: rustix::fs::stat("/")?.st_uid,
        };
        if path.is_relative() {
            way.check_above()?;
        }
        way.go(path)?;
        Ok(way)
    }

    /// Checks the folders above the current one, as far as they may be entered. Above one that may not, the
    /// process was begun with the current folder by somebody who may.
    fn check_above(&mut self) -> io::Result<()> {
        let mut path = self.path.clone();
        let mut folder = open(&self.folder, OsStr::new("."), PASS)?;
        loop {
            let below = rustix::fs::fstat(&folder)?;
            let Ok(above) = open(&folder, OsStr::new(".."), PASS) else { return Ok(()) };
            let there = rustix::fs::fstat(&above)?;
            if (there.st_dev, there.st_ino) == (below.st_dev, below.st_ino) {
                return Ok(());
            }
            path.pop();
            self.check_folder(&there, &path);
            folder = above;
        }
    }

    /// Puts a path before what is still to go.
    fn go(&mut self, path: &Path) -> io::Result<()> {
        if path.is_absolute() {
            self.folder = open(CWD, OsStr::new("/"), PASS)?;
            self.path = PathBuf::from("/");
        }
        // What ends so is a folder, or nothing: to the system, not to `components`.
        if self.names.is_empty()
            && [&b"/"[..], b"/."].iter().any(|end| path.as_os_str().as_bytes().ends_with(end))
        {
            self.names.push(".".into());
        }
        let names = path.components().rev().filter(|part| !matches!(part, Component::RootDir));
        self.names.extend(names.map(|name| name.as_os_str().to_owned()));
        Ok(())
    }

    /// Goes as far as the folder that the file is in, or would be.
    fn end(mut self) -> io::Result<Place> {
        loop {
            let name = self.names.pop().unwrap_or_else(|| OsString::from("."));
            let is_last = self.names.is_empty();
            let found = match rustix::fs::statat(&self.folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) if is_last => None,
                found => Some(found?),
            };
            let is_listing = is_listing(&self.folder)?;
            if !is_listing {
                let (there, path) = (rustix::fs::fstat(&self.folder)?, self.path.clone());
                self.check_folder(&there, &path);
            }
            match found.filter(|found| is_link(found) && !is_listing) {
                Some(link) => self.follow(&name, &link)?,
                None if is_last => {
                    return Ok(self.at(name, is_listing && found.is_some_and(|found| is_link(&found))));
                }
                None => self.enter(&name, is_listing)?,
            }
        }
    }

    fn at(self, name: OsString, is_open: bool) -> Place {
        let Self { folder, path, exposure, foreign_link, .. } = self;
        Place { folder, path, name, exposure, foreign_link, is_open }
    }

    fn enter(&mut self, name: &OsStr, is_listing: bool) -> io::Result<()> {
        // What was found to be no link must not be one when it is opened.
        let no_link = if is_listing { OFlags::empty() } else { OFlags::NOFOLLOW };
        self.folder = open(&self.folder, name, PASS | no_link)?;
        match name.as_bytes() {
            b"." => {}
            b".." => drop(self.path.pop()),
            _ => self.path.push(name),
        }
        if is_listing {
            self.path = path_of(&self.folder).unwrap_or_else(|| std::mem::take(&mut self.path));
        }
        Ok(())
    }

    fn follow(&mut self, name: &OsStr, link: &Stat) -> io::Result<()> {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Errno::LOOP.into());
        }
        if !self.is_trusted(link.st_uid) {
            let link = self.path.join(name);
            self.foreign_link.get_or_insert_with(|| link.clone());
            self.exposure.get_or_insert(Exposure::ForeignLink(link));
        }
        let target = rustix::fs::readlinkat(&self.folder, name, Vec::new())?;
        self.go(Path::new(OsStr::from_bytes(target.as_bytes())))
    }

    /// Whether somebody else could have exchanged what is looked up in the folder. In a sticky one nobody
    /// exchanges what is not his; whose it is, is looked at next.
    fn check_folder(&mut self, folder: &Stat, path: &Path) {
        let found = if !self.is_trusted(folder.st_uid) {
            Exposure::ForeignFolder
        } else if folder.st_mode & WRITABLE_BY_OTHERS != 0 && folder.st_mode & STICKY == 0 {
            Exposure::Folder
        } else {
            return;
        };
        self.exposure.get_or_insert_with(|| found(path.to_owned()));
    }

    fn is_trusted(&self, owner: u32) -> bool {
        is_trusted(owner) || owner == self.roots_owner
    }
}

fn is_link(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::Symlink
}

fn open(folder: impl AsFd, name: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(folder, name, flags | OFlags::CLOEXEC, Mode::empty())?)
}

/// Returns `true` if the folder is the system's list of processes and what they have open. The links in it are no
/// paths, and the system alone can follow them; nobody can put anything there.
#[cfg(target_os = "linux")]
fn is_listing(folder: &OwnedFd) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(folder)?.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

#[cfg(not(target_os = "linux"))]
fn is_listing(_: &OwnedFd) -> io::Result<bool> {
    Ok(false)
}

/// Returns where a folder is that the system led to.
fn path_of(folder: &OwnedFd) -> Option<PathBuf> {
    use std::os::fd::AsRawFd as _;
    std::fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd())).ok()
}

/// How a folder is opened that is passed through: without the right to list it, where that can be.
#[cfg(target_os = "linux")]
const PASS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);
#[cfg(not(target_os = "linux"))]
const PASS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

/// As many as Linux follows.
const LINKS_MAX: u32 = 40;
