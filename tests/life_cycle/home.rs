//! Where loads run: on a runtime that somebody always drives, whoever asks and whoever goes away.

use std::future::Future;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use claviger::testing::{Fault, FixedClock, Operation};
use claviger::{
    BackendError, CallContext, Created, EnvelopeKeyRecord, InMemoryMetastore, Insert, KeyId, KeyMeta, Latest,
    Metastore, SessionFactory,
};
use tokio::runtime::{Builder, Runtime};

use crate::support::*;

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread(name: &str) -> Runtime {
    Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build().unwrap()
}

/// Runs a future with no runtime in sight.
fn block_on_bare<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

/// A store that notes which thread asks it, and blocks that thread when told to.
#[derive(Clone, Debug, Default)]
struct Noting {
    rows: InMemoryMetastore,
    threads: Arc<Mutex<Vec<String>>>,
    blocks: Arc<Mutex<Option<mpsc::Receiver<()>>>>,
}

impl Noting {
    fn note(&self) {
        let name = thread::current().name().unwrap_or_default().to_owned();
        self.threads.lock().unwrap().push(name);
        if let Some(released) = self.blocks.lock().unwrap().take() {
            released.recv().unwrap_err();
        }
    }

    /// Returns the threads that asked since this was called last, each once.
    fn threads(&self) -> Vec<String> {
        let mut threads = std::mem::take(&mut *self.threads.lock().unwrap());
        threads.sort();
        threads.dedup();
        threads
    }

    fn factory(&self) -> SessionFactory {
        let world = World::new();
        SessionFactory::builder(self.clone(), world.kms)
            .service("checkout")
            .product("payments")
            .policy(policy())
            .build()
            .unwrap()
    }
}

impl Metastore for Noting {
    async fn load(
        &self,
        key: &KeyMeta,
        context: &CallContext,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        self.note();
        self.rows.load(key, context).await
    }

    async fn load_latest(
        &self,
        id: &KeyId,
        up_to: Created,
        context: &CallContext,
    ) -> Result<Option<Latest>, BackendError> {
        self.note();
        self.rows.load_latest(id, up_to, context).await
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        context: &CallContext,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        self.note();
        self.rows.load_many(keys, context).await
    }

    async fn load_latest_many(
        &self,
        ids: &[KeyId],
        up_to: Created,
        context: &CallContext,
    ) -> Result<Vec<Option<Latest>>, BackendError> {
        self.note();
        self.rows.load_latest_many(ids, up_to, context).await
    }

    async fn insert(
        &self,
        record: &EnvelopeKeyRecord,
        context: &CallContext,
    ) -> Result<Insert, BackendError> {
        self.note();
        self.rows.insert(record, context).await
    }

    fn failovers(&self) -> u64 {
        0
    }
}

const OWN: &str = "claviger";

#[test]
fn home_is_the_given_runtime_or_the_builders_or_a_thread_of_the_factorys_own() {
    let store = Noting::default();
    let (given, around, callers) = (multi_thread("given"), multi_thread("around"), current_thread());
    let encrypt = |factory: &SessionFactory, partition| {
        callers.block_on(factory.session(partition).unwrap().encrypt(b"")).unwrap();
        store.threads()
    };

    let world = World::new();
    let builder = || {
        SessionFactory::builder(store.clone(), world.kms.clone())
            .service("checkout")
            .product("payments")
            .policy(policy())
    };
    let to_given = around.block_on(async { builder().runtime(given.handle().clone()).build().unwrap() });
    assert_eq!(encrypt(&to_given, "a"), ["given"]);
    let captured = around.block_on(async { store.factory() });
    assert_eq!(encrypt(&captured, "b"), ["around"]);
    // A runtime of one thread is driven while its owner drives it: it is not relied on.
    let own = callers.block_on(async { store.factory() });
    assert_eq!(encrypt(&own, "c"), [OWN]);
    let own = store.factory();
    assert_eq!(encrypt(&own, "d"), [OWN]);
    assert_eq!(around.block_on(async { encrypt_on(&own, &store, "e").await }), [OWN]);
}

async fn encrypt_on(factory: &SessionFactory, store: &Noting, partition: &str) -> Vec<String> {
    let session = factory.session(partition).unwrap();
    tokio::spawn(async move { session.encrypt(b"").await }).await.unwrap().unwrap();
    store.threads()
}

