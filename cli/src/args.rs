//! The command line.

mod crypt;
mod kms;
mod mode;
mod options;
mod schema;

use clap::{Parser, Subcommand};

pub(crate) use crate::args::crypt::{Crypt, Encrypt, Format};
pub(crate) use crate::args::kms::{Kms, KmsKeys, KmsRenew};
pub(crate) use crate::args::mode::Mode;
pub(crate) use crate::args::options::{Options, Report};
pub(crate) use crate::args::schema::{Schema, SchemaApply, SchemaStore};
use crate::exit::EXIT_CODES;

/// Encrypts files, or single columns of them, under a key of its own for every customer.
#[derive(Debug, Parser)]
#[command(name = "claviger", version, after_help = EXAMPLES, after_long_help = with_codes(EXAMPLES))]
#[command(arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Tells more of a failure: all causes, whole key ids, what a server said. Key ids hold partitions.
    #[arg(long, global = true)]
    pub(crate) verbose: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Encrypts a payload, or fields of a CSV or JSON Lines file.
    #[command(override_usage = usage("encrypt"), after_help = EXAMPLES, after_long_help = with_codes(EXAMPLES))]
    Encrypt(Encrypt),
    /// Restores what encrypt made, byte for byte.
    #[command(override_usage = usage("decrypt"), after_help = EXAMPLES, after_long_help = with_codes(EXAMPLES))]
    Decrypt(Crypt),
    /// Shows, makes and checks the table that a key store keeps its keys in.
    #[command(subcommand, after_help = schema::EXAMPLES, after_long_help = with_codes(schema::EXAMPLES))]
    Schema(Schema),
    /// Checks the master key, and wraps the system keys anew that it does not keep as it should.
    #[command(subcommand, after_help = kms::EXAMPLES, after_long_help = with_codes(kms::EXAMPLES))]
    Kms(Kms),
    /// Prints a shell's completions.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// The two ways to use a command, of which clap would make one.
fn usage(command: &str) -> String {
    format!(
        "claviger {command} --partition <ID> [OPTIONS] [INPUT]\n       \
         claviger {command} --fields <NAMES> --partition-field <NAME> [OPTIONS] [INPUT]"
    )
}

fn with_codes(examples: &str) -> String {
    format!("{examples}\n{EXIT_CODES}")
}

const EXAMPLES: &str = "\
Examples:
  claviger encrypt customers.csv --partition-field customer_id --fields email,card_number -o sealed.csv
  claviger decrypt sealed.csv --partition-field customer_id --fields email,card_number -o customers.csv
  claviger encrypt contract.pdf --partition customer-17 -o contract.record
  claviger decrypt contract.record --partition customer-17 > contract.pdf
  claviger completions bash > /etc/bash_completion.d/claviger

Without --metastore and --kms the keys live in $CLAVIGER_HOME, else in $XDG_DATA_HOME/claviger, else in
~/.local/share/claviger: a key store (keys.db) and a master key (master.key), made at first use.
Keep both: without them nothing can be decrypted.
";
