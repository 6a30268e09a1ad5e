//! The arguments of `claviger encrypt` and `claviger decrypt`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::options::{KEYS, Options};

#[derive(Debug, Args)]
pub(crate) struct Encrypt {
    #[command(flatten)]
    pub(crate) crypt: Crypt,

    /// Makes a new key store where there is none, though its master key is there already. What was
    /// encrypted with a key store that was lost stays lost.
    #[arg(long, help_heading = KEYS)]
    pub(crate) new_key_store: bool,

    /// Encrypts also what is a record already; without it that is refused.
    #[arg(long)]
    pub(crate) allow_sealed: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Crypt {
    /// What to read; `-` or nothing is standard input.
    pub(crate) input: Option<PathBuf>,

    /// Where to write; `-` or nothing is standard output. A file appears whole or not at all.
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: Option<PathBuf>,

    /// The customer, tenant or user that the whole payload belongs to.
    #[arg(short, long, value_name = "ID")]
    pub(crate) partition: Option<String>,

    /// The columns (CSV) or fields (JSON Lines) to encrypt or decrypt, separated by commas; a name with
    /// a comma stands in double quotes. May be given several times.
    #[arg(long, value_name = "NAMES")]
    pub(crate) fields: Vec<String>,

    /// The column or field that says to whom a row belongs.
    #[arg(long, value_name = "NAME")]
    pub(crate) partition_field: Option<String>,

    /// How INPUT is written; else its extension says so.
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,

    /// Leaves out the rows that fail and lists them in the errors file; exits with 1 then.
    #[arg(long)]
    pub(crate) keep_going: bool,

    /// Where --keep-going lists the rows left out [default: OUT.errors.jsonl].
    #[arg(long, value_name = "FILE")]
    pub(crate) errors: Option<PathBuf>,

    /// A TOML file with the options below; a flag wins over a variable, a variable over the file.
    #[arg(long, value_name = "FILE", env = "CLAVIGER_CONFIG", help_heading = KEYS)]
    pub(crate) config: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) options: Options,
}

/// How a file of rows is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Comma-separated values with a header row.
    Csv,
    /// One JSON object a line.
    Jsonl,
}
