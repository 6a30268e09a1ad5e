//! The arguments of `claviger kms`, and what `--kms` says.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, Subcommand};
use claviger::Created;
use claviger_metastore::FindingId;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::options::{
    KMS_HELP, KMS_LONG_HELP, KMS_VARIABLE, Options, Report, STORE_HELP, STORE_LONG_HELP, STORE_VARIABLE,
    finding_parser,
};
use crate::given::{Given, GivenParser};
use crate::kms::text::KmsGiven;

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
pub(crate) enum Kms {
    /// Wraps and unwraps a key that is thrown away, in every region or by every member, and unwraps the
    /// system keys of --metastore; exits with 69 or 3 when one fails.
    Check(KmsKeys),
    /// Wraps the system keys anew that lack the copy of a region or member, and unwraps the others.
    Repair(KmsRenew),
    /// Wraps system keys anew: those that another master key wrapped, as a move from --from to --kms, or
    /// all, after the master key was rotated.
    Rewrap(KmsRewrap),
}

/// A master key, and which system keys of which store.
#[derive(Debug, Args)]
pub(crate) struct KmsKeys {
    #[arg(long, value_name = "KMS", env = KMS_VARIABLE, hide_env_values = true)]
    #[arg(value_parser = GivenParser::<KmsGiven>::NEW, help = KMS_HELP, long_help = KMS_LONG_HELP)]
    pub(crate) kms: Option<KmsGiven>,

    /// Accepts the well-known test key as static master key, for reading test data.
    #[arg(long, env = "CLAVIGER_DANGER_KNOWN_KEY")]
    #[arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = BoolishValueParser::new())]
    pub(crate) danger_known_key: Option<bool>,

    /// A TOML file with the options; a flag wins over a variable, a variable over the file.
    #[arg(long, value_name = "FILE", env = "CLAVIGER_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// How to print what was found.
    #[arg(long, value_enum, default_value_t = Report::Text)]
    pub(crate) format: Report,

    #[arg(long, value_name = "STORE", env = STORE_VARIABLE, hide_env_values = true)]
    #[arg(value_parser = GivenParser::<Given>::NEW, help = STORE_HELP, long_help = STORE_LONG_HELP)]
    pub(crate) metastore: Option<Given>,

    /// Starts in spite of this dangerous finding of `claviger schema check`; may be given several
    /// times.
    #[arg(long, value_name = "ID", env = "CLAVIGER_ACCEPT_FINDING", value_delimiter = ',')]
    #[arg(value_parser = finding_parser(), hide_possible_values = true)]
    pub(crate) accept_finding: Vec<FindingId>,

    /// The service that the keys belong to [default: claviger].
    #[arg(long, value_name = "NAME", env = "CLAVIGER_SERVICE")]
    pub(crate) service: Option<String>,

    /// The product that the keys belong to [default: default].
    #[arg(long, value_name = "NAME", env = "CLAVIGER_PRODUCT")]
    pub(crate) product: Option<String>,

    /// The region that is appended to key ids, such as us-west-2.
    #[arg(long, value_name = "REGION", env = "CLAVIGER_REGION_SUFFIX")]
    pub(crate) region_suffix: Option<String>,

    /// Takes the system keys of all services and products. Every row of the store is read for it.
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct KmsRenew {
    #[command(flatten)]
    pub(crate) keys: KmsKeys,

    /// Says what would be done, and does nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct KmsRewrap {
    /// What the system keys are wrapped by, in the words of --kms, or config:FILE for what another TOML
    /// file says; those that --kms unwraps already are left as they are. Without it all keys are wrapped
    /// anew by --kms itself: under the newest version of its master key.
    #[arg(long, value_name = "KMS", value_parser = GivenParser::<KmsGiven>::NEW)]
    pub(crate) from: Option<KmsGiven>,

    /// Revokes each key that is wrapped anew, before its new form is stored: for a master key that has
    /// become known. See docs/kms.md for what goes before it.
    #[arg(long)]
    pub(crate) revoke: bool,

    /// Leaves out, and tells, what is to be wrapped anew and was created later: such as
    /// 2026-01-31T12:00:00Z, or in Unix seconds.
    #[arg(long, value_name = "TIME", value_parser = created)]
    pub(crate) created_up_to: Option<Created>,

    #[command(flatten)]
    pub(crate) renew: KmsRenew,
}

impl KmsKeys {
    /// The same as the options of other commands, and the configuration file.
    pub(crate) fn into_options(self) -> (Options, Option<PathBuf>) {
        let options = Options {
            service: self.service,
            product: self.product,
            metastore: self.metastore,
            accept_finding: self.accept_finding,
            kms: self.kms,
            region_suffix: self.region_suffix,
            danger_known_key: self.danger_known_key,
            ..Options::default()
        };
        (options, self.config)
    }
}

/// Reads a time of RFC 3339, or Unix seconds.
fn created(text: &str) -> Result<Created, &'static str> {
    let seconds = match text.parse() {
        Ok(seconds) => Some(seconds),
        Err(_) => OffsetDateTime::parse(text, &Rfc3339).map(OffsetDateTime::unix_timestamp).ok(),
    };
    seconds.and_then(Created::new).ok_or("say such as 2026-01-31T12:00:00Z")
}

pub(super) const EXAMPLES: &str = "\
Examples:
  claviger kms check --kms local:/var/lib/claviger/master.key
  claviger kms check --kms aws:us-east-1=ARN,eu-west-1=ARN,preferred=us-east-1 --format json
  claviger kms check --kms static:@/etc/claviger/key --metastore @/etc/claviger/metastore --all
  claviger kms check --kms 'pkcs11:token=keys;object=claviger?module-path=/usr/lib/hsm.so&pin-source=file:/etc/claviger/pin'
  claviger kms check --kms 'vault:https://vault.example:8200/transit/claviger?auth=kubernetes&role=checkout'
  claviger kms repair --config /etc/claviger/claviger.toml --dry-run
  claviger kms rewrap --from static:@old.hex --kms aws:us-east-1=ARN,eu-west-1=ARN --all
  claviger kms rewrap --config /etc/claviger/claviger.toml
  claviger kms rewrap --from static:@leaked.hex --kms vault:https://vault.example:8200/transit/claviger \
    --revoke --created-up-to 2026-01-31T12:00:00Z
";
