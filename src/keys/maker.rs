//! What a row tells: which key it holds, whether that is revoked, whose it is, and whether somebody copied it.

use std::sync::Arc;

use claviger_memory::{Arena, Stats};

use super::caches::Caches;
use super::context::Context;
use super::copies::MissingCopies;
use super::parts::Parts;
use super::request::{Level, LoadRequest};
use crate::aead;
use crate::clock::Moment;
use crate::error::Error;
use crate::events::Event;
use crate::key::known::{Copied, Finding, IsCopy, Known};
use crate::key::state::KeyState;
use crate::key::{CryptoKey, MakeError, Parent};
use crate::keyring::Keyring;
use crate::record::{EnvelopeKeyRecord, KeyMeta};
use crate::secret::SecretKey;
use crate::status::IncompleteKey;
use crate::telemetry::keys::KeyChange;

/// Makes keys of rows, and knows those that were made.
#[derive(Debug)]
pub(crate) struct KeyMaker {
    context: Arc<Context>,
    caches: Arc<Caches>,
    arena: Arena,
    known: Arc<Known>,
    copies: MissingCopies,
}

impl KeyMaker {
    pub(crate) fn new(parts: &Parts, arena: Arena, known: Arc<Known>) -> Self {
        let (context, caches) = (Arc::clone(&parts.context), Arc::clone(&parts.caches));
        Self { context, caches, arena, known, copies: MissingCopies::default() }
    }

    /// Compares a row with what is known.
    pub(super) fn find(&self, record: &EnvelopeKeyRecord) -> Finding {
        self.known.find(record)
    }

    /// Returns `true` if this version is known to be revoked, whether or not it has a row.
    pub(super) fn is_known_as_revoked(&self, key: &KeyMeta) -> bool {
        self.known.is_revoked(key)
    }

    /// Notes what the record says of its key, by a read that began at `begun`, and what was known of it before.
    /// Revoked is for ever.
    pub(super) fn learn(
        &self,
        request: &LoadRequest,
        record: &EnvelopeKeyRecord,
        known: Finding,
        begun: Moment,
    ) -> Arc<KeyState> {
        let state = request.keyring.state_of_row(record.meta().created(), begun);
        self.note_fold(request, record, &state);
        if self.note_revocation(request, record, known, &state) {
            self.context.events().raise(Event::Unrevoked, request.keyring.id());
        }
        state
    }

    /// Notes what the record says of its key's revocation, which is not taken back; `true` if it says that the
    /// key is not revoked which was before this load began. A load that began earlier may have read the row
    /// earlier, too.
    pub(super) fn note_revocation(
        &self,
        request: &LoadRequest,
        record: &EnvelopeKeyRecord,
        known: Finding,
        state: &KeyState,
    ) -> bool {
        let (generation, mut was_revoked) = (request.generation, false);
        if let Finding::Revoked { since } = known {
            state.mark_revoked(since);
            was_revoked = since < generation;
        }
        was_revoked |= state.was_revoked_before(generation);
        self.learn_revocation(&request.keyring, record, state);
        was_revoked && !record.is_revoked()
    }

    /// Notes that a row says its key is revoked, if it does.
    pub(super) fn learn_revocation(&self, keyring: &Keyring, record: &EnvelopeKeyRecord, state: &KeyState) {
        if !record.is_revoked() {
            return;
        }
        let generation = keyring.flights().take_generation();
        let was_known = matches!(self.find(record), Finding::Revoked { .. });
        if state.mark_revoked(generation) && !was_known {
            self.context.note_change(Level::of(keyring.id()), KeyChange::Revoked, record.meta());
        }
        let held = keyring.version(record.meta().created());
        if self.known.note_revoked(record, held.as_deref().map(CryptoKey::hold), generation) {
            self.context.events().raise(Event::RevocationsForgotten, keyring.id());
        }
    }

    /// Notes whether the row that was read is another id's.
    pub(super) fn note_fold(&self, request: &LoadRequest, record: &EnvelopeKeyRecord, state: &KeyState) {
        let is_folded = record.kept_under().is_some();
        state.set_folded(is_folded);
        if is_folded {
            self.context.events().raise(Event::FoldedId, request.keyring.id());
        }
    }

