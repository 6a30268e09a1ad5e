//! What a row tells besides its key: whether that is revoked, whose it is, and whether somebody copied it.

use std::sync::Arc;

use super::Hierarchy;
use super::request::LoadRequest;
use crate::clock::Moment;
use crate::error::Error;
use crate::events::Event;
use crate::key::CryptoKey;
use crate::key::known::{Copied, Finding, IsCopy};
use crate::key::state::KeyState;
use crate::keyring::Keyring;
use crate::record::EnvelopeKeyRecord;

impl Hierarchy {
    /// Notes what the record says of its key, by a read that began at `begun`, and what was known of it before.
    /// Revoked is for ever.
    pub(super) fn learn(
        &self,
        request: &LoadRequest,
        record: &EnvelopeKeyRecord,
        known: Finding,
        begun: Moment,
    ) -> Arc<KeyState> {
        self.note_return(record, begun);
        let state = request.keyring.state_of_row(record.meta().created(), begun);
        self.note_fold(request, record, &state);
        if self.note_revocation(&request.keyring, record, known, &state) {
            self.events.raise(Event::Unrevoked, request.keyring.id());
        }
        state
    }

    /// Notes what the record says of its key's revocation, which is not taken back; `true` if it says that the
    /// key is not revoked which was.
    pub(super) fn note_revocation(
        &self,
        keyring: &Keyring,
        record: &EnvelopeKeyRecord,
        known: Finding,
        state: &KeyState,
    ) -> bool {
        let was_revoked = state.is_revoked() || known == Finding::Revoked;
        if record.is_revoked() {
            self.note_revoked(keyring, record);
        }
        if record.is_revoked() || was_revoked {
            state.mark_revoked();
        }
        was_revoked && !record.is_revoked()
    }

    pub(super) fn note_revoked(&self, keyring: &Keyring, record: &EnvelopeKeyRecord) {
        let held = keyring.version(record.meta().created());
        if self.known.note_revoked(record, held.as_deref().map(CryptoKey::hold)) {
            self.events.raise(Event::RevocationsForgotten, keyring.id());
        }
    }

    /// Notes whether the row that was read is another id's.
    pub(super) fn note_fold(&self, request: &LoadRequest, record: &EnvelopeKeyRecord, state: &KeyState) {
        let is_folded = record.kept_under().is_some();
        state.set_folded(is_folded);
        if is_folded {
            self.events.raise(Event::FoldedId, request.keyring.id());
        }
    }

    /// Tells whether a latest row holds the key of another one, which is then to be replaced, and raises the
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
            Finding::Unknown | Finding::Revoked if !is_its_predecessors => Ok(false),
            Finding::Copy(_) | Finding::Unknown | Finding::Revoked => {
                self.refuse_copy(record);
                Ok(true)
            }
        }
    }

    /// Raises the alarm that a row holds another one's key, and returns what its user is told.
    pub(super) fn refuse_copy(&self, record: &EnvelopeKeyRecord) -> Error {
        self.known.revoke_copied(record);
        self.events.raise_because(Event::Tampered, record.meta().id(), &IsCopy);
        Error::Authentication
    }
}
