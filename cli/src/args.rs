//! The command line.

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::builder::{BoolishValueParser, PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand, ValueEnum};
use claviger_metastore::FindingId;
use serde::{Deserialize, Deserializer, de};

use crate::exit::EXIT_CODES;
use crate::store::text::{StoreText, StoreTextParser};

/// Encrypts files, or single columns of them, under a key of its own for every customer.
#[derive(Debug, Parser)]
#[command(name = "claviger", version, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n{EXIT_CODES}"))]
#[command(arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Encrypts a payload, or fields of a CSV or JSON Lines file.
    #[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n{EXIT_CODES}"))]
    Encrypt(Crypt),
    /// Restores what encrypt made, byte for byte.
    #[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n{EXIT_CODES}"))]
    Decrypt(Crypt),
    /// Shows, makes and checks the table that a key store keeps its keys in.
    #[command(subcommand, after_help = SCHEMA_EXAMPLES, after_long_help = format!("{SCHEMA_EXAMPLES}\n{EXIT_CODES}"))]
    Schema(Schema),
    /// Prints a shell's completions.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Schema {
    /// Prints what apply would run. It connects to nothing: postgres:// alone will do.
    Show(SchemaStore),
    /// Makes the table if it is not there, and then checks it. A table that is there is left as it is.
    Apply(SchemaCheck),
    /// Looks for what could lose keys; exits with 3 when it finds something dangerous.
    Check(SchemaCheck),
}

#[derive(Debug, Args)]
pub(crate) struct SchemaStore {
    #[arg(long, value_name = "STORE", env = STORE_VARIABLE, hide_env_values = true, value_parser = StoreTextParser)]
    #[arg(help = STORE_HELP, long_help = STORE_LONG_HELP)]
    pub(crate) metastore: Option<StoreText>,

    /// A TOML file with the options; a flag wins over a variable, a variable over the file.
    #[arg(long, value_name = "FILE", env = "CLAVIGER_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SchemaCheck {
    #[command(flatten)]
    pub(crate) store: SchemaStore,

    /// Counts this dangerous finding as none; may be given several times.
    #[arg(long, value_name = "ID", env = "CLAVIGER_ACCEPT_FINDING", value_delimiter = ',')]
    #[arg(value_parser = finding_parser(), hide_possible_values = true)]
    pub(crate) accept_finding: Vec<FindingId>,

    /// How to print what was found.
    #[arg(long, value_enum, default_value_t = Report::Text)]
    pub(crate) format: Report,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Report {
    /// For people.
    Text,
    /// One JSON object, for programs.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Crypt {
    /// What to read; `-` or nothing is standard input.
    pub(crate) input: Option<PathBuf>,

    /// Where to write; `-` or nothing is standard output. A file appears whole or not at all.
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: Option<PathBuf>,

    /// The customer, tenant or user that the whole payload belongs to.
    #[arg(short, long, value_name = "ID", required_unless_present = "fields", conflicts_with = "fields")]
    pub(crate) partition: Option<String>,

    /// The columns (CSV) or fields (JSON Lines) to encrypt or decrypt, separated by commas.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "partition_field")]
    pub(crate) fields: Vec<String>,

    /// The column or field that says to whom a row belongs.
    #[arg(long, value_name = "NAME", requires = "fields")]
    pub(crate) partition_field: Option<String>,

    /// How INPUT is written; else its extension says so.
    #[arg(long, value_enum, requires = "fields")]
    pub(crate) format: Option<Format>,

    /// Leaves out the rows that fail and lists them in the errors file; exits with 1 then.
    #[arg(long, requires = "fields")]
    pub(crate) keep_going: bool,

    /// Where --keep-going lists the rows left out [default: OUT.errors.jsonl].
    #[arg(long, value_name = "FILE", requires = "keep_going")]
    pub(crate) errors: Option<PathBuf>,

    /// A TOML file with the options below; a flag wins over a variable, a variable over the file.
    #[arg(long, value_name = "FILE", env = "CLAVIGER_CONFIG", help_heading = KEYS)]
    pub(crate) config: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) options: Options,
}

