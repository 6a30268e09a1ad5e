//! Every back end there is, opened from a description, from the environment and from Asherah's configuration.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use claviger::CallContext;
use claviger_open::{
    Asherah, Environment, FactorySpec, KmsOptions, Making, OpenError, OpenStore, SpecError, StoreOptions,
};
#[cfg(any(
    feature = "postgres",
    feature = "mysql",
    feature = "dynamodb",
    feature = "aws",
    feature = "pkcs11",
    feature = "vault"
))]
use claviger_testkit as servers;
use serde_json::{Value, json};

/// A machine that is busy is no service that is down.
const PATIENCE: Duration = Duration::from_secs(60);

/// A master key that nobody guesses.
const HEX: &str = "8f0e6d5c4b3a29181706f5e4d3c2b1a09f8e7d6c5b4a39281706f5e4d3c2b1a0";

/// Opens both, encrypts and decrypts, and looks at the table.
async fn serves(spec: &FactorySpec, environment: &Environment) {
    let store =
        spec.metastore().open(&StoreOptions::new().environment(environment.clone()).migrate()).await.unwrap();
    let options = KmsOptions::new().environment(environment.clone()).making(Making::IfMissing);
    let kms = spec.kms().open(&options.making_members(Making::IfMissing)).await.unwrap();
    let checked = kms.check(&CallContext::within(PATIENCE)).await;
    assert!(checked.iter().all(claviger_kms::CopyCheck::is_good), "{checked:?}");
    let factory = spec.builder(store.metastore(), kms.kms()).build().unwrap();
    let session = factory.session("customer-17").unwrap();
    let record = session.encrypt(b"4111").await.unwrap();
    assert_eq!(&*session.decrypt(&record).await.unwrap(), b"4111");
    close(&store).await;
}

async fn close(store: &OpenStore) {
    #[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql", feature = "dynamodb"))]
    store.check_schema(&CallContext::within(PATIENCE)).await.unwrap();
    store.close().await;
}

/// Reads a description as TOML and as JSON, which say the same.
fn described(metastore: &Value, kms: &Value) -> FactorySpec {
    let table = json!({ "service": "checkout", "product": "payments", "metastore": metastore, "kms": kms });
    let json: FactorySpec = serde_json::from_str(&table.to_string()).unwrap();
    let toml: FactorySpec = toml::from_str(&toml::to_string(&table).unwrap()).unwrap();
    assert_eq!(format!("{json:?}"), format!("{toml:?}"));
    toml
}

fn variables(metastore: &str, kms: &str) -> FactorySpec {
    let names = [
        ("CLAVIGER_SERVICE", "checkout"),
        ("CLAVIGER_PRODUCT", "payments"),
        ("CLAVIGER_EXPIRE_AFTER", "90d"),
    ];
    let both = [("CLAVIGER_METASTORE", metastore), ("CLAVIGER_KMS", kms)];
    FactorySpec::from_environment(&Environment::of(names.into_iter().chain(both))).unwrap()
}

fn local() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.key").display().to_string();
    (folder, path)
}

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

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn sqlite_serves_from_every_description() {
    let (folder, key) = local();
    let file = folder.path().join("keys.db").display().to_string();
    let none = Environment::of([("", ""); 0]);
    let kms = json!({ "type": "local", "path": key });
    serves(&described(&json!(format!("sqlite:{file}")), &kms), &none).await;
    serves(&described(&json!({ "type": "sqlite", "path": file }), &kms), &none).await;
    serves(&variables(&format!("sqlite:{file}"), &format!("local:{key}")), &none).await;
    let hex = HEX;
    let config = json!({
        "ServiceName": "c", "ProductID": "p", "Metastore": "sqlite", "ConnectionString": file,
        "KMS": "static", "StaticMasterKeyHex": hex,
    });
    let spec = FactorySpec::from_asherah_json(&config.to_string(), Asherah::Rust).unwrap();
    serves(&spec, &none).await;
    assert!(!format!("{spec:?}").contains(hex));
}

#[cfg(all(feature = "any-of", feature = "k-of-n"))]
#[tokio::test(flavor = "multi_thread")]
async fn several_services_serve_as_one() {
    let (folder, key) = local();
    let none = Environment::of([("", ""); 0]);
    let member = |name: &str| json!({ "name": name, "kms": format!("local:{key}.{name}") });
    let members = [member("a"), member("b")];
    serves(&described(&json!("memory:"), &json!({ "type": "any-of", "members": members })), &none).await;
    serves(
        &described(
            &json!("memory:"),
            &json!({ "type": "k-of-n", "k": 2, "asherah-compatible": false, "members": members }),
        ),
        &none,
    )
    .await;
    drop(folder);
}

