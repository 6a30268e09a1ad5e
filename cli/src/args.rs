//! The command line.

mod kms;
mod mode;
mod schema;

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::builder::{BoolishValueParser, PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand, ValueEnum};
use claviger_metastore::FindingId;
use serde::{Deserialize, Deserializer, de};

pub(crate) use crate::args::kms::{Kms, KmsKeys, KmsRenew};
pub(crate) use crate::args::mode::Mode;
pub(crate) use crate::args::schema::{Schema, SchemaApply, SchemaStore};
use crate::exit::EXIT_CODES;
use crate::given::{Given, GivenParser};
use crate::kms::text::KmsGiven;

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

/// How what was found is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Report {
    /// For people.
    Text,
    /// One JSON object, for programs.
    Json,
}

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
    #[arg(value_parser = GivenParser::<Given>::NEW, help = STORE_HELP, long_help = STORE_LONG_HELP)]
    pub(crate) metastore: Option<Given>,

    /// Starts in spite of this dangerous finding of `claviger schema check`; may be given several
    /// times.
    #[arg(long, value_name = "ID", env = "CLAVIGER_ACCEPT_FINDING", value_delimiter = ',', help_heading = KEYS)]
    #[arg(value_parser = finding_parser(), hide_possible_values = true)]
    #[serde(deserialize_with = "findings")]
    pub(crate) accept_finding: Vec<FindingId>,

    /// Decrypts by keys that a MySQL table of Asherah keeps under another id, which it takes for the one
    /// named: Alice's under alice's. See "Ids that fold" in docs/metastores.md.
    #[arg(long, env = "CLAVIGER_FOLDED_IDS", help_heading = KEYS)]
    #[arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = BoolishValueParser::new())]
    pub(crate) folded_ids: Option<bool>,

    #[arg(long, value_name = "KMS", env = kms::VARIABLE, hide_env_values = true, help_heading = KEYS)]
    #[arg(value_parser = GivenParser::<KmsGiven>::NEW, help = kms::HELP, long_help = kms::LONG_HELP)]
    pub(crate) kms: Option<KmsGiven>,

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
