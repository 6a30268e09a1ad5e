//! Which key store is meant.

pub(crate) mod backend;
mod sqlite;
pub(crate) mod text;
#[cfg_attr(
    not(all(feature = "postgres", feature = "mysql", feature = "dynamodb")),
    allow(dead_code, reason = "only some servers need it")
)]
mod url;

use std::fmt;
use std::path::{Path, PathBuf};

use claviger::BackendError;

use crate::config::home;
use crate::exit::{Exit, Failure};
use crate::files::{self, Role, Used};
use crate::given::Given;
use crate::store::backend::fault;
use crate::store::sqlite::Place;
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
            ("memory", "") => memory(danger_discard_keys),
            ("sqlite", path) => match sqlite::parse(path) {
                Ok(Place::File(path)) => Ok(Self::Sqlite(path)),
                Ok(Place::Memory) => memory(danger_discard_keys),
                Err(why) => wrong(why),
            },
            ("postgres" | "postgresql", _) => ServerUrl::parse(&text, &url::POSTGRES).map(Self::Postgres),
            ("mysql" | "mariadb", _) => ServerUrl::parse(&text, &url::MYSQL).map(Self::Mysql),
            ("dynamodb", _) => ServerUrl::parse(&text, &url::DYNAMODB).map(Self::DynamoDb),
            _ => wrong(UNKNOWN),
        }
    }

    /// What it means that it failed; `doing` is what was tried with it.
    pub(crate) fn failed(&self, doing: &str, error: &BackendError) -> Failure {
        fault::using(self, doing, error)
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

fn memory(danger_discard_keys: bool) -> Result<StoreChoice, Failure> {
    if danger_discard_keys { Ok(StoreChoice::Memory) } else { Err(Failure::new(Exit::Config, FORGETS)) }
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

const FORGETS: &str = "--metastore memory: forgets the keys when claviger ends, so that nothing encrypted with it can be decrypted, and so \
     does a database of SQLite's in memory, whatever it is called; name a file with sqlite:PATH, or say \
     --danger-discard-keys for a trial";

const UNKNOWN: &str = "--metastore names no store that claviger knows; say sqlite:PATH, postgres://…, mysql://…, \
                       dynamodb://TABLE or memory:, or @FILE for a file that says it";
