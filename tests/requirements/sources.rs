//! Invalidation sources: what they tell counts at once, and nothing depends on them. S2.1, S2.3 and
//! S2.6 for the tasks that listen to them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use claviger::testing::{Operation, call};
use claviger::{
    BackendError, CallContext, DataRowRecord, Event, Invalidation, InvalidationSource, KeyId, MetastoreAdmin,
    SessionFactory,
};
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::world::{DAY, HOUR, SECOND, World, wait_until};

const MINUTE: Duration = Duration::from_secs(60);
const IK: &str = "_IK_partition_service_product";
const SK: &str = "_SK_service_product";

/// What a source does next.
enum Step {
    Tell(Invalidation),
    Fail,
    Panic,
    /// Does not give its thread back until this channel is closed.
    Block(std::sync::mpsc::Receiver<()>),
}

/// A source that does as it is told, and waits when it is told nothing.
struct Script {
    steps: UnboundedReceiver<Step>,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    calls: AtomicUsize,
    dropped: AtomicUsize,
    /// Of this factory, how many keys were cached when the source was dropped.
    factory: OnceLock<SessionFactory>,
    keys_when_dropped: Mutex<Option<usize>>,
}

impl Log {
    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    fn dropped(&self) -> usize {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// All that is logged, line by line.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Said {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            line.push_str(&format!(" {field}={value:?}"));
        });
        self.0.lock().unwrap().push(line);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

fn script() -> (Script, UnboundedSender<Step>, Arc<Log>) {
    let (sender, steps) = unbounded_channel();
    let log = Arc::new(Log::default());
    (Script { steps, log: Arc::clone(&log) }, sender, log)
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Script")
    }
}