/// Opens a database from its URL, a table with its password elsewhere, a variable and Asherah's configurations.
#[cfg(any(feature = "postgres", feature = "mysql"))]
async fn database(kind: &str, url: &str, of_asherah: &[&str]) {
    let (folder, key) = local();
    let password = password(url);
    let file = folder.path().join("password");
    std::fs::write(&file, format!("{password}\n")).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let environment = Environment::of([("DB_PASSWORD", password)]);
    let bare = url.replace(&format!(":{password}@"), "@");
    let kms = json!({ "type": "local", "path": key });
    let mut specs = vec![
        described(&json!(url), &kms),
        described(
            &json!({ "type": kind, "url": bare, "password": "env:DB_PASSWORD", "max-connections": 2 }),
            &kms,
        ),
        described(&json!({ "type": kind, "url": bare, "password": format!("@{}", file.display()) }), &kms),
        variables(url, &format!("local:{key}")),
    ];
    for connection in of_asherah {
        let config = json!({
            "service_name": "c", "product_id": "p", "metastore": "rdbms", "connection_string": connection,
            "sql_metastore_db_type": kind, "kms": "static", "static_master_key_hex": HEX,
        });
        specs.push(FactorySpec::from_asherah_json(&config.to_string(), Asherah::Rust).unwrap());
    }
    for spec in &specs {
        assert!(!format!("{spec:?} {}", spec.metastore()).contains(password));
        serves(spec, &environment).await;
    }
    let spec = described(&json!(bare.replace('@', ":another-s3cr3t@")), &kms);
    let error = spec.metastore().open(&StoreOptions::new()).await.unwrap_err();
    let told = format!("{error} {error:?} {}", claviger::ErrorChain::new(&error));
    assert!(!told.contains("another-s3cr3t"), "{told}");
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
fn password(url: &str) -> &str {
    url.split(['@', ':']).nth(2).unwrap()
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn postgres_serves_from_every_description() {
    let server = servers::Postgres::start();
    server.create_database("opened");
    let url = server.url("opened");
    database("postgres", &url, &[&url]).await;
}

#[cfg(feature = "mysql")]
#[tokio::test(flavor = "multi_thread")]
async fn mysql_serves_from_every_description_and_from_gos_dsn() {
    let server = servers::MariaDb::start();
    server.create_database("opened", "utf8mb4 COLLATE utf8mb4_bin");
    let url = server.url("opened");
    let dsn = format!(
        "claviger:{}@tcp(127.0.0.1:{})/opened?parseTime=true&tls=preferred",
        password(&url),
        server.port()
    );
    database("mysql", &url, &[&url, &dsn]).await;
}

#[cfg(all(feature = "dynamodb", feature = "aws"))]
#[tokio::test(flavor = "multi_thread")]
async fn dynamodb_and_aws_serve_from_every_description() {
    let Some(told) = servers::told_by_parent() else {
        let moto = servers::shared_moto();
        let made = servers::AwsService::Kms.done(moto, "us-east-1", "CreateKey", "{}");
        let arn = made.pointer("/KeyMetadata/Arn").and_then(Value::as_str).unwrap();
        let told = [servers::shared_dynalite(), moto, arn].join(" ");
        // Asherah's configuration names no endpoint of AWS KMS.
        let variables = [&servers::AWS_VARIABLES[..], &[("AWS_ENDPOINT_URL_KMS", moto)]].concat();
        servers::in_environment("dynamodb_and_aws_serve_from_every_description", &told, &variables).await;
        return;
    };
    let [dynalite, moto, arn] = told.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let name = format!("Opened.{}", std::process::id());
    let none = Environment::of([("", ""); 0]);
    let table = json!({ "type": "dynamodb", "table": name, "region": "us-east-1", "endpoint": dynalite });
    let kms = json!({ "type": "aws", "regions": { "us-east-1": { "key": arn, "endpoint": moto } },
                      "call-deadline": "30s" });
    serves(&described(&table, &kms), &none).await;
    let text = format!("dynamodb://{name}?region=us-east-1&endpoint={dynalite}");
    let aws = format!("aws:us-east-1={arn},endpoint.us-east-1={moto},call-deadline=30s");
    serves(&variables(&text, &aws), &none).await;
    let config = json!({
        "ServiceName": "c", "ProductID": "p", "Metastore": "dynamodb", "DynamoDBTableName": name,
        "DynamoDBRegion": "us-east-1", "DynamoDBEndpoint": dynalite, "EnableRegionSuffix": true,
        "KMS": "static", "StaticMasterKeyHex": HEX,
    });
    serves(&FactorySpec::from_asherah_json(&config.to_string(), Asherah::Rust).unwrap(), &none).await;
    let config = json!({
        "ServiceName": "c", "ProductID": "p", "Metastore": "memory", "KMS": "aws", "RegionMap": { "us-east-1": arn },
        "PreferredRegion": "us-east-1",
    });
    serves(&FactorySpec::from_asherah_json(&config.to_string(), Asherah::Go).unwrap(), &none).await;
}

#[cfg(feature = "pkcs11")]
#[tokio::test(flavor = "multi_thread")]
async fn a_security_module_serves_from_every_description() {
    let hsm = servers::SoftHsm::token("open");
    hsm.add_key("master");
    let (label, module, pin) = (hsm.label(), hsm.module().display().to_string(), hsm.pin());
    let environment = Environment::of([("CLAVIGER_PKCS11_PIN", pin), ("PIN", pin)]);
    let table = json!({ "type": "pkcs11", "token": label, "object": "master", "module-path": module,
                        "pin-source": "env:PIN", "call-deadline": "30s" });
    serves(&described(&json!("memory:"), &table), &environment).await;
    let text = format!("pkcs11:token={label};object=master?module-path={module}&call-deadline=30s");
    serves(&variables("memory:", &text), &environment).await;
    let spec = variables("memory:", &format!("{text}&pin-value={pin}"));
    assert!(!format!("{spec:?}").contains(pin));
    serves(&spec, &environment).await;
}

#[cfg(feature = "vault")]
#[tokio::test(flavor = "multi_thread")]
async fn vault_serves_from_every_description() {
    let vault = servers::FakeVault::start();
    vault.create_key("transit/claviger");
    let token = vault.create_token(&servers::Grant::new());
    let address = vault.url();
    let environment = Environment::of([("VAULT_TOKEN", token.clone()), ("OTHER", token.clone())]);
    let table = json!({ "type": "vault", "address": address, "mount": "transit", "key": "claviger",
                        "token": "env:OTHER" });
    serves(&described(&json!("memory:"), &table), &environment).await;
    let text = format!("vault:{address}/transit/claviger");
    serves(&variables("memory:", &text), &environment).await;
    let spec = variables("memory:", &format!("{text}?token={token}"));
    assert!(!format!("{spec:?}").contains(&token));
    serves(&spec, &environment).await;
    let config = json!({
        "ServiceName": "c", "ProductID": "p", "Metastore": "memory", "KMS": "vault", "VaultAddr": address,
        "VaultTransitKey": "claviger", "VaultTransitMount": "transit", "VaultToken": token,
    });
    let spec = FactorySpec::from_asherah_json(&config.to_string(), Asherah::Rust).unwrap();
    assert!(!format!("{spec:?}").contains(&token));
    serves(&spec, &environment).await;
}

#[tokio::test]
async fn what_was_not_built_in_is_refused_with_its_feature() {
    let spec = |metastore: &str, kms: &str| variables(metastore, kms);
    for (text, feature) in [
        ("sqlite:keys.db", "sqlite"),
        ("postgres://u@127.0.0.1:1/d", "postgres"),
        ("mysql://u@127.0.0.1:1/d", "mysql"),
        ("dynamodb://t", "dynamodb"),
    ] {
        // Looking at it, of which no file is made.
        if let Err(error @ OpenError::MissingFeature { .. }) = spec(text, "local:a").metastore().schema() {
            assert!(error.to_string().contains(&format!("`{feature}`")), "{error}");
        }
    }
    for (text, feature) in [
        ("aws:us-east-1=arn", "aws"),
        ("pkcs11:token=t;object=o?module-path=/nowhere/m.so", "pkcs11"),
        ("vault:http://127.0.0.1:1/transit/k", "vault"),
    ] {
        let opened = spec("memory:", text).kms().open(&KmsOptions::new()).await;
        if let Err(error @ OpenError::MissingFeature { .. }) = opened {
            assert!(error.to_string().contains(&format!("`{feature}`")), "{error}");
        }
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
    let none: Result<FactorySpec, SpecError> = FactorySpec::from_environment(&Environment::of([("A", "b")]));
    assert!(none.unwrap_err().to_string().contains("lacks its service"));
}
