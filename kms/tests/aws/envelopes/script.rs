//! A program that answers lines of JSON with lines of JSON.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

/// It ends with its input.
pub(crate) struct Script {
    process: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Script {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (requests, answers) = (process.stdin.take(), process.stdout.take().unwrap());
        Self { process, requests, answers: BufReader::new(answers) }
    }

    pub(crate) fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.requests.as_ref().unwrap(), "{request}").unwrap();
        self.read()
    }

    pub(crate) fn read(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).expect("it says on stderr why it ended")
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        drop(self.requests.take());
        // It has ended, or a failed test waits for nothing more of it.
        drop(self.process.wait());
    }
}
