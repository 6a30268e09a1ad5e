//! What commands tell on standard output.

use std::io::{self, Write as _};

use serde::Serialize;

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

    pub(crate) fn print(mut self, text: &str) -> Result<(), Failure> {
        self.0.write_all(text.as_bytes()).map_err(|error| Failure::write("standard output", &error))
    }
}

/// One line of JSON, for programs. What steers a terminal is escaped in it, also where JSON need not.
pub(crate) fn json_line(value: &impl Serialize) -> Result<String, Failure> {
    let line = serde_json::to_string(value).map_err(|error| Failure::internal(&error.to_string()))?;
    let mut harmless = String::with_capacity(line.len() + 1);
    for character in line.chars() {
        if character.is_control() {
            // It stands within a string: JSON has no such character elsewhere, and serde writes none.
            harmless.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            harmless.push(character);
        }
    }
    harmless.push('\n');
    Ok(harmless)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_escaped_and_read_back() {
        let text = "a\u{1b}[31m\u{9b}0m\u{7f}é\n";
        let line = json_line(&text).unwrap();
        assert!(!line.trim_end().contains(char::is_control), "{line:?}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }
}
