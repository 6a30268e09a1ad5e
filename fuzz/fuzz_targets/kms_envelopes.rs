//! Whatever lies in a store as a wrapped key: it is taken apart as it was put together, or refused for good; and
//! whatever is done to an envelope, what comes out of it is the key that went in, or nothing.
//!
//! The first byte chooses the service.

#![no_main]

use std::sync::LazyLock;

use aws_credential_types::Credentials;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::{BehaviorVersion, Config, Region};
use claviger::{KeyManagementService, KeyMeta, RandomError, SecretKey, SecureRandom, StaticKms};
use claviger_fuzz::http::Answers;
use claviger_fuzz::{assert_refused, call, chosen, key, meta, run};
use claviger_kms::{AnyOfKms, AwsKms, KofNKms, VaultAuth, VaultTransitKms, fuzzing};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, stored)) = chosen(bytes, 8) else { return };
    match choice {
        0 => aws(stored),
        1 => vault(stored),
        2 => pkcs11(stored),
        3 => local(stored),
        4 => opens_alone(&*ANY_OF, stored),
        5 => opens_alone(&*K_OF_N, stored),
        6 => opens_alone(&*ANY_OF, &edited(&ANY_OF_ENVELOPE, stored)),
        _ => opens_alone(&*K_OF_N, &edited(&K_OF_N_ENVELOPE, stored)),
    }
});

const REGIONS: [&str; 2] = ["us-east-1", "eu-west-1"];

static AWS: LazyLock<AwsKms> = LazyLock::new(|| {
    let client = |region: &str| {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "fuzzing");
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .credentials_provider(credentials)
            .http_client(Answers::default().client());
        Client::from_conf(config.build())
    };
    let builder = REGIONS.iter().fold(AwsKms::builder(), |builder, region| {
        let arn = format!("arn:aws:kms:{region}:111122223333:key/key-of-{region}");
        builder.region(*region, arn).client(*region, client(region))
    });
    run(builder.open()).expect("nobody is asked")
});

/// A region's copy is there if the envelope has one that could be one.
fn aws(stored: &[u8]) {
    let health = match AWS.inspect(stored) {
        Ok(health) => health,
        Err(error) => return assert_refused(&error),
    };
    assert_eq!(health.present.len() + health.missing.len(), REGIONS.len());
    // Of a text in a field that is ignored, we do not ask whether it is UTF-8.
    let Ok(json) = serde_json::from_slice::<Value>(stored) else { return };
    let copies = json["kmsKeks"].as_array().expect("it has copies");
    for region in &health.present {
        let is_there = |copy: &Value| copy["region"] == **region && copy["encryptedKek"] != "";
        assert!(copies.iter().any(is_there), "{region} has no copy");
    }
}

static VAULT: LazyLock<VaultTransitKms> = LazyLock::new(|| {
    let builder = VaultTransitKms::builder("https://127.0.0.1:1", "key").auth(VaultAuth::token("token"));
    run(builder.open()).expect("nobody is asked")
});

fn vault(stored: &[u8]) {
    match VAULT.inspect(stored) {
        Ok(health) => {
            let text = std::str::from_utf8(stored).expect("it is text");
            let mut parts = text.splitn(3, ':');
            assert_eq!(parts.next(), Some("vault"));
            let version =
                parts.next().and_then(|version| version.strip_prefix('v')).expect("it has a version");
            assert_eq!(health.present, [format!("transit/key v{version}")]);
            assert!(!version.starts_with('0'), "{text} is another text of one key");
            // There is one text of the bytes, and none of no bytes.
            let base64 = parts.next().expect("it has base64");
            assert!(base64.len() >= 4 && base64.len().is_multiple_of(4), "{text}");
        }
        Err(error) => assert_refused(&error),
    }
}

fn pkcs11(stored: &[u8]) {
    match fuzzing::pkcs11::read(stored) {
        Ok((label, written)) => {
            assert_eq!(written, stored);
            assert!(!label.is_empty());
        }
        Err(error) => assert_refused(&error),
    }
}

fn local(text: &[u8]) {
    match fuzzing::local::read(text) {
        Ok(key) => assert_eq!(fuzzing::local::write(&key), text),
        Err(fault) => assert!(!fault.is_empty()),
    }
}

/// Draws the same each time, so that the seeds stay good.
#[derive(Debug)]
struct Counting;

impl SecureRandom for Counting {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        bytes.iter_mut().zip(1..).for_each(|(byte, number)| *byte = number);
        Ok(())
    }
}