/// Which keys to use. One declaration for flags and variables (through clap) and for the
/// configuration file (through serde): a name cannot be known to one and not to the other.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Options {
    /// The service that the keys belong to [default: claviger].
    #[arg(long, value_name = "NAME", env = "CLAVIGER_SERVICE", help_heading = KEYS)]
    pub(crate) service: Option<String>,

    /// The product that the keys belong to [default: default].
    #[arg(long, value_name = "NAME", env = "CLAVIGER_PRODUCT", help_heading = KEYS)]
    pub(crate) product: Option<String>,

    #[arg(long, value_name = "STORE", env = STORE_VARIABLE, hide_env_values = true, help_heading = KEYS)]
    #[arg(value_parser = StoreTextParser, help = STORE_HELP, long_help = STORE_LONG_HELP)]
    pub(crate) metastore: Option<StoreText>,

    /// Starts in spite of this dangerous finding of `claviger schema check`; may be given several
    /// times.
    #[arg(long, value_name = "ID", env = "CLAVIGER_ACCEPT_FINDING", value_delimiter = ',', help_heading = KEYS)]
    #[arg(value_parser = finding_parser(), hide_possible_values = true)]
    #[serde(deserialize_with = "findings")]
    pub(crate) accept_finding: Vec<FindingId>,

    /// The master key: local:PATH, a file made at first use, or static:@FILE, a file of 64 hex
    /// digits [default: master.key in claviger's folder].
    #[arg(long, value_name = "KMS", env = "CLAVIGER_KMS", hide_env_values = true, help_heading = KEYS)]
    pub(crate) kms: Option<String>,

    /// The region that is appended to key ids, such as us-west-2.
    #[arg(long, value_name = "REGION", env = "CLAVIGER_REGION_SUFFIX", help_heading = KEYS)]
    pub(crate) region_suffix: Option<String>,

    /// How many customers' keys are kept in memory [default: 50000].
    #[arg(long, value_name = "KEYS", env = "CLAVIGER_CACHE", help_heading = KEYS)]
    pub(crate) cache: Option<NonZeroU64>,

    /// Accepts the well-known test key as static master key, for reading test data.
    #[arg(long, env = "CLAVIGER_DANGER_KNOWN_KEY", help_heading = KEYS)]
    #[arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = BoolishValueParser::new())]
    pub(crate) danger_known_key: Option<bool>,

    /// Accepts memory: as key store, though its keys, and so the data, are gone when claviger ends.
    #[arg(long, env = "CLAVIGER_DANGER_DISCARD_KEYS", help_heading = KEYS)]
    #[arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = BoolishValueParser::new())]
    pub(crate) danger_discard_keys: Option<bool>,
}

/// How a file of rows is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Comma-separated values with a header row.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

/// Knows the findings by name, so that shells complete them.
fn finding_parser() -> impl clap::builder::TypedValueParser<Value = FindingId> {
    PossibleValuesParser::new(FindingId::ALL.iter().map(|id| id.as_str())).try_map(|name| finding(&name))
}

fn finding(name: &str) -> Result<FindingId, String> {
    FindingId::ALL.iter().copied().find(|id| id.as_str() == name).ok_or_else(|| {
        let names: Vec<&str> = FindingId::ALL.iter().map(|id| id.as_str()).collect();
        format!("no such finding; there are {}", names.join(", "))
    })
}

fn findings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<FindingId>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    names.iter().map(|name| finding(name).map_err(de::Error::custom)).collect()
}

const KEYS: &str = "Keys";

const STORE_VARIABLE: &str = "CLAVIGER_METASTORE";

const STORE_HELP: &str = "The key store: sqlite:PATH, postgres://…, mysql://…, dynamodb://TABLE, memory: or @FILE \
                          [default: keys.db in claviger's folder]";

const STORE_LONG_HELP: &str = "\
The key store [default: keys.db in claviger's folder]:
  sqlite:PATH                               a file, made at first use
  postgres://USER@HOST[:PORT]/DATABASE      with ?sslmode=verify-full and the like
  mysql://USER@HOST[:PORT]/DATABASE         MySQL or MariaDB, with ?ssl-mode=VERIFY_IDENTITY and the like
  dynamodb://TABLE[?region=…&endpoint=…]    with the credentials that AWS's tools use
  memory:                                   forgotten at the end
  @FILE                                     what is in a file that only its owner may read
A password does not belong here, where all users of the machine see it: see docs/cli.md.";

const SCHEMA_EXAMPLES: &str = "\
Examples:
  claviger schema show --metastore postgres://
  claviger schema apply --metastore @/etc/claviger/metastore
  claviger schema check --metastore mysql://app@db.example/keys --format json
";

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
