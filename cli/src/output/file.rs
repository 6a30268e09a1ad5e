//! A file that appears whole or not at all.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind, Seek as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

use super::unnamed;
use crate::cleanup::Cleanup;
use crate::folder::{Folder, sync_file};
use crate::status::new_file_mode;
use crate::tell::tell;

/// What will be the file at `path`. Dropped without [`commit`](Self::commit), it leaves no trace.
#[derive(Debug)]
pub(super) struct NewFile {
    file: File,
    /// Its name until then. Without one nothing is left of it whatever ends the program.
    temporary: Option<TempPath>,
    path: PathBuf,
    cleanup: Cleanup,
}

impl NewFile {
    /// `path` is one that no link leads away from.
    pub(super) fn create(path: PathBuf, cleanup: &Cleanup) -> io::Result<Self> {
        let cleanup = cleanup.clone();
        // Nobody sees it, so that it can have from the beginning what a new file gets: by the umask, and by
        // the folder's own rules. What is to be replaced may be more private.
        let mode = if path.exists() { PRIVATE } else { 0o666 };
        if let Some(file) = unnamed::create(folder(&path), mode)? {
            return Ok(Self { file, temporary: None, path, cleanup });
        }
        let (file, temporary) = named(&path, &cleanup)?;
        Ok(Self { file, temporary: Some(temporary), path, cleanup })
    }

    pub(super) const fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Makes what was written last: on the disk, and under its own name.
    pub(super) fn commit(mut self) -> io::Result<()> {
        let replaced = fs::symlink_metadata(&self.path).ok().filter(Metadata::is_file);
        let unkept = match (&replaced, &self.temporary) {
            (Some(replaced), _) => take_over(&self.file, replaced)?,
            (None, Some(_)) => {
                // Where rights cannot be set, it has those that its file system gives to all files.
                drop(self.file.set_permissions(Permissions::from_mode(new_file_mode())));
                None
            }
            (None, None) => None,
        };
        let is_synced = sync_file(&self.file)?;
        let folder = Folder::open(folder(&self.path));
        match self.temporary.take() {
            Some(temporary) => self.rename(temporary)?,
            None => self.link(replaced.is_some())?,
        }
        // From here on nothing fails the run: it could not be undone, and who runs it again seals twice.
        folder.sync();
        let shown = self.path.display();
        if let Some(unkept) = unkept {
            tell(format_args!("{shown} is written, but {unkept}"));
        }
        if !is_synced {
            tell(format_args!("{shown} is written, but its file system cannot sync it"));
        }
        Ok(())
    }

    fn rename(&self, temporary: TempPath) -> io::Result<()> {
        let listed = temporary.to_path_buf();
        self.cleanup.release(&listed, || temporary.persist(&self.path).map_err(|error| error.error))
    }

    /// Gives a file without a name its own.
    fn link(&mut self, is_replacing: bool) -> io::Result<()> {
        if !is_replacing {
            match unnamed::link(&self.file, &self.path) {
                // Somebody made it meanwhile: it is replaced, as if it had been there.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Ok(()) => return Ok(()),
                Err(_) => return self.copy(),
            }
        }
        // The kernel has no call that links over a name, so that for an instant the whole file has another.
        let linked = self.cleanup.hold(|| {
            let link = |path: &Path| unnamed::link(&self.file, path);
            let temporary = builder().make_in(folder(&self.path), link)?.into_temp_path();
            temporary.persist(&self.path).map_err(|error| error.error)
        });
        match linked {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => self.copy(),
            linked => linked,
        }
    }

    /// Copies it to a file with a name, where the system does not let it be linked.
    fn copy(&mut self) -> io::Result<()> {
        let (mut copy, temporary) = named(&self.path, &self.cleanup)?;
        self.file.rewind()?;
        io::copy(&mut self.file, &mut copy)?;
        let original = self.file.metadata()?;
        // What is told of it was told of the original.
        take_over(&copy, &original)?;
        sync_file(&copy)?;
        self.rename(temporary)
    }
}

fn named(path: &Path, cleanup: &Cleanup) -> io::Result<(File, TempPath)> {
    let make = || builder().permissions(Permissions::from_mode(PRIVATE)).tempfile_in(folder(path));
    Ok(cleanup.guard(make, NamedTempFile::path)?.into_parts())
}

fn builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".claviger-").suffix(".tmp");
    builder
}

/// Gives a file the owner, the group and the rights of the one that it replaces, and returns what of it
/// could not be had. Nobody gets a right by it who had none.
fn take_over(file: &File, replaced: &Metadata) -> io::Result<Option<&'static str>> {
    let made = file.metadata()?;
    let owner = Some(replaced.uid()).filter(|owner| *owner != made.uid());
    let group = Some(replaced.gid()).filter(|group| *group != made.gid());
    let mut mode = replaced.mode() & RIGHTS;
    let mut unkept = None;
    // The owner before the rights: until then it is nobody else's.
    if (owner.is_some() || group.is_some()) && fchown(file, owner, group).is_err() {
        unkept = Some("its owner could not be kept");
        if group.is_some() && fchown(file, None, group).is_err() {
            unkept = Some("its owner and group could not be kept");
            // What its group might do, another group may as far as all others may.
            mode &= 0o707 | (mode & 0o007) << 3;
        }
    }
    if let Err(error) = file.set_permissions(Permissions::from_mode(mode)) {
        if made.mode() & RIGHTS & !mode != 0 {
            return Err(error);
        }
        unkept = Some("its rights could not be kept");
    }
    Ok(unkept)
}

/// The folder that `path` is in.
fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Of a mode, what lets somebody read, write or run: a file with new content does not run as its owner.
const RIGHTS: u32 = 0o777;

const PRIVATE: u32 = 0o600;
