//! Which file it is, by whatever name.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{FileType, Stat, fstat};

use crate::descriptor::Access;
use crate::named::{Entry, Named};

/// A file that is there, or one that is not yet, by its folder and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    name: Option<OsString>,
    is_stream: bool,
}

impl Identity {
    /// Returns `None` for what has no identity that matters: what cannot be found, and terminals and
    /// other devices of characters, which keep nothing of what is written to them.
    pub(crate) fn of_path(path: &Path) -> Option<Self> {
        match Named::by(path).ok()? {
            Named::Descriptor(descriptor) => Self::of_open(descriptor.open(Access::Any).ok()?),
            Named::Entry(entry) => Self::of_entry(&entry),
        }
    }

    pub(crate) fn of_entry(entry: &Entry) -> Option<Self> {
        match entry.stat().ok()? {
            Some(there) => Self::of(&there),
            None => {
                let folder = Self::of_open(entry.folder())?;
                Some(Self { name: Some(entry.name().to_owned()), ..folder })
            }
        }
    }

    pub(crate) fn of_open(open: impl AsFd) -> Option<Self> {
        Self::of(&fstat(open).ok()?)
    }

    fn of(found: &Stat) -> Option<Self> {
        let kind = FileType::from_raw_mode(found.st_mode);
        (kind != FileType::CharacterDevice).then_some(Self {
            device: found.st_dev,
            inode: found.st_ino,
            name: None,
            is_stream: matches!(kind, FileType::Fifo | FileType::Socket),
        })
    }

    /// Tells whether it is a pipe or a socket: what is written to it is not what is read from it.
    pub(crate) const fn is_stream(&self) -> bool {
        self.is_stream
    }
}
