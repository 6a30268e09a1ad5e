//! What is sent to Vault and what it answers, in JSON that is written and read where it can be wiped.

use std::time::Duration;

use base64_simd::{AsOut as _, STANDARD};
use claviger::SecretKey;
use serde::Deserialize;
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

use crate::object;
use crate::vault::ciphertext::Ciphertext;
use crate::vault::fault::{Operation, VaultTransitError};

/// Writes `{"plaintext":"…"}`, as all of Asherah's languages do: base64 of the key's bytes.
pub(super) fn plaintext(key: &SecretKey) -> Zeroizing<Vec<u8>> {
    let key = key.expose_secret();
    let mut base64 = Zeroizing::new([0; KEY_BASE64_BYTES]);
    let base64 = STANDARD.encode(key, base64.as_mut_slice().as_out());
    quote(b"{\"plaintext\":\"", base64)
}

/// Writes `{"ciphertext":"…"}`.
pub(super) fn ciphertext(stored: &Ciphertext<'_>) -> Zeroizing<Vec<u8>> {
    quote(b"{\"ciphertext\":\"", stored.text().as_bytes())
}

/// Base64 of 32 bytes.
const KEY_BASE64_BYTES: usize = 44;

fn quote(before: &[u8], text: &[u8]) -> Zeroizing<Vec<u8>> {
    const AFTER: &[u8] = b"\"}";
    // All in one piece: what grows leaves copies behind.
    let mut body = Zeroizing::new(Vec::with_capacity(before.len() + text.len() + AFTER.len()));
    for part in [before, text, AFTER] {
        body.extend_from_slice(part);
    }
    body
}

/// Writes an object of texts, those that are empty left out.
pub(super) fn object(fields: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    // An escaped byte takes six at most.
    let room = fields.iter().map(|(name, value)| name.len() + 6 * value.len() + 6).sum::<usize>() + 2;
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        let before = if body.is_empty() { b"{\"" } else { b",\"" };
        body.extend_from_slice(before);
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(b"\":\"");
        for byte in value.bytes() {
            escape(byte, &mut body);
        }
        body.push(b'"');
    }
    let end: &[u8] = if body.is_empty() { b"{}" } else { b"}" };
    body.extend_from_slice(end);
    body
}

fn escape(byte: u8, body: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => body.extend_from_slice(&[b'\\', byte]),
        0..0x20 => {
            let digit = |half: u8| DIGITS.get(usize::from(half)).copied().unwrap_or(b'0');
            body.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
        }
        _ => body.push(byte),
    }
}

/// What lies in all answers of secrets engines: `{"data":{…}}`.
///
/// Texts are borrowed from the answer, which is wiped. One with an escape in it cannot be borrowed
/// and is refused: neither base64 nor a token of Vault's needs one.
#[derive(Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
struct Data<T> {
    #[serde(deserialize_with = "object::one")]
    data: T,
}

#[derive(Deserialize)]
struct Encrypted<'a> {
    #[serde(borrow)]
    ciphertext: &'a str,
}

#[derive(Deserialize)]
struct Decrypted<'a> {
    #[serde(borrow)]
    plaintext: &'a str,
}

/// Reads the ciphertext that `encrypt` and `rewrap` answer with.
pub(super) fn read_ciphertext(operation: Operation, answer: &[u8]) -> Result<&str, VaultTransitError> {
    let answer: Data<Encrypted<'_>> = read(operation, answer)?;
    Ok(answer.data.ciphertext)
}

/// Reads the key that `decrypt` answers with.
pub(super) fn read_key(operation: Operation, answer: &[u8]) -> Result<SecretKey, VaultTransitError> {
    let answer: Data<Decrypted<'_>> = read(operation, answer)?;
    let base64 = answer.data.plaintext.as_bytes();
    // Vault has opened it, so that somebody has stored what was wrapped for another purpose.
    let no_key = || VaultTransitError::Stored("it holds no key of 32 bytes");
    SecretKey::try_init(|key| {
        let mut bytes = Zeroizing::new([0; KEY_BASE64_BYTES / 4 * 3]);
        if base64.len() != KEY_BASE64_BYTES {
            return Err(no_key());
        }
        let decoded = STANDARD.decode(base64, bytes.as_mut_slice().as_out());
        let decoded = decoded.map_err(|_invalid| operation.malformed("holds no base64"))?;
        // What has 31 or 33 bytes is as long in base64.
        if decoded.len() != key.len() {
            return Err(no_key());
        }
        key.copy_from_slice(decoded);
        Ok(())
    })
}

