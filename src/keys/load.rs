//! What a load does: it reads a key's rows, or has the key created. The only home of the creation race (T2, T3).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::create::Creation;
use super::dispatch::Load;
use super::loader::Loader;
use super::lost_rows::Remains;
use super::request::{Level, LoadRequest, Prefetched};
use crate::clock::Moment;
use crate::error::{Dependency, Error};
use crate::events::Event;
use crate::gate::{Class, jittered};
use crate::key::CryptoKey;
use crate::key::known::{Copied, Finding};
use crate::keyring::Keyring;
use crate::keyring::flight::{Outcome, Target};
use crate::metastore::Latest;
use crate::record::{Created, EnvelopeKeyRecord, KeyMeta};
use crate::telemetry::keys::KeyChange;

/// How often a lost creation race is entered again.
const ROUNDS_MAX: u32 = 5;
const ROUND_PAUSE: Duration = Duration::from_millis(20);

/// What is to be done about the latest record.
pub(super) enum Judgement {
    Use(Arc<CryptoKey>),
    /// Create a key that sorts after this one, if there is one; `change` is what that makes of it.
    Create {
        above: Option<Created>,
        change: KeyChange,
    },
}

impl Load for Loader {
    async fn load(self: &Arc<Self>, request: &LoadRequest) -> Outcome {
        let cleared;
        let request = if self.is_vain_without_kms(request) {
            request.progress.awaits(Dependency::Kms);
            self.back_ends.kms().clearance(&self.system_key_for(request)).await?;
            cleared = LoadRequest { is_cleared: true, ..request.clone() };
            &cleared
        } else {
            request
        };
        match request.target {
            Target::Latest => Box::pin(self.latest(request)).await,
            Target::Version(created) => Box::pin(self.version(request, created)).await,
        }
    }
}

impl Loader {
    /// Returns `true` if what the metastore says would be of no use, since the KMS is down and is needed too.
    fn is_vain_without_kms(&self, request: &LoadRequest) -> bool {
        !request.is_cleared
            // The rows of a key in use say whether it was revoked.
            && request.class == Class::Load
            && self.back_ends.kms().gate().is_tripped()
            && match (request.level, request.target) {
                (Level::System, Target::Version(created)) => request.keyring.version(created).is_none(),
                (Level::System, Target::Latest) => request.keyring.keys().len() == 0,
                (Level::Intermediate, _) => self.caches.system().keys() == 0,
            }
    }

    /// Names the system key that a load needs, as well as it is known.
    fn system_key_for(&self, request: &LoadRequest) -> KeyMeta {
        match (request.level, request.target) {
            (Level::System, Target::Version(created)) => KeyMeta::new(request.keyring.id().clone(), created),
            _ => KeyMeta::new(self.caches.system_keyring().id().clone(), Created::MIN),
        }
    }

    /// Loads the latest key or creates one that may be used (T2, T3).
    ///
    /// While no other can be had, those that wait go on with the one that is held, which may have been revoked
    /// since. So that one's own rows are read before this fails.
    async fn latest(self: &Arc<Self>, request: &LoadRequest) -> Outcome {
        if let Some(key) = request.keyring.latest().filter(|key| self.rules().is_ready(key, self.now()))
            && request.replace.is_none()
        {
            // Another load ended between the question and this one's start.
            return Ok(key);
        }
        if let Some(key) = self.with_parent_checked(request).await {
            return Ok(key);
        }
        let held = OnceLock::new();
        let outcome = self.rounds(request, &held).await;
        if let (Err(_), Some(check)) = (&outcome, held.into_inner()) {
            let min_generation = self.dispatcher.min_generation(&request.keyring);
            // What it learns counts, not what it brings.
            let _key = self.dispatcher.join_or_start(self, check, min_generation, &request.progress).await;
        }
        outcome
    }

