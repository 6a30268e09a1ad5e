use std::collections::HashMap;

use serde_json::Value;

use super::*;

/// A test vector. `expected` is the plaintext, `None` where opening must fail.
struct Vector {
    name: String,
    key: Vec<u8>,
    nonce: Vec<u8>,
    aad: Vec<u8>,
    ciphertext: Vec<u8>,
    tag: Vec<u8>,
    expected: Option<Vec<u8>>,
}

impl Vector {
    fn key(&self) -> LessSafeKey {
        expand(self.key.as_slice().try_into().unwrap()).unwrap()
    }

    /// The wire form.
    fn sealed(&self) -> Vec<u8> {
        [&*self.ciphertext, &self.tag, &self.nonce].concat()
    }

    /// Seals and opens; vectors without AAD go the way that records go.
    fn check(&self) {
        let Self { name, aad, .. } = self;
        let (key, mut opened) = (self.key(), self.sealed());
        let result =
            if aad.is_empty() { open(&key, &mut opened) } else { open_with_aad(&key, aad, &mut opened) };
        let Some(plaintext) = &self.expected else {
            assert!(matches!(result, Err(Unauthenticated)), "{name}: {result:?}");
            return;
        };
        assert_eq!(result.unwrap(), plaintext, "{name}");
        let nonce = Nonce::new(self.nonce.as_slice().try_into().unwrap());
        let mut sealed = [plaintext.as_slice(), &[0; OVERHEAD_BYTES]].concat();
        if aad.is_empty() {
            seal(&key, nonce, &mut sealed).unwrap();
        } else {
            seal_with_aad(&key, nonce, aad, &mut sealed).unwrap();
        }
        assert_eq!(sealed, self.sealed(), "{name}");
    }
}

/// Checks all vectors and returns how many had and had not AAD, and how many of them were valid.
fn check_all(vectors: &[Vector]) -> Counts {
    vectors.iter().for_each(Vector::check);
    let count = |with_aad: bool, valid: bool| {
        let is_counted =
            |vector: &&Vector| vector.aad.is_empty() != with_aad && vector.expected.is_some() == valid;
        vectors.iter().filter(is_counted).count()
    };
    Counts {
        plain: (count(false, true), count(false, false)),
        with_aad: (count(true, true), count(true, false)),
    }
}

/// Valid and invalid vectors, without and with AAD.
#[derive(Debug, PartialEq)]
struct Counts {
    plain: (usize, usize),
    with_aad: (usize, usize),
}

#[test]
fn wycheproof_vectors_hold() {
    let file = include_str!("../../tests/vectors/wycheproof/aes_gcm_test.json");
    let file: Value = serde_json::from_str(file).unwrap();
    let is_ours =
        |group: &&Value| group["keySize"] == 256 && group["ivSize"] == 96 && group["tagSize"] == 128;
    let groups = file["testGroups"].as_array().unwrap().iter().filter(is_ours);
    let vectors: Vec<_> =
        groups.flat_map(|group| group["tests"].as_array().unwrap()).map(wycheproof).collect();
    assert_eq!(check_all(&vectors), Counts { plain: (21, 27), with_aad: (18, 0) });
}

fn wycheproof(test: &Value) -> Vector {
    let bytes = |field: &str| hex(test[field].as_str().unwrap());
    Vector {
        name: format!("Wycheproof {}", test["tcId"]),
        key: bytes("key"),
        nonce: bytes("iv"),
        aad: bytes("aad"),
        ciphertext: bytes("ct"),
        tag: bytes("tag"),
        expected: match test["result"].as_str().unwrap() {
            "valid" => Some(bytes("msg")),
            "invalid" => None,
            other => panic!("result {other}"),
        },
    }
}

#[test]
fn nist_encryption_vectors_hold() {
    let vectors = nist(include_str!("../../tests/vectors/cavp/gcmEncryptExtIV256.rsp"));
    assert_eq!(check_all(&vectors), Counts { plain: (25, 0), with_aad: (50, 0) });
}

#[test]
fn nist_decryption_vectors_hold() {
    let vectors = nist(include_str!("../../tests/vectors/cavp/gcmDecrypt256.rsp"));
    assert_eq!(check_all(&vectors), Counts { plain: (15, 10), with_aad: (26, 24) });
}

