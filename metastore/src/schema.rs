//! What the start-up check of a table found.

use std::fmt;

macro_rules! findings {
    ($($(#[$doc:meta])+ $variant:ident => $name:literal,)+) => {
        /// What can be wrong with a table, or with the server it is on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum FindingId {
            $($(#[$doc])+ $variant,)+
        }

        impl FindingId {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Returns the name that reports, logs and the command line give it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

findings! {
    /// There is no such table.
    TableMissing => "table-missing",
    /// A column is not there.
    ColumnMissing => "column-missing",
    /// A column cannot hold what is written to it.
    ColumnType => "column-type",
    /// Nothing keeps one key version from being stored twice.
    PrimaryKeyMissing => "primary-key-missing",
    /// The table takes ids that differ for one and the same: by case, accents or trailing blanks.
    CollationFolds => "collation-folds",
    /// An update of a row rewrites its creation time, which is part of its primary key.
    OnUpdate => "on-update",
    /// The server cuts what does not fit instead of refusing it.
    NotStrict => "not-strict",
    /// Rows were written in another time zone than they are read in.
    ZoneMismatch => "zone-mismatch",
    /// The column for the creation time ends in January 2038.
    EndsIn2038 => "ends-in-2038",
    /// The user may not do what is needed to load and create keys.
    PermissionMissing => "permission-missing",
    /// The user may load and create keys, but not do what operators do: revoke, rewrap, delete.
    AdminPermissionMissing => "admin-permission-missing",
    /// The server takes no writes.
    ReadOnly => "read-only",
    /// A pooler mixes up the prepared statements of the clients that share its connections.
    SharedStatements => "shared-statements",
    /// Reads may miss what another server of the cluster has answered already.
    StaleReads => "stale-reads",
    /// A crash or a power cut can undo a write that was answered.
    NotDurable => "not-durable",
    /// The table's storage engine has no transactions, and loses rows in a crash.
    EngineNotTransactional => "engine-not-transactional",
    /// The text encoding cannot hold every id.
    Encoding => "encoding",
    /// Creation times are stored in more than one form.
    CreatedForms => "created-forms",
    /// The log beside the file keeps growing, since a reader or writer has kept it from being merged.
    LogGrows => "log-grows",
    /// Rows vanish by themselves after a while.
    Expiry => "expiry",
    /// There are no continuous backups.
    NoBackup => "no-backup",
    /// One call deletes the table.
    NoDeletionProtection => "no-deletion-protection",
    /// Other regions write to the table as well, and overwrite what has the same name.
    Replicated => "replicated",
    /// Rows were sampled that cannot be read.
    DamagedRows => "damaged-rows",
    /// Rows of different key versions hold one wrapped key.
    EqualKeys => "equal-keys",
}

impl fmt::Display for FindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "a store starts, starts with a warning, or does not start")]
pub enum Severity {
    /// Good to know.
    Warning,
    /// Keys can be lost or minted anew: a store does not start on it unless told to.
    Dangerous,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What kind of thing it is.
    pub id: FindingId,
    /// How bad it is.
    pub severity: Severity,
    /// What was seen and what can go wrong by it. A sentence.
    pub what: String,
    /// How to mend it. A sentence, with the statement to run where there is one.
    pub remedy: String,
    needed_for: Need,
}

/// What it is that a finding keeps a store from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Anything,
    Writing,
}

impl Finding {
    pub(crate) fn dangerous(id: FindingId, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (what, remedy) = (what.into(), remedy.into());
        Self { id, severity: Severity::Dangerous, what, remedy, needed_for: Need::Anything }
    }

    /// As [`dangerous`](Self::dangerous), but not for a store that only loads.
    pub(crate) fn dangerous_to_write(
        id: FindingId,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { needed_for: Need::Writing, ..Self::dangerous(id, what, remedy) }
    }

    pub(crate) fn warning(id: FindingId, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::dangerous(id, what, remedy) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.id, self.what, self.remedy)
    }
}

/// What the check of a table found; nothing, if all is well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "what is wrong is in the report alone"]
pub struct SchemaReport {
    findings: Vec<Finding>,
}

impl SchemaReport {
    /// Returns what was found.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    pub(crate) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Errs with the dangerous findings that are not among those accepted.
    pub(crate) fn admit(self, admission: &Admission) -> Result<(), DangerousSchema> {
        let is_in_the_way = |finding: &Finding| {
            finding.severity == Severity::Dangerous
                && !admission.accepted.contains(&finding.id)
                && !(admission.read_only && finding.needed_for == Need::Writing)
        };
        let findings: Vec<_> = self.findings.into_iter().filter(is_in_the_way).collect();
        if findings.is_empty() { Ok(()) } else { Err(DangerousSchema { findings }) }
    }
}

/// On which tables a store starts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admission {
    /// In spite of these dangerous findings.
    pub(crate) accepted: Vec<FindingId>,
    /// The store is for loading only.
    pub(crate) read_only: bool,
}

/// A store that would lose keys, and so does not start. It is the `source()` of a permanent
/// [`BackendError`](claviger::BackendError).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DangerousSchema {
    /// What has to be mended, or accepted by its id.
    pub findings: Vec<Finding>,
}

impl fmt::Display for DangerousSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the table is dangerous to use")?;
        self.findings.iter().try_for_each(|finding| write!(f, "; {finding}"))
    }
}

impl std::error::Error for DangerousSchema {}
