//! Which key store is meant.

pub(crate) mod make;
pub(crate) mod text;

use std::fmt;
use std::path::{Path, PathBuf};

use claviger::BackendError;
use claviger_metastore::FindingId;
use claviger_open::{OpenStore, StoreOptions, StoreSpec};

use crate::exit::{Exit, Failure};
use crate::explain;
use crate::given::Given;
use crate::home::home;
use crate::store::text::METASTORE;
use crate::used::{self, Role, Used};

/// A key store, not opened yet.
#[derive(Debug)]
pub(crate) struct StoreChoice {
    spec: StoreSpec,
    /// It is `keys.db` in claviger's own folder.
    pub(crate) is_own: bool,
}

/// What a store is used for, and in spite of what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms<'a> {
    /// The dangerous findings in spite of which it is used.
    pub(crate) accepted: &'a [FindingId],
    /// Keys that the table keeps under another id serve decrypts.
    pub(crate) folded_ids: bool,
    /// Nothing is written, so that the right to is not asked for.
    pub(crate) read_only: bool,
}

impl Terms<'_> {
    /// The same for loading keys alone.
    pub(crate) const fn to_read(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// In spite of everything.
    pub(crate) const fn any() -> Self {
        Self { accepted: FindingId::ALL, folded_ids: false, read_only: false }
    }

    fn options(self) -> StoreOptions {
        StoreOptions::new().accept(self.accepted).folded_ids(self.folded_ids).read_only(self.read_only)
    }
}

impl StoreChoice {
    /// Reads what was given, if anything was. Nothing of it is repeated that may be a password.
    pub(crate) fn resolve(given: Option<Given>, danger_discard_keys: bool) -> Result<Self, Failure> {
        let Some(given) = given else {
            return Ok(Self { spec: StoreSpec::Sqlite(home()?.join("keys.db")), is_own: true });
        };
        let text = given.reveal(&METASTORE)?;
        match StoreSpec::from_text(&text, METASTORE.flag).map_err(explain::kms::spec)? {
            StoreSpec::Memory if !danger_discard_keys => Err(Failure::new(Exit::Config, FORGETS)),
            spec => Ok(Self { spec, is_own: false }),
        }
    }

    pub(crate) const fn is_memory(&self) -> bool {
        matches!(self.spec, StoreSpec::Memory)
    }

    /// Opens it as `options` say.
    pub(crate) async fn open(&self, options: &StoreOptions) -> Result<OpenStore, Failure> {
        self.spec.open(options).await.map_err(|error| explain::store::opening(&self.spec, error))
    }

    /// Opens one that is there; `None` if its file is not, or has no table. Nothing is made.
    pub(crate) async fn open_existing(&self, terms: Terms<'_>) -> Result<Option<OpenStore>, Failure> {
        let opened = self.spec.open_existing(&terms.options()).await;
        opened.map_err(|error| explain::store::opening(&self.spec, error))
    }

    /// Opens it, and makes its file or the table in it if they are not there.
    pub(crate) async fn make(&self, terms: Terms<'_>) -> Result<OpenStore, Failure> {
        self.make_file().await?;
        let options = terms.options();
        self.open(&if self.file().is_some() { options.migrate() } else { options }).await
    }

    /// Returns what makes its table; the store need not be there.
    pub(crate) fn schema(&self) -> Result<String, Failure> {
        let schema = self.spec.schema().map_err(|error| explain::store::opening(&self.spec, error))?;
        // The name of a table in JSON may hold anything.
        let is_json = matches!(self.spec, StoreSpec::DynamoDb(_));
        Ok(if is_json { crate::escape::json(&schema) } else { schema })
    }

    /// What it means that it failed; `doing` is what was tried with it.
    pub(crate) fn failed(&self, doing: &str, error: &BackendError) -> Failure {
        explain::store::using(&self.spec, doing, error)
    }

    /// The file it is, if it is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.spec.file()
    }

    /// All files that it is made of.
    pub(crate) fn used(&self) -> Vec<Used> {
        match self.file() {
            Some(path) => used::of_key_store(path),
            None => Used::all(Role::Secret, self.spec.secret_files().iter().map(PathBuf::as_path)),
        }
    }
}

impl fmt::Display for StoreChoice {
    /// Names it without a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec.fmt(f)
    }
}

const FORGETS: &str = "--metastore memory: forgets the keys when claviger ends, so that nothing encrypted with it can be decrypted, and so \
     does a database of SQLite's in memory, whatever it is called; name a file with sqlite:PATH, or say \
     --danger-discard-keys for a trial";
