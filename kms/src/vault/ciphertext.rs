//! The stored form of a wrapped key: `vault:v1:` and base64.

use base64_simd::STANDARD;

use crate::vault::fault::VaultTransitError;

/// A ciphertext of the transit engine, read more strictly than Vault reads it.
///
/// Vault takes the versions `0`, `01` and `+1` for 1, and base64 with line breaks or stray bits at
/// its end for the same bytes without. Whoever can write the store could change such a key and not
/// be noticed, so none of that is passed on.
pub(super) struct Ciphertext<'a> {
    text: &'a str,
    version: u32,
}

/// A wrapped key has 89 bytes; under RSA with 4096 bits, the longest there is, it has 693.
const BYTES_MAX: usize = 4096;
const PREFIX: &str = "vault:v";

impl<'a> Ciphertext<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, VaultTransitError> {
        if bytes.len() > BYTES_MAX {
            return Err(VaultTransitError::Stored("it is too long"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_utf8| VaultTransitError::Stored("it is no text"))?;
        let rest =
            text.strip_prefix(PREFIX).ok_or(VaultTransitError::Stored("it does not begin with vault:v"))?;
        let (version, base64) = rest.split_once(':').ok_or(VaultTransitError::Stored("it has no version"))?;
        let version =
            parse_version(version).ok_or(VaultTransitError::Stored("its version is not a number from 1"))?;
        if !is_canonical(base64) {
            return Err(VaultTransitError::Stored("it does not end in canonical base64"));
        }
        Ok(Self { text, version })
    }

    /// Returns all of it, which has no character that JSON would escape.
    pub(super) const fn text(&self) -> &'a str {
        self.text
    }

    /// Returns the version of the transit key it is wrapped under.
    pub(super) const fn version(&self) -> u32 {
        self.version
    }
}

fn parse_version(digits: &str) -> Option<u32> {
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| is_plain)
}

fn is_canonical(base64: &str) -> bool {
    STANDARD
        .decode_to_vec(base64)
        .is_ok_and(|bytes| !bytes.is_empty() && STANDARD.encode_to_string(&bytes) == base64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_vault_writes_is_read() {
        for (text, version) in [
            ("vault:v1:AAAA", 1),
            ("vault:v10:AA==", 10),
            ("vault:v4294967295:AAA=", u32::MAX),
            ("vault:v3:8SDd3WHDOjf7mq69CyCqYjBXAiQQAVZRkFM13ok481zoCmHnSeDX9vyf7w==", 3),
        ] {
            let read = Ciphertext::parse(text.as_bytes()).unwrap();
            assert_eq!((read.text(), read.version()), (text, version));
        }
    }

    #[test]
    fn what_vault_would_take_for_the_same_is_refused() {
        let same =
            ["0", "01", "+1", "-1", " 1", "1 ", "1_", "", "4294967296", "99999999999999999999", "\u{661}"]
                .map(|version| format!("vault:v{version}:AAAA"));
        let bits =
            ["AB==", "AAB=", "AAA", "AAAA=", "AAAA\n", "AA\r\nAA", "", " AAAA", "AAA-", "AA=A", "AAAA\""]
                .map(|base64| format!("vault:v1:{base64}"));
        let prefixes =
            ["vault:1:AAAA", "Vault:v1:AAAA", " vault:v1:AAAA", "vault:v1AAAA", "vault:v1:AAAA:AAAA"];
        for text in same.iter().chain(&bits).map(String::as_str).chain(prefixes) {
            assert!(Ciphertext::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn length_is_bounded() {
        let of = |bytes: usize| format!("vault:v1:{}", "A".repeat(bytes - "vault:v1:".len()));
        assert!(Ciphertext::parse(of(BYTES_MAX - 3).as_bytes()).is_ok());
        assert!(Ciphertext::parse(of(BYTES_MAX + 1).as_bytes()).is_err());
    }
}
