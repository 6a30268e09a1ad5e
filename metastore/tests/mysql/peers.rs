//! What the Asherahs in Go and in Rust send to a server in Los Angeles, and that keys of theirs and of
//! ours lie side by side in one table there.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use claviger::testing::call;
use claviger::{DataRowRecord, EnvelopeKeyRecord, Insert, Metastore as _, MetastoreAdmin as _};
use claviger_metastore::{FindingId, MysqlMetastore};
use claviger_testkit::MariaDb;
use serde_json::{Value, json};

use crate::latest::LatestRecord as _;
use crate::support::{ASHERAH, LATIN1, Place, UTF8, builder, dangers, ids, record};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Package {
    /// `asherah` 0.3.9.
    Go,
    /// `asherah` 0.5.56.
    Rust,
}

/// What the Go package has built in.
const MASTER_KEY: &[u8; 32] = b"thisIsAStaticMasterKeyForTesting";

impl Package {
    fn python(self) -> OsString {
        let (variable, version) = match self {
            Self::Go => ("CLAVIGER_ASHERAH_GO_PYTHON", "0.3.9"),
            Self::Rust => ("CLAVIGER_ASHERAH_PYTHON", "0.5.56"),
        };
        #[expect(clippy::disallowed_methods, reason = "`cargo xtask test` says where it installed it")]
        let python = std::env::var_os(variable);
        python.unwrap_or_else(|| {
            panic!("the Python package asherah=={version} is needed: run `cargo xtask test`")
        })
    }

    fn config(self, url: &str) -> Value {
        let (user, rest) = url.strip_prefix("mysql://").unwrap().split_once('@').unwrap();
        let (address, database) = rest.split_once('/').unwrap();
        let hex: String = MASTER_KEY.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Go => json!({
                "ServiceName": "svc", "ProductID": "prod", "EnableSessionCaching": false, "Metastore": "rdbms",
                "ConnectionString": format!("{user}@tcp({address})/{database}"), "KMS": "test-debug-static",
            }),
            Self::Rust => json!({
                "ServiceName": "svc", "ProductID": "prod", "EnableSessionCaching": false, "Metastore": "rdbms",
                "ConnectionString": url, "KMS": "static", "StaticMasterKeyHex": hex,
            }),
        }
    }

    /// Asks a process that starts now.
    fn ask(self, url: &str, request: &Value) -> Value {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/asherah_peer.py");
        let arguments = json!({ "config": self.config(url), "live": false });
        let mut process = Command::new(self.python())
            .arg(script)
            .arg(arguments.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut process.stdin.take().unwrap(), format!("{request}\n").as_bytes())
            .unwrap();
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success(), "{self:?}");
        let lines = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(lines.lines().last().unwrap()).unwrap()
    }

    fn encrypt(self, url: &str, partition: &str) -> String {
        let answer = self.ask(url, &json!({ "partition": partition, "encrypt": "616263" }));
        answer.get("record").and_then(Value::as_str).unwrap_or_else(|| panic!("{self:?} {answer}")).to_owned()
    }

    fn assert_decrypts(self, url: &str, partition: &str, record: &str) {
        let answer = self.ask(url, &json!({ "partition": partition, "decrypt": record }));
        assert_eq!(answer, json!({ "plaintext": "616263" }), "{self:?}");
    }
}

const LOS_ANGELES: &str = "America/Los_Angeles";

fn server() -> MariaDb {
    MariaDb::start_in(LOS_ANGELES, &["--log-output=TABLE"])
}

