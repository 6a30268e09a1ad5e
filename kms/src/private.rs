//! Files with secrets in them, or whose word is taken: which users could have read one, or put another in its
//! place.

mod exposure;
mod place;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::retry_on_intr;

pub use self::exposure::Exposure;
use self::exposure::{exposure, intrusion};
pub use self::place::Place;

/// A file that may hold a secret or says what is to be done, open for reading; whether it is its owner's alone,
/// and whether it could be another's work.
///
/// What is told is told of the file that is read, by its descriptor, and of the folders on the way, each
/// of which is held open while the next name is looked up in it: those whom the rules keep out can exchange
/// nothing in between.
///
/// It could be another's work ([`intrusion`](Self::intrusion)) unless
/// - it belongs to the user whom the process runs as, or to root, and nobody else may write to it; or it has no
///   name and was named as an open descriptor, as a pipe between two programs (`/dev/stdin`),
/// - each folder on the way from the root to it belongs to one of the two, too; and nobody else may
///   write to it, or it is sticky and the next folder on the way belongs to one of the two,
/// - the same is true where symbolic links lead to it, and the links belong to one of the two. So those of
///   Kubernetes' volumes (`key -> ..data/key`) are followed, and those that somebody else planted are told.
///
/// It is its owner's alone ([`exposure`](Self::exposure)) when that is true of the way to it, and
/// - it is a regular file or a pipe,
/// - it belongs to the user whom the process runs as, and nobody else has any right on it; or it
///   belongs to root, and its group may read it and no more: so a secret of Kubernetes is given to a
///   process that is not root's.
///
/// ```
/// # use std::io::Read as _;
/// use claviger_kms::PrivateFile;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let file = tempfile::NamedTempFile::new()?;
/// let mut file = PrivateFile::open(file.path())?;
/// if let Some(exposure) = file.exposure() {
///     return Err(exposure.clone().into());
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
    place: Place,
    /// It is a pipe, and is waited for before it is read.
    is_awaited: bool,
    exposure: Option<Exposure>,
    intrusion: Option<Exposure>,
}

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
        let place = Place::find(path)?;
        // Without NONBLOCK opening a pipe would wait for a writer; and one that opened it anew would wait for
        // another writer, where the first has come and gone.
        let file = place.open(OFlags::RDONLY | OFlags::NONBLOCK)?;
        let metadata = file.metadata()?;
        let is_awaited = metadata.file_type().is_fifo() && pipes == Pipes::Wait;
        let of_way = || place.exposure().cloned();
        let (exposure, intrusion) = (
            of_way().or_else(|| exposure(&metadata)),
            of_way().or_else(|| intrusion(&metadata, place.is_open())),
        );
        Ok(Self { file, place, is_awaited, exposure, intrusion })
    }

    /// Returns why it is not its owner's alone, if it is not.
    #[must_use]
    pub const fn exposure(&self) -> Option<&Exposure> {
        self.exposure.as_ref()
    }

    /// Returns why it could be another's work, if it could.
    #[must_use]
    pub const fn intrusion(&self) -> Option<&Exposure> {
        self.intrusion.as_ref()
    }

    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// Opens the folder that the file is in, to sync it.
    pub(crate) fn open_folder(&self) -> io::Result<File> {
        self.place.open_folder()
    }
}

impl io::Read for PrivateFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_awaited {
            let mut polled = [PollFd::new(&self.file, PollFlags::IN)];
            retry_on_intr(|| poll(&mut polled, None))?;
            fcntl_setfl(&self.file, OFlags::RDONLY)?;
            self.is_awaited = false;
        }
        self.file.read(buffer)
    }
}
