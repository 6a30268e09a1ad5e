//! What is told on standard error: the one way there.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use crate::streams::Waiting;

/// Tells `message`. Nothing is left to be done where nobody can be told: a run ends as it would have.
pub(crate) fn tell(message: impl fmt::Display) {
    say(&format!("claviger: {message}\n"));
}

/// Says a text that is a whole already, such as a usage.
pub(crate) fn say(text: &str) {
    // One write, so that the messages of several programs do not run into each other.
    drop(Waiting::stderr().write_all(harmless(text).as_bytes()));
}

/// Returns the text with its control characters escaped, but for line feeds: a name in it must not
/// steer the terminal.
pub(crate) fn harmless(text: &str) -> String {
    let mut harmless = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\n' {
            // Writing to a `String` cannot fail.
            let _ = write!(harmless, "{}", character.escape_default());
        } else {
            harmless.push(character);
        }
    }
    harmless
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        assert_eq!(harmless("a\u{1b}[31m\u{9b}0m\r\u{7}é\nb"), "a\\u{1b}[31m\\u{9b}0m\\r\\u{7}é\nb");
    }
}