/// What is said in the docs, as it is on the wire: UTC text, whatever the zone, which nobody sets.
#[tokio::test]
async fn others_send_utc_as_text_and_choose_no_zone() {
    let server = server();
    for package in [Package::Go, Package::Rust] {
        let place = Place::at(&server, UTF8).await;
        place.execute(ASHERAH).await;
        server.sql("", "TRUNCATE mysql.general_log; SET GLOBAL general_log = 1");
        let record = package.encrypt(&place.url, "p");
        package.assert_decrypts(&place.url, "p", &record);
        server.sql("", "SET GLOBAL general_log = 0");
        let log = "SELECT CONVERT(argument USING utf8mb4) FROM mysql.general_log \
                   WHERE command_type IN ('Query', 'Execute') ORDER BY event_time";
        let sent = place.texts(log).await;
        assert!(!sent.iter().any(|sql| sql.to_lowercase().contains("time_zone")), "{sent:#?}");

        let parent = DataRowRecord::from_json(record.as_bytes()).unwrap().parent().unwrap().clone();
        let utc = place
            .texts(&format!(
                "SELECT CAST(TIMESTAMPADD(SECOND, {}, '1970-01-01 00:00:00') AS CHAR)",
                parent.created()
            ))
            .await
            .remove(0);
        let id = parent.id();
        let [insert, latest, exact] = match package {
            Package::Go => [
                format!("INSERT INTO encryption_key (id, created, key_record) VALUES ('{id}', '{utc}', '"),
                format!(
                    "SELECT key_record from encryption_key WHERE id = '{id}' ORDER BY created DESC LIMIT 1"
                ),
                format!("SELECT key_record FROM encryption_key WHERE id = '{id}' AND created = '{utc}'"),
            ],
            Package::Rust => [
                format!(
                    "INSERT IGNORE INTO encryption_key(id, created, key_record) VALUES('{id}', '{utc}', '"
                ),
                format!(
                    "SELECT key_record FROM encryption_key WHERE id='{id}' ORDER BY created DESC LIMIT 1"
                ),
                format!("SELECT key_record FROM encryption_key WHERE id='{id}' AND created='{utc}'"),
            ],
        };
        for expected in [insert, latest, exact] {
            assert!(sent.iter().any(|sql| sql.starts_with(&expected)), "{expected} {sent:#?}");
        }
    }
}

/// Every half hour of the first twelve of the day on which clocks are put back.
fn around_the_repeated_hour() -> impl Iterator<Item = EnvelopeKeyRecord> {
    (0..24).map(|half| record("_IK_ours_svc_prod", 1_793_491_200 + half * 1_800))
}

#[tokio::test]
async fn keys_of_others_and_of_ours_lie_side_by_side_in_los_angeles() {
    let server = server();
    for (table, charset) in [("", UTF8), (ASHERAH, UTF8), (ASHERAH, LATIN1)] {
        for package in [Package::Go, Package::Rust] {
            let place = Place::at(&server, charset).await;
            let store = if table.is_empty() {
                place.migrate().await;
                // Whatever the zone: the column has none.
                place.open().await
            } else {
                place.execute(table).await;
                builder().session_time_zone("SYSTEM").open(&place.url).await.unwrap()
            };
            for record in around_the_repeated_hour() {
                assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
            }
            let encrypted = package.encrypt(&place.url, "theirs");
            let parent = DataRowRecord::from_json(encrypted.as_bytes()).unwrap().parent().unwrap().clone();

            let key = store.load(&parent, &call()).await.unwrap().unwrap();
            assert_eq!(store.latest(parent.id()).await.unwrap().as_ref(), Some(&key));
            assert_eq!(store.insert(&key, &call()).await.unwrap(), Insert::AlreadyExists);
            let of_system = key.parent().unwrap();
            assert!(store.load(of_system, &call()).await.unwrap().unwrap().parent().is_none());
            let page = store.list("", None, 100, &call()).await.unwrap();
            assert_eq!((page.records.len(), page.damaged.len()), (26, 0));
            for record in around_the_repeated_hour() {
                assert_eq!(store.load(record.meta(), &call()).await.unwrap(), Some(record));
            }
            // A revocation of ours leaves the row where they look for it.
            assert!(store.revoke(&parent, &call()).await.unwrap());
            package.assert_decrypts(&place.url, "theirs", &encrypted);
            let report = store.check_schema(&call()).await.unwrap();
            assert!(!ids(&report).contains(&FindingId::ZoneMismatch), "{report:?}");
            if !table.is_empty() {
                store.delete(record("_IK_ours_svc_prod", 1).meta().id(), &call()).await.unwrap();
                let error = MysqlMetastore::open(&place.url).await.unwrap_err();
                assert_eq!(dangers(&error), [FindingId::ZoneMismatch]);
            }
        }
    }
}
