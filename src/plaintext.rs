//! Decrypted data.

use std::fmt;
use std::mem;
use std::ops::Deref;
use std::str::Utf8Error;

use zeroize::Zeroizing;

use crate::aead::OVERHEAD_BYTES;

/// What a decrypt returns: bytes that are wiped when dropped and do not print.
///
/// Of a text there is [`to_str`](Self::to_str), which copies nothing and serves most callers. One that
/// passes the text on takes [`into_string`](Self::into_string), or makes a type of its own of the
/// `&str`, `SecretString` of the crate `secrecy` say:
///
/// ```
/// # use claviger::{InMemoryMetastore, SecretKey, SessionFactory, StaticKms, SystemRandom};
/// # use secrecy::ExposeSecret as _;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let kms = StaticKms::new(&SecretKey::generate(&SystemRandom::new())?)?;
/// # let builder = SessionFactory::builder(InMemoryMetastore::new(), kms);
/// # let session = builder.service("checkout").product("payments").build()?.session("customer-17")?;
/// # let record = session.encrypt(b"4111 1111 1111 1111").await?;
/// let plaintext = session.decrypt(&record).await?;
/// // One copy, of exactly its length. Each of the two is wiped when it is dropped.
/// let card = secrecy::SecretString::from(plaintext.to_str()?);
/// # assert_eq!(card.expose_secret(), "4111 1111 1111 1111");
/// # Ok(()) }
/// ```
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

    /// Returns it as text, without a copy.
    ///
    /// # Errors
    /// [`Utf8Error`] if it is not UTF-8. It says where and holds no byte.
    pub const fn to_str(&self) -> Result<&str, Utf8Error> {
        std::str::from_utf8(self.as_bytes())
    }

    /// Makes a `String` of it that is wiped when dropped. It is the same memory: nothing is copied,
    /// and nothing stays behind.
    ///
    /// What makes it longer may move it and leave a copy that is not wiped. So may
    /// [`String::into_boxed_str`], which `SecretString::from(String)` calls: the string has room behind
    /// the text.
    ///
    /// # Errors
    /// [`Utf8Error`] if it is not UTF-8, and the plaintext is wiped. One that may be wanted as bytes
    /// is asked by [`to_str`](Self::to_str).
    pub fn into_string(mut self) -> Result<Zeroizing<String>, Utf8Error> {
        let length = self.len();
        let mut bytes = mem::take(&mut self.opened).into_vec();
        bytes.truncate(length);
        String::from_utf8(bytes).map(Zeroizing::new).map_err(|error| {
            let fault = error.utf8_error();
            drop(Zeroizing::new(error.into_bytes()));
            fault
        })
    }

    const fn as_bytes(&self) -> &[u8] {
        match self.opened.split_last_chunk::<OVERHEAD_BYTES>() {
            Some((plaintext, _)) => plaintext,
            None => &[],
        }
    }
}

impl Deref for Plaintext {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_bytes()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn plaintext(bytes: &[u8]) -> Plaintext {
        Plaintext::new([bytes, &[0xff; OVERHEAD_BYTES]].concat().into())
    }

    #[test]
    fn text_is_the_plaintext_alone_and_where_it_was() {
        for text in ["", "x", "Zo\u{eb} \u{4ee4}\0"] {
            let plaintext = plaintext(text.as_bytes());
            assert_eq!(plaintext.to_str(), Ok(text));
            let place = plaintext.as_ptr();
            let string = plaintext.into_string().unwrap();
            assert_eq!((string.as_str(), string.as_ptr()), (text, place));
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_without_a_byte_of_them() {
        let error = plaintext(b"ab\xffcd").into_string().unwrap_err();
        assert_eq!((error.valid_up_to(), error.error_len()), (2, Some(1)));
        assert_eq!(plaintext(b"ab\xff").to_str().unwrap_err().valid_up_to(), 2);
        assert!(!format!("{error} {error:?}").contains("ab"));
    }
}
