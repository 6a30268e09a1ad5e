//! How a metastore is opened.

#[cfg(feature = "_table")]
use claviger_metastore::FindingId;

use crate::environment::Environment;

/// How a metastore is opened.
#[derive(Clone, Debug)]
#[must_use]
pub struct StoreOptions {
    pub(super) environment: Environment,
    #[cfg(feature = "_table")]
    pub(super) accepted: Vec<FindingId>,
    pub(super) folded_ids: bool,
    pub(super) read_only: bool,
    pub(super) is_checked: bool,
    pub(super) makes_table: bool,
}

impl StoreOptions {
    /// The table is checked, and secrets come from the process's environment.
    pub const fn new() -> Self {
        Self {
            environment: Environment::of_process(),
            #[cfg(feature = "_table")]
            accepted: Vec::new(),
            folded_ids: false,
            read_only: false,
            is_checked: true,
            makes_table: false,
        }
    }

    /// Takes secrets that are in variables from here.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// Opens in spite of these dangerous findings.
    #[cfg(feature = "_table")]
    pub fn accept(mut self, findings: &[FindingId]) -> Self {
        self.accepted.extend(findings);
        self
    }

    /// Lets keys that the table keeps under another id, which it takes for theirs, serve decrypts.
    pub const fn folded_ids(mut self, are_read: bool) -> Self {
        self.folded_ids = are_read;
        self
    }

    /// Loads keys alone, so that the right to write is not asked for.
    pub const fn read_only(mut self, is_read_only: bool) -> Self {
        self.read_only = is_read_only;
        self
    }

    /// Opens without the check of the table, and without a table: to look at it.
    pub const fn danger_unchecked(mut self) -> Self {
        self.is_checked = false;
        self
    }

    /// Makes the table, and the file of SQLite, if there is none.
    pub const fn migrate(mut self) -> Self {
        self.makes_table = true;
        self
    }

    /// The same for a table that must be there, whatever is wrong with it otherwise.
    #[cfg(feature = "sqlite")]
    pub(super) fn with_table(mut self) -> Self {
        if !self.is_checked {
            FindingId::ALL.clone_into(&mut self.accepted);
        }
        self.accepted.retain(|finding| *finding != FindingId::TableMissing);
        Self { is_checked: true, makes_table: false, ..self }
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self::new()
    }
}
