//! One key that wraps others, held in protected memory.

use claviger_memory::{Arena, LockPolicy, on_wiped_stack};

use crate::aead::{self, AeadKey, Nonce, OVERHEAD_BYTES};
use crate::error::{BackendError, Error};
use crate::random::SecureRandom;
use crate::secret::{KEY_BYTES, SecretKey};

/// A key that wraps other keys by AES-256-GCM, for KMSs that hold a wrapping key themselves.
///
/// What it seals is laid out as Asherah's static KMS and AWS KMS lay it out: `ciphertext ‖ tag ‖ nonce`, with a
/// random nonce and no associated data.
///
/// ```
/// use claviger::backend::KeyWrap;
/// use claviger::{LockPolicy, SecretKey, SystemRandom};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let random = SystemRandom::new();
/// let wrap = KeyWrap::new(&SecretKey::generate(&random)?, LockPolicy::Prefer)?;
/// let key = SecretKey::generate(&random)?;
/// let sealed = wrap.seal(&key, &random)?;
/// assert_eq!(wrap.open(&sealed)?.expose_secret(), key.expose_secret());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct KeyWrap {
    key: AeadKey,
    locks: LockPolicy,
}

impl KeyWrap {
    /// How long a sealed key is, in bytes.
    pub const SEALED_BYTES: usize = KEY_BYTES + OVERHEAD_BYTES;

    /// Takes a wrapping key into protected memory.
    ///
    /// # Errors
    /// Transient when there is no memory that `locks` allows.
    pub fn new(wrapping_key: &SecretKey, locks: LockPolicy) -> Result<Self, BackendError> {
        let key = AeadKey::new(&Arena::new(locks), wrapping_key.expose_secret());
        Ok(Self { key: key.map_err(|error| BackendError::transient(Error::from(error)))?, locks })
    }

    /// Returns how the memory is locked that the wrapping key lies in.
    #[must_use]
    pub const fn lock_policy(&self) -> LockPolicy {
        self.locks
    }

    /// Seals a key.
    ///
    /// # Errors
    /// Transient when no nonce can be drawn, permanent in a forked child.
    pub fn seal(
        &self,
        key: &SecretKey,
        random: &dyn SecureRandom,
    ) -> Result<[u8; Self::SEALED_BYTES], BackendError> {
        let mut sealed = [0; Self::SEALED_BYTES];
        on_wiped_stack(|| {
            let nonce = Nonce::draw(random).map_err(BackendError::transient)?;
            let wrapping_key = self.key.get().map_err(BackendError::permanent)?;
            aead::seal_key(wrapping_key, nonce, key.expose_secret(), &mut sealed)
                .map_err(BackendError::permanent)
        })?;
        Ok(sealed)
    }

    /// Opens what [`seal`](Self::seal) made.
    ///
    /// # Errors
    /// Damaged when it was sealed under another key, or is not what was sealed; permanent in a forked child.
    pub fn open(&self, sealed: &[u8]) -> Result<SecretKey, BackendError> {
        let wrapping_key = self.key.get().map_err(BackendError::permanent)?;
        aead::open_key(wrapping_key, sealed).map_err(BackendError::damaged)
    }
}
