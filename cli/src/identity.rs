//! Which file it is, by whatever name.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use crate::descriptor::Access;
use crate::named::Named;

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
            Named::Entry { folder, name } => match fs::symlink_metadata(folder.join(&name)) {
                Ok(metadata) => Self::of(&metadata),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let folder = Self::of(&fs::metadata(folder).ok()?)?;
                    Some(Self { name: Some(name), ..folder })
                }
                Err(_) => None,
            },
        }
    }

    pub(crate) fn of_open(open: impl AsFd) -> Option<Self> {
        let file = File::from(open.as_fd().try_clone_to_owned().ok()?);
        Self::of(&file.metadata().ok()?)
    }

    fn of(metadata: &Metadata) -> Option<Self> {
        let kind = metadata.file_type();
        (!kind.is_char_device()).then(|| Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            name: None,
            is_stream: kind.is_fifo() || kind.is_socket(),
        })
    }

    /// Tells whether it is a pipe or a socket: what is written to it is not what is read from it.
    pub(crate) const fn is_stream(&self) -> bool {
        self.is_stream
    }
}
