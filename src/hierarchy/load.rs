//! What a flight does: load a key, or have one created. The only home of the creation race (T2, T3).

use std::sync::Arc;
use std::time::Duration;

use super::create::Creation;
use super::restore::Remains;
use super::{Course, Hierarchy, Level};
use crate::aead;
use crate::call::jittered;
use crate::clock::Moment;
use crate::error::Error;
use crate::events::Event;
use crate::key::state::KeyState;
use crate::key::{CryptoKey, Parent, SecretKey};
use crate::keyring::Role;
use crate::keyring::flight::{Flights, Outcome, Target};
use crate::record::{Created, EnvelopeKeyRecord, KeyMeta};

/// How often a lost creation race is entered again.
const ROUNDS_MAX: u32 = 5;
const ROUND_PAUSE: Duration = Duration::from_millis(20);

/// What is to be done about the latest record.
pub(super) enum Judgement {
    Use(Arc<CryptoKey>),
    /// Create a key that sorts after this one, if there is one.
    Create {
        above: Option<Created>,
    },
}

impl Hierarchy {
    pub(super) async fn run(self: &Arc<Self>, course: &Course) -> Outcome {
        match course.target {
            Target::Latest => self.latest(course).await,
            Target::Version(created) => self.version(course, created).await,
        }
    }

    /// Loads the latest key or creates one that may be used (T2, T3).
    async fn latest(self: &Arc<Self>, course: &Course) -> Outcome {
        if let Some(key) = course.ring.latest().filter(|key| self.rules.is_ready(key, self.now()))
            && course.replace.is_none()
        {
            // Another flight landed between the question and this one's start.
            return Ok(key);
        }
        if let Some(key) = self.with_parent_checked(course).await {
            return Ok(key);
        }
        let mut unseen = None;
        for round in 1..=ROUNDS_MAX {
            let begun = self.now();
            let record = self.read(course, self.store.load_latest(course.ring.id())).await?;
            let to_replace = course.replace.and(record.clone());
            let above = match self.judge(course, record, begun).await? {
                Judgement::Use(key) => return Ok(key),
                Judgement::Create { above } => above,
            };
            let creation = match self.create(course, above).await {
                Ok(creation) => creation,
                Err(error) => return self.unreplaced(course, to_replace, begun, error).await,
            };
            unseen = match creation {
                Creation::Made(key) if self.is_usable(&key, self.now()) => return Ok(key),
                // Another flight learned meanwhile that its parent is revoked.
                Creation::Made(_) => continue,
                Creation::Beaten => None,
                Creation::Unseen(key) => Some(key),
            };
            tokio::time::sleep(jittered(ROUND_PAUSE * round, &*self.random)).await;
        }
        let Some(key) = unseen else { return Err(Error::CreationRace(course.ring.id().clone())) };
        self.events.raise(Event::Indistinct, key.id());
        Err(Error::IndistinctKey(key))
    }

    /// A key could not be created. If it was to replace one before that one's end, that one is as good
    /// as ever, and who waits for this flight need not know.
    async fn unreplaced(
        self: &Arc<Self>,
        course: &Course,
        to_replace: Option<EnvelopeKeyRecord>,
        begun: Moment,
        error: Error,
    ) -> Outcome {
        // No key is made under a system key that is near its end.
        if course.level == Level::System || to_replace.is_none() {
            return Err(error);
        }
        let course = Course { replace: None, ..course.clone() };
        let Judgement::Use(key) = self.judge(&course, to_replace, begun).await? else { return Err(error) };
        course.ring.rotation().note(self.now(), error.is_retryable());
        self.events.raise_because(Event::RefreshFailed, course.ring.id(), &error);
        Ok(key)
    }

