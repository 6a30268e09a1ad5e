//! An error with all its causes, as one line.

use std::error::Error as StdError;
use std::fmt::{self, Write as _};

/// Shows an error with all its causes, outermost first, in one line: for logs and messages.
///
/// What a server said may be anything: control characters, which could begin a line of their own or
/// steer a terminal, are escaped.
///
/// ```
/// use claviger::{BackendError, ErrorChain};
///
/// let error = BackendError::transient(std::io::Error::other("reset"));
/// assert!(ErrorChain::new(&error).to_string().ends_with(": reset"));
/// ```
#[derive(Clone, Copy)]
pub struct ErrorChain<'a>(&'a dyn StdError);

impl<'a> ErrorChain<'a> {
    /// Shows `error`.
    #[must_use]
    pub const fn new(error: &'a dyn StdError) -> Self {
        Self(error)
    }
}

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = OneLine(f);
        write!(line, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(line, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0, f)
    }
}

/// Writes text without control characters.
struct OneLine<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            let mut characters = part.chars();
            match characters.next_back() {
                Some(last) if last.is_control() => {
                    write!(self.0, "{}{}", characters.as_str(), last.escape_default())?;
                }
                _ => self.0.write_str(part)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_said_stays_one_line_and_steers_no_terminal() {
        let said = std::io::Error::other("a\u{1b}[2J\r\nb\u{9b}é");
        assert_eq!(ErrorChain::new(&said).to_string(), "a\\u{1b}[2J\\r\\nb\\u{9b}é");
    }
}
