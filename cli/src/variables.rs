//! The environment, read by one rule: a variable that is empty is not set.
//!
//! Scripts and container files that hand a variable on have no other way to leave it out.

use std::env;
use std::ffi::{OsStr, OsString};

use clap::Command;
use clap::builder::Resettable;

/// Reads a variable.
pub(crate) fn variable(name: impl AsRef<OsStr>) -> Option<OsString> {
    read(name).filter(|value| !value.is_empty())
}

/// Takes their variables from the options of which they are empty: clap takes the empty text for a
/// value.
pub(crate) fn without_empty(command: Command) -> Command {
    let is_empty = |name: &OsStr| read(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| if arg.get_env().is_some_and(is_empty) { arg.env(Resettable::Reset) } else { arg })
        .mut_subcommands(without_empty)
}

#[expect(clippy::disallowed_methods, reason = "this is the place for it")]
fn read(name: impl AsRef<OsStr>) -> Option<OsString> {
    env::var_os(name)
}
