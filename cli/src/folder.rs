//! Folders that are synced, so that a power cut does not bring back what was in them before.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Once;

use rustix::fs::{Mode, OFlags, openat};

use crate::exit::Failure;
use crate::named::Entry;
use crate::tell::tell;

/// A folder that is to be synced once something in it has its name.
///
/// A folder that may not be read cannot be opened, and some file systems sync no folders. What has its
/// name by then is as good as it can be there, so that it is told, and no failure.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    opened: io::Result<File>,
}

impl Folder {
    pub(crate) fn open(path: &Path) -> Self {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Self { path: path.to_owned(), opened: File::open(path) }
    }

    /// The folder of an entry.
    pub(crate) fn of(entry: &Entry) -> Self {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(entry.folder(), ".", flags, Mode::empty());
        Self { path: entry.folder_path().to_owned(), opened: opened.map(File::from).map_err(io::Error::from) }
    }

    pub(crate) fn sync(self) {
        if let Err(error) = self.opened.and_then(|folder| folder.sync_all()) {
            static TOLD: Once = Once::new();
            let path = self.path.display();
            TOLD.call_once(|| {
                tell(format_args!(
                    "the folder {path} cannot be synced ({error}); what was written is there, but a power cut now \
                     could undo it"
                ));
            });
        }
    }
}

/// Syncs a file. Where its file system cannot do that, there is no more to be had; returns whether it did.
pub(crate) fn sync_file(file: &File) -> io::Result<bool> {
    match file.sync_all() {
        Ok(()) => Ok(true),
        Err(error) if is_unheard_of(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Tells whether a file system does not know what it was asked for, in whatever words.
pub(crate) fn is_unheard_of(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let answers = [Errno::INVAL, Errno::OPNOTSUPP, Errno::NOTSUP, Errno::NOSYS];
    answers.iter().any(|answer| error.raw_os_error() == Some(answer.raw_os_error()))
}

/// Makes claviger's own folder, for its owner alone, and syncs what names it: keys that are in use
/// must not vanish with their folder when the power goes.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(Path::new(""));
    make_folder(parent)?;
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => {
            Folder::open(parent).sync();
            Ok(())
        }
    }
}

/// The folder that a file is in, by a name that can be opened.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(crate) fn make_folder_of(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(Path::new(""));
    make_folder(folder).map_err(|error| Failure::create(folder, &error))
}
