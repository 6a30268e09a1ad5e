//! How a row becomes a key: the one that is held already, an orphan, another flight's, or unwrapped.

use std::sync::Arc;

use super::Hierarchy;
use super::course::{Course, Level};
use super::known::IsCopy;
use crate::aead;
use crate::clock::Moment;
use crate::error::{Dependency, Error};
use crate::events::Event;
use crate::key::state::KeyState;
use crate::key::{CryptoKey, MakeError, Parent, SecretKey};
use crate::keyring::Role;
use crate::keyring::flight::{Flights, Outcome, Target};
use crate::record::{EnvelopeKeyRecord, KeyMeta};

impl Hierarchy {
    /// Returns the key that the record holds: the one we have if it is the same, else unwrapped.
    pub(super) async fn key_from(
        self: &Arc<Self>,
        course: &Course,
        record: &EnvelopeKeyRecord,
        parent: Option<Arc<CryptoKey>>,
        state: Arc<KeyState>,
        begun: Moment,
    ) -> Outcome {
        let ring = &course.ring;
        let role = if course.target == Target::Latest { Role::Latest } else { Role::Version };
        let held = || ring.version(record.meta().created());
        let is_same = |key: &CryptoKey| key.is_from(record, &state, parent.as_deref());
        let same = match held() {
            Some(held) => Some(held).filter(|held| is_same(held)),
            None => match self.orphans.adopt(is_same) {
                None => self.unwrapped_with_others(course, record, begun).await?.filter(|key| is_same(key)),
                adopted => adopted,
            },
        };
        let key = match same {
            Some(key) => key,
            None => {
                let (secret, parent) = self.unwrap(course, record, parent.as_ref()).await?;
                let key = Arc::new(self.make_key(&secret, record, Arc::clone(&state), parent.as_deref())?);
                drop(secret);
                match held() {
                    // Another flight brought it meanwhile.
                    Some(held) if is_same(&held) => held,
                    // The row was read again since, and what is held is what it holds.
                    Some(held) if state.is_checked_after(begun) => held,
                    Some(held) if !held.has_same_bytes(&key)? => {
                        self.events.raise(Event::KeyChanged, ring.id());
                        self.put_aside(course, &held, &key);
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
        ring.mark_checked(&state, begun, course.flight);
        self.cache(course.level).add(ring, &key, role);
        Ok(key)
    }

    /// Lets the flight for exactly this version unwrap a system key for the one for the latest, so
    /// that the KMS is asked once however the two meet. `None` if that is not to be, or brought
    /// nothing but for a failure of the KMS.
    async fn unwrapped_with_others(
        self: &Arc<Self>,
        course: &Course,
        record: &EnvelopeKeyRecord,
        begun: Moment,
    ) -> Result<Option<Arc<CryptoKey>>, Error> {
        if course.level == Level::Intermediate || course.target != Target::Latest {
            return Ok(None);
        }
        let version = Course::version(course.level, &course.ring, record.meta().created());
        let mut version = version.needed_by(course);
        version.prefetched = Some((Some(record.clone()), begun));
        match self.fly(version, Flights::any_ticket(), &course.progress).await {
            Ok(key) => Ok(Some(key)),
            Err(error @ (Error::Kms { .. } | Error::Authentication)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    async fn unwrap(
        &self,
        course: &Course,
        record: &EnvelopeKeyRecord,
        parent: Option<&Arc<CryptoKey>>,
    ) -> Result<(SecretKey, Option<Arc<CryptoKey>>), Error> {
        let unwrapped = match parent {
            Some(parent) => self.unwrap_under(parent, record),
            None => {
                course.progress.awaits(Dependency::Kms);
                let secret = self.kms.unwrap_key(course.class, record.wrapped_key(), record.meta()).await;
                secret.map(|secret| (secret, None))
            }
        };
        let (secret, parent) = unwrapped.map_err(|error| {
            if error.is_damage() {
                self.events.raise_because(Event::Tampered, course.ring.id(), &error);
                // What is wrong with it is for the operator, not for who may have done it.
                return Error::Authentication;
            }
            error
        })?;
        if parent.is_none() {
            self.look_for_copies(record).await;
        }
        Ok((secret, parent))
    }

    /// Unwraps a key under its parent, or under what that was before its row held other bytes; returns
    /// the one that it was.
    fn unwrap_under(
        &self,
        parent: &Arc<CryptoKey>,
        record: &EnvelopeKeyRecord,
    ) -> Result<(SecretKey, Option<Arc<CryptoKey>>), Error> {
        let formers = self.system.ring(parent.meta().id().as_str()).formers(parent.created(), self.now());
        let mut failure = Error::Authentication;
        for parent in std::iter::once(parent).chain(&formers) {
            match aead::open_key(parent.cipher()?, record.wrapped_key()) {
                Ok(secret) => return Ok((secret, Some(Arc::clone(parent)))),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Notes the copies that a system key lacks, and tells of them once.
    async fn look_for_copies(&self, record: &EnvelopeKeyRecord) {
        // A service that cannot say is no obstacle: the key was unwrapped.
        if let Ok(health) = self.kms.inspect(record.wrapped_key(), record.meta()) {
            self.note_copies(record.meta(), &health.missing);
        }
    }

    pub(super) fn note_copies(&self, key: &KeyMeta, missing: &[String]) {
        if self.degraded.note(key, missing) {
            self.events.tell(
                Event::DegradedWrap,
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
            self.parents.note(record.meta().id(), &state);
        }
        let (life, is_told) = (self.rules.life(record.meta()), state.is_copy());
        let key = CryptoKey::new(&self.arena, secret, record, life, state, parent, &self.known);
        match key {
            Ok(key) => {
                if key.state().is_copy() && !is_told {
                    self.refuse_copy(record);
                }
                Ok(key)
            }
            Err(MakeError::Copy(IsCopy)) => Err(self.refuse_copy(record)),
            Err(MakeError::Other(error)) => Err(error),
        }
    }
}
