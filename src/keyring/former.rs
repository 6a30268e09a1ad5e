//! Keys that their rows hold no more: another process made them anew, or somebody wrote others there.
//!
//! Data was sealed under them that nobody else can read, so they go on decrypting for a while. They
//! never encrypt again.

use std::sync::Arc;

use super::{KeySet, Keyring, VERSIONS_MAX};
use crate::clock::Moment;
use crate::key::CryptoKey;
use crate::record::Created;

/// A version's key as it was.
#[derive(Clone, Debug)]
pub(super) struct Former {
    key: Arc<CryptoKey>,
    /// Until when it decrypts, in monotonic nanoseconds.
    until: u64,
}

impl Former {
    pub(super) const fn key(&self) -> &Arc<CryptoKey> {
        &self.key
    }
}

/// Returns those that still decrypt, and the keys of those whose time is over.
pub(super) fn sort_out(formers: &[Former], now: Moment) -> (Vec<Former>, Vec<Arc<CryptoKey>>) {
    let (kept, over): (Vec<_>, Vec<_>) =
        formers.iter().cloned().partition(|former| now.monotonic <= former.until);
    (kept, over.into_iter().map(|former| former.key).collect())
}

impl Keyring {
    /// Returns the former keys of a version, the one that was known last first.
    pub(crate) fn formers(&self, created: Created, now: Moment) -> Vec<Arc<CryptoKey>> {
        let keys = self.keys();
        let formers = keys.formers.iter().rev();
        let decrypts = |former: &&Former| former.key.created() == created && now.monotonic <= former.until;
        formers.filter(decrypts).map(|former| Arc::clone(&former.key)).collect()
    }

    /// Tells whether any version has a former key.
    pub(crate) fn has_formers(&self) -> bool {
        !self.keys().formers.is_empty()
    }

    /// Keeps a version's key for decrypting, until then, since its row holds `current`. Returns the keys
    /// that had to go for it.
    pub(super) fn put_aside(
        &self,
        key: &Arc<CryptoKey>,
        current: &CryptoKey,
        until: u64,
    ) -> Vec<Arc<CryptoKey>> {
        key.mark_former();
        let _writer = self.lock();
        let old = self.keys.load_full();
        let is_it = |held: &Arc<CryptoKey>| Arc::ptr_eq(held, key);
        // What the row holds again is former no more.
        let is_back = |former: &Former| former.key.has_same_bytes(current).unwrap_or(false);
        let (gone, mut formers): (Vec<_>, Vec<_>) = old.formers.iter().cloned().partition(is_back);
        let mut gone: Vec<_> = gone.into_iter().map(|former| former.key).collect();
        formers.push(Former { key: Arc::clone(key), until });
        if formers.len() > VERSIONS_MAX {
            gone.push(formers.remove(0).key);
        }
        let latest = old.latest.clone().filter(|latest| !is_it(latest));
        let versions = old.versions.iter().filter(|held| !is_it(held)).cloned().collect();
        self.replace(KeySet { latest, versions, formers });
        gone
    }

    /// Drops the former keys and returns them.
    pub(super) fn drop_formers(&self, is_over: impl Fn(u64) -> bool) -> Vec<Arc<CryptoKey>> {
        if !self.has_formers() {
            return Vec::new();
        }
        let _writer = self.lock();
        let old = self.keys.load_full();
        let (gone, formers): (Vec<_>, Vec<_>) =
            old.formers.iter().cloned().partition(|former| is_over(former.until));
        let (latest, versions) = (old.latest.clone(), old.versions.clone());
        self.replace(KeySet { latest, versions, formers });
        gone.into_iter().map(|former| former.key).collect()
    }
}
