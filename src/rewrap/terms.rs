//! What is asked of a move, and what is told of it.

use std::fmt;

use crate::error::{Error, ErrorChain};
use crate::metastore::DamagedRow;
use crate::policy::Limits;
use crate::record::{Created, KeyId, KeyMeta};

/// Which system keys are to be wrapped anew, and how.
#[derive(Clone, Debug)]
#[must_use]
pub struct RewrapOptions {
    pub(super) only: Option<Vec<KeyId>>,
    pub(super) even_if_up_to_date: bool,
    pub(super) dry_run: bool,
    pub(super) revoke: bool,
    created_up_to: Option<Created>,
    pub(super) limits: Limits,
}

impl RewrapOptions {
    /// All system keys of the store that need it.
    pub const fn new() -> Self {
        Self {
            only: None,
            even_if_up_to_date: false,
            dry_run: false,
            revoke: false,
            created_up_to: None,
            limits: Limits::production(),
        }
    }

    /// Looks at all versions of these keys only. Without this all rows of the store are read, of
    /// which those of partitions may be very many.
    pub fn only(mut self, ids: impl IntoIterator<Item = KeyId>) -> Self {
        self.only = Some(ids.into_iter().collect());
        self
    }

    /// Wraps keys anew that need it not: under a new version of the master key, say.
    pub const fn even_if_up_to_date(mut self, even: bool) -> Self {
        self.even_if_up_to_date = even;
        self
    }

    /// Looks, unwraps and says what would be done; writes nothing, and wraps nothing.
    pub const fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Revokes each key that is wrapped anew, before its new form is stored: for a master key that has become
    /// known.
    ///
    /// Whoever knows it, and writes the store, can have put keys of his own choice there, with any `created`.
    /// Wrapped anew they would be as good as others. Revoked, such a key encrypts nothing for a process that learns of it,
    /// and decrypts what names it; the same goes for those that he only read. At no point is a key that he may
    /// know wrapped anew and not revoked, whatever fails. A key that is up to date is not revoked.
    ///
    /// This does not shut such a person out: a writer of the store can afterwards still take the revocation back for
    /// processes that start later. `docs/kms.md` has the whole procedure.
    pub const fn revoke(mut self, revoke: bool) -> Self {
        self.revoke = revoke;
        self
    }

    /// Leaves out what would be wrapped anew and was created later than this ([`Rewrap::LeftOut`]): where nobody
    /// made keys with the former service after that time but somebody who should not have it.
    ///
    /// It is no defence by itself, since he chooses when his keys say that they were created; see
    /// [`revoke`](Self::revoke).
    pub const fn created_up_to(mut self, last: Created) -> Self {
        self.created_up_to = Some(last);
        self
    }

    pub(super) fn is_left_out(&self, created: Created) -> bool {
        self.created_up_to.is_some_and(|last| created > last)
    }

    /// Sets deadlines and attempts of the calls to the store and the services.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

impl Default for RewrapOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// What became of the system keys.
#[derive(Clone, Debug, Default)]
#[must_use = "keys that failed are in the report alone"]
#[non_exhaustive]
pub struct RewrapReport {
    /// Each version that was looked at, with what was done.
    pub keys: Vec<(KeyMeta, Rewrap)>,
    /// Rows of system keys that cannot be read.
    pub damaged: Vec<DamagedRow>,
}

impl RewrapReport {
    /// Returns `true` if every system key is as it should be now, or in a dry run can be brought there. Those that
    /// were left out were so on purpose, and do not count: see [`left_out`](Self::left_out).
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let is_good = |(_, rewrap): &(KeyMeta, Rewrap)| match rewrap {
            Rewrap::UpToDate | Rewrap::Due { .. } | Rewrap::LeftOut | Rewrap::Gone => true,
            Rewrap::Rewrapped { missing } => missing.is_empty(),
            Rewrap::Failed(_) => false,
        };
        self.damaged.is_empty() && self.keys.iter().all(is_good)
    }

    /// Returns the keys that were left out as too young ([`RewrapOptions::created_up_to`]): they are wrapped as
    /// they were before, and are not revoked.
    pub fn left_out(&self) -> impl Iterator<Item = &KeyMeta> {
        self.keys.iter().filter(|(_, rewrap)| matches!(rewrap, Rewrap::LeftOut)).map(|(key, _)| key)
    }
}

/// What was done about one version of a system key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Rewrap {
    /// Nothing: it is wrapped as it should be, and was unwrapped.
    UpToDate,
    /// It was wrapped anew, unwrapped again, stored, and read back; and revoked before that, if that was asked
    /// for.
    Rewrapped {
        /// The copies that could not be made now either.
        missing: Vec<String>,
    },
    /// It would be wrapped anew, were this no dry run: it was unwrapped.
    Due {
        /// The copies that it lacks.
        missing: Vec<String>,
    },
    /// Nothing, though it is not up to date: it was created after [`RewrapOptions::created_up_to`].
    LeftOut,
    /// Its row was deleted meanwhile.
    Gone,
    /// It is wrapped as it was before.
    Failed(Error),
}

impl Rewrap {
    /// Returns what metrics call it.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::UpToDate => "up_to_date",
            Self::Rewrapped { .. } => "rewrapped",
            Self::Due { .. } => "due",
            Self::LeftOut => "left_out",
            Self::Gone => "gone",
            Self::Failed(_) => "failed",
        }
    }
}

impl fmt::Display for Rewrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lacking = |f: &mut fmt::Formatter<'_>, what: &str, missing: &[String]| {
            f.write_str(what)?;
            if missing.is_empty() { Ok(()) } else { write!(f, ", no copy of {}", missing.join(", ")) }
        };
        match self {
            Self::UpToDate => f.write_str("up to date"),
            Self::Rewrapped { missing } => lacking(f, "wrapped anew", missing),
            Self::Due { missing } => lacking(f, "to be wrapped anew", missing),
            Self::LeftOut => f.write_str("left out, since it was created too late"),
            Self::Gone => f.write_str("deleted meanwhile"),
            Self::Failed(error) => write!(f, "failed: {}", ErrorChain::new(error)),
        }
    }
}
