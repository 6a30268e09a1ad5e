//! The line of a master-key file.

use claviger::SecretKey;

use super::format;

/// Reads the text of a file.
///
/// # Errors
/// What is wrong with it.
pub fn read(text: &[u8]) -> Result<SecretKey, &'static str> {
    format::decode(text).ok_or_else(|| format::fault(text))
}

/// Writes the text of the file that holds `key`.
#[must_use]
pub fn write(key: &SecretKey) -> Vec<u8> {
    format::encode(key).to_vec()
}
