//! Asherah itself, in both its Python packages, on one metastore with us: each unwraps the system key
//! that the other made. `cargo xtask test` installs them.

use std::fs;
use std::path::Path;
use std::process::Command;

use claviger::testing::call;
use claviger::{CryptoPolicy, DataRowRecord, LockPolicy, Metastore, MetastoreAdmin, SessionFactory};
use claviger_metastore::{MysqlMetastore, SqliteMetastore};
use claviger_testkit::{LocalStack, MariaDb, shared_localstack};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::envelopes::script::Script;
use crate::envelopes::{MasterKey, as_go_writes, keys, open};
use crate::support::{EUROPE, REGIONS, WEST, envelope};

const PRODUCT: &str = "payments";
pub(crate) const PARTITION: &str = "alice";
const LIFE_SECONDS: u64 = 90 * 24 * 3_600;
const CHECK_SECONDS: u64 = 3_600;

/// Starts a package: the one that a variable's Python has.
pub(crate) fn peer(
    python: &str,
    service: &str,
    keys: &[MasterKey],
    more: &Value,
    variables: &[(&str, &str)],
) -> Script {
    let arns: Value = keys.iter().map(|key| (key.region.to_owned(), json!(key.arn))).collect();
    let mut config = json!({
        "ServiceName": service,
        "ProductID": PRODUCT,
        "EnableRegionSuffix": false,
        "EnableSessionCaching": false,
        "KMS": "aws",
        "RegionMap": arns,
        "PreferredRegion": WEST,
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    #[expect(clippy::disallowed_methods, reason = "`cargo xtask test` says where it installed it")]
    let python = std::env::var_os(python).unwrap_or_else(|| {
        panic!("{python} is to be the Python that has asherah: run `cargo xtask test`, which installs it")
    });
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/interop/asherah_peer.py");
    let mut command = Command::new(python);
    // A factory for each request, as in a process that starts then.
    command.arg(script).arg(json!({ "config": config, "live": false }).to_string());
    command.env("TZ", "UTC").env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
    command.envs(variables.iter().copied());
    let mut peer = Script::start(&mut command);
    assert!(peer.read()["version"].is_string());
    peer
}

pub(crate) fn theirs(peer: &mut Script, plaintext: &str) -> DataRowRecord {
    let answer = peer.ask(&json!({ "partition": PARTITION, "encrypt": hex(plaintext) }));
    let record = answer["record"].as_str().unwrap_or_else(|| panic!("{answer}"));
    DataRowRecord::from_json(record.as_bytes()).unwrap()
}

pub(crate) fn assert_they_read(peer: &mut Script, row: &DataRowRecord, plaintext: &str) {
    let answer = peer.ask(&json!({ "partition": PARTITION, "decrypt": row.to_json() }));
    assert_eq!(answer, json!({ "plaintext": hex(plaintext) }));
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// A process of ours that starts now.
async fn ours<M: Metastore + Clone>(store: &M, service: &str, keys: &[MasterKey]) -> SessionFactory {
    SessionFactory::builder(store.clone(), open(keys).await)
        .service(service)
        .product(PRODUCT)
        .policy(CryptoPolicy::production().lock_policy(LockPolicy::Off))
        // The store's other calls are made there, over the same connections.
        .runtime(Handle::current())
        .build()
        .unwrap()
}

pub(crate) async fn write<M: Metastore + Clone>(
    store: &M,
    service: &str,
    keys: &[MasterKey],
) -> DataRowRecord {
    let process = ours(store, service, keys).await;
    process.session(PARTITION).unwrap().encrypt(b"ours").await.unwrap()
}

pub(crate) async fn assert_we_read<M: Metastore + Clone>(
    store: &M,
    service: &str,
    keys: &[MasterKey],
    row: &DataRowRecord,
) {
    let process = ours(store, service, keys).await;
    assert_eq!(&*process.session(PARTITION).unwrap().decrypt(row).await.unwrap(), b"theirs");
}

/// Who leads makes the keys, and the other goes on with them.
async fn each_leads<M: MetastoreAdmin + Clone>(
    store: &M,
    keys: &[MasterKey],
    start: impl Fn(&str) -> Script,
) {
    for service in ["led-by-them", "led-by-us"] {
        let mut peer = start(service);
        let (their_row, our_row) = if service == "led-by-them" {
            let their_row = theirs(&mut peer, "theirs");
            (their_row, write(store, service, keys).await)
        } else {
            let our_row = write(store, service, keys).await;
            (theirs(&mut peer, "theirs"), our_row)
        };
        assert_eq!(their_row.parent(), our_row.parent(), "one intermediate key");
        assert_they_read(&mut peer, &our_row, "ours");
        // By each region's copy.
        for alone in keys.chunks(1) {
            assert_we_read(store, service, alone, &their_row).await;
        }
        let rows = store.list("", None, 100, &call()).await.unwrap().records;
        let id = format!("_SK_{service}_{PRODUCT}");
        let made: Vec<_> = rows.iter().filter(|row| row.meta().id().as_str() == id).collect();
        let [system_key] = &made[..] else { panic!("{made:?}") };
        // The same fields in the same order, and nothing else.
        let written = system_key.wrapped_key();
        assert_eq!(String::from_utf8_lossy(written), as_go_writes(&envelope(written)), "{service}");
    }
}

#[tokio::test]
async fn asherah_with_rust_inside_and_we_unwrap_each_others_system_keys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    let store = SqliteMetastore::migrate(&path).await.unwrap();
    let keys = keys(shared_localstack(), &[WEST, EUROPE]).await;
    let own = json!({
        "ExpireAfter": LIFE_SECONDS,
        "CheckInterval": CHECK_SECONDS,
        "Metastore": "sqlite",
        "ConnectionString": path,
    });
    let variables =
        [("AWS_ENDPOINT_URL", shared_localstack()), ("AWS_REGION", WEST), ("NO_PROXY", "127.0.0.1")];
    each_leads(&store, &keys, |service| peer("CLAVIGER_ASHERAH_PYTHON", service, &keys, &own, &variables))
        .await;
}

/// The canonical one. It reaches AWS by its own names and HTTPS alone: so by a proxy that leads all
/// names to a LocalStack with a certificate for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn asherah_with_go_inside_and_we_unwrap_each_others_system_keys() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = certificate(folder.path());
    let localstack = LocalStack::start_with(&[("CUSTOM_SSL_CERT_PATH", &certificate)]);
    let endpoint: &'static str = localstack.endpoint().leak();
    let (proxy, _tunnels) = tunnels_to(endpoint.trim_start_matches("http://")).await;
    let mariadb = MariaDb::start();
    mariadb.create_database("keys", "utf8mb4");
    let url = mariadb.url("keys");
    MysqlMetastore::builder().danger_unchecked().migrate().open(&url).await.unwrap();
    let store = MysqlMetastore::open(&url).await.unwrap();
    let keys = keys(endpoint, &[WEST, EUROPE]).await;
    let (user, address) = url.strip_prefix("mysql://").unwrap().split_once('@').unwrap();
    let (address, database) = address.split_once('/').unwrap();
    let nanoseconds = 1_000_000_000;
    let own = json!({
        "ExpireAfter": LIFE_SECONDS * nanoseconds,
        "CheckInterval": CHECK_SECONDS * nanoseconds,
        "Metastore": "rdbms",
        "ConnectionString": format!("{user}@tcp({address})/{database}"),
    });
    let variables = [("HTTPS_PROXY", proxy.as_str()), ("NO_PROXY", ""), ("AWS_CA_BUNDLE", &certificate)];
    each_leads(&store, &keys, |service| peer("CLAVIGER_ASHERAH_GO_PYTHON", service, &keys, &own, &variables))
        .await;
}

/// Makes a certificate for KMS in all regions, and returns the file that it is in with its key.
fn certificate(folder: &Path) -> String {
    let [key, certificate, both] = ["key.pem", "certificate.pem", "both.pem"].map(|name| folder.join(name));
    let names: Vec<_> = REGIONS.iter().map(|region| format!("DNS:kms.{region}.amazonaws.com")).collect();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=kms"])
        .args(["-addext", &format!("subjectAltName={}", names.join(","))])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let text = [key, certificate].map(|file| fs::read_to_string(file).unwrap()).concat();
    fs::write(&both, text).unwrap();
    both.to_str().unwrap().to_owned()
}

/// Starts an HTTP proxy that leads to this address, whatever it is asked for.
async fn tunnels_to(address: &str) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let address = address.to_owned();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut tunnels = JoinSet::new();
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let address = address.clone();
            tunnels.spawn(async move {
                let mut client = BufReader::new(client);
                let mut line = String::new();
                // The request's head ends with an empty line.
                while client.read_line(&mut line).await.unwrap() > 2 {
                    line.clear();
                }
                let mut server = TcpStream::connect(&address).await.unwrap();
                client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.unwrap();
                // Either side ends it as it likes.
                drop(copy_bidirectional(&mut client, &mut server).await);
            });
        }
    });
    (url, tasks)
}
