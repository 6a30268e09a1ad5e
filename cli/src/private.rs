//! Files with secrets in them: only their owner may read them.

use std::io::Read as _;
use std::path::Path;

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
    let Some(exposure) = file.exposure() else { return Ok(()) };
    let message = match exposure {
        Exposure::Others => {
            format!("{shown} can be read by others; say chmod 600 and, if they may have, {if_seen}")
        }
        Exposure::AnotherUser => {
            format!("{shown} belongs to another user; say chown and, if they should not know it, {if_seen}")
        }
        Exposure::NoFile => format!("{shown} is neither a file nor a pipe; name one"),
        Exposure::Folder => {
            format!(
                "{shown} can be exchanged by everybody; say chmod o-w for its folder and those on the way to it"
            )
        }
        Exposure::Way => {
            format!("{shown} is reached by a link or folder of another user; name the file itself")
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
