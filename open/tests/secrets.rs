//! No secret is in any error or `Debug`, whatever is wrong with what it stands in.

use std::error::Error;
use std::fmt::Debug;

use claviger::ErrorChain;
use claviger_open::{Asherah, Environment, FactorySpec, KmsOptions, KmsSpec, StoreOptions, StoreSpec};
use serde_json::json;

/// What must not be told, nor half of it.
const SECRET: &str = "ZqXjKvWyQzJx";

fn assert_silent(what: &str, told: &str) {
    for half in [&SECRET[..6], &SECRET[6..]] {
        assert!(!told.contains(half), "{what}: {told}");
    }
}

/// What is shown of it, or of why there is none.
fn shown<T: Debug, E: Error + 'static>(read: &Result<T, E>) -> String {
    match read {
        Ok(spec) => format!("{spec:?} {spec:#?}"),
        Err(error) => format!("{error} {error:?} {error:#?} {}", ErrorChain::new(error)),
    }
}

/// Asserts that `read` tells nothing of a text, nor of why it cannot read one that is damaged. What it can read
/// may be the name of a user by the damage.
fn assert_silent_reading<T: Debug, E: Error + 'static>(text: &str, read: impl Fn(&str) -> Result<T, E>) {
    assert_silent(text, &shown(&read(text)));
    for text in damaged(text) {
        if let Err(error) = read(&text) {
            assert_silent(&text, &shown(&Err::<T, _>(error)));
        }
    }
}

/// The text with each of its characters left out, doubled, or another one; and cut there.
fn damaged(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    // The secret itself may be any.
    let places = text.char_indices().filter(|(at, _)| {
        let secret = text.match_indices(SECRET).map(|(begin, _)| begin..begin + SECRET.len());
        !secret.into_iter().any(|range| range.contains(at))
    });
    for (at, letter) in places {
        let (before, after) = (&text[..at], &text[at + letter.len_utf8()..]);
        all.push(format!("{before}{after}"));
        for other in ["@", "/", ":", "?", "#", "&", "%", "\""] {
            all.push(format!("{before}{other}{after}"));
            all.push(format!("{before}{letter}{other}{after}"));
        }
        all.extend([before, after].map(str::to_owned));
    }
    all
}

#[test]
fn no_text_shows_its_secret_whatever_is_wrong_with_it() {
    for text in [
        format!("postgres://user:{SECRET}@db.example:5432/keys?sslmode=require"),
        format!("postgres://user@db.example/keys?password={SECRET}"),
        format!("mysql://user:{SECRET}@db.example:3306/keys?ssl-mode=REQUIRED"),
        format!("dynamodb://Keys?region=us-east-1&endpoint=http://user:{SECRET}@127.0.0.1:1"),
    ] {
        assert_silent_reading(&text, |text| StoreSpec::from_text(text, "--metastore"));
    }
    for text in [
        format!("pkcs11:token=t;object=o?module-path=/m.so&pin-value={SECRET}"),
        format!("vault:https://vault.example:8200/transit/k?token={SECRET}"),
        format!("vault:https://vault.example:8200/transit/k?auth=approle&role-id=r&secret-id={SECRET}"),
        format!("vault:https://user:{SECRET}@vault.example:8200/transit/k"),
        format!("aws:us-east-1=arn,endpoint.us-east-1=http://user:{SECRET}@127.0.0.1:1"),
        format!("static:{SECRET}"),
    ] {
        assert_silent_reading(&text, |text| KmsSpec::from_text(text, "--kms"));
    }
}

