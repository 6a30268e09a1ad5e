//! Keys of the transit engine.

use base64_simd::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

/// A key and its versions, the first of which is number 1.
pub(crate) struct Key {
    versions: Vec<LessSafeKey>,
    pub(crate) min_decryption_version: usize,
    is_derived: bool,
}

impl Key {
    pub(crate) fn new(is_derived: bool) -> Self {
        let mut key = Self { versions: Vec::new(), min_decryption_version: 1, is_derived };
        key.rotate();
        key
    }

    pub(crate) fn rotate(&mut self) {
        let bytes = random::<32>();
        self.versions.push(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).unwrap()));
    }

    pub(crate) fn latest_version(&self) -> usize {
        self.versions.len()
    }

    /// Makes `vault:vN:` and base64 of nonce, ciphertext and tag, of a plaintext in base64.
    ///
    /// See <https://developer.hashicorp.com/vault/api-docs/secret/transit#encrypt-data>.
    pub(crate) fn encrypt(&self, plaintext: &str) -> Result<String, &'static str> {
        self.check_context()?;
        let mut bytes =
            STANDARD.decode_to_vec(plaintext).map_err(|_invalid| "failed to base64-decode plaintext")?;
        let nonce = random::<NONCE_LEN>();
        let key = self.versions.last().unwrap();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut bytes).unwrap();
        let sealed = [nonce.as_slice(), &bytes].concat();
        Ok(format!("vault:v{}:{}", self.latest_version(), STANDARD.encode_to_string(sealed)))
    }

    /// Opens a ciphertext into a plaintext in base64.
    ///
    /// See <https://developer.hashicorp.com/vault/api-docs/secret/transit#decrypt-data>.
    pub(crate) fn decrypt(&self, ciphertext: &str) -> Result<String, &'static str> {
        let rest = ciphertext.strip_prefix("vault:v").ok_or("invalid ciphertext: no prefix")?;
        let (version, base64) = rest.split_once(':').ok_or("invalid ciphertext: wrong number of fields")?;
        // Signs and zeros before it are taken, as by Go's `Atoi`.
        let version: i64 =
            version.parse().map_err(|_invalid| "invalid ciphertext: version number could not be decoded")?;
        // A version 0 was the first one's name once.
        let version = usize::try_from(version).unwrap_or(0).max(1);
        if version > self.latest_version() {
            return Err("invalid ciphertext: version is too new");
        }
        if version < self.min_decryption_version {
            return Err("ciphertext or signature version is disallowed by policy (too old)");
        }
        let mut bytes = decode(base64).ok_or("invalid ciphertext: could not decode base64")?;
        self.check_context()?;
        if bytes.len() < NONCE_LEN {
            return Err("invalid ciphertext length");
        }
        let (nonce, sealed) = bytes.split_at_mut(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).unwrap();
        let key = self.versions.get(version - 1).unwrap();
        let opened = key.open_in_place(nonce, Aad::empty(), sealed);
        Ok(STANDARD.encode_to_string(opened.map_err(|_forged| "cipher: message authentication failed")?))
    }

    fn check_context(&self) -> Result<(), &'static str> {
        const MISSING: &str = "missing 'context' for key derivation; the key was created using a derived \
             key, which means additional, per-request information must be included in order to perform \
             operations with the key";
        if self.is_derived { Err(MISSING) } else { Ok(()) }
    }
}

/// Decodes as Go's standard encoding does: line breaks are passed over, and bits that are left at the
/// end may be any.
fn decode(base64: &str) -> Option<Vec<u8>> {
    let bytes: Vec<u8> = base64.bytes().filter(|byte| !b"\r\n".contains(byte)).collect();
    let digits = bytes.strip_suffix(b"==").or_else(|| bytes.strip_suffix(b"=")).unwrap_or(&bytes);
    if !bytes.len().is_multiple_of(4) || digits.contains(&b'=') {
        return None;
    }
    let mut decoded = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for digit in digits {
        bits = bits << 6 | u32::try_from(ALPHABET.iter().position(|known| known == digit)?).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push(u8::try_from(bits >> count).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    Some(decoded)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).unwrap();
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ciphertexts_open_under_their_own_version() {
        let mut key = Key::new(false);
        let first = key.encrypt("a2V5").unwrap();
        key.rotate();
        let second = key.encrypt("a2V5").unwrap();
        assert!(first.starts_with("vault:v1:") && second.starts_with("vault:v2:"));
        for ciphertext in [&first, &second] {
            assert_eq!(key.decrypt(ciphertext).unwrap(), "a2V5");
        }
        let swapped = first.replace("v1", "v2");
        assert_eq!(key.decrypt(&swapped).unwrap_err(), "cipher: message authentication failed");
        assert!(key.decrypt(&first.replace("v1", "v3")).unwrap_err().contains("too new"));
        key.min_decryption_version = 2;
        assert!(key.decrypt(&first).unwrap_err().contains("too old"));
    }

    #[test]
    fn it_is_as_lenient_as_vault() {
        let key = Key::new(false);
        let ciphertext = key.encrypt("a2V5cw==").unwrap();
        assert!(ciphertext.ends_with("="));
        for lenient in ["v0", "v01", "v+1"] {
            assert_eq!(key.decrypt(&ciphertext.replace("v1", lenient)).unwrap(), "a2V5cw==");
        }
        assert_eq!(key.decrypt(&format!("{ciphertext}\r\n")).unwrap(), "a2V5cw==");
        assert_eq!(decode("AAF=").unwrap(), decode("AAE=").unwrap());
        for bad in ["A", "AAA", "A===", "AA=A", "AA-A"] {
            assert!(decode(bad).is_none(), "{bad}");
        }
    }
}
