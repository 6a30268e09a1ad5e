//! Keys that were created in the future: those that lie further ahead than clocks differ stand in nobody's
//! way (T4). They decrypt what names them, and are told of.

use std::sync::{Arc, Mutex, PoisonError};

use super::Hierarchy;
use crate::aging::Aging;
use crate::clock::Moment;
use crate::events::Event;
use crate::gate::Class;
use crate::record::{Created, KeyId, KeyMeta};

/// The versions that were told of.
#[derive(Debug)]
pub(crate) struct Ahead(Mutex<Aging<KeyMeta, ()>>);

/// How many are remembered; those told of first are forgotten first.
const TOLD_MAX: usize = 1_000;

impl Default for Ahead {
    fn default() -> Self {
        Self(Mutex::new(Aging::new(TOLD_MAX)))
    }
}

impl Ahead {
    /// `true` the first time.
    fn note(&self, key: &KeyMeta, now: Moment) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = told.get(key).is_none();
        if is_news {
            told.insert(key.clone(), (), now.monotonic);
        }
        is_news
    }
}

impl Hierarchy {
    /// Tells of a version that lies too far ahead to encrypt, once.
    pub(super) fn note_far_ahead(&self, key: &KeyMeta, now: Moment) {
        if self.rules.is_far_ahead(key.created(), now) && self.ahead.note(key, now) {
            self.events.tell(
                Event::ClockSkew,
                key.id(),
                &format_args!(
                    "a row created at {} never encrypts, as that is over a day ahead",
                    key.created()
                ),
            );
        }
    }

    /// Looks, in the background, whether rows of this key lie too far ahead: somebody may have meant to keep
    /// it from being replaced.
    pub(super) fn look_far_ahead(self: &Arc<Self>, id: &KeyId) {
        let Some(permit) = self.tasks.background_permit() else { return };
        let (this, id) = (Arc::clone(self), id.clone());
        // Without a runtime they are told of by the next look.
        let _spawned = self.tasks.spawn(|stopped| async move {
            let _held = permit;
            let ids = [id];
            let look = this.store.load_latest_many(Class::Load, &ids, Created::MAX);
            // A failure is no news: nobody waits for this.
            let Some(Ok(found)) = stopped.run_until_cancelled(look).await else { return };
            for latest in found.into_iter().flatten() {
                this.note_far_ahead(latest.record.meta(), this.now());
            }
        });
    }
}
