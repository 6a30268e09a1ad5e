//! What commands tell on standard output.

use std::io::{self, Write as _};

use serde::Serialize;

use crate::escape;
use crate::exit::Failure;
use crate::streams::Waiting;

/// Where a command tells what it found or did. Whoever holds one knows before any work that there
/// is a standard output.
#[derive(Debug)]
pub(crate) struct Printer(Waiting<io::Stdout>);

impl Printer {
    pub(crate) fn open() -> Result<Self, Failure> {
        Waiting::stdout("open it, if only with >/dev/null").map(Self)
    }

    /// Prints lines for people.
    pub(crate) fn print(self, text: &str) -> Result<(), Failure> {
        self.print_exactly(&escape::text(text))
    }

    /// Prints one line of JSON, for programs.
    pub(crate) fn print_json(self, value: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(value).map_err(|error| Failure::internal(&error.to_string()))?;
        self.print_exactly(&(escape::json(&line) + "\n"))
    }

    /// Prints what is claviger's own.
    pub(crate) fn print_exactly(mut self, text: &str) -> Result<(), Failure> {
        self.0.write_all(text.as_bytes()).map_err(|error| Failure::write("standard output", &error))
    }
}
