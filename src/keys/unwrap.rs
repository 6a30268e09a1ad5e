//! How a row becomes a key: the one that is held already, an orphan, another load's, or unwrapped.

use std::sync::Arc;

use super::loader::Loader;
use super::request::{Level, LoadRequest};
use crate::clock::Moment;
use crate::error::{Dependency, Error};
use crate::events::Event;
use crate::key::CryptoKey;
use crate::key::state::KeyState;
use crate::keyring::flight::{Flights, Outcome, Target};
use crate::keyring::key_set::Role;
use crate::record::EnvelopeKeyRecord;
use crate::secret::SecretKey;

impl Loader {
    /// Returns the key that the record holds: the one we have if it is the same, else unwrapped.
    pub(super) async fn key_from(
        self: &Arc<Self>,
        request: &LoadRequest,
        record: &EnvelopeKeyRecord,
        parent: Option<Arc<CryptoKey>>,
        state: Arc<KeyState>,
        begun: Moment,
    ) -> Outcome {
        let keyring = &request.keyring;
        let role = if request.target == Target::Latest { Role::Latest } else { Role::Version };
        let held = || keyring.version(record.meta().created());
        let is_same = |key: &CryptoKey| key.is_from(record, &state, parent.as_deref());
        let same = held().filter(|held| is_same(held)).or_else(|| self.caches.orphans().adopt(is_same));
        let same = match same {
            None => self.unwrapped_with_others(request, record, begun).await?.filter(|key| is_same(key)),
            same => same,
        };
        let key = match same {
            Some(key) => key,
            None => {
                let (secret, parent) = self.unwrap(request, record, parent.as_ref()).await?;
                let key =
                    Arc::new(self.maker.make_key(&secret, record, Arc::clone(&state), parent.as_deref())?);
                drop(secret);
                match held() {
                    // Another load brought it meanwhile.
                    Some(held) if is_same(&held) => held,
                    // The row was read again since, and what is held is what it holds.
                    Some(held) if state.is_checked_after(begun) => held,
                    Some(held) if !held.has_same_bytes(&key)? => {
                        self.events().raise(Event::KeyChanged, keyring.id());
                        self.maker.put_aside(request, &held, &key);
                        key
                    }
                    Some(held) => {
                        key.wraps().continue_from(held.wraps());
                        key
                    }
                    None => key,
                }
            }
        };
        keyring.mark_checked(&state, begun, request.generation);
        self.caches.of(request.level).add(keyring, &key, role);
        Ok(key)
    }

    /// Lets the load of exactly this version unwrap a system key for the load of the latest, so
    /// that the KMS is asked once however the two meet. `None` if that is not to be, or brought
    /// nothing but for a failure of the KMS.
    async fn unwrapped_with_others(
        self: &Arc<Self>,
        request: &LoadRequest,
        record: &EnvelopeKeyRecord,
        begun: Moment,
    ) -> Result<Option<Arc<CryptoKey>>, Error> {
        if request.level == Level::Intermediate || request.target != Target::Latest {
            return Ok(None);
        }
        let version = LoadRequest::version(request.level, &request.keyring, record.meta().created());
        let version = version.needed_by(request).with_row(Some(record.clone()), begun, request.generation);
        match self.dispatcher.join_or_start(self, version, Flights::any_generation(), &request.progress).await
        {
            Ok(key) => Ok(Some(key)),
            Err(error @ (Error::Kms { .. } | Error::Authentication)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    async fn unwrap(
        &self,
        request: &LoadRequest,
        record: &EnvelopeKeyRecord,
        parent: Option<&Arc<CryptoKey>>,
    ) -> Result<(SecretKey, Option<Arc<CryptoKey>>), Error> {
        let unwrapped = match parent {
            Some(parent) => self.maker.unwrap_under(parent, record),
            None => {
                request.progress.awaits(Dependency::Kms);
                let secret =
                    self.back_ends.kms().unwrap_key(request.class, record.wrapped_key(), record.meta()).await;
                secret.map(|secret| (secret, None))
            }
        };
        let (secret, parent) = unwrapped.map_err(|error| {
            if error.is_damage() {
                self.events().raise_because(Event::Tampered, request.keyring.id(), &error);
                // The operator hears what is wrong with it, not the caller, which may have done it.
                return Error::Authentication;
            }
            error
        })?;
        if parent.is_none() {
            self.look_for_copies(record).await;
        }
        Ok((secret, parent))
    }

    /// Notes the copies that a system key lacks, and tells of them once.
    async fn look_for_copies(&self, record: &EnvelopeKeyRecord) {
        // A service that cannot say is no obstacle: the key was unwrapped.
        if let Ok(health) = self.back_ends.kms().inspect(record.wrapped_key(), record.meta()) {
            self.maker.note_copies(record.meta(), &health.missing);
        }
    }
}