/// Reads a CAVP response file: vectors of `name = value` lines, `FAIL` in place of `PT`, between
/// blank lines and bracketed section headers.
fn nist(file: &str) -> Vec<Vector> {
    let vectors = file.split("\n\n").filter(|text| text.trim_start().starts_with("Count"));
    vectors.map(nist_vector).collect()
}

fn nist_vector(text: &str) -> Vector {
    let fields: HashMap<_, _> = text.lines().filter_map(|line| line.split_once(" = ")).collect();
    let bytes = |field: &str| hex(fields[field]);
    let fails = text.lines().any(|line| line == "FAIL");
    assert_ne!(fails, fields.contains_key("PT"));
    Vector {
        name: format!("CAVP with the tag {}", fields["Tag"]),
        key: bytes("Key"),
        nonce: bytes("IV"),
        aad: bytes("AAD"),
        ciphertext: bytes("CT"),
        tag: bytes("Tag"),
        expected: (!fails).then(|| bytes("PT")),
    }
}

fn hex(text: &str) -> Vec<u8> {
    assert_eq!(text.len() % 2, 0, "{text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

const KEY: [u8; KEY_BYTES] = [7; KEY_BYTES];

fn sealed(plaintext: &[u8]) -> Vec<u8> {
    let mut buffer = [plaintext, &[0; OVERHEAD_BYTES]].concat();
    seal(&expand(&KEY).unwrap(), Nonce::new([9; NONCE_BYTES]), &mut buffer).unwrap();
    buffer
}

fn is_refused(key: &LessSafeKey, mut message: Vec<u8>) -> bool {
    matches!(open(key, &mut message), Err(Unauthenticated))
}

/// Ciphertext, tag and nonce alike.
#[test]
fn no_flipped_bit_opens() {
    let key = expand(&KEY).unwrap();
    for plaintext in [&b""[..], b"x", b"a payload that is longer than two blocks"] {
        let sealed = sealed(plaintext);
        assert_eq!(open(&key, &mut sealed.clone()).unwrap(), plaintext);
        for flip in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[flip / 8] ^= 1 << (flip % 8);
            assert!(is_refused(&key, changed), "bit {flip} of {}", plaintext.len());
        }
    }
}

#[test]
fn no_truncated_message_opens() {
    let key = expand(&KEY).unwrap();
    let sealed = sealed(b"payload");
    for bytes in 0..sealed.len() {
        assert!(is_refused(&key, sealed[..bytes].to_vec()), "the first {bytes} bytes");
        assert!(is_refused(&key, sealed[sealed.len() - bytes..].to_vec()), "the last {bytes} bytes");
    }
}

#[test]
fn another_key_does_not_open() {
    assert!(is_refused(&expand(&[8; KEY_BYTES]).unwrap(), sealed(b"payload")));
}

#[test]
fn sealing_without_room_for_tag_and_nonce_is_an_error() {
    let key = expand(&KEY).unwrap();
    for bytes in 0..OVERHEAD_BYTES {
        seal(&key, Nonce::new([9; NONCE_BYTES]), &mut vec![0; bytes]).unwrap_err();
    }
}

#[test]
fn a_sealed_key_opens_unchanged_and_at_its_own_length_only() {
    let key = expand(&KEY).unwrap();
    let mut sealed_key = [0; KEY_BYTES + OVERHEAD_BYTES];
    seal_key(&key, Nonce::new([3; NONCE_BYTES]), &[5; KEY_BYTES], &mut sealed_key).unwrap();
    assert_eq!(open_key(&key, &sealed_key).unwrap().expose_secret(), &[5; KEY_BYTES]);
    for bytes in (0..100).filter(|bytes| *bytes != KEY_BYTES) {
        let authentic_but_no_key = sealed(&vec![5; bytes]);
        assert!(matches!(open_key(&key, &authentic_but_no_key), Err(Unauthenticated)), "{bytes}");
    }
    for at in 0..sealed_key.len() {
        let mut changed = sealed_key;
        changed[at] ^= 0x80;
        assert!(matches!(open_key(&key, &changed), Err(Unauthenticated)), "byte {at}");
    }
}

/// There would be two of the function if a nonce could be copied or cloned, and this would not compile.
#[test]
fn s1_2_a_nonce_cannot_be_copied() {
    trait Once<A> {
        fn is_one() {}
    }
    impl<T> Once<()> for T {}
    struct Twice;
    impl<T: Clone> Once<Twice> for T {}
    <Nonce as Once<_>>::is_one();
}
