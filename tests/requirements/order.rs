//! S2.4 and S1.7: in which order things end, and what waits for what.

use std::sync::{Arc, Mutex};

use claviger::testing::{Fault, FaultyKms, FaultyMetastore, Operation};
use claviger::{
    BackendError, CallContext, Created, EnvelopeKeyRecord, Error, InMemoryMetastore, Insert, Invalidation,
    InvalidationSource, KeyId, KeyManagementService, KeyMeta, Latest, LockPolicy, Metastore, SecretKey,
    SessionFactory, StaticKms, WrapHealth, WrappedKey,
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

/// What tells when it is let go.
#[derive(Debug)]
struct Ending<B> {
    inner: B,
    name: &'static str,
    ends: Ends,
}

impl<B> Drop for Ending<B> {
    fn drop(&mut self) {
        self.ends.note(self.name);
    }
}

/// A source that has nothing to tell.
impl InvalidationSource for Ending<()> {
    async fn next(&mut self, _context: &CallContext) -> Result<Invalidation, BackendError> {
        std::future::pending().await
    }
}

impl Metastore for Ending<FaultyMetastore<InMemoryMetastore>> {
    async fn load(
        &self,
        key: &KeyMeta,
        context: &CallContext,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        self.inner.load(key, context).await
    }

    async fn load_latest(
        &self,
        id: &KeyId,
        up_to: Created,
        context: &CallContext,
    ) -> Result<Option<Latest>, BackendError> {
        self.inner.load_latest(id, up_to, context).await
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        context: &CallContext,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        self.inner.load_many(keys, context).await
    }

    async fn load_latest_many(
        &self,
        ids: &[KeyId],
        up_to: Created,
        context: &CallContext,
    ) -> Result<Vec<Option<Latest>>, BackendError> {
        self.inner.load_latest_many(ids, up_to, context).await
    }

    async fn insert(
        &self,
        record: &EnvelopeKeyRecord,
        context: &CallContext,
    ) -> Result<Insert, BackendError> {
        let inserted = self.inner.insert(record, context).await;
        self.ends.note("load");
        inserted
    }

    fn failovers(&self) -> u64 {
        self.inner.failovers()
    }
}

impl KeyManagementService for Ending<FaultyKms<StaticKms>> {
    async fn wrap_key(
        &self,
        key: &SecretKey,
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        self.inner.wrap_key(key, meta, context).await
    }

    async fn unwrap_key(
        &self,
        wrapped: &[u8],
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        self.inner.unwrap_key(wrapped, meta, context).await
    }

    fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        self.inner.inspect(wrapped)
    }

    fn lock_policy(&self) -> Option<LockPolicy> {
        self.inner.lock_policy()
    }
}

/// A load is under way when the factory is closed, and ends in time.
#[tokio::test(start_paused = true)]
async fn s2_4_sources_end_before_loads_before_caches_before_the_kms_before_the_metastore() {
    let (world, ends) = (World::new(), Ends::default());
    let store = Ending { inner: world.store.clone(), name: "metastore", ends: ends.clone() };
    let kms = Ending { inner: world.kms.clone(), name: "kms", ends: ends.clone() };
    let source = Ending { inner: (), name: "source", ends: ends.clone() };
    let builder = SessionFactory::builder(store, kms)
        .service("service")
        .product("product")
        .clock(world.clock.clone())
        .policy(policy())
        .invalidations(source);
    let factory = on_this_runtime(builder).build().unwrap();
    factory.session("cached").unwrap().encrypt(b"").await.unwrap();
    ends.0.lock().unwrap().clear();
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
    assert_eq!(*ends.0.lock().unwrap(), ["source", "load"]);
    assert_eq!(factory.status().unwrap().memory.slots, 0, "caches are empty, back ends there");
    drop(factory);
    tokio::task::yield_now().await;
    assert_eq!(*ends.0.lock().unwrap(), ["source", "load", "kms", "metastore"]);
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
