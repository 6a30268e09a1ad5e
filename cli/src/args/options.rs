//! The options that several commands have.

use std::num::NonZeroU64;

use clap::builder::{BoolishValueParser, PossibleValuesParser, TypedValueParser as _};
use clap::{Args, ValueEnum};
use claviger_metastore::FindingId;
use serde::{Deserialize, Deserializer, de};

use crate::given::{Given, GivenParser};
use crate::kms::text::KmsGiven;

/// How what was found is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Report {
    /// For people.
    Text,
    /// One JSON object, for programs.
    Json,
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

    #[arg(long, value_name = "KMS", env = KMS_VARIABLE, hide_env_values = true, help_heading = KEYS)]
    #[arg(value_parser = GivenParser::<KmsGiven>::NEW, help = KMS_HELP, long_help = KMS_LONG_HELP)]
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

/// Knows the findings by name, so that shells complete them.
pub(super) fn finding_parser() -> impl clap::builder::TypedValueParser<Value = FindingId> {
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

pub(super) const KEYS: &str = "Keys";

pub(super) const STORE_VARIABLE: &str = "CLAVIGER_METASTORE";

pub(super) const STORE_HELP: &str = "The key store: sqlite:PATH, postgres://…, mysql://…, dynamodb://TABLE, memory: or @FILE \
                          [default: keys.db in claviger's folder]";

pub(super) const STORE_LONG_HELP: &str = "\
The key store [default: keys.db in claviger's folder]:
  sqlite:PATH                               a file, made at first use
  postgres://USER@HOST[:PORT]/DATABASE      with ?sslmode=verify-full and the like
  mysql://USER@HOST[:PORT]/DATABASE         MySQL or MariaDB, with ?ssl-mode=VERIFY_IDENTITY and the like
  dynamodb://TABLE[?region=…&endpoint=…]    with the credentials that AWS's tools use
  memory:                                   forgotten at the end
  @FILE                                     what is in a file that only its owner may read
A password does not belong here, where all users of the machine see it: see docs/cli.md.";

pub(super) const KMS_VARIABLE: &str = "CLAVIGER_KMS";

pub(super) const KMS_HELP: &str = "The master key: local:PATH, static:@FILE, aws:REGION=ARN, pkcs11:…, vault:https://… or \
                               @FILE [default: master.key in claviger's folder]";

pub(super) const KMS_LONG_HELP: &str = "\
The master key [default: master.key in claviger's folder]:
  local:PATH                                a file, made at first use
  static:@FILE                              a file of 64 hex digits
  aws:REGION=ARN[,REGION=ARN…][,preferred=REGION]
                                            AWS KMS, with the credentials that AWS's tools use
  pkcs11:token=LABEL;object=LABEL?module-path=PATH&pin-source=file:PATH
                                            a hardware security module; the PIN may also be in
                                            CLAVIGER_PKCS11_PIN
  vault:https://HOST:8200/MOUNT/KEY[?auth=token|approle|kubernetes&…]
                                            Vault or OpenBao; the token in VAULT_TOKEN or token=@FILE
  @FILE                                     what is in a file that only its owner may read
In the configuration file it can be a table, which can also put several of these together. A secret does
not belong here, where all users of the machine see it: see docs/cli.md.";