    /// Reads the latest row, and creates a key where that is of no use, until a race is won. `held` is set to
    /// the check of the key that is held, if another one is the latest.
    async fn rounds(self: &Arc<Self>, request: &LoadRequest, held: &OnceLock<LoadRequest>) -> Outcome {
        // A key that was never seen though it exists; a race if any other key of these rounds was.
        let (mut unseen, mut is_any_seen) = (None, false);
        for round in 1..=ROUNDS_MAX {
            let begun = self.now();
            let up_to = self.rules().created_max(begun);
            let store = self.back_ends.store_for(request);
            let latest = store.load_latest(request.store_class(), request.keyring.id(), up_to).await;
            let latest = self.read(request, latest)?;
            if let Some(check) =
                latest.as_ref().and_then(|latest| self.check_of_held(request, &latest.record))
            {
                // That of the latest may hang.
                self.dispatcher.begin(self, check.clone());
                drop(held.set(check));
            }
            let to_replace = request.replace.and(latest.clone());
            let (above, change) = match Box::pin(self.judge(request, latest, begun)).await? {
                Judgement::Use(key) => return Ok(key),
                Judgement::Create { above, change } => (above, change),
            };
            let creation = match self.parent_to_wrap(request).await {
                // On the heap, since not every load creates.
                Ok(parent) => Box::pin(self.create(request, (above, change), parent)).await,
                Err(error) => Err(error),
            };
            let creation = match creation {
                Ok(creation) => creation,
                Err(error) => {
                    return Box::pin(self.unreplaced(request, to_replace, begun, error)).await;
                }
            };
            match creation {
                Creation::Made(key) if self.rules().is_usable(&key, self.now()) => {
                    if above.is_some() {
                        let (loader, keyring) = (Arc::clone(self), Arc::clone(&request.keyring));
                        let learn = move |latest: &Latest| loader.learn_latest_in_passing(&keyring, latest);
                        self.ahead.look(request.keyring.id(), self.dispatcher.tasks(), learn);
                    }
                    return Ok(key);
                }
                // Another load learned meanwhile that its parent is revoked.
                Creation::Made(_) => {
                    is_any_seen = true;
                    continue;
                }
                Creation::Beaten => is_any_seen = true,
                Creation::Unseen(key) => unseen = Some(key),
            }
            tokio::time::sleep(jittered(ROUND_PAUSE * round, self.context.random())).await;
        }
        let Some(key) = unseen.filter(|_| !is_any_seen) else {
            return Err(Error::CreationRace(request.keyring.id().clone()));
        };
        self.events().raise(Event::Indistinct, key.id());
        Err(Error::IndistinctKey(key))
    }

    /// Returns the check of the key that is held, if it is due and the latest is a later one.
    pub(super) fn check_of_held(
        &self,
        request: &LoadRequest,
        latest: &EnvelopeKeyRecord,
    ) -> Option<LoadRequest> {
        let (keyring, now) = (&request.keyring, self.now());
        let held =
            keyring.latest().filter(|held| request.level == Level::Intermediate && !held.is_unusable())?;
        let is_displaced = held.created() < latest.meta().created() && self.rules().is_due(&held, now);
        let check = || LoadRequest::version(request.level, keyring, held.created()).needed_by(request);
        is_displaced.then(check)
    }

    /// Notes the revocation of a key whose row was read beside another one's.
    pub(super) fn learn_in_passing(&self, keyring: &Keyring, record: &EnvelopeKeyRecord) {
        self.maker.learn_revocation(keyring, record, &keyring.state(record.meta().created()));
    }

    /// Notes the revocations of keys whose rows were read for another end.
    pub(super) fn learn_latest_in_passing(&self, keyring: &Keyring, latest: &Latest) {
        for record in std::iter::once(&latest.record).chain(&latest.predecessor) {
            self.learn_in_passing(keyring, record);
        }
    }

