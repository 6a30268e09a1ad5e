//! Files with secrets in them, which only their owner may read, and files that say what is done, which nobody
//! else may write: for programs that read a configuration of their own.

use std::io::Read as _;
use std::path::Path;

#[cfg(any(feature = "pkcs11", feature = "vault"))]
use claviger_kms::Place;
use claviger_kms::{Exposure, PrivateFile};
use zeroize::Zeroizing;

use crate::error::SpecError;

/// Reads a file of up to `bytes_max` bytes that only its owner may read; of a longer one, so many.
/// `what` names it, as in "the master key"; `if_seen` says what to do when others may have read it.
///
/// # Errors
/// [`SpecFault::Exposed`](crate::SpecFault) if others may read it, [`SpecFault::Unreadable`](crate::SpecFault) if
/// it cannot be read.
pub fn read(
    path: &Path,
    what: &str,
    bytes_max: usize,
    if_seen: &str,
) -> Result<Zeroizing<Vec<u8>>, SpecError> {
    let shown = format!("{what} {}", path.display());
    let mut file = PrivateFile::open(path).map_err(|error| SpecError::unreadable(&shown, error))?;
    check(&file, &shown, if_seen)?;
    // Of its full size at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(vec![0; bytes_max]);
    let mut len = 0;
    while let Some(free) = bytes.get_mut(len..).filter(|free| !free.is_empty()) {
        match file.read(free).map_err(|error| SpecError::unreadable(&shown, error))? {
            0 => break,
            more => len += more,
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// Refuses a file that is not its owner's alone. `shown` names it and its path.
///
/// # Errors
/// [`SpecFault::Exposed`](crate::SpecFault).
pub fn check(file: &PrivateFile, shown: &str, if_seen: &str) -> Result<(), SpecError> {
    refuse(file.exposure(), shown, if_seen)
}

/// Refuses a file that says what is done and could be another user's work.
///
/// # Errors
/// [`SpecFault::Exposed`](crate::SpecFault).
pub fn check_author(file: &PrivateFile, shown: &str) -> Result<(), SpecError> {
    refuse(file.intrusion(), shown, "see what is in it")
}

/// The same of a file that something else opens, and tells of where it cannot: where nobody else can exchange
/// it or put it there, it is the same one then.
#[cfg(any(feature = "pkcs11", feature = "vault"))]
pub(crate) fn check_author_of(path: &Path, what: &str) -> Result<(), SpecError> {
    let shown = format!("{what} {}", path.display());
    if let Ok(file) = PrivateFile::open(path) {
        return check_author(&file, &shown);
    }
    let place = Place::find(path).map_err(|error| SpecError::unreadable(&shown, error))?;
    refuse(place.exposure(), &shown, "see what is in it")
}

fn refuse(exposure: Option<&Exposure>, shown: &str, if_done: &str) -> Result<(), SpecError> {
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
    Err(SpecError::exposed(message))
}

/// Reads the file that a description is in: one line, as `content` says, and nothing else. `called` is the name
/// of what says `@FILE`, for messages; `if_seen` says what to do when others may have read it.
///
/// # Errors
/// As for [`read`], and if there is no such line in it.
pub fn read_description(file: &str, called: &str, content: &str, if_seen: &str) -> Result<String, SpecError> {
    let wrong = |why: &str| SpecError::wrong(&format!("{called} @{file}: {why}"));
    if file.is_empty() {
        return Err(wrong("lacks its file; say @FILE"));
    }
    let bytes = read(Path::new(file), &format!("the file of {called}"), DESCRIPTION_BYTES_MAX, if_seen)?;
    match line(&bytes) {
        Ok(text) if text.starts_with('@') => {
            Err(wrong(&format!("the file names a file; write {content} into it")))
        }
        Ok(text) => Ok(text.to_owned()),
        Err(why) => Err(wrong(&format!("the file {why}, with {content} and nothing else"))),
    }
}

/// Reads a text by `read`, or the file that it names as `@FILE`, which only its owner may read. `content` says what
/// stands in that file, and `if_seen` what to do when others may have read it.
pub(crate) fn by_reference<T>(
    text: &str,
    called: &str,
    (content, if_seen): (&str, &str),
    read: impl FnOnce(&str, &str) -> Result<T, SpecError>,
) -> Result<T, SpecError> {
    match text.strip_prefix('@') {
        Some(file) => read(&read_description(file, called, content, if_seen)?, called),
        None => read(text, called),
    }
}

/// A text and some white space.
const DESCRIPTION_BYTES_MAX: usize = 8 << 10;

/// Reads a file's text.
///
/// # Errors
/// With what the file holds instead, and what to do.
pub fn text(bytes: &[u8]) -> Result<&str, &'static str> {
    if is_utf16(bytes) {
        return Err("is in UTF-16, as some editors and shells write; write it anew in UTF-8");
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        return Err("begins with a byte order mark; write it anew without one");
    }
    str::from_utf8(bytes).map_err(|_invalid| "is not UTF-8 text; write it anew")
}

/// Reads a file's text, which is one line, without the white space around it.
///
/// # Errors
/// With what the file holds instead, and what to do.
pub fn line(bytes: &[u8]) -> Result<&str, &'static str> {
    match text(bytes)?.trim_ascii() {
        "" => Err("is empty; write it anew"),
        line if line.contains(['\n', '\r']) => Err("has more than one line; leave one"),
        line if line.contains(char::is_control) => Err("has control characters; write it anew"),
        line => Ok(line),
    }
}

/// Returns `true` for UTF-16, by its mark or by the zeros beside its first two characters. It is ASCII that the
/// files that claviger reads begin with, and none of them has zeros there.
#[must_use]
pub fn is_utf16(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [1..=255, 0, 1..=255, 0, ..] | [0, 1..=255, 0, 1..=255, ..]
    )
}

/// What some programs put before UTF-8.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf_16_is_told_with_and_without_its_mark() {
        for text in ["id,mail", "{\"id\":1}", "\u{feff}id,mail", "\u{feff}é,x"] {
            let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            assert!(is_utf16(&little) && is_utf16(&big), "{text}");
            assert!(!is_utf16(text.as_bytes()), "{text}");
        }
        for other in [b"".as_slice(), b"i", b"i\0", b"\0\0\0\0", b"id\0\0", b"\xef\xbb\xbf"] {
            assert!(!is_utf16(other), "{other:?}");
        }
    }
}
