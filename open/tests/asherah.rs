//! Asherah's configurations, and what is wrong with them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use claviger_open::{Asherah, Environment, FactorySpec, KmsOptions, KmsSpec, OpenError, StoreSpec};
use serde_json::{Value, json};

/// What is enough, with these besides or in place.
fn config(others: Value) -> String {
    let mut config = json!({
        "ServiceName": "checkout", "ProductID": "payments", "Metastore": "memory", "KMS": "test-debug-static",
    });
    config.as_object_mut().unwrap().extend(others.as_object().unwrap().clone());
    config.to_string()
}

fn read(others: Value, by: Asherah) -> FactorySpec {
    FactorySpec::from_asherah_json(&config(others), by).unwrap()
}

/// The error, in which there is nothing secret.
fn told(result: Result<FactorySpec, claviger_open::SpecError>) -> String {
    let error = result.unwrap_err();
    let told = format!("{error} {error:?}");
    assert!(!told.contains("SECRET"), "{told}");
    error.to_string()
}

fn refused(others: Value, by: Asherah) -> String {
    told(FactorySpec::from_asherah_json(&config(others), by))
}

#[test]
fn the_names_of_both_versions_come_to_the_same() {
    let new = json!({
        "ServiceName": "checkout", "ProductID": "payments", "Metastore": "rdbms", "KMS": "aws",
        "ConnectionString": "user:SECRET@tcp(db.example:3306)/keys?tls=true&parseTime=true",
        "RegionMap": { "us-east-1": "arn:a", "eu-west-1": "arn:b" }, "PreferredRegion": "eu-west-1",
        "ExpireAfter": 7_776_000_000_000_000_u64, "CheckInterval": 3_600_000_000_000_u64,
        "EnableSessionCaching": true, "SessionCacheMaxSize": 1000, "SessionCacheDuration": null, "Verbose": false,
    });
    let old = json!({
        "service_name": "checkout", "product_id": "payments", "metastore": "rdbms", "kms": "aws",
        "connection_string": "user:SECRET@tcp(db.example:3306)/keys?tls=true&parseTime=true",
        "region_map": { "us-east-1": "arn:a", "eu-west-1": "arn:b" }, "preferred_region": "eu-west-1",
        "expire_after": 7_776_000_000_000_000_u64, "check_interval": 3_600_000_000_000_u64,
        "enable_session_caching": true, "session_cache_max_size": 1000, "session_cache_duration": null,
    });
    let [new, old] =
        [new, old].map(|json| FactorySpec::from_asherah_json(&json.to_string(), Asherah::Go).unwrap());
    let shown = format!("{new:?}");
    assert_eq!(shown, format!("{old:?}"));
    assert!(shown.contains("mysql://user@db.example:3306/keys"), "{shown}");
    assert!(shown.contains("expire_after: Some(7776000s)"), "{shown}");
    assert!(shown.contains("check_interval: Some(3600s)"), "{shown}");
    assert!(!shown.contains("SECRET"), "{shown}");
    assert!(matches!(new.kms(), KmsSpec::Aws(_)));
    assert_eq!(new.system_key_id().as_str(), "_SK_checkout_payments");
}

#[test]
fn seconds_are_rusts_and_nanoseconds_are_gos() {
    let day = 86_400_u64;
    let go = read(json!({ "ExpireAfter": 90 * day * 1_000_000_000 }), Asherah::Go);
    let rust = read(json!({ "ExpireAfter": 90 * day }), Asherah::Rust);
    assert_eq!(format!("{go:?}"), format!("{rust:?}"));
}

