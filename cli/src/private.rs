//! Files with secrets in them: only their owner may read them.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

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
    // Of its full size at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(vec![0; bytes_max]);
    let mut fill = || -> io::Result<(u32, usize)> {
        let mut file = File::open(path)?;
        let mode = file.metadata()?.permissions().mode();
        let mut len = 0;
        while let Some(free) = bytes.get_mut(len..).filter(|free| !free.is_empty()) {
            match file.read(free)? {
                0 => break,
                more => len += more,
            }
        }
        Ok((mode, len))
    };
    let (mode, len) = fill().map_err(|error| Failure::read(&shown, &error))?;
    check_mode(mode, &shown, if_seen)?;
    bytes.truncate(len);
    Ok(bytes)
}

/// Refuses a file that anybody but its owner has a right on.
pub(crate) fn check_mode(mode: u32, shown: &str, if_seen: &str) -> Result<(), Failure> {
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let message = format!("{shown} can be read by others; say chmod 600 and, if they may have, {if_seen}");
    Err(Failure::new(Exit::Permission, message))
}
