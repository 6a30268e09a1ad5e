//! The tasks that listen to invalidation sources, one each. They hold no factory alive, and begin
//! with the first use of one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::pace::Pace;
use super::{BoxedSource, Invalidation};
use crate::context::CallContext;
use crate::error::BackendError;
use crate::events::Event;
use crate::gate::jittered;
use crate::keys::context::Context;
use crate::record::KeyId;
use crate::tasks::Tasks;
use crate::telemetry::Telemetry;
use crate::telemetry::gauges::Flag;

/// What invalidations are applied to.
pub(crate) trait Invalidate: Send + Sync + 'static {
    /// Notes that the rows of this key may have changed.
    fn invalidate(&self, id: &KeyId);

    /// Notes that any row may have changed. Loads, which may run on the same thread, have their turn.
    fn invalidate_everything(&self) -> impl Future<Output = ()> + Send;

    /// Notes that the records of this key were deleted for good, without a check.
    fn note_shredded(&self, id: &KeyId);
}

/// A factory's sources and the tasks that listen to them.
#[derive(Debug)]
pub(crate) struct Listeners {
    slots: Vec<Arc<Slot>>,
    /// How long a source may take to connect, and to show that it is alive.
    deadline: Duration,
    /// How many sources no task listens to.
    idle: Arc<AtomicUsize>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// One source: in its slot as long as no task listens to it.
#[derive(Debug)]
struct Slot {
    source: Mutex<Option<BoxedSource>>,
    /// Its last answer was a good one.
    connected: Flag,
    /// It failed, and has not answered well since.
    is_lost: AtomicBool,
}

/// A source in a task's hands. It goes back when the task goes away with its runtime.
struct Held {
    source: Option<BoxedSource>,
    slot: Arc<Slot>,
    deadline: Duration,
    idle: Arc<AtomicUsize>,
    stop: CancellationToken,
    context: Arc<Context>,
}

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

impl Listeners {
    pub(crate) fn new(sources: Vec<BoxedSource>, deadline: Duration, telemetry: &Telemetry) -> Self {
        let gauge = telemetry.sources(sources.len());
        let slot = |source| {
            let connected = Flag::new(gauge.clone());
            Arc::new(Slot { source: Mutex::new(Some(source)), connected, is_lost: AtomicBool::default() })
        };
        let slots: Vec<_> = sources.into_iter().map(slot).collect();
        Self {
            idle: Arc::new(AtomicUsize::new(slots.len())),
            slots,
            deadline,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Sees to it that each source is listened to, also if the runtime that a task ran on went away.
    pub(crate) fn ensure<T: Invalidate>(&self, target: &Arc<T>, context: &Arc<Context>, tasks: &Tasks) {
        if self.idle.load(Ordering::Relaxed) == 0 || self.stop.is_cancelled() {
            return;
        }
        for slot in &self.slots {
            let Some(source) = slot.source().take() else { continue };
            self.idle.fetch_sub(1, Ordering::Relaxed);
            let held = Held {
                source: Some(source),
                slot: Arc::clone(slot),
                deadline: self.deadline,
                idle: Arc::clone(&self.idle),
                stop: self.stop.clone(),
                context: Arc::clone(context),
            };
            // Where no task can be started the source goes back, and the next load tries again.
            let _started = tasks.spawn_in(&self.tasks, held.listen(Arc::downgrade(target)));
        }
    }

    /// Ends the tasks where they wait, and lets go of the sources.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
        for slot in &self.slots {
            drop(slot.source().take());
        }
    }

    /// Waits until the tasks have ended.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Returns how many tasks listen.
    pub(crate) fn listening(&self) -> usize {
        self.tasks.len()
    }

    /// Tells of each source whether its last answer was a good one.
    pub(crate) fn connected(&self) -> Vec<bool> {
        self.slots.iter().map(|slot| slot.connected.is_set()).collect()
    }

    /// Counts the sources that failed and have not answered well since.
    pub(crate) fn lost(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_lost.load(Ordering::Acquire)).count()
    }
}

impl Slot {
    fn source(&self) -> MutexGuard<'_, Option<BoxedSource>> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    async fn listen<T: Invalidate>(mut self, target: Weak<T>) {
        let stop = self.stop.clone();
        let (mut outage, mut pace) = (Outage::default(), Pace::default());
        // The source is left alone until then.
        let mut ask_at = None;
        loop {
            let attempt = outage.faults_in_a_row().saturating_add(1);
            let mut answer = pin!(answer(&mut self.source, ask_at, self.deadline, attempt));
            let answer = loop {
                match stop.run_until_cancelled(by(pace.due(), answer.as_mut())).await {
                    None => return,
                    Some(Some(answer)) => break answer,
                    // What was put off is due.
                    Some(None) => {
                        let Some(target) = target.upgrade() else { return };
                        apply(&*target, Invalidation::Everything, &mut pace).await;
                        self.slot.connected.set(ask_at.is_none());
                    }
                }
            };
            let Some(target) = target.upgrade() else { return };
            match answer {
                Ok(message) => {
                    ask_at = None;
                    self.context.telemetry().count_invalidation(message.name());
                    self.slot.is_lost.store(false, Ordering::Release);
                    if outage.ends() {
                        note_recovery(&self.context);
                    }
                    apply(&*target, message, &mut pace).await;
                    // After the messages: a caller that sees it connected may rely on those that came first.
                    if pace.due().is_none() {
                        self.slot.connected.set(true);
                    }
                }
                Err(fault) => {
                    self.slot.connected.set(false);
                    self.slot.is_lost.store(true, Ordering::Release);
                    note_fault(&self.context, &fault, outage.begins());
                    ask_at = Some(Instant::now() + outage.pause(self.context.random()));
                }
            }
            drop(target);
            // Others have their turn, however many messages there are.
            tokio::task::yield_now().await;
        }
    }
}

