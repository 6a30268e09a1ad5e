//! Every back end there is, opened from a description, from the environment and from Asherah's configuration.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod kit;

use claviger_open::{Asherah, Environment, FactorySpec, OpenError, StoreOptions, StoreSpec};
use claviger_testkit as servers;
use serde_json::{Value, json};

use crate::kit::{HEX, described, local, serves, variables};

/// What a program of Rust's Asherah's is told by its environment, with a static master key.
fn of_library(metastore: &[(&str, &str)]) -> FactorySpec {
    let names =
        [("SERVICE_NAME", "c"), ("PRODUCT_ID", "p"), ("KMS", "static"), ("STATIC_MASTER_KEY_HEX", HEX)];
    let all = names.iter().chain(metastore).copied();
    FactorySpec::from_asherah_environment(&Environment::of(all)).unwrap()
}

/// What a server of Go's Asherah's is told by its environment.
fn of_server(others: &[(&str, &str)]) -> FactorySpec {
    let names =
        [("ASHERAH_SERVICE_NAME", "c"), ("ASHERAH_PRODUCT_NAME", "p"), ("ASHERAH_EXPIRE_AFTER", "2160h")];
    let all = names.iter().chain(others).copied();
    FactorySpec::from_asherah_server(&Environment::of(all), Asherah::Go).unwrap()
}

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

fn password(url: &str) -> &str {
    url.split(['@', ':']).nth(2).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_serves_from_every_description() {
    let server = servers::Postgres::start();
    server.create_database("opened");
    let url = server.url("opened");
    let (password, port) = (password(&url), server.port());
    let pairs = format!("host=127.0.0.1 port={port} user=postgres password='{password}' dbname=opened");
    database("postgres", &url, &[&url, &pairs], vec![of_library(&[("POSTGRES_URL", &url)])]).await;
}

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
