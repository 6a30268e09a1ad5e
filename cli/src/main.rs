//! The command line: field encryption of files.

// They panic where standard output or standard error is full or closed: `print` and `tell` do not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod cleanup;
mod config;
mod exit;
mod explain;
mod given;
mod input;
mod kms;
mod open;
mod output;
mod payload;
mod print;
mod private;
mod progress;
mod schema;
mod store;
mod table;
mod tell;

use std::env;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use tokio::runtime::Runtime;

use crate::args::{Cli, Command, Crypt};
use crate::cleanup::Cleanup;
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::input::Input;
use crate::kms::text::KMS;
use crate::output::Output;
use crate::print::print;
use crate::store::text::METASTORE;
use crate::table::file::Plan;
use crate::table::rows::Direction;
use crate::tell::{say, tell};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // What clap says repeats the argument it could not use.
        Err(error) => {
            match [&KMS, &METASTORE].iter().try_for_each(|option| option.check_arguments(env::args_os())) {
                Err(failure) if error.use_stderr() => return report(&failure, Telling::Short),
                _ => return usage(&error),
            }
        }
    };
    let telling = if cli.verbose { Telling::All } else { Telling::Short };
    let outcome = match cli.command {
        Command::Encrypt(crypt) => run(Direction::Encrypt, crypt),
        Command::Decrypt(crypt) => run(Direction::Decrypt, crypt),
        Command::Schema(schema) => schema::run(schema),
        Command::Kms(command) => kms::commands::run(command),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "claviger", &mut script);
            print(&String::from_utf8_lossy(&script)).map(|()| Exit::Done)
        }
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => report(&failure, telling),
    }
}

/// How much is told of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    Short,
    /// Also what may hold a partition.
    All,
}

fn report(failure: &Failure, telling: Telling) -> ExitCode {
    tell(failure.message());
    if let (Telling::All, Some(details)) = (telling, failure.details()) {
        tell(details);
    }
    failure.exit().into()
}

/// What clap has to say: help and version to standard output, the rest to standard error.
fn usage(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if error.use_stderr() {
        say(&text);
        return Exit::Usage.into();
    }
    match print(&text) {
        Ok(()) => Exit::Done.into(),
        Err(failure) => report(&failure, Telling::Short),
    }
}

/// Encrypts or decrypts.
fn run(direction: Direction, mut crypt: Crypt) -> Result<Exit, Failure> {
    let plan = crypt.partition_field.as_deref().map(|field| Plan::new(&crypt, field)).transpose()?;
    let settings = Settings::resolve(std::mem::take(&mut crypt.options), crypt.config.as_deref())?;
    let runtime = runtime()?;
    let cleanup = Cleanup::default();
    cleanup.on_signals(&runtime).map_err(|error| {
        Failure::new(Exit::Unavailable, format!("cannot watch for signals: {error}; try again"))
    })?;
    let input = Input::open(crypt.input.as_deref())?;
    let output = Output::create(crypt.output.as_deref(), &cleanup)?;
    let keys = runtime.block_on(open::open(&settings, direction))?;
    let outcome = match (&plan, &crypt.partition) {
        (Some(plan), _) => plan.run(&runtime, direction, &keys, input, output, &cleanup),
        (None, partition) => {
            let partition = partition.as_deref().unwrap_or_default();
            payload::run(&runtime, direction, &keys, partition, input, output)
        }
    };
    runtime.block_on(keys.close());
    outcome
}

fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Unavailable, format!("cannot start threads: {error}; try again")))
}
