//! Another implementation, a Python package, in a process of its own.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use base16ct::lower::encode_string;
use claviger::DataRowRecord;
use serde_json::{Value, json};

use crate::dynamodb::{ACCESS_KEY, REGION};
use crate::world::{MASTER_KEY, Names, PRODUCT};

/// Which implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Package {
    /// `asherah` 0.3.9, with the canonical Go inside.
    Go,
    /// `asherah` 0.5.56, with Rust inside.
    Rust,
}

/// Where the keys are.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// A file; the Go one has no driver for it.
    Sqlite(PathBuf),
    /// `mysql://USER:PASSWORD@HOST:PORT/DATABASE`
    Mysql(String),
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`
    Postgres(String),
    DynamoDb {
        endpoint: String,
        table: String,
    },
}

/// How a peer treats keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    pub(crate) names: Names,
    pub(crate) expire_after: Duration,
    pub(crate) check_interval: Duration,
    /// To what the creation times of keys are rounded down. The Go one knows only minutes.
    pub(crate) precision: Duration,
    /// One factory with cached sessions for all requests, or a new factory for each.
    pub(crate) live: bool,
}

/// A process. Dropping it kills it.
pub(crate) struct Peer {
    package: Package,
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Package {
    const fn version(self) -> &'static str {
        match self {
            Self::Go => "0.3.9",
            Self::Rust => "0.5.56",
        }
    }

    /// The Python that has it. It is never a reason to skip a test that there is none.
    fn python(self) -> OsString {
        let variable = match self {
            Self::Go => "CLAVIGER_ASHERAH_GO_PYTHON",
            Self::Rust => "CLAVIGER_ASHERAH_PYTHON",
        };
        #[expect(clippy::disallowed_methods, reason = "`cargo xtask test` says where it installed it")]
        let python = std::env::var_os(variable);
        python.unwrap_or_else(|| {
            panic!(
                "the Python package asherah=={} is needed: run `cargo xtask test`, which installs it; or \
                 install it yourself and set {variable} to the Python that has it",
                self.version()
            )
        })
    }

    /// Names the settings that the package has, by itself or by its manual.
    pub(crate) fn settings(self) -> Vec<String> {
        let script = match self {
            Self::Go => {
                "import asherah; print(*asherah.AsherahConfig('', '', '', '').to_json().keys(), sep='\\n')"
            }
            Self::Rust => {
                "import importlib.metadata as m, re; manual = m.metadata('asherah').get_payload(); \
                 print(*re.findall('^\\\\| `([A-Z]\\\\w+)` ', manual, re.M), sep='\\n')"
            }
        };
        let output = Command::new(self.python()).args(["-c", script]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    fn config(self, place: &Place, habits: &Habits) -> Value {
        let own = json!({
            "ServiceName": habits.names.service,
            "ProductID": PRODUCT,
            // It is always the region of the place.
            "EnableRegionSuffix": habits.names.region_suffix.is_some(),
            "EnableSessionCaching": habits.live,
            "ExpireAfter": self.time(habits.expire_after),
            "CheckInterval": self.time(habits.check_interval),
        });
        let parts = [own, self.kms(), self.store(place)];
        parts.iter().flat_map(|part| part.as_object().unwrap().clone()).collect()
    }

    fn kms(self) -> Value {
        match self {
            // It has the key that anybody knows built in, and takes no other.
            Self::Go => json!({ "KMS": "test-debug-static" }),
            Self::Rust => json!({ "KMS": "static", "StaticMasterKeyHex": encode_string(MASTER_KEY) }),
        }
    }

    /// Go's are nanoseconds.
    fn time(self, time: Duration) -> Value {
        match self {
            Self::Go => u64::try_from(time.as_nanos()).unwrap().into(),
            Self::Rust => time.as_secs().into(),
        }
    }

    fn store(self, place: &Place) -> Value {
        match (self, place) {
            (Self::Go, Place::Sqlite(_)) => panic!("the Go package has no driver for SQLite"),
            (Self::Rust, Place::Sqlite(path)) => {
                json!({ "Metastore": "sqlite", "ConnectionString": path })
            }
            (Self::Go, Place::Mysql(url)) => {
                json!({ "Metastore": "rdbms", "ConnectionString": go_dsn(url) })
            }
            (Self::Rust, Place::Mysql(url)) => json!({ "Metastore": "rdbms", "ConnectionString": url }),
            (_, Place::Postgres(url)) => json!({
                "Metastore": "rdbms",
                "SQLMetastoreDBType": "postgres",
                "ConnectionString": format!("{url}?sslmode=disable"),
            }),
            (_, Place::DynamoDb { endpoint, table }) => json!({
                "Metastore": "dynamodb",
                "DynamoDBEndpoint": endpoint,
                "DynamoDBRegion": REGION,
                "DynamoDBTableName": table,
            }),
        }
    }
}

/// `mysql://USER:PASSWORD@HOST:PORT/DATABASE` as Go's driver wants it.
fn go_dsn(url: &str) -> String {
    let (user, rest) = url.strip_prefix("mysql://").unwrap().split_once('@').unwrap();
    let (address, database) = rest.split_once('/').unwrap();
    format!("{user}@tcp({address})/{database}")
}

