//! The command line: field encryption of files.
//!
//! The program is all of this crate. It is a library so that tests and fuzz targets can reach its
//! parts; for other programs there is the crate `claviger`.

// They panic where standard output or standard error is full or closed: `print` and `tell` do not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod cleanup;
mod commands;
mod config;
mod count;
mod descriptor;
mod encoding;
mod escape;
mod exit;
mod explain;
mod files;
mod folder;
mod given;
mod home;
mod identity;
mod input;
mod kms;
mod named;
mod open;
mod output;
mod patience;
mod payload;
mod print;
mod progress;
mod runtime;
mod sealed;
mod status;
mod store;
mod streams;
mod table;
mod tell;
mod usage;
mod used;
mod variables;

#[cfg(fuzzing)]
#[doc(hidden)]
pub use config::fuzz as fuzz_config;
#[doc(hidden)]
pub use table::testing;

use std::env;
use std::panic;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

use crate::args::Cli;
use crate::exit::{Exit, Failure};
use crate::kms::text::KMS;
use crate::store::text::METASTORE;
use crate::tell::{tell, tell_failure};
use crate::variables::without_empty;

/// Does what the arguments say, and returns how it ended.
#[must_use]
pub fn main() -> ExitCode {
    panic::set_hook(Box::new(|fault| tell(Failure::of_panic(fault.location()).message())));
    // What panics has told so by the hook.
    let outcome = panic::catch_unwind(start).unwrap_or(Ok(Exit::Internal));
    outcome.unwrap_or_else(|failure| tell_failure(&failure)).into()
}

/// Reads the command line and does what it says.
fn start() -> Result<Exit, Failure> {
    let command = without_empty(Cli::command());
    let read = command.clone().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    match read {
        Ok(Cli { verbose, command }) => {
            commands::run(command).map_err(|failure| if verbose { failure } else { failure.in_short() })
        }
        Err(error) => {
            if error.use_stderr() {
                // What clap says repeats the argument it could not use.
                [&KMS, &METASTORE].iter().try_for_each(|option| option.check_arguments(env::args_os()))?;
            }
            usage::answer(error, &command, env::args_os())
        }
    }
}
