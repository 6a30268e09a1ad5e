//! Reading and making the master-key file, so that nobody else can and nothing is half done.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use claviger::{SecretKey, SystemRandom};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::LocalKmsError;
use super::format::{self, LINE_BYTES};
use crate::private::{Exposure, Pipes, Place, PrivateFile};

/// Reads the key, once file and folder are found safe, and synced.
pub(super) fn read(path: &Path) -> Result<SecretKey, LocalKmsError> {
    let mut private = PrivateFile::open_with(path, Pipes::NoWait).map_err(failed(path, "open"))?;
    if let Some(exposure) = private.exposure() {
        return Err(refused(path, exposure));
    }
    if !private.file().metadata().map_err(failed(path, "inspect"))?.is_file() {
        return Err(refused(path, &Exposure::NoFile));
    }

    let mut text = Zeroizing::new([0; TEXT_BYTES_MAX]);
    let length = read_up_to(&mut private, &mut *text).map_err(failed(path, "read"))?;
    let text = text.get(..length).unwrap_or_default();
    let key = format::decode(text)
        .ok_or_else(|| LocalKmsError::Malformed { path: path.to_owned(), reason: format::fault(text) })?;

    // Here, and not at creation alone: the creator may not have come this far, or have crashed.
    sync(private.file()).map_err(failed(path, "sync"))?;
    match private.open_folder() {
        Ok(folder) => sync(&folder).map_err(failed(path, "sync the folder of"))?,
        // One that may be entered and not read cannot be synced either.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        Err(error) => return Err(failed(path, "open the folder of")(error)),
    }
    Ok(key)
}

/// Makes the file with a new key, unless there is one by now; tells whether it did.
///
/// The file has its whole content, on disk, before it has its name.
pub(super) fn create(path: &Path) -> Result<bool, LocalKmsError> {
    if path.is_symlink() {
        return Err(refused(
            path,
            &"it is a symbolic link to a file that is not there; name the file itself",
        ));
    }
    let place = Place::find(path).map_err(failed(path, "open the folder of"))?;
    if let Some(exposure) = place.exposure() {
        return Err(refused(path, exposure));
    }
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

/// Syncs as far as that can be had: some file systems, shared ones above all, sync no folders. A key there
/// is as safe as it can be.
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

/// Reads into a buffer that is wiped; `Read::read_to_end` would pass bytes through one that is not.
fn read_up_to(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
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

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn refused(path: &Path, reason: &impl ToString) -> LocalKmsError {
    LocalKmsError::Refused { path: path.to_owned(), reason: reason.to_string() }
}

fn failed(path: &Path, operation: &'static str) -> impl FnOnce(io::Error) -> LocalKmsError {
    move |source| match source.kind() {
        io::ErrorKind::NotFound => LocalKmsError::NotFound { path: path.to_owned() },
        _ => LocalKmsError::Io { path: path.to_owned(), operation, source },
    }
}

/// More than the line has, so that what else the file may be is recognized.
const TEXT_BYTES_MAX: usize = 2 * LINE_BYTES;
