//! The program, and a client that speaks as much HTTP as it takes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A running service. Dropping it kills it.
pub(crate) struct Program {
    process: Child,
    address: String,
    _folder: TempDir,
}

/// A request that the service is reading, and whose body it does not have yet.
pub(crate) struct UnderWay {
    stream: TcpStream,
    body: Vec<u8>,
}

impl Program {
    pub(crate) fn start(database_url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_claviger-example-axum"))
            .env("DATABASE_URL", database_url)
            .env("MASTER_KEY_FILE", folder.path().join("master.key"))
            .env("LISTEN", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on ");
        let address = address.unwrap_or_else(|| panic!("it did not start; it said why on stderr")).to_owned();
        Self { process, address, _folder: folder }
    }

    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        status_and_body(&self.answer("GET", path, b""))
    }

    pub(crate) fn put(&self, path: &str, body: &[u8]) -> (u16, String) {
        status_and_body(&self.answer("PUT", path, body))
    }

    /// Makes a request and returns all that comes back.
    pub(crate) fn answer(&self, method: &str, path: &str, body: &[u8]) -> String {
        let mut stream = self.connect().unwrap();
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}");
        stream.write_all(format!("{head}\r\n\r\n").as_bytes()).unwrap();
        // What is too long is answered before it was sent.
        drop(stream.write_all(body));
        read(stream)
    }

    pub(crate) fn begin_put(&self, path: &str, body: &[u8]) -> UnderWay {
        let mut stream = self.connect().unwrap();
        let length = body.len();
        let head =
            format!("PUT {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {length}");
        stream.write_all(format!("{head}\r\n\r\n").as_bytes()).unwrap();
        // It says so when it begins to wait for the body.
        let mut go_on = [0; 25];
        stream.read_exact(&mut go_on).unwrap();
        assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
        UnderWay { stream, body: body.to_owned() }
    }

    pub(crate) fn accepts(&self) -> bool {
        self.connect().is_ok()
    }

    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        TcpStream::connect(&self.address)
    }
}

impl UnderWay {
    pub(crate) fn end(mut self) -> (u16, String) {
        self.stream.write_all(&self.body).unwrap();
        status_and_body(&read(self.stream))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn read(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // A connection that is closed on a body which was not read may be reset after its answer.
    drop(stream.read_to_end(&mut answer));
    String::from_utf8(answer).unwrap()
}

fn status_and_body(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status: {head}")), body.to_owned())
}

#[expect(clippy::disallowed_methods, reason = "how long a test waits is no service's time")]
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
