//! S3.3: a key whose cache entry went while an operation used it is known until it is wiped.

use claviger::testing::{Fault, Operation, call};
use claviger::{Limits, MetastoreAdmin, OrphanCause};

use crate::world::{HeldOperation, HeldRandom, World, assert_at_rest};

#[tokio::test(start_paused = true)]
async fn s3_3_an_evicted_key_in_use_is_listed_adopted_and_wiped_with_its_last_user() {
    let (world, random) = (World::new(), HeldRandom::new());
    let one_key = Limits::production().max_intermediate_keys(1);
    let factory = world.builder().random(random.clone()).limits(one_key).build().unwrap();
    let [held, other] = ["held", "other"].map(|partition| factory.session(partition).unwrap());
    let key = held.encrypt(b"").await.unwrap().parent().unwrap().clone();
    let operation = HeldOperation::encrypt(&random, &held);
    assert_at_rest(&factory.status().unwrap());

    other.encrypt(b"").await.unwrap();
    let status = factory.status().unwrap();
    let orphans: Vec<_> = status.orphans.iter().map(|orphan| (&orphan.key, orphan.cause)).collect();
    assert_eq!(orphans, [(&key, OrphanCause::Evicted)]);
    assert_eq!((status.intermediate_keys, status.system_keys, status.memory.slots), (1, 1, 3));

    assert_eq!(*held.encrypt(b"").await.unwrap().parent().unwrap(), key);
    let status = factory.status().unwrap();
    assert!(status.orphans.is_empty(), "it was taken back: {status:?}");
    assert_eq!((status.intermediate_keys, status.memory.slots), (1, 2), "no second copy was made");

    other.encrypt(b"").await.unwrap();
    assert_eq!(factory.status().unwrap().orphans.len(), 1);
    assert_eq!(*operation.finish().unwrap().parent().unwrap(), key);
    let status = factory.status().unwrap();
    assert_eq!(status.memory.slots, 2, "it was wiped with its last user");
    assert_at_rest(&status);
}

/// A load that began before a key was invalidated takes its orphan back, and does not make it fresh.
#[tokio::test(start_paused = true)]
async fn s3_3_an_orphan_that_is_taken_back_is_no_fresher_than_what_brought_it() {
    let (world, random) = (World::new(), HeldRandom::new());
    let one_key = Limits::production().max_intermediate_keys(1);
    let factory = world.builder().random(random.clone()).limits(one_key).build().unwrap();
    let [held, other] = ["held", "other"].map(|partition| factory.session(partition).unwrap());
    let key = held.encrypt(b"").await.unwrap().parent().unwrap().clone();
    let operation = HeldOperation::encrypt(&random, &held);
    other.encrypt(b"").await.unwrap();

    world.store.faults().next(Operation::LoadLatest, Fault::HangReply);
    let early = tokio::spawn({
        let held = held.clone();
        async move { held.encrypt(b"").await }
    });
    world.store.faults().until_hanging(1).await;
    assert!(world.store.inner().revoke(&key, &call()).await.unwrap());
    factory.invalidate(key.id()).unwrap();
    world.store.faults().release();
    assert_eq!(*early.await.unwrap().unwrap().parent().unwrap(), key);
    assert!(factory.status().unwrap().orphans.is_empty(), "it was taken back");
    assert_ne!(*held.encrypt(b"").await.unwrap().parent().unwrap(), key, "and asked for again");
    assert_eq!(*operation.finish().unwrap().parent().unwrap(), key);
    assert_at_rest(&factory.status().unwrap());
}
