//! The command line: field encryption of files.
//!
//! The program is all of this crate. It is a library so that tests and fuzz targets can reach its
//! parts; for other programs there is the crate `claviger`.

// They panic where standard output or standard error is full or closed: `print` and `tell` do not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod cleanup;
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
mod identity;
mod input;
mod kms;
mod named;
mod open;
mod output;
mod payload;
mod print;
mod progress;
mod schema;
mod sealed;
mod status;
mod store;
mod streams;
mod table;
mod tell;
mod usage;
mod variables;

#[doc(hidden)]
pub use table::testing;

use std::env;
use std::panic;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use clap::{CommandFactory as _, FromArgMatches as _};
use tokio::runtime::Runtime;

use crate::args::{Cli, Command, Crypt, Mode};
use crate::cleanup::Cleanup;
use crate::config::Settings;
use crate::count::count;
use crate::exit::{Exit, Failure};
use crate::input::Input;
use crate::kms::text::KMS;
use crate::open::Use;
use crate::output::{Output, Privacy, Target};
use crate::print::Printer;
use crate::progress::is_watched;
use crate::store::text::METASTORE;
use crate::table::file::Plan;
use crate::table::rows::Direction;
use crate::tell::tell;
use crate::variables::without_empty;

/// Does what the arguments say, and returns how it ended.
#[must_use]
pub fn main() -> ExitCode {
    panic::set_hook(Box::new(|fault| tell(Failure::of_panic(fault.location()).message())));
    // What panics has told so by the hook.
    let outcome = panic::catch_unwind(start).unwrap_or(Ok(Exit::Internal));
    outcome.unwrap_or_else(|failure| failure.tell()).into()
}

/// Reads the command line and does what it says.
fn start() -> Result<Exit, Failure> {
    let command = without_empty(Cli::command());
    let read = command.clone().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    match read {
        Ok(Cli { verbose, command }) => {
            run(command).map_err(|failure| if verbose { failure } else { failure.in_short() })
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

fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Encrypt(options) => {
            let usage = Use::Encrypt { is_new: options.new_key_store };
            crypt(Direction::Encrypt, usage, options.allow_sealed, options.crypt)
        }
        Command::Decrypt(options) => crypt(Direction::Decrypt, Use::Decrypt, false, options),
        Command::Schema(command) => schema::run(command, Printer::open()?),
        Command::Kms(command) => kms::commands::run(command, Printer::open()?),
        Command::Completions { shell } => {
            let printer = Printer::open()?;
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "claviger", &mut script);
            printer.print_exactly(&String::from_utf8_lossy(&script)).map(|()| Exit::Done)
        }
    }
}

/// Encrypts or decrypts.
fn crypt(direction: Direction, usage: Use, allow_sealed: bool, mut options: Crypt) -> Result<Exit, Failure> {
    let begun = Instant::now();
    let work = match options.mode()? {
        Mode::Fields { partition_field } => Work::Fields(Plan::new(&options, partition_field, allow_sealed)?),
        Mode::Payload { partition } => Work::Payload(partition.to_owned()),
    };
    let settings = Settings::resolve(std::mem::take(&mut options.options), options.config.as_deref())?;
    let runtime = runtime()?;
    let cleanup = Cleanup::default();
    cleanup.on_signals(&runtime).map_err(|error| {
        Failure::new(Exit::Unavailable, format!("cannot watch for signals: {error}; try again"))
    })?;
    let input = Input::open(options.input.as_deref())?;
    let target = Target::judge(options.output.as_deref())?;
    let errors = work.errors().map(|path| Target::judge(Some(path))).transpose()?;
    files::check(&options, &settings, &input, &target, errors.as_ref())?;
    let privacy = match direction {
        Direction::Encrypt => Privacy::Usual,
        Direction::Decrypt => Privacy::Private,
    };
    let output = Output::create(target, privacy, &cleanup)?;
    let errors = errors.map(|errors| Output::create(errors, Privacy::Usual, &cleanup)).transpose()?;
    let keys = runtime.block_on(open::open(&settings, usage))?;
    let (is_watched, name) = (is_watched(&output), input.name.clone());
    let done = match &work {
        Work::Fields(plan) => plan
            .run(&runtime, direction, &keys, input, output, errors)
            .map(|(exit, rows)| (exit, format!("{} of {name}", count(rows, "row")))),
        Work::Payload(partition) => {
            payload::run(&runtime, direction, &keys, partition, allow_sealed, input, output)
                .map(|exit| (exit, name))
        }
    };
    runtime.block_on(keys.close());
    let (exit, what) = done?;
    if is_watched {
        tell(format_args!("{} {what} in {:.1} s", direction.done(), begun.elapsed().as_secs_f64()));
    }
    Ok(exit)
}

/// What there is to encrypt or decrypt.
enum Work {
    Fields(Plan),
    /// A whole payload of this partition.
    Payload(String),
}

impl Work {
    /// Where rows that fail are listed, if the run goes on without them.
    fn errors(&self) -> Option<&Path> {
        match self {
            Self::Fields(plan) => plan.errors(),
            Self::Payload(_) => None,
        }
    }
}

fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Unavailable, format!("cannot start threads: {error}; try again")))
}