/// What a login and a renewal answer with.
#[derive(Deserialize)]
struct Granted<'a> {
    #[serde(borrow, deserialize_with = "object::one")]
    auth: Auth<'a>,
}

#[derive(Deserialize)]
struct Auth<'a> {
    #[serde(borrow)]
    client_token: &'a str,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

/// What is said of a token's time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    /// How long it is still good; zero if for ever.
    pub(super) ttl: Duration,
    pub(super) renewable: bool,
}

/// Reads what a login and a renewal answer with: the token, and its time.
///
/// See <https://developer.hashicorp.com/vault/api-docs/auth/approle#login-with-approle>.
pub(super) fn read_grant(operation: Operation, answer: &[u8]) -> Result<(&str, Time), VaultTransitError> {
    let Granted { auth } = read(operation, answer)?;
    let time = Time { ttl: Duration::from_secs(auth.lease_duration), renewable: auth.renewable };
    Ok((auth.client_token, time))
}

/// Reads what `lookup-self` says of a token's time.
///
/// See <https://developer.hashicorp.com/vault/api-docs/auth/token#lookup-a-token-self>.
pub(super) fn read_time(operation: Operation, answer: &[u8]) -> Result<Time, VaultTransitError> {
    #[derive(Deserialize)]
    struct Token {
        ttl: u64,
        #[serde(default)]
        renewable: bool,
    }
    let answer: Data<Token> = read(operation, answer)?;
    Ok(Time { ttl: Duration::from_secs(answer.data.ttl), renewable: answer.data.renewable })
}

fn read<'a, T: Deserialize<'a>>(operation: Operation, answer: &'a [u8]) -> Result<T, VaultTransitError> {
    // What serde says of the place may show a part of the answer.
    object::from_slice(answer).map_err(|_syntax| operation.malformed("is not what Vault answers"))
}

/// Returns what an answer's `errors` say, in one line that is fit for logs.
///
/// See <https://developer.hashicorp.com/vault/api-docs#error-response>. What is not Vault's, a proxy's
/// page for example, says nothing here; nor does what repeats a part of `secrets`.
pub(super) fn read_errors(answer: &[u8], secrets: &[&[u8]]) -> String {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Said {
        Text(String),
        Other(IgnoredAny),
    }
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Said>,
    }
    let errors = object::from_slice(answer).map_or_else(|_| Vec::new(), |Errors { errors }| errors);
    let texts = errors.into_iter().filter_map(|said| match said {
        Said::Text(text) => Some(text),
        Said::Other(IgnoredAny) => None,
    });
    let texts: Vec<String> = texts.filter(|text| !repeats(text.as_bytes(), secrets)).collect();
    let line: Vec<&str> = texts.iter().flat_map(|text| text.split_whitespace()).collect();
    let is_shown = |character: &char| !character.is_control();
    line.join(" ").chars().filter(is_shown).take(MESSAGE_CHARACTERS_MAX).collect()
}

/// Returns `true` if a text holds as much of a secret as would be of use.
fn repeats(text: &[u8], secrets: &[&[u8]]) -> bool {
    let contains = |part: &[u8]| text.windows(part.len()).any(|window| window == part);
    secrets.iter().any(|secret| match secret.len() {
        0 => false,
        bytes => secret.windows(bytes.min(ECHO_BYTES)).any(contains),
    })
}

