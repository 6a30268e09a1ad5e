//! The arguments of `claviger schema`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use claviger_metastore::FindingId;

use super::options::{
    KMS_HELP, KMS_LONG_HELP, KMS_VARIABLE, Report, STORE_HELP, STORE_LONG_HELP, STORE_VARIABLE,
    finding_parser,
};
use crate::given::{Given, GivenParser};
use crate::kms::text::KmsGiven;

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
pub(crate) enum Schema {
    /// Prints what apply would run. It connects to nothing: postgres:// alone will do.
    Show(SchemaStore),
    /// Makes the table if it is not there, and then checks it. A table that is there is left as it is.
    Apply(SchemaApply),
    /// Looks for what could lose keys; exits with 3 when it finds something dangerous.
    Check(SchemaCheck),
}

#[derive(Debug, Args)]
pub(crate) struct SchemaStore {
    #[arg(long, value_name = "STORE", env = STORE_VARIABLE, hide_env_values = true, value_parser = GivenParser::<Given>::NEW)]
    #[arg(help = STORE_HELP, long_help = STORE_LONG_HELP)]
    pub(crate) metastore: Option<Given>,

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

#[derive(Debug, Args)]
pub(crate) struct SchemaApply {
    #[command(flatten)]
    pub(crate) check: SchemaCheck,

    #[arg(long, value_name = "KMS", env = KMS_VARIABLE, hide_env_values = true)]
    #[arg(value_parser = GivenParser::<KmsGiven>::NEW, help = KMS_HELP, long_help = KMS_LONG_HELP)]
    pub(crate) kms: Option<KmsGiven>,

    /// Makes a new key store in a file, though the master key of the one before is there.
    #[arg(long)]
    pub(crate) new_key_store: bool,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  claviger schema show --metastore postgres://
  claviger schema apply --metastore @/etc/claviger/metastore
  claviger schema check --metastore mysql://app@db.example/keys --format json
";