fn member(number: u8) -> StaticKms {
    let mut bytes = [number; 32];
    bytes[0] = 0;
    StaticKms::new(&key(bytes)).expect("there is memory").random(Counting)
}

static ANY_OF: LazyLock<AnyOfKms> = LazyLock::new(|| {
    let builder = AnyOfKms::builder().member("a", member(1)).member("b", member(2)).random(Counting);
    builder.asherah_compatible(false).build().expect("it can be built")
});

static K_OF_N: LazyLock<KofNKms> = LazyLock::new(|| {
    let members = [("a", 1), ("b", 2), ("c", 3)];
    let builder = members
        .into_iter()
        .fold(KofNKms::builder(2), |builder, (name, number)| builder.member(name, member(number)));
    builder.random(Counting).asherah_compatible(false).build().expect("it can be built")
});

static ANY_OF_ENVELOPE: LazyLock<Value> = LazyLock::new(|| envelope(&*ANY_OF));
static K_OF_N_ENVELOPE: LazyLock<Value> = LazyLock::new(|| envelope(&*K_OF_N));

fn system_key() -> SecretKey {
    key(*b"the key that went into envelopes")
}

fn name() -> KeyMeta {
    meta("_SK_s_p", 1_700_000_000)
}

fn envelope(kms: &impl KeyManagementService) -> Value {
    let wrapped = run(kms.wrap_key(&system_key(), &name(), &call())).expect("it can be wrapped");
    let json = wrapped.bytes().strip_prefix(b"CLV1").expect("it is an envelope");
    serde_json::from_slice(json).expect("it is JSON")
}

/// Nothing but the key that was wrapped is ever unwrapped, and only from what is found whole.
fn opens_alone(kms: &impl KeyManagementService, stored: &[u8]) {
    let health = kms.inspect(stored);
    match run(kms.unwrap_key(stored, &name(), &call())) {
        Ok(opened) => {
            assert_eq!(opened.expose_secret(), system_key().expose_secret(), "another key was unwrapped");
            assert!(!health.expect("what opens is an envelope").present.is_empty());
        }
        Err(error) => assert_refused(&error),
    }
}

/// Does to an envelope what each three bytes say.
fn edited(envelope: &Value, edits: &[u8]) -> Vec<u8> {
    let mut envelope = envelope.clone();
    for edit in edits.chunks_exact(3).take(8) {
        let [what, place, value] = [edit[0] % 8, edit[1], edit[2]];
        let copies = envelope["copies"].as_array_mut().expect("it has copies");
        if copies.is_empty() {
            break;
        }
        let (place, other) = (usize::from(place) % copies.len(), usize::from(value) % copies.len());
        match what {
            0 => copies.swap(place, other),
            1 => drop(copies.remove(place)),
            2 => copies[place]["x"] = value.into(),
            3 => copies[place]["copy"] = copies[other]["copy"].clone(),
            4 => copies[place]["member"] = copies[other]["member"].clone(),
            5 => {
                let copy = copies[place].clone();
                copies.push(copy);
            }
            6 => envelope["k"] = value.into(),
            _ => flip(&mut envelope["sealed"], value),
        }
    }
    let mut written = b"CLV1".to_vec();
    written.extend_from_slice(&in_order(&envelope, &["kind", "k", "sealed", "copies"]));
    written
}

/// Another base64 digit.
fn flip(base64: &mut Value, value: u8) {
    let mut text = base64.as_str().expect("it is base64").to_owned();
    let place = usize::from(value) % (text.len() / 2);
    let digit = if text[place..].starts_with('A') { "B" } else { "A" };
    text.replace_range(place..=place, digit);
    *base64 = text.into();
}

/// Writes the fields in the order that envelopes have, and copies likewise.
fn in_order(object: &Value, names: &[&str]) -> Vec<u8> {
    let text = |name: &str| match (name, &object[name]) {
        ("copies", Value::Array(copies)) => {
            let copies = copies.iter().map(|copy| in_order(copy, &["member", "x", "copy"]));
            let copies: Vec<String> =
                copies.map(|copy| String::from_utf8(copy).expect("it is JSON")).collect();
            format!(r#""copies":[{}]"#, copies.join(","))
        }
        (name, value) => {
            let field = Value::Object(Map::from_iter([(name.to_owned(), value.clone())])).to_string();
            field.trim_start_matches('{').trim_end_matches('}').to_owned()
        }
    };
    format!("{{{}}}", names.iter().map(|name| text(name)).collect::<Vec<_>>().join(",")).into_bytes()
}
