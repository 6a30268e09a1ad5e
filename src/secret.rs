//! Raw keys on their way.

use std::fmt;

use zeroize::Zeroizing;

use crate::random::{RandomError, SecureRandom};

/// A 256-bit key in the clear, on its way between the generator, the KMS and protected memory.
///
/// It is filled in place, never cloned or compared, prints as `[REDACTED]` and is wiped when
/// dropped. Moving it moves a pointer, not the bytes.
pub struct SecretKey(Box<Zeroizing<[u8; KEY_BYTES]>>);

/// How long every key of the hierarchy is.
pub(crate) const KEY_BYTES: usize = 32;

impl SecretKey {
    /// Lets `fill` write the key in place.
    ///
    /// # Errors
    /// Whatever `fill` returns; what it wrote is wiped.
    pub fn try_init<E>(fill: impl FnOnce(&mut [u8; KEY_BYTES]) -> Result<(), E>) -> Result<Self, E> {
        let mut key = Self(Box::new(Zeroizing::new([0; KEY_BYTES])));
        fill(&mut key.0)?;
        Ok(key)
    }

    /// Draws a new key.
    ///
    /// # Errors
    /// [`RandomError`] when the generator fails.
    pub fn generate(random: &dyn SecureRandom) -> Result<Self, RandomError> {
        Self::try_init(|bytes| random.fill(bytes))
    }

    /// Returns the key's bytes: the one door through which they leave. For implementers of a KMS.
    #[must_use]
    pub fn expose_secret(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey([REDACTED])")
    }
}