    /// A key could not be created. If it was to replace one before that one's end, that one is as good
    /// as ever, and those that wait for this load need not know.
    async fn unreplaced(
        self: &Arc<Self>,
        request: &LoadRequest,
        to_replace: Option<Latest>,
        begun: Moment,
        error: Error,
    ) -> Outcome {
        // No key is made under a system key that is near its end.
        if request.level == Level::System || to_replace.is_none() {
            return Err(error);
        }
        let request = LoadRequest { replace: None, ..request.clone() };
        let Judgement::Use(key) = self.judge(&request, to_replace, begun).await? else { return Err(error) };
        request.keyring.rotation().note(self.now(), error.is_retryable());
        self.events().raise_because(Event::RefreshFailed, request.keyring.id(), &error);
        Ok(key)
    }

    /// Loads one version, whether or not it may still encrypt.
    async fn version(self: &Arc<Self>, request: &LoadRequest, created: Created) -> Outcome {
        let keyring = &request.keyring;
        let meta = KeyMeta::new(keyring.id().clone(), created);
        let now = self.now();
        if let Some(key) = keyring.version(created).filter(|key| !self.rules().is_due(key, now)) {
            // As above.
            return Ok(key);
        }
        if let Some(outcome) = self.version_from_replica(request, &meta).await {
            return outcome;
        }
        let (row, begun) = match &request.prefetched {
            Some(Prefetched { row, begun, .. }) => (row.clone(), *begun),
            None => {
                let begun = self.now();
                let row = self.back_ends.store_for(request).load(request.store_class(), &meta).await;
                (self.read(request, row)?, begun)
            }
        };
        let (record, begun) = match row {
            Some(record) => (record, begun),
            None => match self.lost_rows.version_remaining(request, meta, begun).await? {
                Remains::Key(key) => return Ok(key),
                Remains::Row(record, begun) => (record, begun),
            },
        };
        let known = self.maker.find(&record);
        if matches!(known, Finding::Copy(Copied { is_foreign: true, .. })) {
            return Err(self.maker.refuse_copy(&record));
        }
        self.ahead.note(record.meta(), begun);
        self.lost_rows.note_return(&record, begun);
        let state = self.maker.learn(request, &record, known, begun);
        if matches!(known, Finding::Copy(_)) && state.mark_copy() {
            // Another program may have sealed under it in good faith.
            self.maker.refuse_copy(&record);
        }
        let parent = match self.parent_of(request, &record)? {
            None => None,
            Some(parent) => match self.system_key(request, parent).await {
                Ok(key) => Some(key),
                Err(gone @ Error::KeyNotFound(_)) => {
                    self.caches.of(request.level).remove(keyring, |key| key.created() == created);
                    return Err(gone);
                }
                Err(error) => return Err(error),
            },
        };
        self.key_from(request, &record, parent, state, begun).await
    }

    /// The short way of a refresh: if only the parent's row is due, it is the only one read. `None`
    /// if that does not answer the question.
    async fn with_parent_checked(self: &Arc<Self>, request: &LoadRequest) -> Option<Arc<CryptoKey>> {
        let (key, now) = (request.keyring.latest()?, self.now());
        let parent = key.parent()?;
        let only_parent_is_due = !key.state().is_from_replica()
            && !self.rules().is_row_due(key.state(), now)
            && self.rules().is_row_due(&parent.state, now);
        let is_to_be_replaced = request.replace.is_some() || self.rules().is_exhausted(&key);
        if is_to_be_replaced || !only_parent_is_due || !self.rules().is_usable(&key, now) {
            return None;
        }
        let system_key = self.system_key(request, &parent.meta).await.ok()?;
        let shares_state = Arc::ptr_eq(system_key.state(), &parent.state);
        (shares_state && self.rules().is_usable(&key, self.now())).then_some(key)
    }

