//! What loads keys: all that T2, T3 and T4 need.

use std::sync::Arc;

use super::ahead::FarAhead;
use super::back_ends::BackEnds;
use super::caches::Caches;
use super::context::Context;
use super::dispatch::Dispatcher;
use super::lost_rows::LostRows;
use super::maker::KeyMaker;
use super::parts::Parts;
use super::request::{Level, LoadRequest};
use super::rules::Rules;
use crate::clock::Moment;
use crate::error::Error;
use crate::events::{Event, Events};
use crate::record::{EnvelopeKeyRecord, KeyMeta};

#[derive(Debug)]
pub(crate) struct Loader {
    pub(super) context: Arc<Context>,
    pub(super) back_ends: Arc<BackEnds>,
    pub(super) caches: Arc<Caches>,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) maker: KeyMaker,
    pub(super) lost_rows: LostRows,
    pub(super) ahead: Arc<FarAhead>,
}

impl Loader {
    pub(crate) fn new(parts: &Parts, dispatcher: Dispatcher, maker: KeyMaker, lost_rows: LostRows) -> Self {
        Self {
            context: Arc::clone(&parts.context),
            back_ends: Arc::clone(&parts.back_ends),
            caches: Arc::clone(&parts.caches),
            dispatcher: Arc::new(dispatcher),
            maker,
            lost_rows,
            ahead: Arc::new(FarAhead::new(parts)),
        }
    }

    pub(super) fn now(&self) -> Moment {
        self.context.now()
    }

    pub(super) fn rules(&self) -> &Rules {
        self.context.rules()
    }

    pub(super) fn events(&self) -> &Events {
        self.context.events()
    }

    /// Takes what a read brought; a row that cannot be read is an alarm, as somebody or something wrote it.
    pub(super) fn read<R>(
        &self,
        request: &LoadRequest,
        row: Result<Option<R>, Error>,
    ) -> Result<Option<R>, Error> {
        row.inspect_err(|error| {
            if error.is_damage() {
                self.events().raise_because(Event::Malformed, request.keyring.id(), error);
            } else if error.is_folded() {
                self.events().raise_because(Event::FoldedId, request.keyring.id(), error);
            }
        })
    }

    /// Returns the parent that the record names. A system key's record has none that counts.
    pub(super) fn parent_of<'a>(
        &self,
        request: &LoadRequest,
        record: &'a EnvelopeKeyRecord,
    ) -> Result<Option<&'a KeyMeta>, Error> {
        if request.level == Level::System {
            return Ok(None);
        }
        match record.parent() {
            Some(parent) if self.context.naming().is_parent_of(record.meta().id(), parent.id()) => {
                Ok(Some(parent))
            }
            Some(_) | None => {
                self.events().raise(Event::ForeignParent, request.keyring.id());
                Err(Error::ForeignParent { key: record.meta().clone() })
            }
        }
    }
}
