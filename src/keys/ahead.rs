//! Keys that were created in the future: those that lie further ahead than clocks differ stand in nobody's
//! way (T4). They decrypt what names them, and each raises an event once.

use std::sync::{Arc, Mutex, PoisonError};

use super::back_ends::BackEnds;
use super::context::Context;
use super::parts::Parts;
use crate::aging::Aging;
use crate::clock::Moment;
use crate::events::Event;
use crate::gate::Class;
use crate::metastore::Latest;
use crate::record::{Created, KeyId, KeyMeta};
use crate::tasks::Tasks;

#[derive(Debug)]
pub(crate) struct FarAhead {
    context: Arc<Context>,
    back_ends: Arc<BackEnds>,
    /// The versions whose event was raised.
    noted: Mutex<Aging<KeyMeta, ()>>,
}

/// How many are remembered; the oldest go first.
const NOTED_MAX: usize = 1_000;

impl FarAhead {
    pub(super) fn new(parts: &Parts) -> Self {
        let (context, back_ends) = (Arc::clone(&parts.context), Arc::clone(&parts.back_ends));
        Self { context, back_ends, noted: Mutex::new(Aging::new(NOTED_MAX)) }
    }

    /// Raises the event that a version lies too far ahead to encrypt, once.
    pub(super) fn note(&self, key: &KeyMeta, now: Moment) {
        if self.context.rules().is_far_ahead(key.created(), now) && self.is_news(key, now) {
            let created = key.created();
            let message =
                format_args!("a row created at {created} never encrypts, as that is over a day ahead");
            self.context.events().tell(Event::ClockSkew, key.id(), &message);
        }
    }

    fn is_news(&self, key: &KeyMeta, now: Moment) -> bool {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = noted.get(key).is_none();
        if is_news {
            noted.insert(key.clone(), (), now.monotonic);
        }
        is_news
    }

    /// Looks, in the background, whether rows of this key lie too far ahead: somebody may have meant to keep
    /// it from being replaced. What is found is told to `learn`, too.
    pub(super) fn look(
        self: &Arc<Self>,
        id: &KeyId,
        tasks: &Tasks,
        learn: impl Fn(&Latest) + Send + 'static,
    ) {
        let Some(permit) = tasks.background_permit() else { return };
        let (this, id) = (Arc::clone(self), id.clone());
        // Without a runtime the next look finds them.
        let _spawned = tasks.spawn(|stopped| async move {
            let _held = permit;
            let ids = [id];
            let look = this.back_ends.store().load_latest_many(Class::Load, &ids, Created::MAX);
            // A failure is no news: nobody waits for this.
            let Some(Ok(found)) = stopped.run_until_cancelled(look).await else { return };
            for latest in found.into_iter().flatten() {
                this.note(latest.record.meta(), this.context.now());
                learn(&latest);
            }
        });
    }
}
