//! The name of a file that is not to be seen yet.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};

use claviger::{SecureRandom as _, SystemRandom};
use rustix::fs::{AtFlags, renameat, unlinkat};

use crate::cleanup::Cleanup;
use crate::named::Entry;

/// A name beside an entry's own. Dropped without [`persist`](Self::persist), it is removed.
#[derive(Debug)]
pub(super) struct Temporary {
    entry: Entry,
    name: OsString,
    cleanup: Cleanup,
    is_there: bool,
}

impl Temporary {
    /// Makes something of such a name. `make` must fail where there is something already.
    pub(super) fn make<T>(
        entry: &Entry,
        cleanup: &Cleanup,
        mut make: impl FnMut(&OsStr) -> io::Result<T>,
    ) -> io::Result<(T, Self)> {
        let mut attempts = 0;
        loop {
            let name = name()?;
            match cleanup.guard(entry, &name, || make(&name)) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && attempts < ATTEMPTS_MAX => {
                    attempts += 1
                }
                made => {
                    let temporary =
                        Self { entry: entry.clone(), name, cleanup: cleanup.clone(), is_there: true };
                    return made.map(|made| (made, temporary));
                }
            }
        }
    }

    /// Gives the file the entry's own name, whatever has it.
    pub(super) fn persist(mut self) -> io::Result<()> {
        let Self { entry, name, cleanup, .. } = &self;
        let folder = entry.folder();
        cleanup.release(name, || Ok(renameat(folder, name, folder, entry.name())?))?;
        self.is_there = false;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.is_there {
            // About one that cannot be removed nothing can be done.
            let remove = || Ok(unlinkat(self.entry.folder(), &self.name, AtFlags::empty())?);
            drop(self.cleanup.release(&self.name, remove));
        }
    }
}

fn name() -> io::Result<OsString> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(io::Error::other)?;
    Ok(format!(".claviger-{:016x}.tmp", u64::from_ne_bytes(bytes)).into())
}

const ATTEMPTS_MAX: u32 = 100;
