//! What Vault answers, or something in front of it, is read as another reader of JSON reads it, or refused without a
//! word of it; and what it says in words repeats no secret.
//!
//! The first byte chooses the answer.

#![no_main]

use claviger_fuzz::{SECRET, assert_hidden, assert_refused, chosen, says_secret, told};
use claviger_kms::fuzzing::vault;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, answer)) = chosen(bytes, 6) else { return };
    let json = || {
        // Of a text in a field that is ignored, we do not ask whether it is UTF-8.
        serde_json::from_slice::<Value>(answer).ok()
    };
    let refused = match choice {
        0 => vault::key(answer).map(|key| {
            let written = String::from_utf8(vault::request(&key)).expect("it is JSON");
            let expected = |json: Value| format!(r#"{{"plaintext":{}}}"#, json["data"]["plaintext"]);
            assert!(json().is_none_or(|json| expected(json) == written), "{written}");
        }),
        1 => vault::ciphertext(answer).map(|stored| {
            assert!(json().is_none_or(|json| json["data"]["ciphertext"] == stored), "{stored}");
            let (text, version) = vault::stored(stored.as_bytes()).expect("what is stored can be read");
            assert!(version > 0 && text.starts_with(&format!("vault:v{version}:")), "{text}");
        }),
        2 => vault::grant(answer).map(|(token, time)| {
            let auth = json().map(|json| json["auth"].clone());
            assert!(auth.as_ref().is_none_or(|auth| auth["client_token"] == token), "{token}");
            let seconds = |auth: &Value| auth["lease_duration"].as_u64().unwrap_or_default();
            assert!(auth.is_none_or(|auth| seconds(&auth) == time.as_secs()), "{time:?}");
        }),
        3 => vault::time(answer).map(|time| {
            assert!(json().is_none_or(|json| json["data"]["ttl"] == time.as_secs()), "{time:?}");
        }),
        4 => vault::stored(answer).map(|(text, version)| {
            assert_eq!(text.as_bytes(), answer);
            assert!(version > 0 && text.starts_with(&format!("vault:v{version}:")), "{text}");
        }),
        _ => return words(answer),
    };
    if let Err(error) = refused {
        assert_refused(&error);
        let said = told(&error);
        assert!(said.len() < 400, "{said}");
    }
});

/// A server that repeats what it was sent: around the token stands what the input says.
fn words(answer: &[u8]) {
    let Ok(text) = std::str::from_utf8(answer) else { return };
    let token = format!("hvs.{SECRET}.of-ours");
    let (before, after) = text.split_once('\0').unwrap_or((text, ""));
    let quoted = serde_json::to_string(&format!("{before}{token}{after}")).expect("a text can be written");
    for answer in [text.to_owned(), format!(r#"{{"errors":[{quoted}]}}"#), format!("{before}{token}{after}")]
    {
        let said = vault::words(answer.as_bytes(), token.as_bytes());
        assert!(said.chars().count() <= 256 && !said.contains(char::is_control), "{said:?}");
        if !says_secret(text) {
            assert_hidden(&said);
        }
    }
}
