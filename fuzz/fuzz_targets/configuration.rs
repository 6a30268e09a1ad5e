//! A configuration, whoever's it is: of TOML and JSON, of Asherah's JSON, of the environment, of the command line's
//! file. A secret is put where one belongs, and nothing shows it, accepted or refused. What TOML and JSON say alike is
//! read alike.
//!
//! The first byte chooses the reader.

#![no_main]

use claviger_fuzz::{SECRET, assert_hidden, chosen, says_secret, told};
use claviger_open::{Asherah, Environment, FactorySpec, SpecError};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, text)) = chosen(bytes, 10) else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    if says_secret(text) {
        return;
    }
    match choice {
        0 => placed(FactorySpec::from_toml(text), text),
        1 => placed(FactorySpec::from_json(text), text),
        2 => program(text),
        3..=6 => {
            let Ok(mut json) = serde_json::from_str::<Value>(text) else { return };
            put_secrets(&mut json);
            let text = json.to_string();
            match choice {
                3 => alike(&json, &text),
                4 => hidden(&FactorySpec::from_asherah_json(&text, Asherah::Go)),
                5 => hidden(&FactorySpec::from_asherah_json(&text, Asherah::Rust)),
                _ => toml::to_string(&json).iter().for_each(|text| program(text)),
            }
        }
        7 => hidden(&FactorySpec::from_environment(&environment(text))),
        8 => hidden(&FactorySpec::from_asherah_server(&environment(text), Asherah::Go)),
        _ => hidden(&FactorySpec::from_asherah_environment(&environment(text))),
    }
});

/// Where it is wrong is a place in the text.
fn placed(read: Result<FactorySpec, SpecError>, text: &str) {
    match read {
        Ok(spec) => use_it(&spec),
        Err(error) => assert!(error.at().is_none_or(|at| text.is_char_boundary(at)), "{error:?}"),
    }
}

fn hidden(read: &Result<FactorySpec, SpecError>) {
    match read {
        Ok(spec) => {
            assert_hidden(&format!("{spec:?} {}", spec.metastore()));
            use_it(spec);
        }
        Err(error) => assert_hidden(&told(error)),
    }
}

/// What a program asks of a description.
fn use_it(spec: &FactorySpec) {
    let files = (spec.kms().files().len(), spec.metastore().secret_files().len());
    let _ = (files, spec.system_key_id(), spec.policy(), spec.limits(), spec.kms().has_secret());
}

/// The file of the command line.
fn program(text: &str) {
    match claviger_cli::fuzz_config(text.as_bytes()) {
        Ok(shown) | Err(shown) => assert_hidden(&shown),
    }
}

/// One description in two formats.
fn alike(json: &Value, text: &str) {
    let read = FactorySpec::from_json(text);
    hidden(&read);
    // TOML has no null, and no numbers beyond those of 64 bits with a sign.
    let Ok(toml) = toml::to_string(json) else { return };
    let other = FactorySpec::from_toml(&toml);
    hidden(&other);
    match (read, other) {
        (Ok(read), Ok(other)) => {
            // In which order tables stand is the formats' own.
            let what = |spec: &FactorySpec| {
                (spec.system_key_id(), spec.metastore().to_string(), spec.kms().has_secret())
            };
            assert_eq!(what(&read), what(&other));
        }
        (Err(_), Err(_)) => {}
        (read, other) => panic!("the formats differ: {read:?} {other:?}"),
    }
}

/// Puts the secret into every field that is one, and in the place of the password into every URL.
fn put_secrets(json: &mut Value) {
    match json {
        Value::Object(fields) => {
            let kind = fields.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
            for (name, value) in fields {
                match value {
                    Value::String(text) => *text = with_secret(&kind, name, text),
                    other => put_secrets(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(put_secrets),
        _ => {}
    }
}

fn environment(text: &str) -> Environment {
    let variables = text.lines().filter_map(|line| line.split_once('='));
    Environment::of(variables.map(|(name, value)| (name.to_owned(), with_secret("", name, value))))
}

/// What the value of a name becomes, in a table of such a kind: the secret, or the same with the secret in it.
fn with_secret(kind: &str, name: &str, text: &str) -> String {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    let is_secret = match (kind, &*plain) {
        ("static", "key") | ("vault", "token" | "secretid") | ("pkcs11", "pinvalue") => true,
        (_, name) => ["password", "staticmasterkeyhex", "vaulttoken", "vaultapprolesecretid"].contains(&name),
    };
    if is_secret {
        return SECRET.to_owned();
    }
    if !["metastore", "url", "connectionstring", "kms"].iter().any(|name| plain.ends_with(name)) {
        return text.to_owned();
    }
    let with = |before: &str, after: &str| format!("{before}{SECRET}{after}");
    let is_scheme = |scheme: &str| scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match text.split_once("://").map(|(scheme, rest)| (scheme, rest.split_once('@'))) {
        Some((scheme, Some((_, server)))) if is_scheme(scheme) => {
            return with(&format!("{scheme}://u:"), &format!("@{server}"));
        }
        _ => {}
    }
    // Go's, and libpq's.
    if let Some((_, server)) = text.split_once("@tcp(") {
        return with("u:", &format!("@tcp({server}"));
    }
    if text.starts_with("password=") {
        return with("password=", &format!(" {text}"));
    }
    match text.split_once('?') {
        Some((before, after)) if text.starts_with("pkcs11:") => {
            with(&format!("{before}?pin-value="), &format!("&{after}"))
        }
        Some((before, after)) if text.starts_with("vault:") => {
            with(&format!("{before}?token="), &format!("&{after}"))
        }
        _ => text.to_owned(),
    }
}