impl Peer {
    /// Starts one of each package at once.
    pub(crate) fn start_all(packages: &[Package], place: &Place, habits: &Habits) -> Vec<Self> {
        let start = |package: &Package| Self::start(*package, package.config(place, habits), habits);
        let mut peers: Vec<_> = packages.iter().map(start).collect();
        for peer in &mut peers {
            assert_eq!(peer.answer(), json!({ "version": peer.package.version() }));
        }
        peers
    }

    /// Starts one that has these settings besides, or instead.
    pub(crate) fn start_with(package: Package, place: &Place, habits: &Habits, settings: &Value) -> Self {
        let mut config = package.config(place, habits);
        config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let mut peer = Self::start(package, config, habits);
        assert_eq!(peer.answer(), json!({ "version": package.version() }));
        peer
    }

    fn start(package: Package, config: Value, habits: &Habits) -> Self {
        let arguments = json!({ "config": config, "live": habits.live });
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("asherah_peer.py");
        let mut process = Command::new(package.python())
            .arg(script)
            .arg(arguments.to_string())
            // Go's Postgres driver sends times in the zone of its process.
            .env("TZ", "UTC")
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", ACCESS_KEY)
            .env("CREATE_DATE_PRECISION_SECS", habits.precision.as_secs().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let requests = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self { package, process, requests, answers }
    }

    pub(crate) const fn package(&self) -> Package {
        self.package
    }

    pub(crate) fn encrypt(&mut self, partition: &str, plaintext: &[u8]) -> DataRowRecord {
        self.begin_encrypt(partition, plaintext);
        self.end_encrypt().unwrap_or_else(|error| panic!("{:?}: {error}", self.package))
    }

    #[track_caller]
    pub(crate) fn assert_decrypts(&mut self, partition: &str, record: &DataRowRecord, plaintext: &[u8]) {
        self.begin_decrypt(partition, record);
        assert_eq!(self.end_decrypt().as_deref(), Ok(plaintext), "{:?}, {record:?}", self.package);
    }

    #[track_caller]
    pub(crate) fn assert_refuses(&mut self, partition: &str, record: &DataRowRecord) {
        self.begin_decrypt(partition, record);
        assert!(self.end_decrypt().is_err(), "{:?}, {record:?}", self.package);
    }

    /// Requests without waiting for the answer: it works while its caller does something else.
    pub(crate) fn begin_encrypt(&mut self, partition: &str, plaintext: &[u8]) {
        self.request(&json!({ "partition": partition, "encrypt": encode_string(plaintext) }));
    }

    pub(crate) fn end_encrypt(&mut self) -> Result<DataRowRecord, String> {
        let answer = self.answer();
        match answer.get("record").and_then(Value::as_str) {
            Some(record) => Ok(DataRowRecord::from_json(record.as_bytes()).unwrap()),
            None => Err(answer.to_string()),
        }
    }

    pub(crate) fn begin_decrypt(&mut self, partition: &str, record: &DataRowRecord) {
        self.request(&json!({ "partition": partition, "decrypt": record.to_json() }));
    }

    pub(crate) fn end_decrypt(&mut self) -> Result<Vec<u8>, String> {
        let answer = self.answer();
        match answer.get("plaintext").and_then(Value::as_str) {
            Some(plaintext) => Ok(base16ct::lower::decode_vec(plaintext).unwrap()),
            None => Err(answer.to_string()),
        }
    }

    fn request(&mut self, request: &Value) {
        writeln!(self.requests, "{request}").unwrap();
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        let length = self.answers.read_line(&mut line).unwrap();
        assert_ne!(length, 0, "{:?} has gone; it said why on stderr", self.package);
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to kill.
        drop(self.process.kill());
        self.process.wait().unwrap();
    }
}
