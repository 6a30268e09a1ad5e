//! What a path names, its links followed; also one that names nothing yet.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use claviger_kms::Place;
use rustix::fs::{AtFlags, Stat, statat};
use rustix::io::Errno;

use crate::descriptor::Descriptor;

#[derive(Debug)]
pub(crate) enum Named {
    Descriptor(Descriptor),
    Entry(Entry),
}

/// A name, which is no link, in a folder that is held open: whatever becomes of the folder's own name, what is
/// looked for or made is looked for or made there.
#[derive(Clone, Debug)]
pub(crate) struct Entry(Arc<Place>);

impl Named {
    /// Follows the links of `path` as the kernel does, but for those that name descriptors.
    pub(crate) fn by(path: &Path) -> io::Result<Self> {
        let place = Place::find(path)?;
        if let Some(descriptor) = Descriptor::at(place.folder_path(), place.name()) {
            return Ok(Self::Descriptor(descriptor));
        }
        // `new/` and `new/.` are folders, or nothing.
        if place.name() == "." || place.name() == ".." {
            return Err(ErrorKind::IsADirectory.into());
        }
        Ok(Self::Entry(Entry(Arc::new(place))))
    }
}

impl Entry {
    pub(crate) fn folder(&self) -> BorrowedFd<'_> {
        self.0.folder()
    }

    pub(crate) fn folder_path(&self) -> &Path {
        self.0.folder_path()
    }

    pub(crate) fn name(&self) -> &OsStr {
        self.0.name()
    }

    /// Where it is, for messages and for what takes no folder.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder_path().join(self.name())
    }

    /// Returns a link on the way here that is another user's.
    pub(crate) fn foreign_link(&self) -> Option<&Path> {
        self.0.foreign_link()
    }

    /// Looks at what is there, which may be a link by now; `None` if nothing is.
    pub(crate) fn stat(&self) -> io::Result<Option<Stat>> {
        match statat(self.folder(), self.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => Ok(Some(there)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
