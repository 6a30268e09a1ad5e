//! Which keys a factory holds, and which it knows to be revoked: so that one which comes back under another
//! name is recognised, and one that was revoked stays so.
//!
//! A key row proves no more than that its key was wrapped under its parent: not whose key it is, nor which
//! version. So anybody that writes the table can copy rows. What one process sees of that is found here.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use claviger_memory::ForkSentinel;

use crate::key::state::KeyState;
use crate::record::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};

/// What is known of keys, by digests of them.
#[derive(Debug)]
pub(crate) struct Known {
    /// Its key is secret and this factory's own: nobody can make two rows whose digests are one.
    hasher: RandomState,
    /// Ids that fold alike are one id.
    folds: bool,
    sentinel: Arc<ForkSentinel>,
    marks: Mutex<Marks>,
}

/// A digest of an id, of a key version's name, of a wrapped key or of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Digest(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    id: Digest,
    /// Of id and time.
    name: Digest,
}

#[derive(Debug, Default)]
struct Marks {
    /// By what keys in memory were made from.
    held: HashMap<Digest, Holder>,
    revoked: Revoked,
}

/// The key version that a digest is of, what is known of it, and how many keys in memory have it.
#[derive(Debug)]
struct Holder {
    version: Version,
    state: Weak<KeyState>,
    keys: u32,
}

/// Versions that are known to be revoked, and what is known of their keys.
#[derive(Debug, Default)]
struct Revoked {
    /// In which generation each was learned, by its name.
    versions: HashMap<Digest, u64>,
    keys: HashMap<Digest, Version>,
    /// The keys, the one learned first first.
    order: VecDeque<Digest>,
    is_full: bool,
}

/// How many revocations are remembered, which takes some 6 MB; those that were learned first are forgotten
/// first.
const REVOKED_MAX: usize = 100_000;

/// What a row is, by what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    Unknown,
    /// It was revoked, whatever the row says.
    Revoked {
        /// The generation in which that was learned.
        since: u64,
    },
    /// It holds the key of another version.
    Copy(Copied),
}

/// Whose key a row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copied {
    /// Another id's, not only another version's: it decrypts nothing.
    pub(crate) is_foreign: bool,
    pub(crate) is_revoked: bool,
}

/// The row holds the key of another version.
#[derive(Debug, thiserror::Error)]
#[error("the row holds the key of another row")]
pub(crate) struct IsCopy;

/// A key in memory is found by its digests as long as it has this.
#[derive(Debug)]
pub(crate) struct Hold {
    known: Arc<Known>,
    digests: Digests,
}

/// Of the wrapped key, and of the key itself if the wrapped form can be changed without changing the key.
#[derive(Clone, Copy, Debug)]
struct Digests {
    wrapped: Digest,
    key: Option<Digest>,
}

impl Known {
    pub(crate) fn new(folds: bool, sentinel: Arc<ForkSentinel>) -> Self {
        Self { hasher: RandomState::new(), folds, sentinel, marks: Mutex::default() }
    }

    /// Compares a row with what is known.
    pub(crate) fn find(&self, record: &EnvelopeKeyRecord) -> Finding {
        let (version, wrapped) = (self.version_of(record), self.wrapped(record));
        let marks = self.marks();
        if let Some(copied) = marks.copied(wrapped, version) {
            Finding::Copy(copied)
        } else {
            marks.revoked.since(version, wrapped).map_or(Finding::Unknown, |since| Finding::Revoked { since })
        }
    }

    /// Returns `true` if this version is known to be revoked, whether or not it has a row.
    pub(crate) fn is_revoked(&self, key: &KeyMeta) -> bool {
        let version = self.version(key.id(), key.created());
        self.marks().revoked.versions.contains_key(&version.name)
    }

    /// Notes a key that was made from a row. `probe` is something that only this key makes, where its wrapped
    /// form may have been changed: a KMS's may have other spelling, or copies left out.
    ///
    /// A key that is another version's too is never to encrypt.
    ///
    /// # Errors
    /// If it is another id's.
    pub(crate) fn hold(
        self: &Arc<Self>,
        record: &EnvelopeKeyRecord,
        probe: Option<&[u8]>,
        state: &Arc<KeyState>,
    ) -> Result<Hold, IsCopy> {
        let version = self.version_of(record);
        let key = probe.map(|probe| self.digest("key", probe));
        let digests = Digests { wrapped: self.wrapped(record), key };
        let mut marks = self.marks();
        for digest in digests.each() {
            match marks.copied(digest, version) {
                Some(Copied { is_foreign: true, .. }) => return Err(IsCopy),
                Some(_) => drop(state.mark_copy()),
                None => {}
            }
        }
        for digest in digests.each() {
            let unheld = || Holder { version, state: Weak::new(), keys: 0 };
            let holder = marks.held.entry(digest).or_insert_with(unheld);
            holder.state = Arc::downgrade(state);
            holder.keys += 1;
        }
        if let Some(since) = marks.revoked.versions.get(&version.name).copied() {
            digests.each().for_each(|digest| marks.revoked.add(version, digest, since));
        }
        drop(marks);
        Ok(Hold { known: Arc::clone(self), digests })
    }