    /// Decides by T2, row by row, what is to be done about the latest record. That the store failed (`| error |
    /// error; never create |`) ends a load before.
    pub(super) async fn judge(
        self: &Arc<Self>,
        request: &LoadRequest,
        latest: Option<Latest>,
        begun: Moment,
    ) -> Result<Judgement, Error> {
        let keyring = &request.keyring;
        let (record, predecessor) = match latest {
            Some(Latest { record, predecessor }) => (Some(record), predecessor),
            None => (None, None),
        };
        if let Some(predecessor) = &predecessor {
            self.learn_in_passing(keyring, predecessor);
        }
        // What we hold beyond the latest has lost its row.
        let (record, begun) = self.lost_rows.latest_remaining(request, record, begun).await;
        // | none | create (T3) |
        let Some(record) = record else {
            return Ok(Judgement::Create { above: None, change: KeyChange::Created });
        };
        let created = record.meta().created();
        let create = |is_unusable| Judgement::Create {
            above: Some(created),
            change: if is_unusable { KeyChange::Replaced } else { KeyChange::Rotated },
        };
        let known = self.maker.find(&record);
        if self.maker.is_copy(&record, known, predecessor.as_ref())? {
            return Ok(create(true));
        }
        self.lost_rows.note_return(&record, begun);
        let state = self.maker.learn(request, &record, known, begun);
        if self.rules().is_ahead(created, begun) {
            let message = format_args!("created at {created}, which is ahead of this clock");
            self.events().tell(Event::ClockSkew, keyring.id(), &message);
        }
        // | expired or revoked | create by T4 |
        if record.is_revoked() || self.rules().is_expired(record.meta(), begun) {
            return Ok(create(record.is_revoked()));
        }
        // | parent not this service and product's SK id | error + alarm; never create |
        let parent = self.parent_of(request, &record)?;
        // | valid, but known here as revoked or exhausted, or a rotation that was asked for | create by T4 |
        let is_exhausted = keyring.version(created).is_some_and(|key| self.rules().is_exhausted(&key));
        if state.is_unusable() || is_exhausted || request.replace.is_some_and(|up_to| created <= up_to) {
            return Ok(create(state.is_unusable()));
        }
        let parent = match parent {
            None => None,
            Some(parent) => match self.system_key(request, parent).await {
                Ok(key) if self.rules().is_usable(&key, begun) => Some(key),
                // | valid | expired or revoked | create by T4 |
                Ok(key) => return Ok(create(key.is_unusable())),
                // | valid | record missing | create by T4 + alarm event |
                Err(Error::KeyNotFound(_)) => {
                    self.events().raise(Event::MissingParent, keyring.id());
                    return Ok(create(true));
                }
                // Nothing is encrypted under another id's key, whether or not it may be read.
                Err(error) if error.is_folded() => return Ok(create(true)),
                // | valid | KMS or metastore error | error; never create during an outage |
                Err(error) => return Err(error),
            },
        };
        // | valid | valid, IK unwraps | use |, or does not | error + alarm; never create |
        let key = self.key_from(request, &record, parent, state, begun).await?;
        // Another load may have learned meanwhile that it is revoked.
        Ok(if self.rules().is_usable(&key, self.now()) { Judgement::Use(key) } else { create(true) })
    }

    /// Returns exactly this version of a system key, its row read lately.
    pub(super) async fn system_key(self: &Arc<Self>, child: &LoadRequest, meta: &KeyMeta) -> Outcome {
        let keyring = self.caches.system().keyring(meta.id().as_str());
        let now = self.now();
        if let Some(key) = keyring.version(meta.created()).filter(|key| !self.rules().is_due(key, now)) {
            return Ok(key);
        }
        if self.caches.missing().contains(meta, now) {
            return Err(Error::KeyNotFound(meta.clone()));
        }
        let min_generation = self.dispatcher.min_generation(&keyring);
        let request = LoadRequest::version(Level::System, &keyring, meta.created()).needed_by(child);
        self.dispatcher.join_or_start(self, request, min_generation, &child.progress).await
    }
}