#[test]
fn a_time_out_of_range_is_refused_with_what_it_comes_to() {
    for name in ["ExpireAfter", "CheckInterval", "SessionCacheDuration"] {
        for (by, number, says) in [
            (
                Asherah::Go,
                7_776_000_i64,
                "is 7776000, which Go's Asherah reads as nanoseconds: 7ms 776us; claviger takes 1s to 100 years; if \
                 7776000 seconds (90d) are meant, write 7776000000000000",
            ),
            (
                Asherah::Rust,
                7_776_000_000_000_000,
                "is 7776000000000000, which Rust's Asherah reads as seconds: 246406570 years; claviger takes 1s to \
                 100 years; if 7776000000000000 nanoseconds (90d) are meant, write 7776000",
            ),
            (Asherah::Go, 999_999_999, "nanoseconds: 999ms 999us 999ns; claviger takes 1s to 100 years"),
            (Asherah::Rust, 3_155_760_001, "seconds: 100 years; claviger takes 1s to 100 years"),
            (Asherah::Go, -1, "is -1, which Go's Asherah reads as nanoseconds; it is no time"),
            (Asherah::Rust, -1, "is -1, which Rust's Asherah reads as seconds; it is no time"),
        ] {
            let told = refused(json!({ name: number }), by);
            assert!(told.starts_with(name) && told.contains(says), "{told}");
        }
        read(json!({ name: 1_000_000_000 }), Asherah::Go);
        read(json!({ name: 1 }), Asherah::Rust);
        read(json!({ name: 3_155_760_000_i64 }), Asherah::Rust);
        for number in [json!("SECRET"), json!(1.5), json!(u64::MAX), json!(true)] {
            assert!(refused(json!({ name: number }), Asherah::Rust).contains("is not a number that fits"));
        }
    }
    for by in [Asherah::Go, Asherah::Rust] {
        let zero = refused(json!({ "CheckInterval": 0 }), by);
        assert!(zero.starts_with("CheckInterval is 0, which means three things"), "{zero}");
        let zero = refused(json!({ "ExpireAfter": 0 }), by);
        assert!(zero.contains("0s; claviger takes 1s to 100 years"), "{zero}");
    }
}

#[test]
fn a_name_that_is_not_known_is_told_with_the_nearest_one() {
    for (unknown, meant) in [
        ("ExpireAftr", "ExpireAfter"),
        ("expire_aftr", "ExpireAfter"),
        ("ConectionString", "ConnectionString"),
        ("StaticMasterKey", "StaticMasterKeyHex"),
        ("RegionMaps", "RegionMap"),
    ] {
        let told = refused(json!({ unknown: "SECRET" }), Asherah::Rust);
        assert!(told.contains(unknown) && told.ends_with(&format!("did you mean {meant}?")), "{told}");
    }
    let twice = refused(json!({ "service_name": "other" }), Asherah::Rust);
    assert!(twice.contains("says ServiceName twice"), "{twice}");
    let told = told(FactorySpec::from_asherah_server(
        &Environment::of([("ASHERAH_SERVICE_NAME", "s"), ("ASHERAH_CONECTION_STRING", "SECRET")]),
        Asherah::Go,
    ));
    assert!(told.ends_with("did you mean ASHERAH_CONNECTION_STRING?"), "{told}");
}

#[test]
fn what_claviger_cannot_do_is_refused() {
    for (others, says) in [
        (json!({ "KMS": "secrets-manager", "SecretsManagerSecretId": "SECRET" }), "AWS Secrets Manager"),
        (json!({ "KMS": "vault", "VaultAuthMethod": "cert" }), "the VaultAuthMethod cert"),
        (json!({ "KMS": "SECRET" }), "has a KMS that is not known"),
        (json!({ "KMS": "static" }), "lacks its StaticMasterKeyHex"),
        (json!({ "KMS": "aws" }), "lacks its regions"),
        (json!({ "KMS": "aws", "KmsKeyId": "alias/SECRET" }), "no ARN"),
        (json!({ "AwsProfileName": "SECRET" }), "set the variable AWS_PROFILE"),
        (json!({ "ConfigDriftForceUpdate": true }), "ConfigDriftForceUpdate, which claviger has not"),
        (json!({ "Metastore": "SECRET" }), "has a Metastore that is not known"),
        (json!({ "Metastore": "rdbms" }), "lacks its ConnectionString"),
        (json!({ "Metastore": "rdbms", "ConnectionString": "oracle://u:SECRET@h/d" }), "of another kind"),
        (
            json!({ "Metastore": "rdbms", "SQLMetastoreDBType": "oracle", "ConnectionString": "SECRET" }),
            "there are mysql, postgres",
        ),
        (
            json!({ "Metastore": "rdbms", "SQLMetastoreDBType": "postgres", "ConnectionString": "pasword=SECRET" }),
            "did you mean password?",
        ),
        (
            json!({ "Metastore": "rdbms", "ConnectionString": "u:SECRET@tcp(h)/d?tls=SECRET" }),
            "a Go program's",
        ),
        (json!({ "ReplicaReadConsistency": "session" }), "Aurora MySQL's"),
        (json!({ "EnableRegionSuffix": true }), "say DynamoDBRegion"),
    ] {
        let told = refused(others, Asherah::Rust);
        assert!(told.contains(says), "{told}");
    }
    for text in ["", "[]", "\"SECRET\"", "{\"ServiceName\": SECRET}", "{} SECRET"] {
        let told = told(FactorySpec::from_asherah_json(text, Asherah::Go));
        assert!(told.contains("is no JSON object") || told.contains("lacks its"), "{told}");
    }
}

