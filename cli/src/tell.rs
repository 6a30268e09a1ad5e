//! What is told on standard error: the one way there.

use std::fmt;
use std::io::Write as _;

use crate::escape;
use crate::exit::{Exit, Failure};
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

/// Tells a failure, and returns how the run ends. A reader that ends first does so on purpose, and wants to hear
/// of nothing.
pub(crate) fn tell_failure(failure: &Failure) -> Exit {
    if failure.exit() != Exit::ReaderGone {
        tell(failure.message());
        failure.findings().into_iter().for_each(say);
        failure.details().into_iter().for_each(tell);
    }
    failure.exit()
}