    /// Returns `true` if a latest row holds the key of another one, which is then to be replaced, and raises the
    /// alarm: that it is there says no more than that somebody wrote it.
    ///
    /// # Errors
    /// If it is the key of another id, and in use.
    pub(super) fn is_copy(
        &self,
        record: &EnvelopeKeyRecord,
        known: Finding,
        predecessor: Option<&EnvelopeKeyRecord>,
    ) -> Result<bool, Error> {
        let is_its_predecessors =
            predecessor.is_some_and(|predecessor| predecessor.wrapped_key() == record.wrapped_key());
        match known {
            Finding::Copy(Copied { is_foreign: true, is_revoked: false }) => Err(self.refuse_copy(record)),
            Finding::Unknown | Finding::Revoked { .. } if !is_its_predecessors => Ok(false),
            Finding::Copy(_) | Finding::Unknown | Finding::Revoked { .. } => {
                self.refuse_copy(record);
                Ok(true)
            }
        }
    }

    /// Raises the alarm that a row holds another one's key, and returns what its user is told.
    pub(super) fn refuse_copy(&self, record: &EnvelopeKeyRecord) -> Error {
        self.known.revoke_copied(record);
        self.context.events().raise_because(Event::Tampered, record.meta().id(), &IsCopy);
        Error::Authentication
    }

    /// Unwraps a key under its parent, or under what that was before its row held other bytes; returns
    /// the one that it was.
    pub(super) fn unwrap_under(
        &self,
        parent: &Arc<CryptoKey>,
        record: &EnvelopeKeyRecord,
    ) -> Result<(SecretKey, Option<Arc<CryptoKey>>), Error> {
        let keyring = self.caches.system().keyring(parent.meta().id().as_str());
        let formers = keyring.formers(parent.created(), self.context.now());
        for parent in std::iter::once(parent).chain(&formers) {
            if let Ok(secret) = aead::open_key(parent.cipher()?, record.wrapped_key()) {
                return Ok((secret, Some(Arc::clone(parent))));
            }
        }
        Err(Error::Authentication)
    }

    /// Notes the copies that a system key lacks, and tells of them once.
    pub(super) fn note_copies(&self, key: &KeyMeta, missing: &[String]) {
        if self.copies.note(key, missing) {
            self.context.events().tell(
                Event::CopiesMissing,
                key.id(),
                &format_args!("no copy of {}", missing.join(", ")),
            );
        }
    }

    pub(super) fn make_key(
        &self,
        secret: &SecretKey,
        record: &EnvelopeKeyRecord,
        state: Arc<KeyState>,
        parent: Option<&CryptoKey>,
    ) -> Result<CryptoKey, Error> {
        let parent = parent.map(Parent::of);
        if parent.is_none() {
            self.caches.parents().note(record.meta().id(), &state);
        }
        let (life, was_copy) = (self.context.rules().life(record.meta()), state.is_copy());
        let key = CryptoKey::new(&self.arena, secret, record, life, state, parent, &self.known);
        match key {
            Ok(key) => {
                let level = if key.parent().is_none() { Level::System } else { Level::Intermediate };
                let key = key.counted(self.context.telemetry().keys().live(level));
                if key.state().is_copy() && !was_copy {
                    self.refuse_copy(record);
                }
                Ok(key)
            }
            Err(MakeError::Copy(IsCopy)) => Err(self.refuse_copy(record)),
            Err(MakeError::Other(error)) => Err(error),
        }
    }

    /// Lets a key encrypt no more, nor any key under it, since its row holds `current`: whatever is sealed
    /// under it from now on nobody else could read. What was is decrypted for a while.
    pub(super) fn put_aside(&self, request: &LoadRequest, key: &Arc<CryptoKey>, current: &CryptoKey) {
        let until = self.context.now().monotonic.saturating_add(self.context.rules().stale_decrypt());
        self.caches.of(request.level).put_aside(&request.keyring, key, current, until);
    }

    /// Lists the system keys that lack copies.
    pub(super) fn incomplete_keys(&self) -> Vec<IncompleteKey> {
        self.copies.list()
    }

    pub(super) fn memory(&self) -> Stats {
        self.arena.stats()
    }
}
