//! Decrypting with what a replica of the store says, if the policy allows it.
//!
//! Only a version that is not cached is asked for so. A replica lags behind, so what it says makes
//! no key fresh for encrypting, raises no alarm, and is not the last word on what is not there. One
//! that does not answer within `refresh_wait` is left alone for a second.

use std::sync::Arc;

use super::loader::Loader;
use super::request::{Level, LoadRequest};
use crate::aead;
use crate::error::Error;
use crate::events::Event;
use crate::key::CryptoKey;
use crate::key::known::Finding;
use crate::keyring::flight::Outcome;
use crate::keyring::key_set::Role;
use crate::metastore::handle::Copied;
use crate::record::{EnvelopeKeyRecord, KeyMeta};

impl Loader {
    /// Loads a version from a replica. `None` if none is to be asked, or its answer cannot be used:
    /// then the store itself decides.
    pub(super) async fn version_from_replica(
        self: &Arc<Self>,
        request: &LoadRequest,
        meta: &KeyMeta,
    ) -> Option<Outcome> {
        let keyring = &request.keyring;
        // A replica may not have heard yet of a change that we have heard of.
        let may_ask = self.rules().replica_reads
            && request.level == Level::Intermediate
            && keyring.version(meta.created()).is_none()
            && !keyring.flights().is_any_invalidated();
        if !may_ask {
            return None;
        }
        let begun = self.now();
        let record = match self.back_ends.store().load_from_replica(meta).await {
            Copied::Row(record) => record,
            Copied::Nothing => return None,
            Copied::Lost(error) => {
                self.events().raise_because(Event::ReplicaLost, meta.id(), &error);
                return None;
            }
        };
        if matches!(self.maker.find(&record), Finding::Copy(_)) {
            return None;
        }
        let parent =
            record.parent().filter(|parent| self.context.naming().is_parent_of(meta.id(), parent.id()))?;
        let parent = match self.system_key(request, parent).await {
            Ok(parent) => parent,
            Err(Error::KeyNotFound(_)) => return None,
            Err(error) => return Some(Err(error)),
        };
        // Held, so that the key gets the same.
        let state = keyring.state(meta.created());
        self.maker.note_fold(request, &record, &state);
        // It may have been learned meanwhile; a replica that has not heard of it yet is no alarm.
        let _unrevoked = self.maker.note_revocation(request, &record, self.maker.find(&record), &state);
        let key = match self.key_of_replica(request, &record, &parent)? {
            Ok(key) => key,
            Err(error) => return Some(Err(error)),
        };
        if let Some(held) = keyring.version(meta.created()) {
            // Another load brought it meanwhile, from the store itself.
            return Some(Ok(held));
        }
        keyring.mark_read_from_replica(key.state(), begun, request.generation);
        self.caches.intermediate().add(keyring, &key, Role::Version);
        Some(Ok(key))
    }

    fn key_of_replica(
        &self,
        request: &LoadRequest,
        record: &EnvelopeKeyRecord,
        parent: &CryptoKey,
    ) -> Option<Outcome> {
        let state = request.keyring.state(record.meta().created());
        if let Some(orphan) = self.caches.orphans().adopt(|key| key.is_from(record, &state, Some(parent))) {
            return Some(Ok(orphan));
        }
        let secret = aead::open_key(parent.cipher().ok()?, record.wrapped_key()).ok()?;
        Some(self.maker.make_key(&secret, record, state, Some(parent)).map(Arc::new))
    }
}
