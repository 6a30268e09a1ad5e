//! The processes, as the test that started them sees them. They talk in lines.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;

use claviger::{DataRowRecord, SecretKey, SystemRandom};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::child;
use crate::place::Place;

/// What a process has encrypted.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) partition: String,
    pub(crate) plaintext: String,
    pub(crate) sealed: DataRowRecord,
}

impl Record {
    pub(crate) fn to_line(&self) -> String {
        format!("{} {} {}", self.partition, self.plaintext, self.sealed.to_json())
    }

    pub(crate) fn from_line(line: &str) -> Self {
        let [partition, plaintext, json] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let sealed = DataRowRecord::from_json(json.as_bytes()).unwrap();
        Self { partition: partition.to_owned(), plaintext: plaintext.to_owned(), sealed }
    }
}

pub(crate) struct Children {
    children: Vec<Running>,
    /// Which child said what.
    said: UnboundedReceiver<(usize, String)>,
}

struct Running {
    process: Child,
    requests: ChildStdin,
}

impl Children {
    /// Starts this program again, so many times, for the test of this name; all get the same master
    /// key, by their input.
    pub(crate) fn start(test: &str, place: &Place, count: usize) -> Self {
        let (says, said) = unbounded_channel();
        let master_key = SecretKey::generate(&SystemRandom::new()).unwrap();
        let master_key: String =
            master_key.expose_secret().iter().map(|byte| format!("{byte:02x}")).collect();
        let mut children = Vec::new();
        for number in 0..count {
            let mut process = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", test, "--nocapture"])
                .env(child::VARIABLE, number.to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(process.stdout.take().unwrap()).lines();
            let says = says.clone();
            thread::spawn(move || {
                // The test harness talks, too.
                for line in lines.map_while(Result::ok) {
                    if let Some((_, line)) = line.split_once("child: ") {
                        drop(says.send((number, line.to_owned())));
                    }
                }
            });
            let requests = process.stdin.take().unwrap();
            children.push(Running { process, requests });
        }
        let mut this = Self { children, said };
        this.tell(&master_key);
        this.tell(&place.to_line());
        this
    }

    /// Says a line to all.
    pub(crate) fn tell(&mut self, line: &str) {
        for child in &mut self.children {
            writeln!(child.requests, "{line}").unwrap();
        }
    }

    async fn next(&mut self) -> (usize, String) {
        self.said.recv().await.unwrap()
    }

    /// Takes so many records from what they encrypt.
    pub(crate) async fn collect(&mut self, records: &mut Vec<Record>, count: usize) {
        for _ in 0..count {
            let (_, line) = self.next().await;
            records.push(Record::from_line(line.strip_prefix("record ").unwrap()));
        }
    }

    /// Stops the encrypting, and takes what is left of it. All of them had a part in it.
    pub(crate) async fn stop(&mut self, records: &mut Vec<Record>) {
        self.tell("stop");
        let mut running = self.children.len();
        while running > 0 {
            let (_, line) = self.next().await;
            match line.split_once(' ') {
                Some(("record", record)) => records.push(Record::from_line(record)),
                Some(("stopped", counts)) => {
                    println!("a process encrypted and failed: {counts}");
                    assert!(!counts.starts_with("0 "), "{counts}");
                    running -= 1;
                }
                _ => panic!("{line}"),
            }
        }
    }

    /// Lets every process decrypt every record, in a factory that has never seen a key.
    pub(crate) async fn decrypt_all(&mut self, records: &[Record]) {
        self.tell("decrypt");
        for record in records {
            self.tell(&record.to_line());
        }
        self.tell("");
        for _ in 0..self.children.len() {
            let (_, line) = self.next().await;
            assert_eq!(line, format!("decrypted {}", records.len()));
        }
    }

    /// Asks each process which key it encrypts with now, for each partition.
    pub(crate) async fn keys_used(&mut self, partitions: &BTreeSet<String>) -> Vec<BTreeMap<String, i64>> {
        self.tell("use");
        for partition in partitions {
            self.tell(partition);
        }
        self.tell("");
        let mut used = vec![BTreeMap::new(); self.children.len()];
        for _ in 0..partitions.len() * self.children.len() {
            let (child, line) = self.next().await;
            let (partition, created) = line.strip_prefix("used ").unwrap().split_once(' ').unwrap();
            used[child].insert(partition.to_owned(), created.parse().unwrap());
        }
        used
    }

    pub(crate) fn finish(mut self) {
        self.tell("end");
        for child in &mut self.children {
            assert!(child.process.wait().unwrap().success());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
