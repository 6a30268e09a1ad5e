//! AES-256-GCM (NIST SP 800-38D) over ring: random 96-bit nonce, 128-bit tag, no AAD.
//!
//! The wire form is Asherah's, `ciphertext ‖ tag ‖ nonce`. Keys made here live in slots of
//! protected memory; whoever makes one on the stack does so under [`on_wiped_stack`].

use claviger_memory::{Arena, InitError, Slot, Wiped, on_wiped_stack};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, UnboundKey};

use crate::random::{RandomError, SecureRandom};
use crate::secret::{KEY_BYTES, SecretKey};

pub(crate) const NONCE_BYTES: usize = 12;
pub(crate) const TAG_BYTES: usize = 16;
/// What sealing adds to the plaintext.
pub(crate) const OVERHEAD_BYTES: usize = TAG_BYTES + NONCE_BYTES;

/// A nonce for one sealing, which takes it: it cannot be copied, so that none serves twice.
#[derive(Debug)]
pub(crate) struct Nonce([u8; NONCE_BYTES]);

impl Nonce {
    /// A nonce of random bytes that nothing else is made of.
    pub(crate) const fn new(random: [u8; NONCE_BYTES]) -> Self {
        Self(random)
    }

    pub(crate) fn draw(random: &dyn SecureRandom) -> Result<Self, RandomError> {
        let mut bytes = [0; NONCE_BYTES];
        random.fill(&mut bytes)?;
        Ok(Self(bytes))
    }
}

/// What was to be opened is forged, damaged or sealed under another key: it is not said which.
#[derive(Debug, thiserror::Error)]
#[error("authentication failed")]
pub(crate) struct Unauthenticated;

/// The cipher refused a key or a plaintext. That is of another length than we have any: a key not of 256 bits,
/// a plaintext of 64 GiB, or a buffer without room for tag and nonce.
#[derive(Debug, thiserror::Error)]
#[error("the cipher refused a key or a plaintext")]
pub(crate) struct Refused;

/// A key with its schedule expanded, in protected memory.
#[derive(Debug)]
pub(crate) struct AeadKey(Slot<LessSafeKey>);

impl AeadKey {
    /// Expands `key` into a slot of `arena`.
    pub(crate) fn new(arena: &Arena, key: &[u8; KEY_BYTES]) -> Result<Self, InitError<Refused>> {
        arena.try_init(|| expand(key)).map(Self)
    }

    /// Returns the key for one use; a slot that was wiped by `fork` is recognised.
    pub(crate) fn get(&self) -> Result<&LessSafeKey, Wiped> {
        self.0.get()
    }
}

/// Expands a key on the stack. The caller has that stack wiped.
///
/// The error has no size, and the result is best borrowed from: in a `Result` with a larger error the
/// schedule is moved in many small pieces.
#[inline]
pub(crate) fn expand(key: &[u8; KEY_BYTES]) -> Result<LessSafeKey, Refused> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(|_unspecified| Refused)
}

/// Seals the first part of `buffer` in place and writes tag and nonce behind it.
///
/// `buffer` is the plaintext followed by [`OVERHEAD_BYTES`] of room.
pub(crate) fn seal(key: &LessSafeKey, nonce: Nonce, buffer: &mut [u8]) -> Result<(), Refused> {
    seal_with_aad(key, nonce, &[], buffer)
}

/// Opens `sealed` in place; returns the plaintext, which is its first part.
pub(crate) fn open<'a>(key: &LessSafeKey, sealed: &'a mut [u8]) -> Result<&'a mut [u8], Unauthenticated> {
    open_with_aad(key, &[], sealed)
}

/// Our records carry no additional data; the test vectors of the algorithm do.
fn seal_with_aad(
    key: &LessSafeKey,
    Nonce(nonce): Nonce,
    aad: &[u8],
    buffer: &mut [u8],
) -> Result<(), Refused> {
    let Some((rest, nonce_room)) = buffer.split_last_chunk_mut::<NONCE_BYTES>() else {
        return Err(Refused);
    };
    let Some((plaintext, tag_room)) = rest.split_last_chunk_mut::<TAG_BYTES>() else {
        return Err(Refused);
    };
    let tag = key
        .seal_in_place_separate_tag(
            ring::aead::Nonce::assume_unique_for_key(nonce),
            Aad::from(aad),
            plaintext,
        )
        .map_err(|_unspecified| Refused)?;
    tag_room.copy_from_slice(tag.as_ref());
    *nonce_room = nonce;
    Ok(())
}

fn open_with_aad<'a>(
    key: &LessSafeKey,
    aad: &[u8],
    sealed: &'a mut [u8],
) -> Result<&'a mut [u8], Unauthenticated> {
    let Some((ciphertext_and_tag, nonce)) = sealed.split_last_chunk_mut::<NONCE_BYTES>() else {
        return Err(Unauthenticated);
    };
    key.open_in_place(ring::aead::Nonce::assume_unique_for_key(*nonce), Aad::from(aad), ciphertext_and_tag)
        .map_err(|_unspecified| Unauthenticated)
}

/// Seals the key `plaintext` into `sealed`.
pub(crate) fn seal_key(
    key: &LessSafeKey,
    nonce: Nonce,
    plaintext: &[u8; KEY_BYTES],
    sealed: &mut [u8; KEY_BYTES + OVERHEAD_BYTES],
) -> Result<(), Refused> {
    let (room, _) = sealed.split_at_mut(KEY_BYTES);
    room.copy_from_slice(plaintext);
    seal(key, nonce, sealed).inspect_err(|_| claviger_memory::wipe(sealed))
}

/// Opens a sealed key, leaving no copy besides the one it returns.
///
/// [`Unauthenticated`] also answers a length that no sealed key has.
pub(crate) fn open_key(key: &LessSafeKey, sealed: &[u8]) -> Result<SecretKey, Unauthenticated> {
    let sealed: &[u8; KEY_BYTES + OVERHEAD_BYTES] =
        sealed.try_into().map_err(|_wrong_length| Unauthenticated)?;
    on_wiped_stack(|| {
        let mut buffer = *sealed;
        let opened = open(key, &mut buffer)?;
        SecretKey::try_init(|bytes| {
            bytes.copy_from_slice(opened);
            Ok(())
        })
    })
}

#[cfg(test)]
mod tests;
