//! Decrypted data.

use std::fmt;
use std::ops::Deref;

use crate::aead::OVERHEAD_BYTES;

/// What a decrypt returns: bytes that are wiped when dropped and do not print.
// Two words, which are returned in registers; a `Vec` would go through memory, and whoever reads it
// there at once waits for it.
pub struct Plaintext {
    /// The plaintext, and behind it the tag and nonce it was sealed with.
    opened: Box<[u8]>,
}

impl Plaintext {
    /// Takes what was sealed data until it was opened in place.
    pub(crate) const fn new(opened: Box<[u8]>) -> Self {
        Self { opened }
    }
}

impl Deref for Plaintext {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.opened.split_last_chunk::<OVERHEAD_BYTES>().map_or(&[], |(plaintext, _)| plaintext)
    }
}

impl AsRef<[u8]> for Plaintext {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plaintext([REDACTED], {} bytes)", self.len())
    }
}

impl Drop for Plaintext {
    fn drop(&mut self) {
        claviger_memory::wipe(&mut self.opened);
    }
}
