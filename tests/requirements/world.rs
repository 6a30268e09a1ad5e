//! What the tests run on: fakes that fail on command, a factory over them, and small helpers.

use std::pin::pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use claviger::testing::{FailingRandom, FaultyKms, FaultyMetastore, FixedClock, SeededRandom, call};
use claviger::{
    Created, CryptoPolicy, DataRowRecord, EnvelopeKeyRecord, Error, InMemoryMetastore, KeyId, Limits,
    LockPolicy, Metastore, MetastoreAdmin, RandomError, SecretKey, SecureRandom, Session, SessionFactory,
    SessionFactoryBuilder, StaticKms, Status,
};
use tokio::runtime::Builder;

use crate::child;
pub(crate) use crate::runtime::on_this_runtime;

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);

/// The outside world of a factory, all of it told when to fail.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) clock: FixedClock,
    pub(crate) random: FailingRandom,
    pub(crate) store: FaultyMetastore<InMemoryMetastore>,
    pub(crate) kms: FaultyKms<StaticKms>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_random_failing_at(0)
    }

    pub(crate) fn with_random_failing_at(draw: u64) -> Self {
        let kms_random = SeededRandom::new(2);
        let master_key = SecretKey::generate(&kms_random).unwrap();
        Self {
            clock: FixedClock::new(1_700_000_000),
            random: FailingRandom::new(SeededRandom::new(1), draw),
            store: FaultyMetastore::new(InMemoryMetastore::new()),
            kms: FaultyKms::new(StaticKms::new(&master_key).unwrap().random(kms_random)),
        }
    }

    /// A factory's options, all set but for the policy.
    pub(crate) fn builder(&self) -> SessionFactoryBuilder {
        let builder = SessionFactory::builder(self.store.clone(), self.kms.clone())
            .service("service")
            .product("product")
            .clock(self.clock.clone())
            .random(self.random.clone())
            .policy(policy());
        on_this_runtime(builder)
    }

    pub(crate) fn factory(&self) -> SessionFactory {
        self.builder().build().unwrap()
    }

    /// Each call is tried once, so that each failure shows.
    pub(crate) fn factory_without_retries(&self) -> SessionFactory {
        self.builder().limits(Limits::production().max_attempts(1)).build().unwrap()
    }

    /// Returns the latest row of a key id.
    pub(crate) async fn latest_row(&self, id: &str) -> EnvelopeKeyRecord {
        let latest = self.store.inner().load_latest(&KeyId::new(id), Created::MAX, &call()).await;
        latest.unwrap().unwrap().record
    }

    /// Counts the records in the store.
    pub(crate) async fn rows(&self) -> u64 {
        self.store.inner().count(&call()).await.unwrap()
    }
}

/// Waits for what another thread does.
#[track_caller]
pub(crate) fn wait_until(is_so: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if is_so() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("it does not come");
}

/// Nothing is locked, so that many factories fit a small limit.
pub(crate) fn policy() -> CryptoPolicy {
    CryptoPolicy::production().lock_policy(LockPolicy::Off)
}

/// Asserts that what a factory holds is what its cache holds: no key, load or orphan is left over.
#[track_caller]
pub(crate) fn assert_at_rest(status: &Status) {
    assert_eq!(status.loads, 0, "{status:?}");
    assert!(status.orphans.is_empty(), "{status:?}");
    assert_eq!(status.memory.slots, status.intermediate_keys + status.system_keys, "{status:?}");
}

/// Waits, on a current-thread runtime with its time paused, until no flight is under way.
pub(crate) async fn settle(factory: &SessionFactory) {
    while factory.status().unwrap().loads > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Polls a future `polls` times, letting others run in between, then drops it.
pub(crate) async fn poll_and_drop<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let polled = std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    None
}

/// A generator for a test's own choices.
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// Returns a number below `sides`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        // Knuth's MMIX generator; its high bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Runs `body` in a process of its own: what is counted of a process must not be another test's.
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    const DONE: &str = "the child came to its end";
    let body = || {
        body();
        println!("\n{DONE}");
    };
    if let Some((status, said)) = child::run(test, body) {
        assert!(status.success() && said.contains(DONE), "{test} in its own process: {said}");
    }
}

/// A generator that can keep the next record's draw waiting: that operation is then in mid-air, its
/// key in its hands. Its clones are one.
#[derive(Clone, Debug)]
pub(crate) struct HeldRandom {
    inner: SeededRandom,
    hold: Arc<Mutex<Option<Hold>>>,
}

#[derive(Debug)]
struct Hold {
    arrived: Sender<()>,
    released: Receiver<()>,
}

/// What is drawn for a record: a data row key and two nonces.
const RECORD_DRAW_BYTES: usize = 64;

impl HeldRandom {
    pub(crate) fn new() -> Self {
        Self { inner: SeededRandom::new(5), hold: Arc::default() }
    }
}

impl SecureRandom for HeldRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        if bytes.len() == RECORD_DRAW_BYTES {
            let hold = self.hold.lock().unwrap().take();
            if let Some(hold) = hold {
                hold.arrived.send(()).unwrap();
                hold.released.recv().unwrap();
            }
        }
        self.inner.fill(bytes)
    }
}

/// An encrypt in mid-air, on a thread of its own.
#[derive(Debug)]
pub(crate) struct HeldOperation {
    release: Sender<()>,
    thread: JoinHandle<Result<DataRowRecord, Error>>,
}

impl HeldOperation {
    /// Returns once the operation has its key, which must be cached, and waits for its draw.
    pub(crate) fn encrypt(random: &HeldRandom, session: &Session) -> Self {
        let ((arrived, arrival), (release, released)) = (channel(), channel());
        *random.hold.lock().unwrap() = Some(Hold { arrived, released });
        let session = session.clone();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(session.encrypt(b""))
        });
        arrival.recv().unwrap();
        Self { release, thread }
    }

    /// Lets the operation go on, and waits for its end.
    pub(crate) fn finish(self) -> Result<DataRowRecord, Error> {
        self.release.send(()).unwrap();
        self.thread.join().unwrap()
    }
}
