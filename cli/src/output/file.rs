//! A file that appears whole or not at all.

use std::fs::{File, Permissions};
use std::io::{self, ErrorKind, Seek as _};
use std::os::unix::fs::{PermissionsExt as _, fchown};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, openat};
use rustix::process::geteuid;

use super::target::refusal;
use super::temporary::Temporary;
use super::unnamed;
use crate::cleanup::Cleanup;
use crate::exit::Failure;
use crate::folder::{Folder, sync_file};
use crate::named::Entry;
use crate::status::new_file_mode;
use crate::tell::tell;

/// Who may read a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privacy {
    /// Whom the umask, or the file that it replaces, lets read it.
    Usual,
    /// Its owner alone, unless a file of his that it replaces says otherwise.
    Private,
}

/// What will be the file of an entry. Dropped without [`commit`](Self::commit), it leaves no trace.
///
/// Until then nobody else can open it: it has no name, or its owner alone has a right on it.
#[derive(Debug)]
pub(super) struct NewFile {
    file: File,
    /// Its name until then. Without one nothing is left of it whatever ends the program.
    temporary: Option<Temporary>,
    entry: Entry,
    privacy: Privacy,
    cleanup: Cleanup,
}

/// Why a file did not get its name.
enum Unfit {
    /// Somebody else has made one of that name meanwhile.
    Foreign(Failure),
    Io(io::Error),
}

impl NewFile {
    pub(super) fn create(entry: Entry, privacy: Privacy, cleanup: &Cleanup) -> io::Result<Self> {
        let cleanup = cleanup.clone();
        // Without a name it can have from the beginning what a new file gets: by the umask, and by
        // the folder's own rules. What is to be replaced may be more private.
        let is_usual = privacy == Privacy::Usual && entry.stat()?.is_none();
        if let Some(file) = unnamed::create(entry.folder(), if is_usual { 0o666 } else { PRIVATE })? {
            return Ok(Self { file, temporary: None, entry, privacy, cleanup });
        }
        let (file, temporary) = named(&entry, &cleanup)?;
        Ok(Self { file, temporary: Some(temporary), entry, privacy, cleanup })
    }

    pub(super) const fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Makes what was written last: on the disk, and under its own name, which is `name` in messages.
    pub(super) fn commit(self, name: &str) -> Result<(), Failure> {
        self.finish(name).map_err(|unfit| match unfit {
            Unfit::Foreign(failure) => failure,
            Unfit::Io(error) => Failure::write(name, &error),
        })
    }

    fn finish(mut self, name: &str) -> Result<(), Unfit> {
        let replaced = self.replaced(name)?;
        let is_synced = sync_file(&self.file)?;
        let folder = Folder::of(&self.entry);
        // Last of all, so that nobody gets a right on what is not whole.
        let unkept = self.give_rights(replaced.as_ref())?;
        match self.temporary.take() {
            Some(temporary) => temporary.persist()?,
            None => self.link(replaced.is_some(), name)?,
        }
        // From here on nothing fails the run: it could not be undone, and who runs it again seals twice.
        folder.sync();
        let shown = self.entry.path();
        let shown = shown.display();
        if let Some(unkept) = unkept {
            tell(format_args!("{shown} is written, but {unkept}"));
        }
        if !is_synced {
            tell(format_args!("{shown} is written, but its file system cannot sync it"));
        }
        Ok(())
    }

    /// Returns the file that there is by now.
    fn replaced(&self, name: &str) -> Result<Option<Stat>, Unfit> {
        let there = self.entry.stat()?;
        match there.as_ref().and_then(|there| refusal(Path::new(name), there)) {
            Some(failure) => Err(Unfit::Foreign(failure)),
            None => Ok(there.filter(|there| FileType::from_raw_mode(there.st_mode) == FileType::RegularFile)),
        }
    }

    fn give_rights(&self, replaced: Option<&Stat>) -> io::Result<Option<&'static str>> {
        match (replaced, self.privacy) {
            // Others' rights are not taken over by what only the user is to read.
            (Some(replaced), privacy)
                if privacy == Privacy::Usual || replaced.st_uid == geteuid().as_raw() =>
            {
                take_over(&self.file, replaced)
            }
            (None, Privacy::Usual) if self.temporary.is_some() => {
                // Where rights cannot be set, it has those that its file system gives to all files.
                drop(self.file.set_permissions(Permissions::from_mode(new_file_mode())));
                Ok(None)
            }
            (Some(_), _) => Ok(Some("it is its owner's alone: the file before was another user's")),
            (None, _) => Ok(None),
        }
    }

    /// Gives a file without a name its own.
    fn link(&mut self, is_replacing: bool, name: &str) -> Result<(), Unfit> {
        let entry = self.entry.clone();
        let link = |name: &_| unnamed::link(&self.file, entry.folder(), name);
        if !is_replacing {
            match link(entry.name()) {
                // Somebody made it meanwhile: it is replaced, as if it had been there.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => drop(self.replaced(name)?),
                Ok(()) => return Ok(()),
                Err(_) => return Ok(self.copy()?),
            }
        }
        // The kernel has no call that links over a name, so that for an instant the whole file has another.
        let linked =
            Temporary::make(&entry, &self.cleanup, link).and_then(|((), temporary)| temporary.persist());
        match linked {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(self.copy()?),
            linked => Ok(linked?),
        }
    }

    /// Copies it to a file with a name, where the system does not let it be linked.
    fn copy(&mut self) -> io::Result<()> {
        let (mut copy, temporary) = named(&self.entry, &self.cleanup)?;
        self.file.rewind()?;
        io::copy(&mut self.file, &mut copy)?;
        sync_file(&copy)?;
        // What is told of it was told of the original.
        take_over(&copy, &fstat(&self.file)?)?;
        temporary.persist()
    }
}

impl From<io::Error> for Unfit {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn named(entry: &Entry, cleanup: &Cleanup) -> io::Result<(File, Temporary)> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Temporary::make(entry, cleanup, |name| {
        Ok(openat(entry.folder(), name, flags, Mode::from_raw_mode(PRIVATE))?.into())
    })
}

/// Gives a file the owner, the group and the rights of the one that it replaces, and returns what of it
/// could not be had. Nobody gets a right by it who had none.
fn take_over(file: &File, replaced: &Stat) -> io::Result<Option<&'static str>> {
    let made = fstat(file)?;
    let owner = Some(replaced.st_uid).filter(|owner| *owner != made.st_uid);
    let group = Some(replaced.st_gid).filter(|group| *group != made.st_gid);
    let mut mode = replaced.st_mode & RIGHTS;
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
        if made.st_mode & RIGHTS & !mode != 0 {
            return Err(error);
        }
        unkept = Some("its rights could not be kept");
    }
    Ok(unkept)
}

/// Of a mode, what lets somebody read, write or run: a file with new content does not run as its owner.
const RIGHTS: u32 = 0o777;

const PRIVATE: u32 = 0o600;