/// Less tells nothing of a token or a key, and may be a word that a request and an error have in
/// common.
const ECHO_BYTES: usize = 16;
const MESSAGE_CHARACTERS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sent_as_the_base64_of_its_bytes() {
        let key = SecretKey::try_init(|key| {
            key.copy_from_slice(b"0123456789abcdef0123456789abcdef");
            Ok::<_, std::convert::Infallible>(())
        });
        let sent = plaintext(&key.unwrap());
        assert_eq!(
            std::str::from_utf8(&sent).unwrap(),
            r#"{"plaintext":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}"#
        );
        assert_eq!(sent.len(), sent.capacity());
    }

    #[test]
    fn texts_are_escaped_and_the_room_suffices() {
        let nasty = "a\"b\\c\n\u{0}\u{1f}/\u{e9}\u{1f511}";
        let fields = [("role_id", nasty), ("none", ""), ("secret_id", "\u{1}\u{1}\u{1}")];
        let body = object(&fields);
        let read: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(read, serde_json::json!({"role_id": nasty, "secret_id": "\u{1}\u{1}\u{1}"}));
        let room: usize = fields.iter().map(|(name, value)| name.len() + 6 * value.len() + 6).sum();
        assert!(body.len() <= room + 2);
        assert_eq!(object(&[]).as_slice(), b"{}");
    }

    #[test]
    fn answers_that_are_no_key_are_refused() {
        let of = |plaintext: &str| format!(r#"{{"data":{{"plaintext":"{plaintext}"}}}}"#);
        let good = of("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
        assert!(read_key(Operation::Unwrap, good.as_bytes()).is_ok());
        for bad in [
            String::new(),
            "null".into(),
            "{}".into(),
            r#"{"data":null}"#.into(),
            r#"{"data":{"plaintext":null}}"#.into(),
            r#"{"data":{"plaintext":["MDEy"]}}"#.into(),
            of("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZW!="),
            r#"[["MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="]]"#.into(),
            r#"{"data":["MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="]}"#.into(),
            of("\\u004dDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="),
            good.repeat(2),
        ] {
            let refused = read_key(Operation::Unwrap, bad.as_bytes()).unwrap_err();
            assert!(matches!(refused, VaultTransitError::Malformed { .. }), "{bad}");
        }
        for other in [
            "",
            "AAAA",
            "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZQ==",
            "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWZn",
            "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY",
        ] {
            let refused = read_key(Operation::Unwrap, of(other).as_bytes()).unwrap_err();
            assert!(matches!(refused, VaultTransitError::Stored(_)), "{other}");
        }
    }

    #[test]
    fn errors_are_read_in_one_line() {
        let said = |answer: &str| read_errors(answer.as_bytes(), &[b"hvs.a-token-of-ours"]);
        assert_eq!(said(r#"{"errors":["permission denied"]}"#), "permission denied");
        let two = r#"{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}"#;
        assert_eq!(said(two), "2 errors occurred: * permission denied * invalid token");
        assert_eq!(said(r#"{"errors":["a", 1, null, "b\u0000\u001b[31m"]}"#), "a b[31m");
        for nothing in
            ["", "<html>no</html>", "{}", r#"{"errors":null}"#, r#"{"errors":[]}"#, "[]", r#"[["a"]]"#]
        {
            assert_eq!(said(nothing), "", "{nothing}");
        }
        assert_eq!(said(&format!(r#"{{"errors":["{}"]}}"#, "x".repeat(9_999))).len(), MESSAGE_CHARACTERS_MAX);
    }

    #[test]
    fn errors_that_repeat_a_secret_are_left_out() {
        let said = |answer: &str| read_errors(answer.as_bytes(), &[b"hvs.a-token-of-ours", b""]);
        assert_eq!(said(r#"{"errors":["bad token hvs.a-token-of-ours", "denied"]}"#), "denied");
        assert_eq!(said(r#"{"errors":["bad token ...vs.a-token-of-our..."]}"#), "");
        assert_eq!(said(r#"{"errors":["bad token"]}"#), "bad token");
        assert_eq!(read_errors(br#"{"errors":["bad token root", "denied"]}"#, &[b"root"]), "denied");
    }
}
