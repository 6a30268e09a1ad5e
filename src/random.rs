//! Randomness that can fail.

use std::fmt;

use ring::rand::SecureRandom as _;

/// A cryptographically secure random number generator.
///
/// Every draw can fail, and a failed draw is an error to the caller: there is no fallback.
pub trait SecureRandom: fmt::Debug + Send + Sync + 'static {
    /// Fills `bytes` with random bytes.
    ///
    /// # Errors
    /// [`RandomError`] when the generator cannot deliver; `bytes` is then not to be used.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError>;
}

/// The random number generator could not deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("random number generator failed")]
#[non_exhaustive]
pub struct RandomError;

impl RandomError {
    /// The failure, for implementers of [`SecureRandom`].
    #[expect(clippy::new_without_default, reason = "an error has no default")]
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

/// The operating system's generator: one system call a draw.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SystemRandom;

impl SystemRandom {
    /// The operating system's generator.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl SecureRandom for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        #[expect(clippy::map_err_ignore, reason = "ring's error says nothing")]
        ring::rand::SystemRandom::new().fill(bytes).map_err(|_| RandomError)
    }
}
