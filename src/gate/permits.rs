//! How many calls may be under way at once: by class, for those in trouble, and for one key.
//!
//! Nothing is refused here. A permit is held for one attempt.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::subject::{Class, Subject};
use crate::telemetry::gauges::Raised;
use crate::telemetry::way::{PermitClass, WayGauges};

#[derive(Debug)]
pub(super) struct Permits {
    loads: Semaphore,
    checks: Semaphore,
    /// Shared by all in trouble, so that they are in nobody else's way.
    troubled: Semaphore,
    /// How many these are, in the order of the fields.
    sizes: [usize; 3],
    checks_waiting: AtomicUsize,
    lanes: Arc<Lanes>,
    gauges: Arc<WayGauges>,
}

/// Leave to make one attempt, given back when dropped.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    kind: PermitClass,
    raised: Raised,
    // The lane last: a call that waits for it has a permit or queues for one.
    held: Option<SemaphorePermit<'a>>,
    _lane: Option<InLane>,
}

/// Bounds how many calls one key has under way, so that it takes no more permits than its share.
#[derive(Debug)]
pub(crate) struct Lanes {
    width: Width,
    lanes: Mutex<HashMap<Subject, Arc<Lane>>>,
}

/// What shares a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// All versions of a key.
    Key,
    /// One version.
    Version,
}

#[derive(Debug)]
struct Lane {
    /// Taken by a load before it queues for a permit, so that a check waits behind no queue of loads.
    turns: Arc<Semaphore>,
    calls: Arc<Semaphore>,
}

/// A call in its lane.
#[derive(Debug)]
struct InLane {
    turn: Option<OwnedSemaphorePermit>,
    call: Option<OwnedSemaphorePermit>,
    lane: Arc<Lane>,
    key: Subject,
    lanes: Arc<Lanes>,
}

/// How many calls a lane has room for.
const LANE_CALLS: usize = 2;

/// One in so many permits, at least one, is what all in trouble share.
const TROUBLE_SHARE: usize = 8;

impl Permits {
    pub(super) fn new(
        loads_max: usize,
        checks_max: usize,
        lanes: Arc<Lanes>,
        gauges: Arc<WayGauges>,
    ) -> Self {
        let sizes = [loads_max, checks_max, (loads_max / TROUBLE_SHARE).max(1)];
        let [loads, checks, troubled] = sizes.map(Semaphore::new);
        let [loads_max, checks_max, troubled_max] = sizes;
        gauges.show_limits([checks_max, loads_max, troubled_max]);
        Self { loads, checks, troubled, sizes, checks_waiting: AtomicUsize::new(0), lanes, gauges }
    }

    /// Waits for a permit. A call for many keys has no lane.
    pub(super) async fn acquire(&self, class: Class, subject: Option<&Subject>) -> Permit<'_> {
        let mut lane = subject.map(|subject| self.lanes.enter(subject));
        let kind = match class {
            Class::Check => PermitClass::Check,
            Class::Load => PermitClass::Load,
        };
        let _queued = self.gauges.queued(kind);
        match class {
            Class::Check => {
                if let Some(lane) = &mut lane {
                    lane.wait().await;
                }
                let held = self.acquire_check().await;
                self.permit(kind, held, lane)
            }
            Class::Load => {
                if let Some(lane) = &mut lane {
                    lane.wait_for_turn().await;
                }
                let held = self.loads.acquire().await.ok();
                if let Some(lane) = &mut lane {
                    lane.wait().await;
                }
                self.permit(kind, held, lane)
            }
        }
    }

    /// Takes a permit for a subject in trouble, if there is one.
    pub(super) fn try_acquire_in_trouble(&self, subject: Option<&Subject>) -> Option<Permit<'_>> {
        let held = self.troubled.try_acquire().ok()?;
        let mut lane = subject.map(|subject| self.lanes.enter(subject));
        let has_room = lane.as_mut().is_none_or(InLane::try_go);
        has_room.then(|| self.permit(PermitClass::Troubled, Some(held), lane))
    }

    /// Lets a call go on among those in trouble; `false` if they have no room.
    pub(super) fn move_aside<'a>(&'a self, permit: &mut Permit<'a>) -> bool {
        let Ok(held) = self.troubled.try_acquire() else { return false };
        permit.kind = PermitClass::Troubled;
        permit.held = Some(held);
        permit.raised = self.gauges.permit(PermitClass::Troubled);
        true
    }

    fn permit<'a>(
        &'a self,
        kind: PermitClass,
        held: Option<SemaphorePermit<'a>>,
        lane: Option<InLane>,
    ) -> Permit<'a> {
        Permit { kind, raised: self.gauges.permit(kind), held, _lane: lane }
    }

    pub(super) fn has_room_for_check(&self) -> bool {
        self.checks.available_permits() > 0
    }

    pub(super) fn are_any_out(&self) -> bool {
        [&self.loads, &self.checks, &self.troubled].map(Semaphore::available_permits) != self.sizes
    }

    pub(super) fn are_checks_waiting(&self) -> bool {
        self.checks_waiting.load(Ordering::Relaxed) > 0
    }

    async fn acquire_check(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(held) = self.checks.try_acquire() {
            return Some(held);
        }
        let _waiting = Counted::new(&self.checks_waiting);
        // No semaphore here is ever closed.
        self.checks.acquire().await.ok()
    }
}

impl Permit<'_> {
    pub(super) fn is_of_check(&self) -> bool {
        self.kind == PermitClass::Check
    }

    pub(super) fn is_of_trouble(&self) -> bool {
        self.kind == PermitClass::Troubled
    }
}

impl Lanes {
    pub(crate) fn new(width: Width) -> Arc<Self> {
        Arc::new(Self { width, lanes: Mutex::default() })
    }

    fn enter(self: &Arc<Self>, subject: &Subject) -> InLane {
        let key = match self.width {
            Width::Key => Subject::latest(&subject.id),
            Width::Version => subject.clone(),
        };
        let lane = Arc::clone(self.lock().entry(key.clone()).or_default());
        InLane { turn: None, call: None, lane, key, lanes: Arc::clone(self) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Subject, Arc<Lane>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Lane {
    fn default() -> Self {
        let semaphore = || Arc::new(Semaphore::new(LANE_CALLS));
        Self { turns: semaphore(), calls: semaphore() }
    }
}

impl InLane {
    async fn wait_for_turn(&mut self) {
        self.turn = Arc::clone(&self.lane.turns).acquire_owned().await.ok();
    }

    async fn wait(&mut self) {
        self.call = Arc::clone(&self.lane.calls).acquire_owned().await.ok();
    }

    fn try_go(&mut self) -> bool {
        self.call = Arc::clone(&self.lane.calls).try_acquire_owned().ok();
        self.call.is_some()
    }
}

impl Drop for InLane {
    fn drop(&mut self) {
        drop((self.call.take(), self.turn.take()));
        let mut lanes = self.lanes.lock();
        // The map's and this one.
        if Arc::strong_count(&self.lane) == 2 {
            lanes.remove(&self.key);
        }
    }
}

/// One more, as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
