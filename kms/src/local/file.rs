//! Reading and making the master-key file, so that nobody else can and nothing is half done.

use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use claviger::{SecretKey, SystemRandom};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::LocalKmsError;
use super::format::{self, LINE_BYTES};

/// Reads the key, once file and folder are found safe, and synced.
pub(super) fn read(path: &Path) -> Result<SecretKey, LocalKmsError> {
    let folder = open_folder(path)?;
    // Without NONBLOCK opening a FIFO would wait for a writer.
    let file = open(path, OFlags::NOFOLLOW | OFlags::NONBLOCK).map_err(|source| {
        // What NOFOLLOW answers to a symbolic link.
        if source.raw_os_error() == Some(Errno::LOOP.raw_os_error()) {
            refused(path, "it is a symbolic link; name the file itself")
        } else {
            failed(path, "open")(source)
        }
    })?;
    check_file(path, &file.metadata().map_err(failed(path, "inspect"))?)?;

    let mut line = Zeroizing::new([0; LINE_BYTES + 1]);
    let length = read_up_to(&file, &mut *line).map_err(failed(path, "read"))?;
    let key = line.get(..length).and_then(format::decode);
    let key = key.ok_or_else(|| LocalKmsError::Malformed { path: path.to_owned() })?;

    // Here, and not at creation alone: the creator may not have come this far, or have crashed.
    sync(&file).map_err(failed(path, "sync"))?;
    sync(&folder).map_err(failed(path, "sync the folder of"))?;
    Ok(key)
}

/// Makes the file with a new key, unless there is one by now; tells whether it did.
///
/// The file has its whole content, on disk, before it has its name.
pub(super) fn create(path: &Path) -> Result<bool, LocalKmsError> {
    let mut temporary = tempfile::Builder::new()
        .prefix(".claviger-master-key-")
        .tempfile_in(folder(path))
        .map_err(failed(path, "create"))?;
    let key = SecretKey::generate(&SystemRandom::new())?;
    temporary.write_all(&format::encode(&key)).map_err(failed(path, "write"))?;
    sync(temporary.as_file()).map_err(failed(path, "sync"))?;
    match temporary.persist_noclobber(path) {
        Ok(_) => Ok(true),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(path, "name")(error.error)),
    }
}

fn open_folder(path: &Path) -> Result<File, LocalKmsError> {
    // One that may be entered and not read can be looked at all the same.
    let folder = match open(folder(path), OFlags::DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open(folder(path), OFlags::DIRECTORY | OFlags::PATH)
        }
        opened => opened,
    };
    let folder = folder.map_err(failed(path, "open the folder of"))?;
    let mode = folder.metadata().map_err(failed(path, "inspect the folder of"))?.mode();
    if mode & WRITABLE_BY_OTHERS != 0 && mode & STICKY == 0 {
        return Err(refused(path, "everybody may write to its folder; chmod o-w the folder"));
    }
    Ok(folder)
}

/// Syncs as far as that can be had: some file systems, shared ones above all, sync no folders, and a folder
/// that may not be read is open for looking at it alone. A key there is as safe as it can be.
fn sync(file: &File) -> io::Result<()> {
    let cannot_be_had =
        [Errno::INVAL, Errno::OPNOTSUPP, Errno::NOSYS, Errno::ACCESS, Errno::PERM, Errno::ROFS, Errno::BADF];
    match file.sync_all() {
        Err(error) if cannot_be_had.iter().any(|it| error.raw_os_error() == Some(it.raw_os_error())) => {
            Ok(())
        }
        synced => synced,
    }
}

fn check_file(path: &Path, metadata: &Metadata) -> Result<(), LocalKmsError> {
    let reason = if !metadata.is_file() {
        "it is not a regular file"
    } else if metadata.uid() != rustix::process::geteuid().as_raw() {
        "it belongs to another user; chown it"
    } else if metadata.mode() & OPEN_TO_OTHERS != 0 {
        "its group or others have rights on it; chmod 600 it, and replace the key if they may have used them"
    } else {
        return Ok(());
    };
    Err(refused(path, reason))
}

/// Reads into a buffer that is wiped; `Read::read_to_end` would pass bytes through one that is not.
fn read_up_to(mut file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let opened = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC | flags, Mode::empty());
    Ok(File::from(opened?))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn refused(path: &Path, reason: &'static str) -> LocalKmsError {
    LocalKmsError::Refused { path: path.to_owned(), reason }
}

fn failed(path: &Path, operation: &'static str) -> impl FnOnce(io::Error) -> LocalKmsError {
    move |source| match source.kind() {
        io::ErrorKind::NotFound => LocalKmsError::NotFound { path: path.to_owned() },
        _ => LocalKmsError::Io { path: path.to_owned(), operation, source },
    }
}

const OPEN_TO_OTHERS: u32 = 0o077;
const WRITABLE_BY_OTHERS: u32 = 0o002;
const STICKY: u32 = 0o1000;
