//! What a description says, and what is always there to open.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "backends/kit.rs"]
mod kit;

use claviger_open::{Environment, FactorySpec, KmsOptions, OpenError, StoreOptions};
use serde_json::{Value, json};

use crate::kit::{HEX, described, local, serves, variables};

#[tokio::test(flavor = "multi_thread")]
async fn the_store_in_memory_and_keys_in_files_serve() {
    let (folder, path) = local();
    let environment = Environment::of([("KEY", HEX)]);
    serves(&described(&json!("memory:"), &json!(format!("local:{path}"))), &environment).await;
    serves(
        &described(&json!({ "type": "memory" }), &json!({ "type": "static", "key": "env:KEY" })),
        &environment,
    )
    .await;
    serves(&variables("memory:", &format!("local:{path}")), &environment).await;
    drop(folder);
}

/// Asserts that what is not built in is refused by a sentence with the feature, and what is built in is not.
fn assert_missing<T>(opened: Result<T, OpenError>, feature: &str, is_built_in: bool) {
    match opened {
        Err(error @ OpenError::MissingFeature { .. }) => {
            assert!(!is_built_in, "{error}");
            assert!(error.to_string().contains(&format!("with the feature `{feature}`")), "{error}");
        }
        _ => assert!(is_built_in, "{feature}"),
    }
}

#[tokio::test]
async fn what_was_not_built_in_is_refused_with_its_feature() {
    for (text, feature, is_built_in) in [
        ("sqlite:/nowhere/keys.db", "sqlite", cfg!(feature = "sqlite")),
        ("postgres://u@127.0.0.1:1/d", "postgres", cfg!(feature = "postgres")),
        ("mysql://u@127.0.0.1:1/d", "mysql", cfg!(feature = "mysql")),
        ("dynamodb://t?region=us-east-1&endpoint=http://127.0.0.1:1", "dynamodb", cfg!(feature = "dynamodb")),
    ] {
        let spec = variables(text, "local:a");
        assert_missing(spec.metastore().schema(), feature, is_built_in);
        if !is_built_in {
            assert_missing(spec.metastore().open(&StoreOptions::new()).await, feature, is_built_in);
            assert_missing(spec.metastore().open_existing(&StoreOptions::new()).await, feature, is_built_in);
        }
    }
    let members =
        json!([{ "name": "a", "kms": "local:/nowhere/a" }, { "name": "b", "kms": "local:/nowhere/b" }]);
    let several =
        |kind: &str| json!({ "type": kind, "k": 2, "asherah-compatible": false, "members": members });
    let mut any_of = several("any-of");
    any_of.as_object_mut().unwrap().remove("k");
    for (kms, feature, is_built_in) in [
        (json!("aws:us-east-1=arn"), "aws", cfg!(feature = "aws")),
        (json!("pkcs11:token=t;object=o?module-path=/nowhere/m.so"), "pkcs11", cfg!(feature = "pkcs11")),
        (json!("vault:http://127.0.0.1:1/transit/k"), "vault", cfg!(feature = "vault")),
        (any_of, "any-of", cfg!(feature = "any-of")),
        (several("k-of-n"), "k-of-n", cfg!(feature = "k-of-n")),
    ] {
        let opened = described(&json!("memory:"), &kms).kms().open(&KmsOptions::new()).await;
        assert_missing(opened, feature, is_built_in);
    }
}

#[test]
fn a_description_is_strict() {
    let read = |others: &str| {
        let text =
            format!("service = 's'\nproduct = 'p'\nmetastore = 'memory:'\nkms = 'local:a'\n{others}\n");
        toml::from_str::<FactorySpec>(&text).map_err(|error| error.message().to_owned())
    };
    assert!(read("check-interval = '60m'\nexpire-after = '90d'").is_ok());
    for (others, says) in [
        ("expire-aftr = '90d'", "did you mean expire-after?"),
        ("expire_after = '90d'", "did you mean expire-after?"),
        ("expire-after = 90", "expire-after is not a time"),
        ("expire-after = '90'", "expire-after is not a time"),
        ("cache = -1", "cache is not a number"),
    ] {
        let told = read(others).unwrap_err();
        assert!(told.contains(says), "{told}");
    }
    let of = |variables: &[(&str, &str)]| {
        let environment = Environment::of(variables.iter().copied());
        FactorySpec::from_environment(&environment).unwrap_err().to_string()
    };
    assert!(of(&[("A", "b"), ("CLAVIGER_HOME", "c")]).contains("lacks its service"));
    let told = of(&[("CLAVIGER_EXPIRE_AFTR", "90d")]);
    assert!(
        told.ends_with("CLAVIGER_EXPIRE_AFTR is not known; did you mean CLAVIGER_EXPIRE_AFTER?"),
        "{told}"
    );
    let told = of(&[("CLAVIGER_SERVICE", "s"), ("CLAVIGER_PRODUCT", "p"), ("CLAVIGER_METASTORE", "memory")]);
    assert!(told.starts_with("CLAVIGER_METASTORE names no store"), "{told}");
}

#[test]
fn the_call_deadline_of_a_kms_is_the_limit_of_its_calls() {
    let limits = |kms: &Value| format!("{:?}", described(&json!("memory:"), kms).limits());
    let vault = |time: &str| format!("vault:https://v/transit/k?call-deadline={time}");
    let long = limits(&json!(vault("30s")));
    assert!(long.contains("kms_deadline: 30s") && long.contains("operation_deadline: 90s"), "{long}");
    let short = limits(&json!(vault("1s")));
    assert!(short.contains("kms_deadline: 1s") && short.contains("operation_deadline: 10s"), "{short}");
    let members = json!([{ "name": "a", "kms": vault("7s") }, { "name": "b", "kms": vault("3s") }]);
    let longest = limits(&json!({ "type": "any-of", "members": members }));
    assert!(longest.contains("kms_deadline: 7s"), "{longest}");
    let own = limits(&json!({ "type": "any-of", "members": members, "call-deadline": "2s" }));
    assert!(own.contains("kms_deadline: 2s"), "{own}");
    assert_eq!(limits(&json!("local:a")), format!("{:?}", claviger::Limits::production()));
}
