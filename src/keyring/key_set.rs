//! The keys of one key id that are cached, as they are at one moment.

use std::sync::Arc;

use crate::clock::Moment;
use crate::key::CryptoKey;
use crate::record::Created;

/// How many versions of one key are cached.
pub(crate) const VERSIONS_MAX: usize = 16;

/// The versions of one key that are cached, ascending, and the one to encrypt under.
#[derive(Debug, Default)]
pub(crate) struct KeySet {
    pub(crate) latest: Option<Arc<CryptoKey>>,
    pub(crate) versions: Vec<Arc<CryptoKey>>,
    /// What versions were before their rows held other bytes, the longest known first.
    formers: Vec<Former>,
}

/// A key that its row holds no more: another process made it anew, or somebody wrote another one there.
///
/// Data was sealed under it that nobody else can read, so it goes on decrypting for a while. It never
/// encrypts again.
#[derive(Clone, Debug)]
struct Former {
    key: Arc<CryptoKey>,
    /// Until when it decrypts, in monotonic nanoseconds.
    until: u64,
}

/// What a new key is to its keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The one to encrypt under.
    Latest,
    /// A version that some record names.
    Version,
}

/// What comes of a change.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) keys: KeySet,
    /// Those that had to go.
    pub(super) gone: Vec<Arc<CryptoKey>>,
}

impl KeySet {
    /// Counts all keys.
    pub(crate) const fn len(&self) -> usize {
        self.versions.len() + self.formers.len()
    }

    /// Returns where among the versions this one is.
    pub(super) fn place(&self, created: Created) -> Option<usize> {
        self.versions.iter().position(|key| key.created() == created)
    }

    pub(super) fn all(&self) -> Vec<Arc<CryptoKey>> {
        self.versions.iter().chain(self.formers.iter().map(|former| &former.key)).cloned().collect()
    }

    /// Returns the former keys of a version, the one that was known last first.
    pub(super) fn formers(&self, created: Created, now: Moment) -> Vec<Arc<CryptoKey>> {
        let decrypts = |former: &&Former| former.key.created() == created && now.monotonic <= former.until;
        self.formers.iter().rev().filter(decrypts).map(|former| Arc::clone(&former.key)).collect()
    }

    /// Returns `true` if any version has a former key.
    pub(super) const fn has_formers(&self) -> bool {
        !self.formers.is_empty()
    }

    /// Adds a key, in the place of one of the same version; those go that have no room or whose time is over.
    pub(super) fn with(&self, key: &Arc<CryptoKey>, role: Role, versions_max: usize, now: Moment) -> Change {
        let (mut versions, mut gone): (Vec<_>, Vec<_>) =
            self.versions.iter().cloned().partition(|held| held.created() != key.created());
        gone.retain(|held| !Arc::ptr_eq(held, key));
        let latest = match role {
            Role::Latest => Some(Arc::clone(key)),
            Role::Version => self.latest.as_ref().map(|latest| {
                if latest.created() == key.created() { Arc::clone(key) } else { Arc::clone(latest) }
            }),
        };
        let at = versions.partition_point(|held| held.created() < key.created());
        versions.insert(at, Arc::clone(key));
        while versions.len() > versions_max.clamp(1, VERSIONS_MAX) {
            let is_needed = |held: &Arc<CryptoKey>| {
                Arc::ptr_eq(held, key) || latest.as_ref().is_some_and(|latest| Arc::ptr_eq(held, latest))
            };
            match versions.iter().position(|held| !is_needed(held)) {
                Some(oldest) => gone.push(versions.remove(oldest)),
                None => break,
            }
        }
        let (formers, over) = self.formers_but(|former| now.monotonic > former.until);
        gone.extend(over);
        Change { keys: Self { latest, versions, formers }, gone }
    }

    /// Drops the versions for which `is_gone` holds.
    pub(super) fn without(&self, is_gone: impl Fn(&CryptoKey) -> bool) -> Change {
        let (gone, versions): (Vec<_>, Vec<_>) =
            self.versions.iter().cloned().partition(|held| is_gone(held));
        let latest = self.latest.clone().filter(|latest| !is_gone(latest));
        Change { keys: Self { latest, versions, formers: self.formers.clone() }, gone }
    }

    /// Keeps a version's key for decrypting, until then, since its row holds `current`.
    pub(super) fn put_aside(&self, key: &Arc<CryptoKey>, current: &CryptoKey, until: u64) -> Change {
        // What the row holds again is former no more.
        let is_back = |former: &Former| former.key.has_same_bytes(current).unwrap_or(false);
        let (mut formers, mut gone) = self.formers_but(is_back);
        formers.push(Former { key: Arc::clone(key), until });
        if formers.len() > VERSIONS_MAX {
            gone.push(formers.remove(0).key);
        }
        let is_other = |held: &&Arc<CryptoKey>| !Arc::ptr_eq(held, key);
        let latest = self.latest.as_ref().filter(is_other).cloned();
        let versions = self.versions.iter().filter(is_other).cloned().collect();
        Change { keys: Self { latest, versions, formers }, gone }
    }

    /// Drops the former keys whose time ends so that `is_over` holds.
    pub(super) fn without_formers(&self, is_over: impl Fn(u64) -> bool) -> Change {
        let (formers, gone) = self.formers_but(|former| is_over(former.until));
        let (latest, versions) = (self.latest.clone(), self.versions.clone());
        Change { keys: Self { latest, versions, formers }, gone }
    }

    /// Returns the former keys that stay, and those that go.
    fn formers_but(&self, goes: impl Fn(&Former) -> bool) -> (Vec<Former>, Vec<Arc<CryptoKey>>) {
        let (gone, kept): (Vec<_>, Vec<_>) = self.formers.iter().cloned().partition(|former| goes(former));
        (kept, gone.into_iter().map(|former| former.key).collect())
    }
}
