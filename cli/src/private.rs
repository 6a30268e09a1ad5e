//! Files with secrets in them, which only their owner may read, and files that say what is done, which nobody
//! else may write.

use std::io::Read as _;
use std::path::Path;

#[cfg(any(feature = "pkcs11", feature = "vault"))]
use claviger_kms::Place;
use claviger_kms::{Exposure, PrivateFile};
use zeroize::Zeroizing;

use crate::encoding::{BYTE_ORDER_MARK, is_utf16};
use crate::exit::{Exit, Failure};

/// Reads a file of up to `bytes_max` bytes that only its owner may read; of a longer one, so many.
/// `what` names it, as in "the master key"; `if_seen` says what to do when others may have read it.
pub(crate) fn read(
    path: &Path,
    what: &str,
    bytes_max: usize,
    if_seen: &str,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let shown = format!("{what} {}", path.display());
    let mut file = PrivateFile::open(path).map_err(|error| Failure::read(&shown, &error))?;
    check(&file, &shown, if_seen)?;
    // Of its full size at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(vec![0; bytes_max]);
    let mut len = 0;
    while let Some(free) = bytes.get_mut(len..).filter(|free| !free.is_empty()) {
        match file.read(free).map_err(|error| Failure::read(&shown, &error))? {
            0 => break,
            more => len += more,
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// Refuses a file that is not its owner's alone.
pub(crate) fn check(file: &PrivateFile, shown: &str, if_seen: &str) -> Result<(), Failure> {
    refuse(file.exposure(), shown, if_seen)
}

/// Refuses a file that says what is done and could be another user's work.
pub(crate) fn check_author(file: &PrivateFile, shown: &str) -> Result<(), Failure> {
    refuse(file.intrusion(), shown, "see what is in it")
}

/// The same of a file that something else opens, and tells of where it cannot: where nobody else can exchange
/// it or put it there, it is the same one then.
#[cfg(any(feature = "pkcs11", feature = "vault"))]
pub(crate) fn check_author_of(path: &Path, what: &str) -> Result<(), Failure> {
    let shown = format!("{what} {}", path.display());
    if let Ok(file) = PrivateFile::open(path) {
        return check_author(&file, &shown);
    }
    let place = Place::find(path).map_err(|error| Failure::read(&shown, &error))?;
    refuse(place.exposure(), &shown, "see what is in it")
}

fn refuse(exposure: Option<&Exposure>, shown: &str, if_done: &str) -> Result<(), Failure> {
    let Some(exposure) = exposure else { return Ok(()) };
    let message = match exposure {
        Exposure::Others => {
            format!("{shown} can be read by others; say chmod 600 and, if they may have, {if_done}")
        }
        Exposure::Writable => {
            format!("{shown} can be written to by others; say chmod go-w and, if they may have, {if_done}")
        }
        Exposure::AnotherUser => {
            format!("{shown} belongs to another user; say chown and, if that is none to trust, {if_done}")
        }
        Exposure::NoFile => format!("{shown} is neither a file nor a pipe; name one"),
        Exposure::Folder(folder) => {
            let folder = folder.display();
            format!("{shown} can be exchanged by others, who may write to {folder}; say chmod go-w {folder}")
        }
        Exposure::ForeignFolder(folder) => {
            let folder = folder.display();
            format!(
                "{shown} can be exchanged by another user, whose {folder} is; move it, or say chown {folder}"
            )
        }
        Exposure::ForeignLink(link) => {
            format!("{shown} is reached by another user's link {}; name the file itself", link.display())
        }
        other => format!("{shown} is not its owner's alone ({other}); see to it and run it again"),
    };
    Err(Failure::new(Exit::Permission, message))
}

/// Reads a file's text; an error says what the file holds instead, and what to do.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, &'static str> {
    if is_utf16(bytes) {
        return Err("is in UTF-16, as some editors and shells write; write it anew in UTF-8");
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        return Err("begins with a byte order mark; write it anew without one");
    }
    str::from_utf8(bytes).map_err(|_invalid| "is not UTF-8 text; write it anew")
}

/// Reads a file's text, which is one line, without the white space around it.
pub(crate) fn line(bytes: &[u8]) -> Result<&str, &'static str> {
    match text(bytes)?.trim_ascii() {
        "" => Err("is empty; write it anew"),
        line if line.contains(['\n', '\r']) => Err("has more than one line; leave one"),
        line if line.contains(char::is_control) => Err("has control characters; write it anew"),
        line => Ok(line),
    }
}
