//! What commands tell on standard output.

use std::io::{self, Write as _};

use serde::Serialize;

use crate::exit::Failure;

pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let printed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    printed.map_err(|error| Failure::write("standard output", &error))
}

/// One line of JSON, for programs.
pub(crate) fn json_line(value: &impl Serialize) -> Result<String, Failure> {
    let line = serde_json::to_string(value).map_err(|error| Failure::internal(&error.to_string()))?;
    Ok(line + "\n")
}
