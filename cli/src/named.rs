//! What a path names, its links followed; also one that names nothing yet.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::descriptor::Descriptor;

#[derive(Debug)]
pub(crate) enum Named {
    Descriptor(Descriptor),
    /// A name, which is no link, in a folder that is there and is reached without links.
    Entry {
        folder: PathBuf,
        name: OsString,
    },
}

impl Named {
    /// Follows the links of `path` as the kernel does, but for those that name descriptors.
    pub(crate) fn by(path: &Path) -> io::Result<Self> {
        let mut path = path.to_owned();
        for _ in 0..LINKS_MAX {
            let (folder, name) = split(&path)?;
            let folder = fs::canonicalize(folder)?;
            if let Some(descriptor) = Descriptor::at(&folder, name) {
                return Ok(Self::Descriptor(descriptor));
            }
            match fs::read_link(folder.join(name)) {
                Ok(target) => path = folder.join(target),
                // It is no link, or nothing.
                Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound) => {
                    return Ok(Self::Entry { folder, name: name.to_owned() });
                }
                Err(error) => return Err(error),
            }
        }
        Err(rustix::io::Errno::LOOP.into())
    }
}

/// Splits a path into folder and name. `Path` takes `new/` and `new/.` for `new`, and the kernel for a
/// folder.
fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let bytes = path.as_os_str().as_bytes();
    let name_begins = bytes.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let (folder, name) = bytes.split_at(name_begins);
    match name {
        b"" if folder.is_empty() => Err(ErrorKind::NotFound.into()),
        b"" | b"." | b".." => Err(ErrorKind::IsADirectory.into()),
        _ => {
            let folder = if folder.is_empty() { b"." } else { folder };
            Ok((Path::new(OsStr::from_bytes(folder)), OsStr::from_bytes(name)))
        }
    }
}

/// As many as Linux follows.
const LINKS_MAX: usize = 40;