#[test]
fn no_document_shows_its_secret_whatever_is_wrong_with_it() {
    for (metastore, kms) in [
        (json!({ "type": "postgres", "url": "postgres://u@h/d", "password": SECRET }), json!("local:a")),
        (json!({ "type": "mysql", "url": format!("mysql://u:{SECRET}@h/d") }), json!("local:a")),
        (json!("memory:"), json!({ "type": "static", "key": SECRET })),
        (json!("memory:"), json!({ "type": "vault", "address": "https://v", "key": "k", "token": SECRET })),
        (
            json!("memory:"),
            json!({ "type": "vault", "address": format!("https://u:{SECRET}@v"), "key": "k" }),
        ),
    ] {
        let table = json!({ "service": "s", "product": "p", "metastore": metastore, "kms": kms });
        assert_silent_reading(&table.to_string(), FactorySpec::from_json);
        assert_silent_reading(&toml::to_string(&table).unwrap(), FactorySpec::from_toml);
    }
}

#[test]
fn no_configuration_of_asherahs_shows_its_secret_whatever_is_wrong_with_it() {
    for others in [
        json!({ "Metastore": "rdbms", "ConnectionString": format!("u:{SECRET}@tcp(h:3306)/d?tls=true") }),
        json!({ "Metastore": "rdbms", "ConnectionString": format!("postgres://u:{SECRET}@h/d") }),
        json!({ "Metastore": "rdbms", "SQLMetastoreDBType": "postgres",
                "ConnectionString": format!("host=h password='{SECRET}' dbname=d") }),
        json!({ "KMS": "static", "StaticMasterKeyHex": SECRET }),
        json!({ "KMS": "vault", "VaultAddr": "https://v", "VaultTransitKey": "k", "VaultToken": SECRET }),
        json!({ "KMS": "vault", "VaultAddr": "https://v", "VaultTransitKey": "k", "VaultAuthMethod": "approle",
                "VaultApproleRoleId": "r", "VaultApproleSecretId": SECRET }),
    ] {
        let mut config = json!({
            "ServiceName": "s", "ProductID": "p", "Metastore": "memory", "KMS": "test-debug-static",
        });
        config.as_object_mut().unwrap().extend(others.as_object().unwrap().clone());
        for by in [Asherah::Go, Asherah::Rust] {
            assert_silent_reading(&config.to_string(), |text| FactorySpec::from_asherah_json(text, by));
        }
    }
}

#[tokio::test]
async fn nothing_that_is_opened_or_refused_shows_its_secret() {
    let environment = Environment::of([("SECRET", SECRET), ("CLAVIGER_SERVICE", SECRET)]);
    assert_silent("Environment", &format!("{environment:?}"));
    let kms_options = KmsOptions::new().environment(environment.clone());
    let store_options = StoreOptions::new().environment(environment.clone());
    assert_silent("options", &format!("{kms_options:?} {store_options:?}"));
    for kms in [
        json!({ "type": "static", "key": "env:SECRET" }),
        json!({ "type": "static", "key": SECRET }),
        json!({ "type": "vault", "address": "http://127.0.0.1:1", "key": "k", "token": "env:SECRET" }),
        json!({ "type": "vault", "address": "http://127.0.0.1:1", "key": "k", "token": SECRET }),
        json!({ "type": "pkcs11", "module-path": "/nowhere.so", "token": "t", "object": "o", "pin-source": "env:SECRET" }),
    ] {
        let spec: KmsSpec = serde_json::from_value(kms.clone()).unwrap();
        assert_silent(&kms.to_string(), &shown(&spec.open(&kms_options).await));
    }
    for store in [
        json!({ "type": "postgres", "url": "postgres://u@127.0.0.1:1/d", "password": "env:SECRET" }),
        json!(format!("postgres://u:{SECRET}@127.0.0.1:1/d")),
        json!({ "type": "mysql", "url": "mysql://u@127.0.0.1:1/d", "password": "env:SECRET" }),
        json!(format!("mysql://u:{SECRET}@127.0.0.1:1/d")),
    ] {
        let spec: StoreSpec = serde_json::from_value(store.clone()).unwrap();
        assert_silent(&store.to_string(), &shown(&spec.open(&store_options).await));
    }
}
