//! What Vault answers, and what of it is stored.

use std::time::Duration;

use claviger::{BackendError, SecretKey};

use super::ciphertext::Ciphertext;
use super::fault::Operation;
use super::message;

/// Reads the key that `decrypt` answers with.
///
/// # Errors
/// As of a call.
pub fn key(answer: &[u8]) -> Result<SecretKey, BackendError> {
    Ok(message::read_key(Operation::Unwrap, answer)?)
}

/// Writes the request that wraps `key`.
#[must_use]
pub fn request(key: &SecretKey) -> Vec<u8> {
    message::plaintext(key).to_vec()
}

/// Reads the ciphertext that `encrypt` answers with.
///
/// # Errors
/// As of a call.
pub fn ciphertext(answer: &[u8]) -> Result<&str, BackendError> {
    super::read_ciphertext(Operation::Wrap, answer)
}

/// Reads the token that a login answers with, and how long it is good.
///
/// # Errors
/// As of a call.
pub fn grant(answer: &[u8]) -> Result<(&str, Duration), BackendError> {
    let (token, time) = message::read_grant(Operation::Login, answer)?;
    Ok((token, time.ttl))
}

/// Reads how long a token is still good.
///
/// # Errors
/// As of a call.
pub fn time(answer: &[u8]) -> Result<Duration, BackendError> {
    Ok(message::read_time(Operation::LookUp, answer)?.ttl)
}

/// Reads what an error says, of an answer to a request with `secret` in it.
#[must_use]
pub fn words(answer: &[u8], secret: &[u8]) -> String {
    message::read_errors(answer, &[secret])
}

/// Reads what is stored of a wrapped key: all of it as text, and the version of the transit key.
///
/// # Errors
/// As of a call.
pub fn stored(stored: &[u8]) -> Result<(&str, u32), BackendError> {
    let stored = Ciphertext::parse(stored)?;
    Ok((stored.text(), stored.version()))
}
