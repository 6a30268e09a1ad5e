//! What the kernel tells of this process.

use std::fs;

/// Returns the value of a field of `/proc/self/status`; `None` where the kernel does not tell.
pub(crate) fn field(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

/// Returns the mode of a new file that everybody may read and write as far as the umask lets them, and
/// the owner's alone where the umask is not known: it cannot be read without being changed for a
/// moment, which other threads would see.
pub(crate) fn new_file_mode() -> u32 {
    let umask = field("Umask").and_then(|mask| u32::from_str_radix(&mask, 8).ok());
    umask.map_or(0o600, |mask| 0o666 & !mask)
}
