//! Which key store is meant.

pub(crate) mod backend;
pub(crate) mod text;
#[cfg_attr(
    not(all(feature = "postgres", feature = "mysql", feature = "dynamodb")),
    allow(dead_code, reason = "only some servers need it")
)]
mod url;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::home;
use crate::exit::{Exit, Failure};
use crate::files::{self, Role, Used};
use crate::given::Given;
use crate::store::text::METASTORE;
pub(crate) use crate::store::url::ServerUrl;

/// A key store, not opened yet.
#[derive(Debug)]
pub(crate) enum StoreChoice {
    /// `keys.db` in claviger's own folder.
    Embedded(PathBuf),
    Sqlite(PathBuf),
    Postgres(ServerUrl),
    Mysql(ServerUrl),
    DynamoDb(ServerUrl),
    Memory,
}

impl StoreChoice {
    /// Reads what was given, if anything was. Nothing of it is repeated that may be a password.
    pub(crate) fn resolve(given: Option<Given>, danger_discard_keys: bool) -> Result<Self, Failure> {
        let Some(given) = given else { return Ok(Self::Embedded(home()?.join("keys.db"))) };
        let text = given.reveal(&METASTORE)?;
        let wrong = |message: &str| Err(Failure::new(Exit::Config, message));
        let Some((scheme, rest)) = text.split_once(':') else { return wrong(UNKNOWN) };
        match (scheme, rest) {
            ("memory", "") if danger_discard_keys => Ok(Self::Memory),
            ("memory", "") => wrong(
                "--metastore memory: forgets the keys when claviger ends, so that nothing encrypted with it can be \
                 decrypted; name a file with sqlite:PATH, or say --danger-discard-keys for a trial",
            ),
            ("sqlite", "") => wrong("--metastore sqlite: lacks its path; say sqlite:PATH"),
            ("sqlite", path) => Ok(Self::Sqlite(path.into())),
            ("postgres" | "postgresql", _) => ServerUrl::parse(&text, &url::POSTGRES).map(Self::Postgres),
            ("mysql" | "mariadb", _) => ServerUrl::parse(&text, &url::MYSQL).map(Self::Mysql),
            ("dynamodb", _) => ServerUrl::parse(&text, &url::DYNAMODB).map(Self::DynamoDb),
            _ => wrong(UNKNOWN),
        }
    }

    /// The file it is, if it is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::Embedded(path) | Self::Sqlite(path) => Some(path),
            _ => None,
        }
    }
}

impl StoreChoice {
    /// All files that it is made of.
    pub(crate) fn used(&self) -> Vec<Used> {
        match self {
            Self::Embedded(path) | Self::Sqlite(path) => files::of_key_store(path),
            Self::Postgres(url) | Self::Mysql(url) => {
                Used::all(Role::Secret, url.files().iter().map(PathBuf::as_path))
            }
            Self::DynamoDb(_) | Self::Memory => Vec::new(),
        }
    }
}

impl fmt::Display for StoreChoice {
    /// Names it without a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(path) | Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(url) | Self::Mysql(url) | Self::DynamoDb(url) => url.fmt(f),
            Self::Memory => f.write_str("memory:"),
        }
    }
}

const UNKNOWN: &str = "--metastore names no store that claviger knows; say sqlite:PATH, postgres://…, mysql://…, \
                       dynamodb://TABLE or memory:, or @FILE for a file that says it";
