//! What nobody uses leaves the cache, but not in an outage, noticed or not.

use std::time::Duration;

use claviger::testing::{FixedClock, Operation};
use claviger::{
    CryptoPolicy, InMemoryMetastore, KeyId, KeyMeta, Limits, SecretKey, SessionFactory, StaticKms,
    SystemRandom,
};
use tokio::time::sleep;

use crate::desk::{DENIED, DOWN, Reply};
use crate::support::{HOUR, MINUTE, SECOND, SK, World, policy};

/// The defaults of what the bounds are made of.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2 * 60 * 60);
const MAX_STALE_DECRYPT: Duration = Duration::from_secs(24 * 60 * 60);

/// How many keys are cached, of both levels.
fn cached(world: &World) -> (usize, usize) {
    let status = world.factory.status().unwrap();
    (status.intermediate_keys, status.system_keys)
}

/// Nobody calls, so that no refresh fails: a night.
#[tokio::test(start_paused = true)]
async fn idle_keys_outlast_an_outage_that_nobody_noticed() {
    for reply in [DOWN, Reply::Hang, DENIED] {
        for since_check in [Duration::ZERO, 10 * MINUTE, 50 * MINUTE] {
            let world = World::new(policy(), Limits::production());
            let record = world.encrypt("a").await.expect_in(SECOND);
            sleep(since_check).await;
            world.store.all(reply);
            world.kms.all(reply);
            sleep(IDLE_TIMEOUT + 2 * HOUR).await;
            world.decrypt("a", &record).await.expect_in(SECOND);
            assert_eq!(cached(&world), (1, 1), "{reply:?}, checked {since_check:?} before it");
        }
    }
}

/// After that an outage is no reason to keep keys.
#[tokio::test(start_paused = true)]
async fn idle_keys_are_kept_in_an_outage_as_long_as_they_may_decrypt() {
    for reply in [DOWN, Reply::Hang, DENIED] {
        let world = World::new(policy(), Limits::production());
        world.encrypt("a").await.expect_in(SECOND);
        world.store.all(reply);
        sleep(MAX_STALE_DECRYPT).await;
        assert_eq!(cached(&world), (1, 1), "{reply:?}");
        sleep(4 * HOUR).await;
        assert_eq!(cached(&world), (0, 0), "{reply:?}");
    }
}

/// The store need not be asked by anybody else: the sweep looks itself.
#[tokio::test(start_paused = true)]
async fn idle_keys_are_dropped_when_the_store_answers() {
    let world = World::new(policy(), Limits::production());
    world.encrypt("a").await.expect_in(SECOND);
    sleep(IDLE_TIMEOUT - 2 * MINUTE).await;
    assert_eq!(cached(&world), (1, 1));
    assert_eq!(world.store.log().since(SECOND).len(), 0, "nothing is idle yet, so nothing is asked for");
    sleep(4 * MINUTE).await;
    assert_eq!(cached(&world), (0, 0));
    let asked = world.store.log().since(SECOND);
    let is_strong_load =
        |asked: &crate::desk::Asked| asked.operation == Operation::Load && asked.is_of_system_key();
    assert!(asked.len() == 1 && is_strong_load(&asked.0[0]), "{asked:?}");
}

/// An answer within the interval between checks will do, whoever got it.
#[tokio::test(start_paused = true)]
async fn idle_keys_are_dropped_where_the_store_answered_others_lately() {
    let world = World::new(policy(), Limits::production());
    world.encrypt("idle").await.expect_in(SECOND);
    for round in 0..13 {
        sleep(10 * MINUTE).await;
        world.encrypt(&format!("used{}", round % 3)).await.expect_in(SECOND);
    }
    let reads = world.store.log().that(|asked| asked.is_for("idle") && asked.operation == Operation::Load);
    assert_eq!(reads.len(), 0);
    let (intermediate, system) = cached(&world);
    assert_eq!((intermediate, system), (3, 1));
}

/// A good answer from before the outage says nothing once it is older than the interval between checks.
#[tokio::test(start_paused = true)]
async fn idle_keys_are_dropped_once_the_store_is_back() {
    let world = World::new(policy(), Limits::production());
    world.encrypt("a").await.expect_in(SECOND);
    world.store.all(DOWN);
    sleep(IDLE_TIMEOUT + HOUR).await;
    assert_eq!(cached(&world), (1, 1));
    world.store.heal();
    sleep(3 * MINUTE).await;
    assert_eq!(cached(&world), (0, 0));
}

/// The sweep asks for its own ends, and is told of a revocation.
#[tokio::test(start_paused = true)]
async fn revocation_that_the_sweep_reads_is_heeded() {
    // An outage alone would not keep the key from being used.
    let policy = policy().max_stale_encrypt(5 * HOUR);
    let world = World::new(policy, Limits::production());
    world.encrypt("idle").await.expect_in(SECOND);
    world.encrypt("used").await.expect_in(SECOND);
    sleep(40 * MINUTE).await;
    let record = world.encrypt("used").await.expect_in(SECOND);
    let created = record.parent().unwrap().created();
    world.revoke(&KeyMeta::new(KeyId::new(SK), created)).await;
    sleep(IDLE_TIMEOUT - 38 * MINUTE).await;
    assert_eq!(cached(&world), (1, 1), "the store was asked");
    world.store.all(DOWN);
    assert!(world.encrypt("used").await.outcome.is_err(), "the system key is known to be revoked");
}

/// In real time, since the factory's own thread takes over; a tenth of a second is the shortest period.
#[test]
fn sweep_goes_on_where_the_runtime_that_it_ran_on_is_gone() {
    let clock = FixedClock::new(1_700_000_000);
    let kms = StaticKms::new(&SecretKey::generate(&SystemRandom::new()).unwrap()).unwrap();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let policy: CryptoPolicy = policy().idle_timeout(SECOND);
    let factory = SessionFactory::builder(InMemoryMetastore::new(), kms)
        .service("checkout")
        .product("payments")
        .policy(policy)
        .clock(clock.clone())
        .runtime(first.handle().clone())
        .build()
        .unwrap();
    first.block_on(factory.session("a").unwrap().encrypt(b"secret")).unwrap();
    drop(first);
    runtime().block_on(factory.session("b").unwrap().encrypt(b"secret")).unwrap();
    clock.advance(3 * HOUR);
    for _ in 0..10_000 {
        let status = factory.status().unwrap();
        if (status.intermediate_keys, status.system_keys) == (0, 0) {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("nothing is swept: {:?}", factory.status().unwrap());
}
