//! Makes the file of a key store, whole or not at all.

use std::io;
use std::path::Path;

use claviger_open::{StoreOptions, StoreSpec};
use tempfile::TempPath;

use crate::exit::Failure;
use crate::folder::{folder_of, make_folder_of};
use crate::store::StoreChoice;

impl StoreChoice {
    /// Makes the file of a store in a file, if it is not there. That no log is left of another one has been
    /// looked for.
    pub(crate) async fn make_file(&self) -> Result<(), Failure> {
        let Some(path) = self.file().filter(|path| !path.exists()) else { return Ok(()) };
        if self.is_own {
            make_folder_of(path)?;
        }
        match make_whole(path).await {
            Err(error) if is_of_folder(&error) => Err(Failure::create(path, &error)),
            // Where the whole cannot be given its name it is made in place, or told why it cannot be.
            _ => Ok(()),
        }
    }
}

/// Makes a file that has its table when it has its name, so that nobody ever sees one without. It is not
/// made where there is one by now.
async fn make_whole(path: &Path) -> io::Result<()> {
    // With the files that SQLite keeps beside it.
    let making = tempfile::Builder::new().prefix(".claviger-keys-").tempdir_in(folder_of(path))?;
    let file = making.path().join("keys.db");
    let made = StoreSpec::Sqlite(file.clone()).open(&StoreOptions::new().migrate()).await;
    made.map_err(io::Error::other)?.close().await;
    // The name itself is on the disk when the first key is: then SQLite syncs the folder, for its log.
    TempPath::try_from_path(file)?.persist_noclobber(path)?;
    Ok(())
}

/// Tells whether no file at all can be made there.
fn is_of_folder(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}
