//! Encrypts and decrypts files of rows in memory, on the way that the program takes, for property
//! tests and fuzzing. It promises nothing to anybody else.

use std::io::Cursor;

use claviger::{
    BoxedKms, InMemoryMetastore, RandomError, SecretKey, SessionFactory, StaticKms, SystemRandom,
};
use tokio::runtime::Runtime;

use super::chunks::Sizes;
use super::job::Job;
use super::rows::{Direction, Done};
use crate::args::Format;
use crate::exit::Failure;
use crate::kms::watched::Watched;
use crate::runtime;

/// Keys that are forgotten in the end.
#[derive(Debug)]
pub struct Bench {
    runtime: Runtime,
    factory: SessionFactory,
    kms: Watched,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "tests name both")]
pub enum Form {
    /// Comma-separated values.
    Csv,
    /// One JSON object a line.
    JsonLines,
}

/// What to do with a file.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "tests say all of it")]
pub struct Task<'a> {
    /// How the file is written.
    pub form: Form,
    /// The field that names the partition.
    pub partition_field: &'a str,
    /// The fields to encrypt or decrypt.
    pub fields: &'a [&'a str],
    /// Leave out rows that fail.
    pub keep_going: bool,
    /// How much is read at once.
    pub chunk_bytes: usize,
    /// The longest row.
    pub row_bytes_max: usize,
}

/// What became of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "tests look at all of it")]
pub struct Outcome {
    /// What was written.
    pub bytes: Vec<u8>,
    /// The first and last lines of the rows left out.
    pub left_out: Vec<(u64, u64)>,
}

impl Bench {
    /// Makes a master key and a store for its keys.
    ///
    /// # Errors
    /// What the system refuses: randomness, memory or threads.
    pub fn new() -> Result<Self, String> {
        let random = SystemRandom::new();
        let master_key = SecretKey::generate(&random).map_err(|error: RandomError| error.to_string())?;
        let kms = StaticKms::new(&master_key).map_err(|error| error.to_string())?;
        let kms = Watched::new(BoxedKms::new(kms));
        let factory = SessionFactory::builder(InMemoryMetastore::new(), kms.clone())
            .service("s")
            .product("p")
            .build()
            .map_err(|error| error.to_string())?;
        let runtime = runtime::start().map_err(|failure| failure.message().to_owned())?;
        Ok(Self { runtime, factory, kms })
    }

    /// Encrypts a file.
    ///
    /// # Errors
    /// The program's message.
    pub fn encrypt(&self, file: &[u8], task: &Task<'_>) -> Result<Outcome, String> {
        self.run(Direction::Encrypt, file, task)
    }

    /// Decrypts a file.
    ///
    /// # Errors
    /// The program's message.
    pub fn decrypt(&self, file: &[u8], task: &Task<'_>) -> Result<Outcome, String> {
        self.run(Direction::Decrypt, file, task)
    }

    fn run(&self, direction: Direction, file: &[u8], task: &Task<'_>) -> Result<Outcome, String> {
        let job = Job {
            direction,
            format: match task.form {
                Form::Csv => Format::Csv,
                Form::JsonLines => Format::Jsonl,
            },
            fields: task.fields.iter().map(|&field| field.to_owned()).collect(),
            partition_field: task.partition_field.to_owned(),
            factory: self.factory.clone(),
            kms: self.kms.clone(),
            keep_going: task.keep_going,
            allow_sealed: false,
            sizes: Sizes { chunk_bytes: task.chunk_bytes, row_bytes_max: task.row_bytes_max },
        };
        let mut outcome = Outcome::default();
        let mut on_done = |done: &Done, _bytes: usize| {
            outcome.bytes.extend_from_slice(&done.bytes);
            outcome.left_out.extend(done.left_out.iter().map(|bad| (bad.line, bad.last_line)));
            Ok(())
        };
        job.run(&self.runtime, Cursor::new(file.to_vec()), "file", &mut on_done)
            .map_err(|failure: Failure| failure.message().to_owned())?;
        Ok(outcome)
    }
}