#[test]
fn home_goes_on_with_a_refresh_whose_callers_runtime_is_driven_no_more() {
    let world = World::new();
    let (first, second) = (current_thread(), current_thread());
    first.block_on(world.sealed());
    world.clock.advance(DUE);
    world.faults().next(Operation::LoadLatest, Fault::HangReply);
    // A background refresh begins with this request, and its thread waits for the next one.
    assert_eq!(first.block_on(world.encrypts_under()), 0);
    second.block_on(world.faults().until_hanging(1));
    second.block_on(world.revoke_latest(IK));
    world.faults().release();
    second.block_on(world.landed());
    world.clock.advance(STALE);
    assert_ne!(second.block_on(world.encrypts_under()), 0, "the revoked key goes on");
    drop(first);
}

#[test]
fn home_goes_on_with_a_load_whose_caller_gave_up() {
    let world = World::new();
    let (first, second) = (current_thread(), current_thread());
    world.faults().next(Operation::LoadLatest, Fault::Hang);
    first.block_on(async { assert!(polled_once(world.session().encrypt(b"secret")).await.is_none()) });
    second.block_on(async {
        world.faults().until_hanging(1).await;
        let waits = spawn_encrypt(world.session());
        tokio::task::yield_now().await;
        world.faults().release();
        waits.await.unwrap().unwrap();
    });
    assert_eq!(world.calls_for(Operation::LoadLatest, IK), 1, "the load that was begun is the one");
    drop(first);
}

#[test]
fn home_needs_no_runtime_of_its_callers() {
    let world = World::new();
    let (record, _) = block_on_bare(world.sealed());
    assert_eq!(block_on_bare(world.other_process().factory.warm_up(["alice"])).unwrap().loaded, 1);
    for age in [DUE, STALE, TOO_OLD_TO_DECRYPT] {
        world.clock.advance(age);
        block_on_bare(world.decrypts(&record));
    }
    // A time limit is a matter of the factory's runtime as well.
    world.clock.advance(STALE);
    world.outage(Fault::Hang);
    block_on_bare(world.decrypts(&record));
    world.heal();
    assert!(block_on_bare(world.factory.close(SECOND)).unwrap().is_clean());
}

#[test]
fn home_that_shut_down_is_replaced_by_a_thread_of_the_factorys_own() {
    for (flavor, doomed) in [("multi", multi_thread("doomed")), ("current", current_thread())] {
        let world = World::over(InMemoryMetastore::new(), FixedClock::new(START.unsigned_abs()), |builder| {
            builder.runtime(doomed.handle().clone())
        });
        let living = current_thread();
        world.faults().next(Operation::LoadLatest, Fault::Hang);
        doomed.block_on(async {
            assert!(polled_once(world.session().encrypt(b"secret")).await.is_none());
            world.faults().until_hanging(1).await;
        });
        let record = living.block_on(async {
            let session = world.session();
            let mut encrypt = Box::pin(session.encrypt(b"secret"));
            assert!(polled_once(&mut encrypt).await.is_none(), "{flavor}: it waits for the load");
            doomed.shutdown_background();
            encrypt.await.unwrap()
        });
        assert_eq!(created(&record), 0);
        assert_eq!(world.calls_for(Operation::LoadLatest, IK), 2, "{flavor}");
        // And for good.
        world.clock.advance(TOO_OLD);
        assert_eq!(block_on_bare(world.encrypts_under()), 0);
        assert!(block_on_bare(world.factory.close(SECOND)).unwrap().is_clean());
    }
}

#[test]
fn home_of_its_own_ends_with_close_which_tells_of_one_that_is_stuck() {
    let store = Noting::default();
    let runtime = current_thread();
    let (release, released) = mpsc::channel::<()>();
    *store.blocks.lock().unwrap() = Some(released);
    let factory = store.factory();
    let session = factory.session("a").unwrap();
    runtime.block_on(async {
        assert!(polled_once(session.encrypt(b"")).await.is_none());
        let report = factory.close(Duration::from_millis(20)).await.unwrap();
        assert!(report.stuck_thread && !report.is_clean(), "{report:?}");
        let other = store.factory();
        drop(release);
        other.session("b").unwrap().encrypt(b"").await.unwrap();
        let report = other.close(SECOND).await.unwrap();
        assert!(!report.stuck_thread && report.is_clean(), "{report:?}");
    });
    assert!(matches!(block_on_bare(session.encrypt(b"")), Err(claviger::Error::Closed)));
}

#[test]
fn home_of_its_own_may_be_let_go_of_anywhere() {
    let runtime = current_thread();
    // Inside of a runtime, with a load under way: the thread itself lets go of the factory last.
    runtime.block_on(async {
        let world = World::with_own_thread();
        world.faults().next(Operation::LoadLatest, Fault::Hang);
        assert!(polled_once(world.session().encrypt(b"")).await.is_none());
        world.faults().until_hanging(1).await;
        let faults = world.faults().clone();
        drop(world);
        while faults.hanging() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}
