//! Encrypts and decrypts files.

use std::path::Path;
use std::time::Instant;

use crate::args::{Crypt, Encrypt, Mode};
use crate::cleanup::Cleanup;
use crate::config::Settings;
use crate::count::count;
use crate::exit::{Exit, Failure};
use crate::input::Input;
use crate::open::{self, Use};
use crate::output::{Output, Privacy, Target};
use crate::progress::is_watched;
use crate::table::file::Plan;
use crate::table::rows::Direction;
use crate::tell::tell;
use crate::{files, payload, runtime};

pub(super) fn encrypt(options: Encrypt) -> Result<Exit, Failure> {
    let usage = Use::Encrypt { is_new: options.new_key_store };
    crypt(Direction::Encrypt, usage, options.allow_sealed, options.crypt)
}

pub(super) fn decrypt(options: Crypt) -> Result<Exit, Failure> {
    crypt(Direction::Decrypt, Use::Decrypt, false, options)
}

fn crypt(direction: Direction, usage: Use, allow_sealed: bool, mut options: Crypt) -> Result<Exit, Failure> {
    let begun = Instant::now();
    let work = match options.mode()? {
        Mode::Fields { partition_field } => Work::Fields(Plan::new(&options, partition_field, allow_sealed)?),
        Mode::Payload { partition } => Work::Payload(partition.to_owned()),
    };
    let settings = Settings::resolve(std::mem::take(&mut options.options), options.config.as_deref())?;
    let runtime = runtime::start()?;
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
