//! A description in one line, of a metastore or a master key: whatever it is, a refusal repeats nothing of it that may
//! be a secret; what is accepted is shown without its secret, and one that holds a secret is known to.
//!
//! The first byte chooses where the secret is put.

#![no_main]

use claviger_fuzz::{SECRET, assert_hidden, chosen, says_secret, told};
use claviger_open::{KmsSpec, SpecError, StoreSpec};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, text)) = chosen(bytes, 8) else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    if says_secret(text) {
        return;
    }
    // Around the secret stands what the input says.
    let (before, after) = text.split_once('\0').unwrap_or(("", text));
    match choice {
        0 => {
            // Of what is a secret in a text that cannot be read, nobody knows: none of it is repeated.
            let anywhere = format!("{before}{SECRET}{after}");
            refused_in_silence(StoreSpec::from_text(&anywhere, "--metastore").err());
            refused_in_silence(KmsSpec::from_text(&anywhere, "--kms").err());
        }
        1 => {
            let _ = StoreSpec::from_text(text, "--metastore").map(|spec| read_alike(&spec));
            let _ = KmsSpec::from_text(text, "--kms").map(|spec| (spec.files().len(), format!("{spec:?}")));
        }
        2 => store(&format!("postgres://{before}:{SECRET}@{after}"), before),
        3 => store(&format!("mysql://{before}:{SECRET}@{after}"), before),
        4 => store(&format!("postgres://{before}?password={SECRET}{after}"), before),
        5 => kms(&format!("pkcs11:{before}?pin-value={SECRET}{after}")),
        6 => kms(&format!("vault:{before}?token={SECRET}{after}")),
        _ => kms(&format!("static:{SECRET}{after}")),
    }
});

/// A password stands in this URL, if `user` has nothing that ends what is before it.
fn store(url: &str, user: &str) {
    let has_password = StoreSpec::text_has_secret(url);
    match StoreSpec::from_text(url, "--metastore") {
        Ok(spec) => {
            assert_hidden(&format!("{spec} {spec:?}"));
            if user.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                assert!(has_password, "the password of {url} is not noticed");
            }
        }
        Err(error) => refused_in_silence(Some(error)),
    }
}

fn kms(text: &str) {
    match KmsSpec::from_text(text, "--kms") {
        Ok(spec) => {
            // What is no parameter of its own is a piece of another one, which is shown.
            if spec.has_secret() {
                assert_hidden(&format!("{spec:?}"));
                assert!(KmsSpec::text_has_secret(text), "the secret of {text} is not noticed");
            }
        }
        Err(error) => refused_in_silence(Some(error)),
    }
}

fn refused_in_silence(error: Option<SpecError>) {
    if let Some(error) = error {
        assert_hidden(&told(&error));
    }
}

/// A store is shown so that what is shown names the same store, its password and parameters aside.
fn read_alike(spec: &StoreSpec) {
    if let StoreSpec::Postgres(_) | StoreSpec::Mysql(_) = spec {
        let shown = spec.to_string();
        let again = StoreSpec::from_text(&shown, "--metastore").expect("what is shown can be read");
        assert_eq!(again.to_string(), shown);
    }
}
