//! What is told on standard error: the one way there.

use std::fmt;
use std::io::Write as _;

use crate::escape;
use crate::streams::Waiting;

/// Tells a message, which is one line whatever is in it. Nothing is left to be done where nobody can be told: a
/// run ends as it would have.
pub(crate) fn tell(message: impl fmt::Display) {
    say(&format!("claviger: {}\n", escape::line(&message.to_string())));
}

/// Says a text that is a whole already, such as a usage.
pub(crate) fn say(text: &str) {
    // One write, so that the messages of several programs do not run into each other.
    drop(Waiting::stderr().write_all(escape::text(text).as_bytes()));
}
