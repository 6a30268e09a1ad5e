//! Rows that a check found gone: the keys are dropped and told of, and the rows put back if that is
//! wanted.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Hierarchy;
use super::lost::Return;
use super::request::LoadRequest;
use crate::BoxFuture;
use crate::clock::Moment;
use crate::error::{Dependency, Error};
use crate::events::Event;
use crate::gate::Class;
use crate::key::CryptoKey;
use crate::key::state::KeyState;
use crate::keyring::flight::Target;
use crate::metastore::Insert;
use crate::record::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};

/// What there is of a version whose row was not found.
pub(super) enum Remains {
    /// It was created while the answer was on its way.
    Key(Arc<CryptoKey>),
    /// Its row was put back, by an insert that began then.
    Row(EnvelopeKeyRecord, Moment),
}

impl Hierarchy {
    /// Drops the versions that a read which began at `begun` found to have no row, and tells of each.
    fn lose(&self, request: &LoadRequest, begun: Moment, is_lost: impl Fn(Created, &KeyState) -> bool) {
        let now = self.now();
        request.keyring.mark_rows_missing(begun, now, request.flight, &is_lost);
        let is_gone = |key: &CryptoKey| key.state().is_row_missing() && is_lost(key.created(), key.state());
        for (row, state) in self.cache(request.level).remove(&request.keyring, is_gone) {
            let key = row.meta().clone();
            // One that had another id is not kept: under this one there is nothing to be put back.
            if state.is_folded() || self.lost.note(row, now) {
                self.events.row_lost(&key);
            }
        }
    }

    /// Drops the version that a flight was to load, as [`lose`](Self::lose) does.
    pub(super) fn lose_target(&self, request: &LoadRequest, begun: Moment) {
        self.lose(request, begun, |created, _| request.target == Target::Version(created));
    }

    /// Returns the latest record after what its read says of later ones, which are gone, and since when
    /// that is known.
    pub(super) async fn latest_remaining(
        &self,
        request: &LoadRequest,
        record: Option<EnvelopeKeyRecord>,
        begun: Moment,
    ) -> (Option<EnvelopeKeyRecord>, Moment) {
        let latest = record.as_ref().map(|record| record.meta().created());
        let up_to = self.rules.created_max(begun);
        // The row of another id is not looked for by this one's latest, nor is one that is too far ahead.
        self.lose(request, begun, |held, state| Some(held) > latest && held <= up_to && !state.is_folded());
        let mut remaining = (record, begun);
        if self.restores_lost {
            let id = request.keyring.id();
            let lost = self.lost.versions(id, latest, self.now());
            for created in lost.into_iter().filter(|created| *created <= up_to) {
                let begun = self.now();
                // What cannot be put back now is gone, as without this option, and stays in the list.
                if let Ok(Some(row)) = self.put_back_apart(KeyMeta::new(id.clone(), created)).await {
                    remaining = (Some(row), begun);
                }
            }
        }
        remaining
    }

    /// Returns what there is of a version that has no row.
    pub(super) async fn version_remaining(
        &self,
        request: &LoadRequest,
        meta: KeyMeta,
        begun: Moment,
    ) -> Result<Remains, Error> {
        let keyring = &request.keyring;
        self.lose_target(request, begun);
        if let Some(key) = keyring.version(meta.created()) {
            return Ok(Remains::Key(key));
        }
        if self.restores_lost {
            let inserted = self.now();
            match self.put_back_apart(meta.clone()).await {
                Ok(Some(row)) => return Ok(Remains::Row(row, inserted)),
                Err(error) if error.is_retryable() => return Err(error),
                Ok(None) | Err(_) => {}
            }
        }
        self.missing.note(meta.clone(), begun);
        if !keyring.flights().is_current(request.flight) {
            // Word came meanwhile that the rows changed; in this order, none of it is missed.
            self.missing.forget(&meta);
        }
        Err(Error::KeyNotFound(meta))
    }

    /// Compares a row that was read with what is known to be lost.
    pub(super) fn note_return(&self, record: &EnvelopeKeyRecord, begun: Moment) {
        if self.lost.compare(record, begun, self.now()) == Return::Changed {
            self.events.raise(Event::KeyChanged, record.meta().id());
        }
    }

    /// Puts the row of a lost key back as a task of its own; `false` if that is not to be.
    ///
    /// # Cancel safety
    /// The task goes on.
    pub(crate) async fn restore_lost(self: &Arc<Self>, key: &KeyMeta) -> Result<bool, Error> {
        let (sender, receiver) = oneshot::channel();
        let (this, key) = (Arc::clone(self), key.clone());
        self.tasks.spawn(move |stopped| async move {
            let work = tokio::time::timeout(this.operation_deadline, this.put_back(&key));
            let outcome = match stopped.run_until_cancelled(work).await {
                Some(Ok(row)) => row.map(|row| row.is_some()),
                Some(Err(_elapsed)) => Err(this.overran(key.id(), Some(Dependency::Metastore))),
                None => Err(Error::Closed),
            };
            // The caller may have gone away.
            drop(sender.send(outcome));
        })?;
        receiver.await.unwrap_or(Err(Error::Interrupted))
    }

    /// Notes that the records of this key were deleted for good.
    pub(crate) fn shredded(&self, id: &KeyId) {
        // First, so that a check which this causes finds it noted.
        self.note_shredded(id);
        self.invalidate(id);
    }

    /// Notes the same, without a check.
    pub(crate) fn note_shredded(&self, id: &KeyId) {
        self.lost.shred(id, self.now());
        self.forget_formers(id);
    }

    /// On the heap, since it is seldom done and every flight would take room for it.
    fn put_back_apart(&self, key: KeyMeta) -> BoxFuture<'_, Result<Option<EnvelopeKeyRecord>, Error>> {
        Box::pin(async move { self.put_back(&key).await })
    }

    /// Puts a lost row back as it was, its parent's before it; returns the row that is there then. `None`
    /// if it is not known to be lost, or another key has its place or its parent's.
    async fn put_back(&self, key: &KeyMeta) -> Result<Option<EnvelopeKeyRecord>, Error> {
        let now = self.now();
        let Some(row) = self.lost.row(key, now) else { return Ok(None) };
        if let Some(parent) = row.parent().and_then(|parent| self.lost.row(parent, now))
            && self.put_back_row(parent).await?.is_none()
        {
            return Ok(None);
        }
        self.put_back_row(row).await
    }

    async fn put_back_row(&self, row: EnvelopeKeyRecord) -> Result<Option<EnvelopeKeyRecord>, Error> {
        let (key, begun) = (row.meta().clone(), self.now());
        let is_wanted = || !self.lost.is_shredded(key.id(), self.now());
        let row = match self.store.insert_if(Class::Check, &row, is_wanted).await? {
            None => return Ok(None),
            Some(Insert::Inserted) => row,
            Some(Insert::AlreadyExists) => match self.store.load(Class::Check, &key).await? {
                // A node that has not heard of it yet.
                None => return Err(Error::CreationRace(key.id().clone())),
                // Not ours: it may have been revoked since it was put back.
                Some(there) if there.wrapped_key() == row.wrapped_key() => there,
                Some(_) => {
                    if self.lost.note_change(&key, self.now()) {
                        self.events.raise(Event::KeyChanged, key.id());
                    }
                    return Ok(None);
                }
            },
        };
        self.system.renew(&key, begun);
        self.intermediate.renew(&key, begun);
        self.missing.forget(&key);
        self.lost.forget(&key, self.now());
        Ok(Some(row))
    }
}
