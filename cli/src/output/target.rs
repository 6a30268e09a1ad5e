//! What an output's path names, judged before any work: what cannot be written to is told then.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, openat};
use rustix::process::geteuid;

use crate::descriptor::Access;
use crate::exit::{Exit, Failure};
use crate::identity::Identity;
use crate::named::{Entry, Named};

/// A place that can be written to.
#[derive(Debug)]
pub(crate) struct Target {
    pub(super) kind: Kind,
    /// For messages.
    pub(super) name: String,
}

#[derive(Debug)]
pub(super) enum Kind {
    Stdout,
    /// A descriptor that the program was started with. What is behind stays as it is.
    Descriptor(File),
    /// A device, a named pipe or a socket: it cannot be replaced, so it is written to as it is.
    Special(Entry),
    /// A file to be made, or to be replaced as a whole.
    File(Entry),
}

impl Target {
    /// Finds what `path` names; nothing and `-` are standard output.
    pub(crate) fn judge(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self { kind: Kind::Stdout, name: "standard output".to_owned() });
        };
        let name = path.display().to_string();
        let kind = match Named::by(path).map_err(|error| Failure::create(path, &error))? {
            Named::Descriptor(descriptor) if descriptor.is_standard_output() => Kind::Stdout,
            Named::Descriptor(descriptor) => {
                let opened = descriptor.open(Access::Write);
                Kind::Descriptor(opened.map_err(|error| Failure::create(path, &error))?)
            }
            Named::Entry(entry) => entry_kind(path, entry)?,
        };
        Ok(Self { kind, name })
    }

    /// Tells whether it is a file that appears whole or not at all.
    pub(crate) const fn is_replaced(&self) -> bool {
        matches!(self.kind, Kind::File(_))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn identity(&self) -> Option<Identity> {
        match &self.kind {
            Kind::Stdout => Identity::of_open(io::stdout()),
            Kind::Descriptor(file) => Identity::of_open(file),
            Kind::Special(entry) | Kind::File(entry) => Identity::of_entry(entry),
        }
    }
}

fn entry_kind(path: &Path, entry: Entry) -> Result<Kind, Failure> {
    let create = |error: io::Error| Failure::create(path, &error);
    if let Some(link) = entry.foreign_link() {
        let (path, link) = (path.display(), link.display());
        let message =
            format!("cannot write to {path}: the link {link} is another user's; name the file itself");
        return Err(Failure::new(Exit::CannotCreate, message));
    }
    let Some(there) = entry.stat().map_err(create)? else { return Ok(Kind::File(entry)) };
    if let Some(failure) = refusal(path, &there) {
        return Err(failure);
    }
    match FileType::from_raw_mode(there.st_mode) {
        FileType::Directory => return Err(create(ErrorKind::IsADirectory.into())),
        FileType::RegularFile => {}
        _ => return Ok(Kind::Special(entry)),
    }
    let folder = fstat(entry.folder()).map_err(|error| create(error.into()))?;
    match hindrance(&entry, &there, &folder) {
        None => Ok(Kind::File(entry)),
        Some(hindrance) => {
            let path = path.display();
            let message =
                format!("cannot replace {path}: {hindrance}; choose another path, or write to it with >");
            Err(Failure::new(Exit::CannotCreate, message))
        }
    }
}

/// Refuses what another user has put there: his pipe would have him read, and his file's rights would let
/// him. Devices are made by nobody but root.
pub(super) fn refusal(path: &Path, there: &Stat) -> Option<Failure> {
    let kind = FileType::from_raw_mode(there.st_mode);
    let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
    if is_device || kind == FileType::Directory || is_trusted(there.st_uid) {
        return None;
    }
    let path = path.display();
    let message = format!(
        "cannot write to {path}: it belongs to another user; choose another path, or write to it with >"
    );
    Some(Failure::new(Exit::CannotCreate, message))
}

/// Tells whether a file of this owner is as good as the user's own.
fn is_trusted(owner: u32) -> bool {
    owner == geteuid().as_raw() || owner == 0
}

/// Opens what is written to as it is, unless it was exchanged since it was judged.
pub(super) fn open_special(entry: &Entry, name: &str) -> Result<File, Failure> {
    let create = |error: io::Error| Failure::create(Path::new(name), &error);
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = openat(entry.folder(), entry.name(), flags, Mode::empty());
    let file = File::from(opened.map_err(|error| create(error.into()))?);
    let there = fstat(&file).map_err(|error| create(error.into()))?;
    if FileType::from_raw_mode(there.st_mode) == FileType::RegularFile {
        return Err(create(io::Error::other("it has become a file meanwhile")));
    }
    refusal(Path::new(name), &there).map_or(Ok(file), Err)
}

/// Returns why a file could not be replaced though files can be made beside it.
fn hindrance(entry: &Entry, file: &Stat, folder: &Stat) -> Option<&'static str> {
    if let Some(hindrance) = attributes(entry) {
        return Some(hindrance);
    }
    let us = geteuid().as_raw();
    let is_sticky = folder.st_mode & STICKY != 0;
    (is_sticky && file.st_uid != us && folder.st_uid != us && !may_act_as_owner())
        .then_some("it belongs to another user, and so does its folder, where nobody replaces others' files")
}

/// Returns why the kernel would not rename over it, as far as that shows in the file itself.
#[cfg(target_os = "linux")]
fn attributes(entry: &Entry) -> Option<&'static str> {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
    // Old kernels do not tell; then the end of the run does.
    let answer =
        statx(entry.folder(), entry.name(), AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).ok()?;
    let has = |attribute| answer.stx_attributes.contains(attribute);
    if has(StatxAttributes::MOUNT_ROOT) {
        Some("it is a mount point of its own, as a file that is bound into a container")
    } else if has(StatxAttributes::IMMUTABLE) || has(StatxAttributes::APPEND) {
        Some("its attributes (lsattr) let it be appended to at most")
    } else {
        None
    }
}

#[cfg(not(target_os = "linux"))]
fn attributes(_: &Entry) -> Option<&'static str> {
    None
}

#[cfg(target_os = "linux")]
fn may_act_as_owner() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::FOWNER))
}

#[cfg(not(target_os = "linux"))]
fn may_act_as_owner() -> bool {
    geteuid().is_root()
}

const STICKY: u32 = 0o1000;