/// What was invalidated meanwhile is learned by the regular checks, as the event said.
fn note_recovery(context: &Context) {
    let key = context.naming().system_key_id();
    tracing::info!(%key, "an invalidation source is listened to again");
}

fn note_fault(context: &Context, fault: &Fault, is_first: bool) {
    let (events, key) = (context.events(), context.naming().system_key_id());
    if matches!(fault, Fault::Panic) {
        events.raise(Event::ListenerPanicked, &key);
    }
    if is_first {
        events.raise_because(Event::InvalidationsLost, &key, fault);
    }
}

/// Applies a message, now or, where there are too many, when that is due.
async fn apply(target: &impl Invalidate, message: Invalidation, pace: &mut Pace) {
    let now = Instant::now();
    let of_key = match message {
        Invalidation::Key(id) => Some(id),
        Invalidation::Shredded(id) => {
            // However many messages there are: rows that were not noted would count as lost, and be put back.
            target.note_shredded(&id);
            Some(id)
        }
        Invalidation::Everything => None,
    };
    match of_key.filter(|_| pace.takes_key(now)) {
        Some(id) => target.invalidate(&id),
        None if pace.takes_everything(now) => target.invalidate_everything().await,
        None => {}
    }
}

/// Waits for what a source answers that is not to be asked before a time.
async fn answer(
    source: &mut Option<BoxedSource>,
    ask_at: Option<Instant>,
    deadline: Duration,
    attempt: u32,
) -> Result<Invalidation, Fault> {
    if let Some(ask_at) = ask_at {
        tokio::time::sleep_until(ask_at).await;
    }
    match source {
        Some(source) => {
            let context = CallContext::within(deadline).attempt(attempt);
            caught(source.next(&context))
                .await
                .map_or(Err(Fault::Panic), |message| message.map_err(Fault::Lost))
        }
        None => std::future::pending().await,
    }
}

/// Waits for an answer; `None` if something else is due before it comes.
async fn by<T>(due: Option<Instant>, answer: impl Future<Output = T>) -> Option<T> {
    match due {
        Some(due) => tokio::time::timeout_at(due, answer).await.ok(),
        None => Some(answer.await),
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.slot.connected.set(false);
        *self.slot.source() = self.source.take();
        self.idle.fetch_add(1, Ordering::Relaxed);
        if self.stop.is_cancelled() {
            drop(self.slot.source().take());
        }
    }
}

/// Why a source brought no message.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("the source failed")]
    Lost(#[source] BackendError),
    #[error("the source panicked")]
    Panic,
}

/// The faults of a source in a row.
#[derive(Debug, Default)]
struct Outage {
    faults: u32,
    /// When the source answered well again.
    over: Option<Instant>,
}

impl Outage {
    /// Notes a fault; `true` if it is the first one since a good answer.
    fn begins(&mut self) -> bool {
        // A connection that never stands for long is not asked for ten times a second.
        if self.over.is_some_and(|over| over.elapsed() >= BACKOFF_MAX) {
            self.faults = 0;
        }
        let is_first = self.faults == 0 || self.over.is_some();
        self.over = None;
        self.faults = self.faults.saturating_add(1);
        is_first
    }

    /// Notes a good answer; `true` if it is the first one since a fault.
    fn ends(&mut self) -> bool {
        let is_first = self.faults > 0 && self.over.is_none();
        if is_first {
            self.over = Some(Instant::now());
        }
        is_first
    }

    /// Returns how many faults there were since the last good answer.
    const fn faults_in_a_row(&self) -> u32 {
        if self.over.is_some() { 0 } else { self.faults }
    }

    /// Returns how long to wait before the next call.
    fn pause(&self, random: &dyn crate::random::SecureRandom) -> Duration {
        let doublings = self.faults.saturating_sub(1).min(16);
        jittered(BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MAX), random).max(BACKOFF_FIRST)
    }
}

#[derive(Debug)]
struct Panicked;

/// Runs `future`; a panic in it ends it, not its task.
async fn caught<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        // Whatever the panic left in a source, the next call of it begins anew.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_payload) => Poll::Ready(Err(Panicked)),
        }
    })
    .await
}
