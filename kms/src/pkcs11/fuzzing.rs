//! The stored form of a key that a token wrapped.

use claviger::BackendError;

use super::format::Wrapped;

/// Takes a stored form apart: the label in it, and the form as it is put together again.
///
/// # Errors
/// Where it could not have been written so.
pub fn read(stored: &[u8]) -> Result<(String, Vec<u8>), BackendError> {
    let wrapped = Wrapped::parse(stored)?;
    Ok((wrapped.label.clone(), wrapped.into_bytes()))
}