    /// Loads one version, whether or not it may still encrypt.
    async fn version(self: &Arc<Self>, course: &Course, created: Created) -> Outcome {
        let ring = &course.ring;
        let meta = KeyMeta::new(ring.id().clone(), created);
        let now = self.now();
        if let Some(key) = ring.version(created).filter(|key| !self.rules.is_due(key, now)) {
            // As above.
            return Ok(key);
        }
        if let Some(outcome) = self.version_from_replica(course, &meta).await {
            return outcome;
        }
        let (row, begun) = match &course.prefetched {
            Some((row, begun)) => (row.clone(), *begun),
            None => {
                let begun = self.now();
                (self.read(course, self.store.load(&meta)).await?, begun)
            }
        };
        let (record, begun) = match row {
            Some(record) => (record, begun),
            None => match self.version_remaining(course, meta, begun).await? {
                Remains::Key(key) => return Ok(key),
                Remains::Row(record, begun) => (record, begun),
            },
        };
        let state = self.learn(course, &record, begun);
        let parent = match self.parent_of(course, &record)? {
            None => None,
            Some(parent) => match self.system_key(parent).await {
                Ok(key) => Some(key),
                Err(gone @ Error::KeyNotFound(_)) => {
                    self.cache(course.level).remove(ring, |key| key.created() == created);
                    return Err(gone);
                }
                Err(error) => return Err(error),
            },
        };
        self.key_from(course, &record, parent, state, begun).await
    }

    /// The short way of a refresh: if only the parent's row is due, it is the only one read. `None`
    /// if that does not answer the question.
    async fn with_parent_checked(self: &Arc<Self>, course: &Course) -> Option<Arc<CryptoKey>> {
        let (key, now) = (course.ring.latest()?, self.now());
        let parent = key.parent()?;
        let only_parent_is_due = !key.state().is_copied()
            && !self.rules.is_row_due(key.state(), now)
            && self.rules.is_row_due(&parent.state, now);
        let is_to_be_replaced = course.replace.is_some() || self.rules.is_exhausted(&key);
        if is_to_be_replaced || !only_parent_is_due || !self.is_usable(&key, now) {
            return None;
        }
        let system_key = self.system_key(&parent.meta).await.ok()?;
        let shares_state = Arc::ptr_eq(system_key.state(), &parent.state);
        (shares_state && self.is_usable(&key, self.now())).then_some(key)
    }

    /// Decides by T2 what is to be done about the latest record.
    pub(super) async fn judge(
        self: &Arc<Self>,
        course: &Course,
        record: Option<EnvelopeKeyRecord>,
        begun: Moment,
    ) -> Result<Judgement, Error> {
        let ring = &course.ring;
        // What we hold beyond the latest has lost its row.
        let (record, begun) = self.latest_remaining(course, record, begun).await;
        let Some(record) = record else { return Ok(Judgement::Create { above: None }) };
        let created = record.meta().created();
        let state = self.learn(course, &record, begun);
        if self.rules.is_ahead(created, begun) {
            self.events.tell(Event::ClockSkew, ring.id(), &format_args!("created at {created}"));
        }
        let create = Judgement::Create { above: Some(created) };
        if record.is_revoked() || self.rules.is_expired(record.meta(), begun) {
            return Ok(create);
        }
        let parent = self.parent_of(course, &record)?;
        let is_exhausted = ring.version(created).is_some_and(|key| self.rules.is_exhausted(&key));
        if state.is_barred() || is_exhausted || course.replace.is_some_and(|up_to| created <= up_to) {
            return Ok(create);
        }
        let parent = match parent {
            None => None,
            Some(parent) => match self.system_key(parent).await {
                Ok(key) if self.is_usable(&key, begun) => Some(key),
                Ok(_) => return Ok(create),
                Err(Error::KeyNotFound(_)) => {
                    self.events.raise(Event::MissingParent, ring.id());
                    return Ok(create);
                }
                // Nothing is encrypted under another id's key, whether or not it may be read.
                Err(error) if error.is_folded() => return Ok(create),
                Err(error) => return Err(error),
            },
        };
        let key = self.key_from(course, &record, parent, state, begun).await?;
        // Another flight may have learned meanwhile that it is revoked.
        Ok(if self.is_usable(&key, self.now()) { Judgement::Use(key) } else { create })
    }

