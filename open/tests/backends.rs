//! Every back end there is, opened from a description, from the environment and from Asherah's configuration.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use claviger::CallContext;
use claviger_open::{
    Asherah, Environment, FactorySpec, KmsOptions, Making, OpenError, OpenStore, StoreOptions, StoreSpec,
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
    // Go's Asherah has no other static one.
    let options = KmsOptions::new().environment(environment.clone()).danger_known_key(true);
    let options = options.making(Making::IfMissing);
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
    let (json, toml) = (table.to_string(), toml::to_string(&table).unwrap());
    let spec = FactorySpec::from_toml(&toml).unwrap();
    for other in [
        FactorySpec::from_json(&json).unwrap(),
        serde_json::from_str(&json).unwrap(),
        toml::from_str(&toml).unwrap(),
    ] {
        assert_eq!(format!("{spec:?}"), format!("{other:?}"));
    }
    spec
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

/// What a program of Rust's Asherah's is told by its environment, with a static master key.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql", feature = "dynamodb"))]
fn of_library(metastore: &[(&str, &str)]) -> FactorySpec {
    let names =
        [("SERVICE_NAME", "c"), ("PRODUCT_ID", "p"), ("KMS", "static"), ("STATIC_MASTER_KEY_HEX", HEX)];
    let all = names.iter().chain(metastore).copied();
    FactorySpec::from_asherah_environment(&Environment::of(all)).unwrap()
}

/// What a server of Go's Asherah's is told by its environment.
#[cfg(any(feature = "mysql", all(feature = "dynamodb", feature = "aws")))]
fn of_server(others: &[(&str, &str)]) -> FactorySpec {
    let names =
        [("ASHERAH_SERVICE_NAME", "c"), ("ASHERAH_PRODUCT_NAME", "p"), ("ASHERAH_EXPIRE_AFTER", "2160h")];
    let all = names.iter().chain(others).copied();
    FactorySpec::from_asherah_server(&Environment::of(all), Asherah::Go).unwrap()
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
    serves(&of_library(&[("SQLITE_PATH", &file)]), &none).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_there_or_has_no_table_is_made_where_that_is_said_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (missing, empty) = (folder.path().join("missing.db"), folder.path().join("empty.db"));
    std::fs::write(&empty, "").unwrap();
    let every = claviger_metastore::FindingId::ALL;
    for file in [&missing, &empty] {
        let spec = StoreSpec::Sqlite(file.clone());
        let lenient = StoreOptions::new().accept(every);
        for options in [lenient.clone(), lenient.clone().migrate(), StoreOptions::new().danger_unchecked()] {
            assert!(spec.open_existing(&options).await.unwrap().is_none());
        }
        assert!(matches!(spec.open(&StoreOptions::new()).await, Err(OpenError::Service(_))));
    }
    assert!(!missing.exists() && std::fs::metadata(&empty).unwrap().len() == 0);
    let spec = StoreSpec::Sqlite(missing);
    spec.open(&StoreOptions::new().migrate()).await.unwrap().close().await;
    assert!(spec.open_existing(&StoreOptions::new()).await.unwrap().is_some());
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
async fn database(kind: &str, url: &str, of_asherah: &[&str], others: Vec<FactorySpec>) {
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
    specs.extend(others);
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
    database("postgres", &url, &[&url], vec![of_library(&[("POSTGRES_URL", &url)])]).await;
}

#[cfg(feature = "mysql")]
#[tokio::test(flavor = "multi_thread")]
async fn mysql_serves_from_every_description_and_from_gos_dsn() {
    let server = servers::MariaDb::start();
    server.create_database("opened", "utf8mb4 COLLATE utf8mb4_bin");
    let url = server.url("opened");
    let dsn = |database: &str| {
        let (password, port) = (password(&url), server.port());
        format!("claviger:{password}@tcp(127.0.0.1:{port})/{database}?parseTime=true&tls=preferred")
    };
    // Its master key is another.
    server.create_database("of_server", "utf8mb4 COLLATE utf8mb4_bin");
    let of_server = of_server(&[
        ("ASHERAH_METASTORE_MODE", "rdbms"),
        ("ASHERAH_CONNECTION_STRING", &dsn("of_server")),
        ("ASHERAH_KMS_MODE", "static"),
    ]);
    serves(&of_server, &Environment::of([("", ""); 0])).await;
    let of_library = of_library(&[("MYSQL_URL", &url), ("MYSQL_TLS_MODE", "false")]);
    database("mysql", &url, &[&url, &dsn("opened")], vec![of_library]).await;
}

#[cfg(feature = "mysql")]
#[tokio::test(flavor = "multi_thread")]
async fn gos_dsn_is_encrypted_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(folder.path());
    let server = servers::MariaDb::start_with(&[
        "--require-secure-transport=ON",
        &format!("--ssl-cert={certificate}"),
        &format!("--ssl-key={key}"),
    ]);
    server.create_database("opened", "utf8mb4 COLLATE utf8mb4_bin");
    let url = server.url("opened");
    let password = password(&url);
    let none = Environment::of([("", ""); 0]);
    let read = |connection: &str| {
        let config = json!({
            "ServiceName": "c", "ProductID": "p", "Metastore": "rdbms", "ConnectionString": connection,
            "KMS": "static", "StaticMasterKeyHex": HEX,
        });
        FactorySpec::from_asherah_json(&config.to_string(), Asherah::Rust).unwrap()
    };
    let dsn = |tls: &str| {
        let address = format!("claviger:{password}@tcp(127.0.0.1:{})/opened", server.port());
        read(&format!("{address}?parseTime=true&tls={tls}"))
    };
    serves(&dsn("skip-verify"), &none).await;
    serves(&read(&format!("{url}?ssl-mode=VERIFY_IDENTITY&ssl-ca={certificate}")), &none).await;
    serves(&of_library(&[("MYSQL_URL", &url), ("MYSQL_TLS_MODE", "skip-verify")]), &none).await;
    // Nobody trusts the certificate who is not told to.
    for spec in [dsn("true"), dsn("false"), of_library(&[("MYSQL_URL", &url), ("MYSQL_TLS_MODE", "true")])] {
        let error = spec.metastore().open(&StoreOptions::new()).await.unwrap_err();
        let told = format!("{error} {error:?} {}", claviger::ErrorChain::new(&error));
        assert!(matches!(error, OpenError::Service(_)) && !told.contains(password), "{told}");
    }
}

/// Makes a certificate of 127.0.0.1 and its key, which a server of another user can read.
#[cfg(feature = "mysql")]
fn certificate(folder: &std::path::Path) -> (String, String) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = |name: &str| folder.join(name).display().to_string();
    let (certificate, key) = (path("server.crt"), path("server.key"));
    let mut openssl = std::process::Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]);
    openssl.args(["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-out", &certificate, "-keyout", &key]);
    let output = openssl.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (path, mode) in [(folder.to_str().unwrap(), 0o755), (&key, 0o644)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    (certificate, key)
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
    serves(
        &of_library(&[("DDB_TABLE", &name), ("AWS_REGION", "us-east-1"), ("AWS_ENDPOINT_URL", dynalite)]),
        &none,
    )
    .await;
    let of_server = of_server(&[
        ("ASHERAH_METASTORE_MODE", "dynamodb"),
        ("ASHERAH_DYNAMODB_TABLE_NAME", &format!("{name}.Server")),
        ("ASHERAH_DYNAMODB_REGION", "us-east-1"),
        ("ASHERAH_DYNAMODB_ENDPOINT", dynalite),
        ("ASHERAH_ENABLE_REGION_SUFFIX", "true"),
        ("ASHERAH_KMS_MODE", "aws"),
        ("ASHERAH_REGION_MAP", &format!("us-east-1={arn}")),
        ("ASHERAH_PREFERRED_REGION", "us-east-1"),
    ]);
    serves(&of_server, &none).await;
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
    let of_library = Environment::of([
        ("SERVICE_NAME", "c"),
        ("PRODUCT_ID", "p"),
        ("Metastore", "memory"),
        ("KMS", "vault"),
        ("VAULT_ADDR", &*address),
        ("VAULT_TRANSIT_KEY", "claviger"),
        ("VAULT_TRANSIT_MOUNT", "transit"),
        ("VAULT_TOKEN", &*token),
    ]);
    serves(&FactorySpec::from_asherah_environment(&of_library).unwrap(), &environment).await;
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
    assert_eq!(limits(&json!("local:a")), format!("{:?}", claviger::Limits::new()));
}