#[test]
fn a_servers_variables_are_read_with_gos_times() {
    let spec = FactorySpec::from_asherah_server(
        &Environment::of([
            ("ASHERAH_SERVICE_NAME", "checkout"),
            ("ASHERAH_PRODUCT_NAME", "payments"),
            ("ASHERAH_METASTORE_MODE", "dynamodb"),
            ("ASHERAH_DYNAMODB_REGION", "eu-west-1"),
            ("ASHERAH_DYNAMODB_TABLE_NAME", "Keys"),
            ("ASHERAH_ENABLE_REGION_SUFFIX", "1"),
            ("ASHERAH_REGION_MAP", "us-east-1=arn:a,eu-west-1=arn:b"),
            ("ASHERAH_PREFERRED_REGION", "us-east-1"),
            ("ASHERAH_EXPIRE_AFTER", "2160h"),
            ("ASHERAH_CHECK_INTERVAL", "1h30m"),
            ("ASHERAH_SOCKET_FILE", "/tmp/appencryption.sock"),
        ]),
        Asherah::Go,
    )
    .unwrap();
    assert_eq!(spec.metastore().to_string(), "dynamodb://Keys");
    assert_eq!(spec.system_key_id().as_str(), "_SK_checkout_payments_eu-west-1");
    let shown = format!("{spec:?}");
    for part in [
        "expire_after: Some(7776000s)",
        "check_interval: Some(5400s)",
        "arn:b",
        "preferred: Some(\"us-east-1\")",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let of_time = |time| {
        let variables = Environment::of([
            ("ASHERAH_SERVICE_NAME", "checkout"),
            ("ASHERAH_PRODUCT_NAME", "payments"),
            ("ASHERAH_METASTORE_MODE", "memory"),
            ("ASHERAH_KMS_MODE", "static"),
            ("ASHERAH_EXPIRE_AFTER", time),
        ]);
        FactorySpec::from_asherah_server(&variables, Asherah::Go)
    };
    for (time, seconds) in
        [("90d", "7776000s"), ("1.5h", "5400s"), ("1h0.5m500ms", "3630.5s"), ("2000000µs", "2s")]
    {
        let shown = format!("{:?}", of_time(time).unwrap());
        assert!(shown.contains(&format!("expire_after: Some({seconds})")), "{time}: {shown}");
    }
    for (time, says) in [
        ("10ms", "ASHERAH_EXPIRE_AFTER is 10ms; claviger takes 1s to 100 years"),
        ("0.9s", "is 900ms; claviger takes 1s to 100 years"),
        ("876601h", "is 100 years; claviger takes 1s to 100 years"),
        ("0", "is 0s; claviger takes 1s to 100 years"),
        ("-1h", "is not a time such as 1h30m"),
        ("1.5", "is not a time such as 1h30m"),
        ("7776000", "is not a time such as 1h30m"),
        ("h", "is not a time such as 1h30m"),
        ("SECRET", "ASHERAH_EXPIRE_AFTER is not a time"),
    ] {
        let told = told(of_time(time));
        assert!(told.contains(says), "{time}: {told}");
    }
}

#[test]
fn a_librarys_variables_are_read_with_seconds() {
    let names = [
        ("SERVICE_NAME", "checkout"),
        ("PRODUCT_ID", "payments"),
        ("KMS", "vault"),
        ("VAULT_TOKEN", "SECRET"),
    ];
    let vault =
        [("VAULT_ADDR", "https://vault.example"), ("VAULT_TRANSIT_KEY", "k"), ("EXPIRE_AFTER_SECS", "86400")];
    let read = |others: &[(&str, &str)]| {
        let all = names.iter().chain(&vault).chain(others);
        FactorySpec::from_asherah_environment(&Environment::of(all.copied()))
    };
    for (variable, value, shown) in [
        ("POSTGRES_URL", "postgres://u:SECRET@h/d", "postgres://u@h/d"),
        ("MYSQL_URL", "mysql://u:SECRET@h/d", "mysql://u@h/d"),
        ("SQLITE_PATH", "keys.db", "keys.db"),
        ("DDB_TABLE", "Keys", "dynamodb://Keys"),
    ] {
        let spec = read(&[(variable, value)]).unwrap();
        assert_eq!(spec.metastore().to_string(), shown);
        let shown = format!("{spec:?}");
        assert!(shown.contains("expire_after: Some(86400s)") && !shown.contains("SECRET"), "{shown}");
        assert!(matches!(spec.kms(), KmsSpec::Vault(_)));
    }
    for (others, says) in [
        (
            &[("REVOKE_CHECK_INTERVAL_SECS", "0")][..],
            "REVOKE_CHECK_INTERVAL_SECS is 0, which means three things",
        ),
        (
            &[("EXPIRE_AFTER_SECS", "0")],
            "EXPIRE_AFTER_SECS is 0, which Rust's Asherah reads as seconds: 0s; claviger",
        ),
        (&[("CREATE_DATE_PRECISION_SECS", "0")], "CREATE_DATE_PRECISION_SECS is 0, which Rust's"),
        (
            &[("SQLITE_PATH", "SECRET")],
            "the variables SQLITE_PATH and DDB_TABLE name two metastores; leave one out",
        ),
        (
            &[("Metastore", "rdbms")],
            "the variables DDB_TABLE and Metastore name two metastores; leave one out",
        ),
        (&[("MYSQL_TLS_MODE", "true")], "has a MYSQL_TLS_MODE, which is MySQL's"),
    ] {
        let told = told(read(&[&[("DDB_TABLE", "Keys")][..], others].concat()));
        assert!(told.starts_with(says), "{told}");
    }
}

#[test]
fn what_a_library_says_of_caches_and_of_creation_times_is_read() {
    let variables = Environment::of([
        ("SERVICE_NAME", "checkout"),
        ("PRODUCT_ID", "payments"),
        ("Metastore", "memory"),
        ("KMS", "test-debug-static"),
        ("CREATE_DATE_PRECISION_SECS", "3600"),
        ("SESSION_CACHE_MAX_SIZE", "7"),
        ("INTERMEDIATE_KEY_CACHE_MAX_SIZE", "70"),
        ("CACHE_SYSTEM_KEYS", "false"),
        ("SHARED_INTERMEDIATE_KEY_CACHE", "no"),
        ("ASHERAH_POOL_MAX_LIFETIME", "60"),
    ]);
    let spec = FactorySpec::from_asherah_environment(&variables).unwrap();
    let (policy, limits) = (format!("{:?}", spec.policy()), format!("{:?}", spec.limits()));
    assert!(policy.contains("creation_precision: 3600s"), "{policy}");
    assert!(limits.contains("max_intermediate_keys: Keys(70)"), "{limits}");
}

#[test]
fn mysqls_tls_is_read_from_beside_its_url_in_gos_words() {
    let read = |url: &str, mode: &str| {
        FactorySpec::from_asherah_environment(&Environment::of([
            ("SERVICE_NAME", "s"),
            ("PRODUCT_ID", "p"),
            ("KMS", "test-debug-static"),
            ("MYSQL_URL", url),
            ("MYSQL_TLS_MODE", mode),
        ]))
    };
    for url in
        ["mysql://u:SECRET@h/d", "mysql://u:SECRET@h/d?timezone=UTC", "u:SECRET@tcp(h)/d?parseTime=true"]
    {
        for mode in ["true", "preferred", "skip-verify", "false"] {
            assert_eq!(read(url, mode).unwrap().metastore().to_string(), "mysql://u@h/d");
        }
        assert!(told(read(url, "SECRET")).contains("there are true, skip-verify, false"));
    }
    for url in ["mysql://u:SECRET@h/d?ssl-mode=REQUIRED", "u:SECRET@tcp(h)/d?tls=true"] {
        assert!(told(read(url, "false")).contains("keep one"));
    }
}

#[tokio::test]
async fn the_key_that_everybody_knows_is_taken_only_where_that_is_said() {
    let spec = FactorySpec::from_asherah_json(&config(json!({ "KMS": "static" })), Asherah::Go).unwrap();
    let refused = spec.kms().open(&KmsOptions::new()).await.unwrap_err();
    assert!(matches!(refused, OpenError::GuessableKey { .. }), "{refused}");
    assert!(spec.kms().open(&KmsOptions::new().danger_known_key(true)).await.is_ok());
    let zeros = read(json!({ "KMS": "static", "StaticMasterKeyHex": "8f".repeat(32) }), Asherah::Rust);
    assert!(!format!("{zeros:?}").contains("8f8f"), "{zeros:?}");
    assert!(matches!(zeros.metastore(), StoreSpec::Memory));
}
