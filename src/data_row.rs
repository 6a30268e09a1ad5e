//! The hot path: one record sealed or opened under a key at hand.
//!
//! The data row key lives on the stack for the time of one call, and that stack is wiped.

use std::cell::Cell;
use std::ops::Deref;
use std::sync::Arc;

use claviger_memory::{StackWipe, wipe};

use crate::aead::{self, NONCE_BYTES, Nonce, OVERHEAD_BYTES};
use crate::clock::Moment;
use crate::error::Error;
use crate::key::CryptoKey;
use crate::plaintext::Plaintext;
use crate::random::SecureRandom;
use crate::record::{DataRowRecord, KeyId, KeyMeta, MalformedRecord};
use crate::secret::KEY_BYTES;

/// One draw serves one record: the data row key, the nonce it seals with, the nonce it is sealed
/// with, and whether this is the last that is sealed so.
pub(crate) const DRAW_BYTES: usize = KEY_BYTES + 2 * NONCE_BYTES + size_of::<u64>();

static SEALING: StackWipe = StackWipe::new();
static OPENING: StackWipe = StackWipe::new();

thread_local! {
    /// This thread's copy of the key id it used last.
    static PARENT_ID: Cell<Option<KeyId>> = const { Cell::new(None) };
}

/// Encrypts `plaintext` under a fresh data row key, and that under `key`, which may wrap so many. Calls
/// `on_worn_out` if it is to wrap no more, by chance.
pub(crate) fn seal(
    key: impl Deref<Target = CryptoKey>,
    random: &dyn SecureRandom,
    now: Moment,
    (wraps_max, on_worn_out): (u64, impl FnOnce()),
    plaintext: &[u8],
) -> Result<DataRowRecord, Error> {
    let mut data = Vec::with_capacity(plaintext.len() + OVERHEAD_BYTES);
    data.extend_from_slice(plaintext);
    data.resize(plaintext.len() + OVERHEAD_BYTES, 0);
    let mut wrapped_key = [0; KEY_BYTES + OVERHEAD_BYTES];
    let mut is_worn_out = false;
    let (buffer, wrapped, worn_out) = (&mut data, &mut wrapped_key, &mut is_worn_out);
    // `key` moves in, to be given back as soon as it has served: that waits for all writes under way,
    // and would wait for the wiping.
    let sealed = SEALING.run(move || {
        let mut draw = [0; DRAW_BYTES];
        random.fill(&mut draw)?;
        let (data_row_key, data_nonce, key_nonce, chance) = split(&draw);
        aead::seal_key(key.cipher()?, key_nonce, data_row_key, wrapped)?;
        *worn_out = key.wraps().add_one(wraps_max, chance);
        let parent = KeyMeta::new(own_copy(key.meta().id()), key.created());
        drop(key);
        match &aead::expand(data_row_key) {
            Ok(cipher) => aead::seal(cipher, data_nonce, buffer).map(|()| parent).map_err(Error::from),
            Err(aead::Refused) => Err(Error::Cipher),
        }
    });
    if is_worn_out {
        on_worn_out();
    }
    match sealed {
        Ok(parent) => Ok(DataRowRecord::new(now.unix_seconds(), wrapped_key, parent, data)),
        Err(error) => {
            wipe(&mut data);
            Err(error)
        }
    }
}

/// Returns a copy of the id that only this thread's records share: a count shared by all threads
/// would be written to by each of them, and a fresh copy costs an allocation.
fn own_copy(id: &KeyId) -> KeyId {
    let fresh = || KeyId::new(id.as_str());
    PARENT_ID
        .try_with(|last| {
            let copy = last.take().filter(|last| last == id).unwrap_or_else(fresh);
            last.set(Some(copy.clone()));
            copy
        })
        .unwrap_or_else(|_thread_ends| fresh())
}

fn split(draw: &[u8; DRAW_BYTES]) -> (&[u8; KEY_BYTES], Nonce, Nonce, u64) {
    const KEY_NONCE: usize = KEY_BYTES + NONCE_BYTES;
    match (
        draw.first_chunk(),
        chunk_from::<KEY_BYTES, _>(draw),
        chunk_from::<KEY_NONCE, _>(draw),
        draw.last_chunk(),
    ) {
        (Some(key), Some(data_nonce), Some(key_nonce), Some(chance)) => {
            (key, Nonce::new(*data_nonce), Nonce::new(*key_nonce), u64::from_ne_bytes(*chance))
        }
        _ => unreachable!("the parts add up to the draw"),
    }
}

fn chunk_from<const AT: usize, const BYTES: usize>(draw: &[u8; DRAW_BYTES]) -> Option<&[u8; BYTES]> {
    draw.get(AT..)?.first_chunk()
}

/// Decrypts `data`, the sealed data of a record with this wrapped key, in place. What does not open under
/// `key` is tried under what its version was before.
pub(crate) fn open(
    key: impl Deref<Target = CryptoKey>,
    formers: impl FnOnce() -> Vec<Arc<CryptoKey>>,
    wrapped_key: &[u8; KEY_BYTES + OVERHEAD_BYTES],
    mut data: Box<[u8]>,
) -> Result<Plaintext, Error> {
    let buffer = &mut data;
    // `key` moves in, as in `seal`.
    let opened = OPENING.run(move || {
        let mut unwrapped = *wrapped_key;
        if aead::open(key.cipher()?, &mut unwrapped).is_err() {
            let mut formers = formers().into_iter();
            let opens = |former: Arc<CryptoKey>| {
                unwrapped = *wrapped_key;
                former.cipher().is_ok_and(|cipher| aead::open(cipher, &mut unwrapped).is_ok())
            };
            if !formers.any(opens) {
                return Err(Error::Authentication);
            }
        }
        let data_row_key = unwrapped.first_chunk().ok_or(Error::Authentication)?;
        drop(key);
        match &aead::expand(data_row_key) {
            Ok(cipher) => aead::open(cipher, buffer).map(drop).map_err(Error::from),
            Err(aead::Refused) => Err(Error::Cipher),
        }
    });
    match opened {
        Ok(()) => Ok(Plaintext::new(data)),
        Err(error) => {
            wipe(&mut data);
            Err(error)
        }
    }
}

/// Refuses sealed data that cannot hold a tag and a nonce, or whose plaintext is over the limit,
/// before anything is loaded or allocated for it.
pub(crate) fn check_sealed(data_bytes: usize, plaintext_bytes_max: usize) -> Result<(), Error> {
    let bytes = data_bytes
        .checked_sub(OVERHEAD_BYTES)
        .ok_or_else(|| MalformedRecord::new("the data is too short for a tag and a nonce"))?;
    check_payload(bytes, plaintext_bytes_max)
}

/// Refuses a plaintext over the limit.
pub(crate) const fn check_payload(bytes: usize, max_bytes: usize) -> Result<(), Error> {
    if bytes > max_bytes { Err(Error::TooLarge { bytes, max_bytes }) } else { Ok(()) }
}
