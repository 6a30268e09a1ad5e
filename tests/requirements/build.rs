//! S1.6 and S2.6: what a process has open and holds, before `build()`, after it, and in the end.

use std::fs;

use claviger::testing::{FixedClock, call};
use claviger::{
    BackendError, BoxedKms, CallContext, CryptoPolicy, Error, InMemoryMetastore, KeyManagementService,
    KeyMeta, LockPolicy, MetastoreAdmin, SecretKey, SessionFactory, StaticKms, SystemRandom, WrapHealth,
    WrappedKey,
};
use tokio::runtime::Builder;

use crate::world::{DAY, World, alone, assert_at_rest, wait_until};

/// What the kernel counts of this process.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    threads: u64,
    locked_kib: u64,
    files: usize,
}

impl Process {
    fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let count = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_ascii_whitespace().next().unwrap().parse().unwrap()
        };
        let files = fs::read_dir("/proc/self/fd").unwrap().count();
        Self { threads: count("Threads:"), locked_kib: count("VmLck:"), files }
    }
}

/// With its feature for signals, tokio keeps a pair of sockets from the first runtime on, for good.
fn keep_what_tokio_keeps() {
    drop(Builder::new_current_thread().enable_all().build().unwrap());
}

/// Holds no memory of its own, as a KMS elsewhere.
#[derive(Debug)]
struct RemoteKms;

impl KeyManagementService for RemoteKms {
    async fn wrap_key(
        &self,
        _key: &SecretKey,
        _meta: &KeyMeta,
        _context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        Ok(WrappedKey::new(*b"wrapped"))
    }

    async fn unwrap_key(
        &self,
        _wrapped: &[u8],
        _meta: &KeyMeta,
        _context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        Err(BackendError::permanent("this one only wraps"))
    }

    fn inspect(&self, _wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        Ok(WrapHealth::default())
    }
}

#[test]
fn s2_6_nothing_happens_before_build() {
    alone("build::s2_6_nothing_happens_before_build", || {
        keep_what_tokio_keeps();
        let before = Process::now();
        let builder = SessionFactory::builder(InMemoryMetastore::new(), RemoteKms)
            .service("service")
            .product("product")
            .policy(CryptoPolicy::production().lock_policy(LockPolicy::Require))
            .clock(FixedClock::new(1_700_000_000));
        assert_eq!(Process::now(), before, "a builder");
        let factory = builder.build().unwrap();
        let session = factory.session("partition").unwrap();
        assert_eq!(Process::now(), before, "a factory and a session that were never used");

        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(session.encrypt(b"")).unwrap();
        assert!(Process::now().locked_kib > before.locked_kib, "the first key is where it begins");
        assert_eq!(Process::now().threads, before.threads + 1, "the thread that loads keys");
        drop((session, factory, runtime));
        wait_until(|| Process::now() == before);
    });
}

#[test]
fn s1_6_a_hundred_factories_leave_no_file_open() {
    alone("build::s1_6_a_hundred_factories_leave_no_file_open", || {
        let world = World::new();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        let life = || {
            let factory = world.factory();
            runtime.block_on(async {
                let session = factory.session("partition").unwrap();
                let record = session.encrypt(b"").await.unwrap();
                session.decrypt(&record).await.unwrap();
                assert!(factory.close(DAY).await.unwrap().is_clean());
            });
        };
        keep_what_tokio_keeps();
        let before = Process::now();
        for _ in 0..100 {
            life();
        }
        wait_until(|| Process::now() == before);
    });
}

/// They share the store and the KMS, and nothing in memory.
#[tokio::test(start_paused = true)]
async fn s2_6_two_factories_are_independent() {
    let world = World::new();
    let [one, other] = [world.factory(), world.factory()];
    let [mine, theirs] = [&one, &other].map(|factory| factory.session("partition").unwrap());
    let record = mine.encrypt(b"payload").await.unwrap();
    theirs.decrypt(&record).await.unwrap();
    theirs.encrypt(b"").await.unwrap();

    // What one learns of a revocation the other does not know before it asks.
    world.store.inner().revoke(record.parent().unwrap(), &call()).await.unwrap();
    world.clock.advance(DAY / 24);
    assert_ne!(mine.encrypt(b"").await.unwrap().parent().unwrap(), record.parent().unwrap());
    let before = other.status().unwrap();
    assert_eq!((before.intermediate_keys, before.system_keys), (1, 1));

    assert!(one.close(DAY).await.unwrap().is_clean());
    assert_eq!(one.status().unwrap().memory.slots, 0);
    drop((one, mine));
    let after = other.status().unwrap();
    assert!(!after.closed);
    assert_eq!((after.intermediate_keys, after.system_keys, after.memory), (1, 1, before.memory));
    assert_eq!(*theirs.decrypt(&record).await.unwrap(), *b"payload");
    assert_ne!(theirs.encrypt(b"").await.unwrap().parent().unwrap(), record.parent().unwrap());
    assert_at_rest(&other.status().unwrap());
}

/// A policy that requires locked memory says so of the KMS's own keys, too.
#[tokio::test]
async fn a_factory_that_requires_locked_memory_takes_no_kms_that_does_with_less() {
    let key = SecretKey::generate(&SystemRandom::new()).unwrap();
    let build = |kms: BoxedKms, needed: LockPolicy| {
        let builder = SessionFactory::builder(InMemoryMetastore::new(), kms).service("svc").product("prod");
        builder.policy(CryptoPolicy::production().lock_policy(needed)).build().map(drop)
    };
    let of = |locks| BoxedKms::new(StaticKms::with_lock_policy(&key, locks).unwrap());
    for locks in [LockPolicy::Off, LockPolicy::Prefer] {
        match build(of(locks), LockPolicy::Require).unwrap_err() {
            Error::InvalidConfig { reason, .. } => assert!(reason.contains("locked memory"), "{reason}"),
            other => panic!("{other:?}"),
        }
        build(of(locks), LockPolicy::Prefer).unwrap();
    }
    build(of(LockPolicy::Require), LockPolicy::Require).unwrap();
    build(BoxedKms::new(RemoteKms), LockPolicy::Require).unwrap();
}