    /// Revokes the key in memory that a row is a copy of, if that says it is revoked: be it the copy or the copied,
    /// somebody meant that key.
    pub(crate) fn revoke_copied(&self, copy: &EnvelopeKeyRecord) {
        let holder = self.marks().held.get(&self.wrapped(copy)).and_then(|holder| holder.state.upgrade());
        if let Some(state) = holder.filter(|_| copy.is_revoked()) {
            // Before any read, since none of the copied row's own said so.
            state.mark_revoked(0);
        }
    }

    /// Notes that a row says its key is revoked, and that the key in memory is, if it is there, which was
    /// learned in this generation. `true` if others were forgotten for it, the first time.
    pub(crate) fn note_revoked(
        &self,
        record: &EnvelopeKeyRecord,
        held: Option<&Hold>,
        generation: u64,
    ) -> bool {
        let (version, wrapped) = (self.version_of(record), self.wrapped(record));
        let mut marks = self.marks();
        // What a copy says is not about the key that was copied.
        if marks.copied(wrapped, version).is_some() {
            return false;
        }
        let was_full = marks.revoked.is_full;
        marks.revoked.add(version, wrapped, generation);
        for digest in held.into_iter().flat_map(|hold| hold.digests.each()) {
            marks.revoked.add(version, digest, generation);
        }
        marks.revoked.is_full && !was_full
    }

    fn version_of(&self, record: &EnvelopeKeyRecord) -> Version {
        let id = record.kept_under().unwrap_or(record.meta().id());
        self.version(id, record.meta().created())
    }

    fn version(&self, id: &KeyId, created: Created) -> Version {
        let id = if self.folds {
            self.digest("id", id.folded().as_bytes())
        } else {
            self.digest("id", id.as_str().as_bytes())
        };
        let name = Digest(self.hasher.hash_one(("version", id, created)));
        Version { id, name }
    }

    fn wrapped(&self, record: &EnvelopeKeyRecord) -> Digest {
        self.digest("wrapped", record.wrapped_key())
    }

    fn digest(&self, what: &str, bytes: &[u8]) -> Digest {
        Digest(self.hasher.hash_one((what, bytes)))
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        // A panic while the lock was held leaves counts that may be one too high: a key is found longer.
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Marks {
    /// Tells whose the key is, if it is another version's than this.
    fn copied(&self, key: Digest, version: Version) -> Option<Copied> {
        let revoked = self.revoked.keys.get(&key).map(|of| (*of, true));
        let held = self.held.get(&key).map(|holder| (holder.version, false));
        let (of, is_revoked) = [revoked, held].into_iter().flatten().find(|(of, _)| *of != version)?;
        Some(Copied { is_foreign: of.id != version.id, is_revoked })
    }
}

impl Revoked {
    /// Returns the generation in which it was learned that this version or this key is revoked.
    fn since(&self, version: Version, key: Digest) -> Option<u64> {
        let of = |version: &Version| self.versions.get(&version.name).copied();
        // A key's version is forgotten with the first of its keys: that was long ago.
        of(&version).or_else(|| self.keys.get(&key).map(|version| of(version).unwrap_or_default()))
    }

    fn add(&mut self, version: Version, key: Digest, generation: u64) {
        self.versions.entry(version.name).or_insert(generation);
        if self.keys.contains_key(&key) {
            return;
        }
        if self.order.len() >= REVOKED_MAX
            && let Some(forgotten) = self.order.pop_front().and_then(|key| self.keys.remove(&key))
        {
            self.is_full = true;
            self.versions.remove(&forgotten.name);
        }
        self.order.push_back(key);
        self.keys.insert(key, version);
    }
}

impl Digests {
    fn each(self) -> impl Iterator<Item = Digest> {
        std::iter::once(self.wrapped).chain(self.key)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.known.sentinel.is_forked() {
            // The lock may be held by a thread of the parent, which does not exist here.
            return;
        }
        let mut marks = self.known.marks();
        for digest in self.digests.each() {
            if let Some(holder) = marks.held.get_mut(&digest) {
                holder.keys -= 1;
                if holder.keys == 0 {
                    marks.held.remove(&digest);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
