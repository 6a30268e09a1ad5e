//! What a flight does: load a key, or have one created. The only home of the creation race (T2, T3).

use std::sync::Arc;
use std::time::Duration;

use super::Hierarchy;
use super::course::{Course, Level};
use super::create::Creation;
use super::known::{Copied, Finding};
use super::restore::Remains;
use crate::clock::Moment;
use crate::error::{Dependency, Error};
use crate::events::Event;
use crate::gate::jittered;
use crate::key::CryptoKey;
use crate::keyring::flight::{Outcome, Target};
use crate::metastore::{Latest, MetastoreHandle};
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
        let cleared;
        let course = if self.is_vain_without_kms(course) {
            course.progress.awaits(Dependency::Kms);
            self.kms.clearance(&self.system_key_for(course)).await?;
            cleared = Course { is_cleared: true, ..course.clone() };
            &cleared
        } else {
            course
        };
        match course.target {
            Target::Latest => Box::pin(self.latest(course)).await,
            Target::Version(created) => Box::pin(self.version(course, created)).await,
        }
    }

    /// Tells whether what the metastore says would be of no use, since the KMS is down and is needed too.
    fn is_vain_without_kms(&self, course: &Course) -> bool {
        !course.is_cleared
            && self.kms.gate().is_tripped()
            && match (course.level, course.target) {
                (Level::System, Target::Version(created)) => course.ring.version(created).is_none(),
                (Level::System, Target::Latest) => course.ring.keys().len() == 0,
                (Level::Intermediate, _) => self.system.keys() == 0,
            }
    }

    /// Names the system key that a flight needs, as well as it is known.
    fn system_key_for(&self, course: &Course) -> KeyMeta {
        match (course.level, course.target) {
            (Level::System, Target::Version(created)) => KeyMeta::new(course.ring.id().clone(), created),
            _ => KeyMeta::new(self.system_ring.id().clone(), Created::MIN),
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
            let up_to = self.rules.created_max(begun);
            let latest = self.read(
                course,
                self.store_for(course).load_latest(course.store_class(), course.ring.id(), up_to).await,
            )?;
            let to_replace = course.replace.and(latest.clone());
            let above = match Box::pin(self.judge(course, latest, begun)).await? {
                Judgement::Use(key) => return Ok(key),
                Judgement::Create { above } => above,
            };
            let creation = match self.parent_to_wrap(course).await {
                // Apart, since not every flight creates.
                Ok(parent) => Box::pin(self.create(course, above, parent)).await,
                Err(error) => Err(error),
            };
            let creation = match creation {
                Ok(creation) => creation,
                Err(error) => {
                    return Box::pin(self.unreplaced(course, to_replace, begun, error)).await;
                }
            };
            unseen = match creation {
                Creation::Made(key) if self.is_usable(&key, self.now()) => {
                    if above.is_some() {
                        self.look_far_ahead(course.ring.id());
                    }
                    return Ok(key);
                }
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
        to_replace: Option<Latest>,
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
                (self.read(course, self.store_for(course).load(course.store_class(), &meta).await)?, begun)
            }
        };
        let (record, begun) = match row {
            Some(record) => (record, begun),
            None => match self.version_remaining(course, meta, begun).await? {
                Remains::Key(key) => return Ok(key),
                Remains::Row(record, begun) => (record, begun),
            },
        };
        let known = self.known.find(&record);
        if matches!(known, Finding::Copy(Copied { is_foreign: true, .. })) {
            return Err(self.refuse_copy(&record));
        }
        self.note_far_ahead(record.meta(), begun);
        let state = self.learn(course, &record, known, begun);
        if matches!(known, Finding::Copy(_)) && state.mark_copy() {
            // Another program may have sealed under it in good faith.
            self.refuse_copy(&record);
        }
        let parent = match self.parent_of(course, &record)? {
            None => None,
            Some(parent) => match self.system_key(course, parent).await {
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
        let system_key = self.system_key(course, &parent.meta).await.ok()?;
        let shares_state = Arc::ptr_eq(system_key.state(), &parent.state);
        (shares_state && self.is_usable(&key, self.now())).then_some(key)
    }

    /// Decides by T2 what is to be done about the latest record.
    pub(super) async fn judge(
        self: &Arc<Self>,
        course: &Course,
        latest: Option<Latest>,
        begun: Moment,
    ) -> Result<Judgement, Error> {
        let ring = &course.ring;
        let (record, predecessor) = match latest {
            Some(Latest { record, predecessor }) => (Some(record), predecessor),
            None => (None, None),
        };
        if let Some(revoked) = predecessor.as_ref().filter(|record| record.is_revoked()) {
            self.note_revoked(ring, revoked);
        }
        // What we hold beyond the latest has lost its row.
        let (record, begun) = self.latest_remaining(course, record, begun).await;
        let Some(record) = record else { return Ok(Judgement::Create { above: None }) };
        let created = record.meta().created();
        let create = Judgement::Create { above: Some(created) };
        let known = self.known.find(&record);
        if self.is_copy(&record, known, predecessor.as_ref())? {
            return Ok(create);
        }
        let state = self.learn(course, &record, known, begun);
        if self.rules.is_ahead(created, begun) {
            let told = format_args!("created at {created}, which is ahead of this clock");
            self.events.tell(Event::ClockSkew, ring.id(), &told);
        }
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
            Some(parent) => match self.system_key(course, parent).await {
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

    /// Returns the metastore, which the flight waits for from now on.
    pub(super) fn store_for(&self, course: &Course) -> &MetastoreHandle {
        course.progress.awaits(Dependency::Metastore);
        &self.store
    }

    /// Takes what a read brought; a row that cannot be read is an alarm, as somebody or something wrote it.
    pub(super) fn read<R>(&self, course: &Course, row: Result<Option<R>, Error>) -> Result<Option<R>, Error> {
        row.inspect_err(|error| {
            if error.is_damage() {
                self.events.raise_because(Event::Malformed, course.ring.id(), error);
            } else if error.is_folded() {
                self.events.raise_because(Event::FoldedId, course.ring.id(), error);
            }
        })
    }

    /// Returns exactly this version of a system key, its row read lately.
    pub(super) async fn system_key(self: &Arc<Self>, child: &Course, meta: &KeyMeta) -> Outcome {
        let ring = self.system.ring(meta.id().as_str());
        let now = self.now();
        if let Some(key) = ring.version(meta.created()).filter(|key| !self.rules.is_due(key, now)) {
            return Ok(key);
        }
        if self.missing.contains(meta, now) {
            return Err(Error::KeyNotFound(meta.clone()));
        }
        let ticket = self.ticket(&ring);
        let course = Course::version(Level::System, &ring, meta.created()).needed_by(child);
        self.fly(course, ticket, &child.progress).await
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

    /// Tells whether the key may wrap or encrypt: neither revoked, lost, expired nor far in the future.
    pub(super) fn is_usable(&self, key: &CryptoKey, now: Moment) -> bool {
        !key.is_barred() && now.wall <= key.life().expires && !self.rules.is_far_ahead(key.created(), now)
    }

    pub(super) const fn cache(&self, level: Level) -> &crate::keyring::cache::KeyCache {
        match level {
            Level::System => &self.system,
            Level::Intermediate => &self.intermediate,
        }
    }
}