    /// Returns the key that the record holds: the one we have if it is the same, else unwrapped.
    async fn key_from(
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
        let mut version = Course::version(course.level, &course.ring, record.meta().created());
        version.prefetched = Some((Some(record.clone()), begun));
        // Boxed, since a flight's future holds this one.
        match Box::pin(self.fly(version, Flights::any_ticket())).await {
            Ok(key) => Ok(Some(key)),
            Err(error @ (Error::Kms { .. } | Error::Authentication)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Reads a row; one that cannot be read is an alarm, as somebody or something wrote it.
    pub(super) async fn read(
        &self,
        course: &Course,
        row: impl Future<Output = Result<Option<EnvelopeKeyRecord>, Error>>,
    ) -> Result<Option<EnvelopeKeyRecord>, Error> {
        row.await.inspect_err(|error| {
            if error.is_damage() {
                self.events.raise_because(Event::Malformed, course.ring.id(), error);
            } else if error.is_folded() {
                self.events.raise_because(Event::FoldedId, course.ring.id(), error);
            }
        })
    }

    async fn unwrap(
        &self,
        course: &Course,
        record: &EnvelopeKeyRecord,
        parent: Option<&Arc<CryptoKey>>,
    ) -> Result<(SecretKey, Option<Arc<CryptoKey>>), Error> {
        let unwrapped = match parent {
            Some(parent) => self.unwrap_under(parent, record),
            None => self.kms.unwrap_key(record.wrapped_key(), record.meta()).await.map(|key| (key, None)),
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
        if let Ok(health) = self.kms.inspect(record.wrapped_key(), record.meta()).await {
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

    /// Returns exactly this version of a system key, its row read lately.
    pub(super) async fn system_key(self: &Arc<Self>, meta: &KeyMeta) -> Outcome {
        let ring = self.system.ring(meta.id().as_str());
        let now = self.now();
        if let Some(key) = ring.version(meta.created()).filter(|key| !self.rules.is_due(key, now)) {
            return Ok(key);
        }
        if self.missing.contains(meta, now) {
            return Err(Error::KeyNotFound(meta.clone()));
        }
        let ticket = self.ticket(&ring);
        self.fly(Course::version(Level::System, &ring, meta.created()), ticket).await
    }

    /// Notes what the record says of its key, by a read that began at `begun`. Revoked is for ever.
    fn learn(&self, course: &Course, record: &EnvelopeKeyRecord, begun: Moment) -> Arc<KeyState> {
        self.note_return(record, begun);
        let state = course.ring.state_of_row(record.meta().created(), begun);
        self.note_fold(course, record, &state);
        if record.is_revoked() {
            course.ring.revoke(record.meta().created());
        } else if state.is_revoked() {
            self.events.raise(Event::Unrevoked, course.ring.id());
        }
        state
    }

    /// Notes whether the row that was read is another id's.
    pub(super) fn note_fold(&self, course: &Course, record: &EnvelopeKeyRecord, state: &KeyState) {
        let is_folded = record.kept_under().is_some();
        state.set_folded(is_folded);
        if is_folded {
            self.events.raise(Event::FoldedId, course.ring.id());
        }
    }

    /// Returns the parent that the record names. A system key's record has none that counts.
    fn parent_of<'a>(
        &self,
        course: &Course,
        record: &'a EnvelopeKeyRecord,
    ) -> Result<Option<&'a KeyMeta>, Error> {
        if course.level == Level::System {
            return Ok(None);
        }
        match record.parent() {
            Some(parent) if self.naming.is_parent_of(record.meta().id(), parent.id()) => Ok(Some(parent)),
            Some(_) | None => {
                self.events.raise(Event::ForeignParent, course.ring.id());
                Err(Error::ForeignParent { key: record.meta().clone() })
            }
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
        CryptoKey::new(&self.arena, secret, record, self.rules.life(record.meta()), state, parent)
    }

    /// Tells whether the key may wrap or encrypt: neither revoked, lost nor expired.
    pub(super) fn is_usable(&self, key: &CryptoKey, now: Moment) -> bool {
        !key.is_barred() && now.wall <= key.life().expires
    }

    pub(super) const fn cache(&self, level: Level) -> &crate::keyring::cache::KeyCache {
        match level {
            Level::System => &self.system,
            Level::Intermediate => &self.intermediate,
        }
    }
}
