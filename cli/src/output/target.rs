//! What an output's path names, judged before any work: what cannot be written to is told then.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::descriptor::Access;
use crate::exit::{Exit, Failure};
use crate::identity::Identity;
use crate::named::Named;

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
    Special(PathBuf),
    /// A file to be made, or to be replaced as a whole. No link leads to it.
    File(PathBuf),
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
            Named::Entry { folder, name: entry } => entry_kind(path, &folder, &entry)?,
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
            Kind::Special(path) | Kind::File(path) => Identity::of_path(path),
        }
    }
}

fn entry_kind(path: &Path, folder: &Path, name: &OsStr) -> Result<Kind, Failure> {
    let entry = folder.join(name);
    let create = |error: io::Error| Failure::create(path, &error);
    let there = match fs::symlink_metadata(&entry) {
        Ok(there) => there,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Kind::File(entry)),
        Err(error) => return Err(create(error)),
    };
    if there.is_dir() {
        return Err(create(ErrorKind::IsADirectory.into()));
    }
    if !there.is_file() {
        return Ok(Kind::Special(entry));
    }
    let folder = fs::metadata(folder).map_err(create)?;
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

/// Returns why a file could not be replaced though files can be made beside it.
fn hindrance(path: &Path, file: &Metadata, folder: &Metadata) -> Option<&'static str> {
    if let Some(hindrance) = attributes(path) {
        return Some(hindrance);
    }
    let us = rustix::process::geteuid().as_raw();
    let is_sticky = folder.mode() & STICKY != 0;
    (is_sticky && file.uid() != us && folder.uid() != us && !may_act_as_owner())
        .then_some("it belongs to another user, and so does its folder, where nobody replaces others' files")
}

/// Returns why the kernel would not rename over it, as far as that shows in the file itself.
#[cfg(target_os = "linux")]
fn attributes(path: &Path) -> Option<&'static str> {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    // Old kernels do not tell; then the end of the run does.
    let answer = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).ok()?;
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
fn attributes(_: &Path) -> Option<&'static str> {
    None
}

#[cfg(target_os = "linux")]
fn may_act_as_owner() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::FOWNER))
}

#[cfg(not(target_os = "linux"))]
fn may_act_as_owner() -> bool {
    rustix::process::geteuid().is_root()
}

const STICKY: u32 = 0o1000;
