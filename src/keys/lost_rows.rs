//! Rows that a check found gone: the keys are dropped and told of, and the rows put back if that is
//! wanted.

use std::sync::Arc;

use super::back_ends::BackEnds;
use super::caches::Caches;
use super::context::Context;
use super::lost::{Lost, Return};
use super::parts::Parts;
use super::request::LoadRequest;
use crate::BoxFuture;
use crate::clock::Moment;
use crate::error::Error;
use crate::events::Event;
use crate::gate::Class;
use crate::key::CryptoKey;
use crate::key::state::KeyState;
use crate::keyring::flight::Target;
use crate::metastore::Insert;
use crate::record::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};
use crate::status::LostRow;

/// What there is of a version whose row was not found.
pub(super) enum Remains {
    /// It was created while the answer was on its way.
    Key(Arc<CryptoKey>),
    /// Its row was put back, by an insert that began then.
    Row(EnvelopeKeyRecord, Moment),
}

/// What checks found gone, and what is done about it.
#[derive(Debug)]
pub(crate) struct LostRows {
    context: Arc<Context>,
    back_ends: Arc<BackEnds>,
    caches: Arc<Caches>,
    lost: Lost,
    /// Rows that are found gone are put back at once.
    is_restored_at_once: bool,
}

impl LostRows {
    pub(crate) fn new(parts: &Parts, lost: Lost, is_restored_at_once: bool) -> Self {
        Self {
            context: Arc::clone(&parts.context),
            back_ends: Arc::clone(&parts.back_ends),
            caches: Arc::clone(&parts.caches),
            lost,
            is_restored_at_once,
        }
    }

    fn now(&self) -> Moment {
        self.context.now()
    }

    /// Drops the versions that a read which began at `begun` found to have no row, and tells of each.
    fn drop_missing(
        &self,
        request: &LoadRequest,
        begun: Moment,
        is_missing: impl Fn(Created, &KeyState) -> bool,
    ) {
        let now = self.now();
        request.keyring.mark_rows_missing(begun, now, request.generation, &is_missing);
        let is_gone =
            |key: &CryptoKey| key.state().is_row_missing() && is_missing(key.created(), key.state());
        for (row, state) in self.caches.of(request.level).remove(&request.keyring, is_gone) {
            let key = row.meta().clone();
            // One that had another id is not kept: under this one there is nothing to be put back.
            if state.is_folded() || self.lost.note(row, now) {
                self.context.events().row_lost(&key);
            }
        }
    }

    /// Drops the version that was to be loaded, as [`drop_missing`](Self::drop_missing) does.
    pub(super) fn drop_target(&self, request: &LoadRequest, begun: Moment) {
        self.drop_missing(request, begun, |created, _| request.target == Target::Version(created));
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
        let up_to = self.context.rules().created_max(begun);
        // The row of another id is not looked for by this one's latest, nor is one that is too far ahead.
        self.drop_missing(request, begun, |held, state| {
            Some(held) > latest && held <= up_to && !state.is_folded()
        });
        let mut remaining = (record, begun);
        if self.is_restored_at_once {
            let id = request.keyring.id();
            let lost = self.lost.versions(id, latest, self.now());
            for created in lost.into_iter().filter(|created| *created <= up_to) {
                let begun = self.now();
                // What cannot be put back now is gone, as without this option, and stays in the list.
                if let Ok(Some(row)) = self.put_back_on_cold_path(KeyMeta::new(id.clone(), created)).await {
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
        self.drop_target(request, begun);
        if let Some(key) = keyring.version(meta.created()) {
            return Ok(Remains::Key(key));
        }
        if self.is_restored_at_once {
            let inserted = self.now();
            match self.put_back_on_cold_path(meta.clone()).await {
                Ok(Some(row)) => return Ok(Remains::Row(row, inserted)),
                Err(error) if error.is_retryable() => return Err(error),
                Ok(None) | Err(_) => {}
            }
        }
        self.caches.missing().note(meta.clone(), begun);
        if !keyring.flights().is_current(request.generation) {
            // Word came meanwhile that the rows changed; in this order, none of it is missed.
            self.caches.missing().forget(&meta);
        }
        Err(Error::KeyNotFound(meta))
    }

    /// Compares a row that was read with what is known to be lost.
    pub(super) fn note_return(&self, record: &EnvelopeKeyRecord, begun: Moment) {
        if self.lost.compare(record, begun, self.now()) == Return::Changed {
            self.context.events().raise(Event::KeyChanged, record.meta().id());
        }
    }

    /// Notes that the records of this key were deleted for good.
    pub(super) fn note_shredded(&self, id: &KeyId) {
        self.lost.shred(id, self.now());
        self.caches.drop_formers(id);
    }

    /// Returns the greatest version of a key that was lost, at most `up_to`.
    pub(super) fn greatest(&self, id: &KeyId, up_to: Created) -> Option<Created> {
        self.lost.greatest(id, up_to, self.now())
    }

    /// Lists the rows that are gone, the oldest loss first.
    pub(super) fn list(&self) -> Vec<LostRow> {
        self.lost.list(self.now())
    }

    /// On the heap, since it is seldom done and every load would take room for it.
    fn put_back_on_cold_path(&self, key: KeyMeta) -> BoxFuture<'_, Result<Option<EnvelopeKeyRecord>, Error>> {
        Box::pin(async move { self.put_back(&key).await })
    }

    /// Puts a lost row back as it was, its parent's before it; returns the row that is there then. `None`
    /// if it is not known to be lost, or another key has its place or its parent's.
    pub(super) async fn put_back(&self, key: &KeyMeta) -> Result<Option<EnvelopeKeyRecord>, Error> {
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
        let row = match self.back_ends.store().insert_if(Class::Check, &row, is_wanted).await? {
            None => return Ok(None),
            Some(Insert::Inserted) => row,
            Some(Insert::AlreadyExists) => match self.back_ends.store().load(Class::Check, &key).await? {
                // A node that has not heard of it yet.
                None => return Err(Error::CreationRace(key.id().clone())),
                // Not ours: it may have been revoked since it was put back.
                Some(there) if there.wrapped_key() == row.wrapped_key() => there,
                Some(_) => {
                    if self.lost.note_change(&key, self.now()) {
                        self.context.events().raise(Event::KeyChanged, key.id());
                    }
                    return Ok(None);
                }
            },
        };
        self.caches.renew(&key, begun);
        self.lost.forget(&key, self.now());
        Ok(Some(row))
    }
}
