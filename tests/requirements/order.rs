//! S2.4 and S1.7: in which order things end, and what waits for what.

use std::sync::{Arc, Mutex, Weak};

use claviger::testing::{Fault, FaultyMetastore, Operation};
use claviger::{
    BackendError, CallContext, Error, InMemoryMetastore, Invalidation, InvalidationSource, RandomError,
    SecretKey, SecureRandom, SessionFactory, StaticKms, SystemRandom,
};

use crate::world::{SECOND, World, on_this_runtime, policy};

/// What ended, in that order.
#[derive(Clone, Debug, Default)]
struct Ends(Arc<Mutex<Vec<&'static str>>>);

impl Ends {
    fn note(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }
}

/// A part of something, which tells when that is let go.
#[derive(Debug)]
struct Ending<P> {
    part: P,
    name: &'static str,
    ends: Ends,
    /// What must be there still when it ends.
    outlived_by: Weak<FaultyMetastore<InMemoryMetastore>>,
}

impl<P> Drop for Ending<P> {
    fn drop(&mut self) {
        assert!(self.outlived_by.strong_count() > 0, "the metastore ended before the {}", self.name);
        self.ends.note(self.name);
    }
}

/// A source that has nothing to tell.
impl InvalidationSource for Ending<()> {
    async fn next(&mut self, _context: &CallContext) -> Result<Invalidation, BackendError> {
        std::future::pending().await
    }
}

/// A KMS's generator, which is let go with it.
impl SecureRandom for Ending<SystemRandom> {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        self.part.fill(bytes)
    }
}

/// A load is under way when the factory is closed, and ends in time.
#[tokio::test(start_paused = true)]
async fn s2_4_sources_end_before_loads_before_caches_before_the_kms_before_the_metastore() {
    let (world, ends) = (World::new(), Ends::default());
    let store = Arc::new(world.store.clone());
    let metastore = Arc::downgrade(&store);
    let (random, outlived_by) = (SystemRandom::new(), metastore.clone());
    let kms = Ending { part: random, name: "kms", ends: ends.clone(), outlived_by };
    let kms = StaticKms::new(&SecretKey::generate(&SystemRandom::new()).unwrap()).unwrap().random(kms);
    let source = Ending { part: (), name: "source", ends: ends.clone(), outlived_by: metastore.clone() };
    let builder = SessionFactory::builder(store, kms)
        .service("service")
        .product("product")
        .clock(world.clock.clone())
        .policy(policy())
        .invalidations(source);
    let factory = on_this_runtime(builder).build().unwrap();
    factory.session("cached").unwrap().encrypt(b"").await.unwrap();
    world.store.faults().next(Operation::Insert, Fault::Delay(SECOND));
    let slow = tokio::spawn({
        let session = factory.session("slow").unwrap();
        async move { session.encrypt(b"").await }
    });
    while factory.status().unwrap().loads == 0 {
        tokio::task::yield_now().await;
    }
    let close = tokio::spawn({
        let factory = factory.clone();
        async move { factory.close(2 * SECOND).await }
    });
    tokio::time::sleep(SECOND / 2).await;
    assert_eq!(*ends.0.lock().unwrap(), ["source"]);
    assert_eq!(factory.status().unwrap().intermediate_keys, 1, "the cache is as it was");
    assert!(close.await.unwrap().unwrap().is_clean());
    slow.await.unwrap().unwrap();
    assert_eq!(*ends.0.lock().unwrap(), ["source"], "the load ended, and nothing after it");
    assert_eq!(factory.status().unwrap().memory.slots, 0, "caches are empty, back ends there");
    drop(factory);
    tokio::task::yield_now().await;
    assert_eq!((&**ends.0.lock().unwrap(), metastore.strong_count()), (&["source", "kms"][..], 0));
}

/// One intermediate key's load waits for the system key's, while those of others hang.
#[tokio::test(start_paused = true)]
async fn s1_7_system_keys_load_waits_for_no_intermediate_keys() {
    let world = World::new();
    let factory = world.factory();
    for _ in 0..8 {
        world.store.faults().next(Operation::LoadLatest, Fault::Hang);
    }
    let hanging: Vec<_> = (0..8)
        .map(|number| {
            let session = factory.session(&format!("hanging-{number}")).unwrap();
            tokio::spawn(async move { session.encrypt(b"").await })
        })
        .collect();
    world.store.faults().until_hanging(8).await;
    factory.session("partition").unwrap().encrypt(b"").await.unwrap();
    assert_eq!(world.store.faults().hanging(), 8);
    world.store.faults().release();
    for encrypt in hanging {
        encrypt.await.unwrap().unwrap();
    }
}

/// The first load of a system key fails, and each intermediate key's load that waits for it ends with it.
#[tokio::test(start_paused = true)]
async fn s1_7_loads_that_wait_for_a_system_keys_end_with_it() {
    let world = World::new();
    let factory = world.factory();
    world.kms.faults().always(Fault::Hang);
    let waiting: Vec<_> = (0..8)
        .map(|number| {
            let session = factory.session(&format!("partition-{number}")).unwrap();
            tokio::spawn(async move { session.encrypt(b"").await })
        })
        .collect();
    for encrypt in waiting {
        let error = encrypt.await.unwrap().unwrap_err();
        assert!(
            error.is_retryable() && matches!(error, Error::Kms { .. } | Error::Deadline { .. }),
            "{error}"
        );
    }
    assert_eq!(factory.status().unwrap().loads, 0);
}