impl InvalidationSource for Script {
    async fn next(&mut self, _context: &CallContext) -> Result<Invalidation, BackendError> {
        self.log.calls.fetch_add(1, Ordering::Relaxed);
        match self.steps.recv().await {
            Some(Step::Tell(told)) => Ok(told),
            Some(Step::Fail) => Err(BackendError::transient("the connection is lost")),
            Some(Step::Panic) => panic!("told to"),
            Some(Step::Block(until)) => {
                until.recv().unwrap_err();
                std::future::pending().await
            }
            None => std::future::pending().await,
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.log.dropped.fetch_add(1, Ordering::Relaxed);
        if let Some(factory) = self.log.factory.get() {
            *self.log.keys_when_dropped.lock().unwrap() = Some(factory.status().unwrap().intermediate_keys);
        }
    }
}

/// Waits until this holds. Time passes on its own where it is paused.
async fn until(holds: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it does not come to hold");
}

fn key(id: &str) -> Step {
    Step::Tell(Invalidation::Key(KeyId::new(id)))
}

async fn seal(factory: &SessionFactory) -> DataRowRecord {
    factory.session("partition").unwrap().encrypt(b"").await.unwrap()
}

fn raised(factory: &SessionFactory, event: Event) -> u64 {
    factory
        .status()
        .unwrap()
        .events
        .iter()
        .find(|(raised, _)| *raised == event)
        .map_or(0, |(_, count)| *count)
}

#[tokio::test(start_paused = true)]
async fn sources_make_a_shredding_known_so_that_nothing_of_it_is_restored() {
    for is_told in [true, false] {
        let world = World::new();
        let (source, steps, log) = script();
        let factory = world.builder().invalidations(source).restore_lost(true).build().unwrap();
        let record = seal(&factory).await;
        steps
            .send(if is_told { Step::Tell(Invalidation::Shredded(KeyId::new(IK))) } else { key(IK) })
            .unwrap_or_default();
        until(|| log.calls() == 2).await;
        world.store.inner().delete(&KeyId::new(IK), &call()).await.unwrap();
        let decrypted = factory.session("partition").unwrap().decrypt(&record).await;
        assert_eq!(decrypted.is_err(), is_told);
        assert_eq!(raised(&factory, Event::RowLost), u64::from(!is_told));
        assert_eq!(world.store.inner().count(&call()).await.unwrap(), if is_told { 1 } else { 2 });
    }
}

#[tokio::test(start_paused = true)]
async fn sources_make_a_revocation_known_at_once() {
    for (id, told) in [(IK, key(IK)), (SK, key(SK)), (IK, Step::Tell(Invalidation::Everything))] {
        let world = World::new();
        let (source, steps, log) = script();
        let factory = world.builder().invalidations(source).build().unwrap();
        let first = seal(&factory).await;
        let row = world.store.inner().list("", None, 9, &call()).await.unwrap().records;
        let row = row.iter().find(|row| row.meta().id().as_str() == id).unwrap();
        assert!(world.store.inner().revoke(row.meta(), &call()).await.unwrap());
        assert_eq!(seal(&factory).await.parent(), first.parent(), "nobody told");
        steps.send(told).unwrap_or_default();
        until(|| log.calls() == 2).await;
        assert_ne!(seal(&factory).await.parent(), first.parent(), "{id}");
        assert_eq!(factory.status().unwrap().sources_connected, [true]);
    }
}

#[tokio::test(start_paused = true)]
async fn s2_6_sources_are_not_asked_before_the_first_load() {
    let world = World::new();
    let ((first, _steps, first_log), (second, _more_steps, second_log)) = (script(), script());
    let factory = world.builder().invalidations(first).invalidations(second).build().unwrap();
    assert_eq!(factory.status().unwrap().sources_connected, [false, false]);
    tokio::task::yield_now().await;
    let session = factory.session("partition").unwrap();
    assert_eq!((first_log.calls(), second_log.calls()), (0, 0));
    session.encrypt(b"").await.unwrap();
    until(|| first_log.calls() == 1 && second_log.calls() == 1).await;
    for partition in ["another", "one more"] {
        factory.session(partition).unwrap().encrypt(b"").await.unwrap();
    }
    // The sweep is the third, and what reports to the recorder the fourth.
    until(|| Handle::current().metrics().num_alive_tasks() == 4).await;
}

#[test]
fn sources_are_listened_to_whatever_runtimes_come_and_go() {
    let world = World::new();
    let (source, steps, log) = script();
    let runtime = || Builder::new_current_thread().enable_time().build().unwrap();
    let given = runtime();
    let factory = world.builder().invalidations(source).runtime(given.handle().clone()).build().unwrap();
    let session = factory.session("partition").unwrap();
    given.block_on(async {
        session.encrypt(b"").await.unwrap();
        until(|| log.calls() == 1).await;
        steps.send(Step::Tell(Invalidation::Everything)).unwrap_or_default();
        until(|| log.calls() == 2).await;
        assert_eq!(factory.status().unwrap().sources_connected, [true]);
    });
    drop(given);
    assert_eq!((log.dropped(), factory.status().unwrap().sources_connected), (0, vec![false]));
    for round in 0..3 {
        // A key load by a session that was made long ago begins it again, on the factory's own thread.
        world.clock.advance(DAY);
        runtime().block_on(session.encrypt(b"")).unwrap();
        wait_until(|| log.calls() == 3 + round);
        steps.send(Step::Tell(Invalidation::Everything)).unwrap_or_default();
        wait_until(|| log.calls() == 4 + round);
        assert_eq!(factory.status().unwrap().sources_connected, [true]);
    }
}

#[tokio::test(start_paused = true)]
async fn sources_that_fail_are_told_of_once_and_called_again_more_and_more_seldom() {
    let world = World::new();
    let (source, steps, log) = script();
    let factory = world.builder().invalidations(source).build().unwrap();
    let first = seal(&factory).await;
    for _ in 0..100_000 {
        steps.send(Step::Fail).unwrap_or_default();
    }
    tokio::time::sleep(HOUR).await;
    let calls = log.calls();
    // At most 30 s apart, and 15 s in the mean.
    assert!((HOUR.as_secs() as usize / 30..HOUR.as_secs() as usize / 10).contains(&calls), "{calls}");
    assert_eq!(raised(&factory, Event::InvalidationsLost), 1, "once for the outage");
    assert_eq!(factory.status().unwrap().sources_connected, [false]);

    // Polling goes on as ever.
    let row = world.store.inner().list("", None, 1, &call()).await.unwrap().records.remove(0);
    assert!(world.store.inner().revoke(row.meta(), &call()).await.unwrap());
    world.clock.advance(HOUR);
    assert_ne!(seal(&factory).await.parent(), first.parent());
}

#[tokio::test(start_paused = true)]
async fn why_a_source_is_lost_is_logged_and_once_that_it_is_back() {
    let said = Said::default();
    let _scope = tracing::subscriber::set_default(said.clone());
    let world = World::new();
    let (source, steps, _log) = script();
    let factory = world.builder().invalidations(source).build().unwrap();
    seal(&factory).await;
    for _outage in 0..2 {
        steps.send(Step::Fail).unwrap_or_default();
        steps.send(Step::Fail).unwrap_or_default();
        steps.send(Step::Tell(Invalidation::Everything)).unwrap_or_default();
        steps.send(Step::Tell(Invalidation::Everything)).unwrap_or_default();
        tokio::time::sleep(MINUTE).await;
    }
    let lines = said.0.lock().unwrap().clone();
    let lost: Vec<_> = lines.iter().filter(|line| line.contains("invalidations_lost")).collect();
    assert_eq!(lost.len(), 2, "{lines:?}");
    assert!(
        lost.iter()
            .all(|line| line.contains("the source failed: back end is unavailable: the connection is lost")),
        "{lost:?}"
    );
    let back = lines.iter().filter(|line| line.contains("listened to again"));
    assert_eq!(back.count(), 2, "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn sources_that_come_back_are_connected_and_heeded() {
    let world = World::new();
    let (source, steps, log) = script();
    let factory = world.builder().invalidations(source).build().unwrap();
    seal(&factory).await;
    for outage in 1..=3 {
        steps.send(Step::Fail).unwrap_or_default();
        steps.send(Step::Fail).unwrap_or_default();
        until(|| raised(&factory, Event::InvalidationsLost) == outage).await;
        assert_eq!(factory.status().unwrap().sources_connected, [false]);
        steps.send(Step::Tell(Invalidation::Everything)).unwrap_or_default();
        until(|| factory.status().unwrap().sources_connected == [true]).await;
        let before = world.store.faults().calls_of(Operation::LoadLatest);
        seal(&factory).await;
        assert_eq!(world.store.faults().calls_of(Operation::LoadLatest) - before, 1, "messages were missed");
        assert_eq!(raised(&factory, Event::InvalidationsLost), outage);
    }
    assert_eq!(log.calls(), 10);
}

/// Whatever is told a thousand times a second, the store is asked once a second and for the first 256 keys.
#[tokio::test(start_paused = true)]
async fn sources_that_tell_without_an_end_cost_a_check_a_second() {
    const SECONDS: usize = 20;
    enum Flood {
        Everything,
        OneKey,
        OtherKeys,
    }
    for (flood, keys_max) in [(Flood::Everything, 0), (Flood::OneKey, 256), (Flood::OtherKeys, 0)] {
        let told = |number| match flood {
            Flood::Everything => Step::Tell(Invalidation::Everything),
            Flood::OneKey => key(IK),
            Flood::OtherKeys => key(&format!("_IK_{number}_service_product")),
        };
        let world = World::new();
        let (source, steps, log) = script();
        let factory = world.builder().invalidations(source).build().unwrap();
        seal(&factory).await;
        let before = world.store.faults().calls_of(Operation::LoadLatest);
        for number in 0..SECONDS * 1_000 {
            steps.send(told(number)).unwrap_or_default();
            tokio::time::sleep(Duration::from_millis(1)).await;
            seal(&factory).await;
        }
        until(|| log.calls() == SECONDS * 1_000 + 1).await;
        let asked = world.store.faults().calls_of(Operation::LoadLatest) - before;
        let bound = (SECONDS - 1)..=(SECONDS + 1) * (keys_max + 1);
        assert!(bound.contains(&asked), "{asked}, at most {keys_max} keys");
    }
}

#[tokio::test(start_paused = true)]
async fn sources_are_heeded_at_last_whatever_else_they_tell() {
    let flood = |number: usize| key(&format!("_IK_{number}_service_product"));
    let last = [Step::Tell(Invalidation::Everything), key(IK)];
    for last in last {
        let world = World::new();
        let (source, steps, log) = script();
        let factory = world.builder().invalidations(source).build().unwrap();
        let first = seal(&factory).await;
        steps.send(Step::Tell(Invalidation::Everything)).unwrap_or_default();
        (0..300).for_each(|number| steps.send(flood(number)).unwrap_or_default());
        until(|| log.calls() == 302).await;
        assert_eq!(seal(&factory).await.parent(), first.parent());
        let row = world.store.inner().list("", None, 1, &call()).await.unwrap().records.remove(0);
        assert!(world.store.inner().revoke(row.meta(), &call()).await.unwrap());
        steps.send(last).unwrap_or_default();
        until(|| log.calls() == 303).await;
        assert_eq!(seal(&factory).await.parent(), first.parent(), "not within the second");
        // Nor is it lost with the source.
        steps.send(Step::Fail).unwrap_or_default();
        tokio::time::sleep(SECOND).await;
        assert_ne!(seal(&factory).await.parent(), first.parent());
        steps.send(key("_IK_other_service_product")).unwrap_or_default();
        until(|| factory.status().unwrap().sources_connected == [true]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn sources_make_every_shredding_known_however_many_they_tell_of() {
    let world = World::new();
    let (source, steps, log) = script();
    let factory = world.builder().invalidations(source).restore_lost(true).build().unwrap();
    let record = seal(&factory).await;
    for number in 0..1_000 {
        let id = if number == 999 { IK.to_owned() } else { format!("_IK_{number}_service_product") };
        steps.send(Step::Tell(Invalidation::Shredded(KeyId::new(id)))).unwrap_or_default();
    }
    until(|| log.calls() == 1_001).await;
    world.store.inner().delete(&KeyId::new(IK), &call()).await.unwrap();
    tokio::time::sleep(SECOND).await;
    factory.session("partition").unwrap().decrypt(&record).await.unwrap_err();
    assert_eq!(raised(&factory, Event::RowLost), 0);
    assert_eq!(world.store.inner().count(&call()).await.unwrap(), 1, "nothing was put back");
}

/// A connection that never stands for long does not make all keys stale ten times a second.
#[tokio::test(start_paused = true)]
async fn sources_that_flap_are_called_more_and_more_seldom() {
    let world = World::new();
    let (source, steps, log) = script();
    let factory = world.builder().invalidations(source).build().unwrap();
    seal(&factory).await;
    for _ in 0..100_000 {
        steps.send(Step::Tell(Invalidation::Everything)).unwrap_or_default();
        steps.send(Step::Fail).unwrap_or_default();
    }
    tokio::time::sleep(HOUR).await;
    assert!(log.calls() < 2 * HOUR.as_secs() as usize / 10, "{}", log.calls());
}

#[tokio::test(start_paused = true)]
async fn s2_3_a_panicking_source_is_caught_counted_and_called_again() {
    const PANICS: u64 = 100;
    let world = World::new();
    let (source, steps, log) = script();
    let factory = world.builder().invalidations(source).build().unwrap();
    let first = seal(&factory).await;
    for _ in 0..PANICS {
        steps.send(Step::Panic).unwrap_or_default();
    }
    tokio::time::sleep(HOUR).await;
    assert_eq!(raised(&factory, Event::ListenerPanicked), PANICS);
    assert_eq!(raised(&factory, Event::InvalidationsLost), 1);
    let row = world.store.inner().list("", None, 1, &call()).await.unwrap().records.remove(0);
    assert!(world.store.inner().revoke(row.meta(), &call()).await.unwrap());
    steps.send(key(row.meta().id().as_str())).unwrap_or_default();
    until(|| factory.status().unwrap().sources_connected == [true]).await;
    assert_ne!(seal(&factory).await.parent(), first.parent(), "it is heeded as before");
    assert_eq!((log.calls() as u64, log.dropped()), (PANICS + 2, 0));
}

#[tokio::test(start_paused = true)]
async fn s2_1_sources_end_at_close_before_the_caches_are_emptied() {
    let world = World::new();
    let ((waiting, _steps, log), (pausing, more_steps, pausing_log)) = (script(), script());
    let factory = world.builder().invalidations(waiting).invalidations(pausing).build().unwrap();
    log.factory.set(factory.clone()).unwrap();
    more_steps.send(Step::Fail).unwrap_or_default();
    seal(&factory).await;
    until(|| log.calls() == 1 && pausing_log.calls() == 1).await;
    let report = factory.close(SECOND).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((log.dropped(), pausing_log.dropped()), (1, 1));
    assert_eq!(*log.keys_when_dropped.lock().unwrap(), Some(1), "the keys were there until then");
    assert_eq!(factory.status().unwrap().sources_connected, [false, false]);
    assert!(factory.session("partition").is_err());
    tokio::task::yield_now().await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn s2_1_sources_that_were_never_listened_to_are_let_go_at_close() {
    let world = World::new();
    let (source, _steps, log) = script();
    let factory = world.builder().invalidations(source).build().unwrap();
    assert!(factory.close(SECOND).await.unwrap().is_clean());
    assert_eq!((log.calls(), log.dropped()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn s2_1_sources_end_with_the_last_handle() {
    let world = World::new();
    let (source, _steps, log) = script();
    let factory = world.builder().invalidations(source).build().unwrap();
    seal(&factory).await;
    until(|| log.calls() == 1).await;
    drop(factory);
    until(|| log.dropped() == 1).await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
}

/// On threads of its own, since the source takes one.
#[test]
fn s2_2_close_keeps_to_its_deadline_and_counts_the_sources_that_do_not_end() {
    // Dropped last: it waits for the source.
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let world = World::new();
    let (source, steps, log) = script();
    let (release, released) = std::sync::mpsc::channel();
    steps.send(Step::Block(released)).unwrap_or_default();
    let factory = world.builder().invalidations(source).runtime(runtime.handle().clone()).build().unwrap();
    runtime.block_on(factory.session("partition").unwrap().encrypt(b"")).unwrap();
    wait_until(|| log.calls() == 1);
    let (closed, report) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let closer = Builder::new_current_thread().enable_time().build().unwrap();
        closed.send(closer.block_on(factory.close(Duration::from_millis(20)))).unwrap_or_default();
    });
    let report = report.recv_timeout(Duration::from_secs(60)).expect("it keeps to its deadline").unwrap();
    assert_eq!(report.stuck_sources, 1);
    assert!(!report.is_clean());
    drop(release);
    wait_until(|| log.dropped() == 1);
}
