//! The Python package `asherah` in a process of its own.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use claviger::DataRowRecord;
use serde_json::{Value, json};

pub(crate) struct Peer {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts it on the SQLite file at `path`. It is never a reason to skip a test that it cannot
    /// be started.
    pub(crate) fn start(path: &Path, master_key: &[u8]) -> Self {
        #[expect(clippy::disallowed_methods, reason = "`cargo xtask test` says where it installed it")]
        let python = std::env::var_os("CLAVIGER_ASHERAH_PYTHON")
            .expect("the Python package asherah is needed: run `cargo xtask test`");
        let config = json!({
            "ServiceName": crate::SERVICE,
            "ProductID": crate::PRODUCT,
            "Metastore": "sqlite",
            "ConnectionString": path,
            "KMS": "static",
            "StaticMasterKeyHex": hex(master_key),
            "ExpireAfter": crate::EXPIRE_AFTER.as_secs(),
            "EnableSessionCaching": false,
        });
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("asherah_peer.py");
        let mut process = Command::new(python)
            .arg(script)
            .arg(config.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let requests = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let mut peer = Self { process, requests, answers };
        assert_eq!(peer.answer(), json!({ "version": "0.5.56" }));
        peer
    }

    pub(crate) fn encrypt(&mut self, partition: &str, plaintext: &[u8]) -> DataRowRecord {
        let answer = self.ask(&json!({ "partition": partition, "encrypt": hex(plaintext) }));
        let record = answer.get("record").and_then(Value::as_str).unwrap_or_else(|| panic!("{answer}"));
        DataRowRecord::from_json(record.as_bytes()).unwrap()
    }

    #[track_caller]
    pub(crate) fn assert_decrypts(&mut self, partition: &str, record: &DataRowRecord, plaintext: &[u8]) {
        let answer = self.ask(&json!({ "partition": partition, "decrypt": record.to_json() }));
        assert_eq!(answer, json!({ "plaintext": hex(plaintext) }));
    }

    #[track_caller]
    pub(crate) fn assert_refuses(&mut self, partition: &str, record: &DataRowRecord) {
        let answer = self.ask(&json!({ "partition": partition, "decrypt": record.to_json() }));
        assert!(answer.get("error").is_some(), "{answer}");
    }

    fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.requests, "{request}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        let length = self.answers.read_line(&mut line).unwrap();
        assert_ne!(length, 0, "the peer has gone; it said why on stderr");
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        write!(digits, "{byte:02x}").unwrap();
        digits
    })
}
