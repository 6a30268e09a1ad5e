//! The stored form of a key that a token wrapped.
//!
//! | bytes | meaning |
//! |---|---|
//! | 3 | `P11` |
//! | 1 | the version of this form: 1 |
//! | 1 | the mechanism: 1 = AES-KWP, 2 = AES-GCM |
//! | 1 | n, how long the label is |
//! | n | the label (`CKA_LABEL`) of the key that wrapped, in UTF-8 |
//! | 40 or 60 | AES-KWP: what it made of 32 bytes. AES-GCM: IV (12), ciphertext (32), tag (16) |
//!
//! AES-KWP is KWP of NIST SP 800-38F section 6.3, which is RFC 5649: 32 bytes become 40, of which
//! 8 are for integrity. AES-GCM is that of NIST SP 800-38D; everything before the IV is its
//! associated data. KWP has none, so that there the header is held to what could have been written:
//! of its bytes only the label's may vary, and they choose between keys that were configured.

use super::error::Pkcs11Error;

/// How a key is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    AesKwp,
    AesGcm,
}

/// A stored form, taken apart but not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrapped {
    pub(super) method: Method,
    pub(super) label: String,
    pub(super) body: Vec<u8>,
}

pub(super) const IV_BYTES: usize = 12;
pub(super) const TAG_BYTES: usize = 16;
pub(super) const KEY_BYTES: usize = 32;
pub(super) const LABEL_BYTES_MAX: usize = 255;

const MAGIC: [u8; 4] = *b"P11\x01";
const FIXED_BYTES: usize = MAGIC.len() + 2;

impl Method {
    /// How long the body is, to the byte.
    pub(super) const fn body_bytes(self) -> usize {
        match self {
            Self::AesKwp => KEY_BYTES + 8,
            Self::AesGcm => IV_BYTES + KEY_BYTES + TAG_BYTES,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::AesKwp => "AES-KWP",
            Self::AesGcm => "AES-GCM",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::AesKwp => 1,
            Self::AesGcm => 2,
        }
    }
}

/// Returns all that comes before the body.
pub(super) fn header(method: Method, label: &str) -> Vec<u8> {
    let label = label.as_bytes();
    let length = u8::try_from(label.len()).unwrap_or(u8::MAX);
    let mut header = Vec::with_capacity(FIXED_BYTES + label.len() + method.body_bytes());
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&[method.code(), length]);
    header.extend_from_slice(label);
    header
}

impl Wrapped {
    /// Takes a stored form apart. What could not have been written so is refused.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Pkcs11Error> {
        Self::try_parse(bytes).ok_or(Pkcs11Error::Malformed)
    }

    fn try_parse(bytes: &[u8]) -> Option<Self> {
        let (&[method, length], rest) = bytes.strip_prefix(&MAGIC)?.split_first_chunk()?;
        let method = [Method::AesKwp, Method::AesGcm].into_iter().find(|known| known.code() == method)?;
        let (label, body) = rest.split_at_checked(usize::from(length))?;
        if label.is_empty() || body.len() != method.body_bytes() {
            return None;
        }
        Some(Self { method, label: str::from_utf8(label).ok()?.to_owned(), body: body.to_vec() })
    }

    pub(super) fn header(&self) -> Vec<u8> {
        header(self.method, &self.label)
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        let mut bytes = self.header();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(method: Method) -> Wrapped {
        Wrapped { method, label: "sk".to_owned(), body: vec![7; method.body_bytes()] }
    }

    #[test]
    fn the_form_is_the_documented_one() {
        let bytes = wrapped(Method::AesKwp).into_bytes();
        assert_eq!(bytes, [&b"P11\x01\x01\x02sk"[..], &[7; 40]].concat());
        let bytes = wrapped(Method::AesGcm).into_bytes();
        assert_eq!(bytes, [&b"P11\x01\x02\x02sk"[..], &[7; 60]].concat());
    }

    #[test]
    fn what_was_written_is_read() {
        for method in [Method::AesKwp, Method::AesGcm] {
            for label in ["s", "system key", "Schl\u{fc}ssel", &"x".repeat(LABEL_BYTES_MAX)] {
                let wrapped = Wrapped { label: label.to_owned(), ..wrapped(method) };
                assert_eq!(Wrapped::parse(&wrapped.clone().into_bytes()).unwrap(), wrapped);
            }
        }
    }

    #[test]
    fn a_changed_header_is_refused_or_names_another_key() {
        for method in [Method::AesKwp, Method::AesGcm] {
            let bytes = wrapped(method).into_bytes();
            for bit in 0..8 * wrapped(method).header().len() {
                let mut forged = bytes.clone();
                forged[bit / 8] ^= 1 << (bit % 8);
                if let Ok(parsed) = Wrapped::parse(&forged) {
                    assert!(bit / 8 >= FIXED_BYTES, "bit {bit}");
                    assert_ne!(parsed.label, "sk");
                }
            }
        }
    }

    #[test]
    fn a_form_is_as_long_as_it_says() {
        let bytes = wrapped(Method::AesKwp).into_bytes();
        for length in 0..bytes.len() {
            assert!(Wrapped::parse(&bytes[..length]).is_err(), "{length} bytes");
        }
        assert!(Wrapped::parse(&[&bytes[..], &[0]].concat()).is_err());
        // The one method's body does not pass for the other's.
        let mut swapped = bytes;
        swapped[MAGIC.len()] = Method::AesGcm.code();
        assert!(Wrapped::parse(&swapped).is_err());
    }

    #[test]
    fn labels_are_text_and_there() {
        let body = [7; 40];
        assert!(Wrapped::parse(&[&b"P11\x01\x01\x00"[..], &body].concat()).is_err());
        assert!(Wrapped::parse(&[&b"P11\x01\x01\x02\xff\xfe"[..], &body].concat()).is_err());
    }
}
