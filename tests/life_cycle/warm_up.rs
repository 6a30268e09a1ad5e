//! `warm_up`: many partitions' keys in few calls, none created, each loaded once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use claviger::testing::{Fault, Operation};
use claviger::{
    BackendError, CallContext, Created, EnvelopeKeyRecord, Error, InMemoryMetastore, Insert, KeyId, KeyMeta,
    Latest, Metastore, SessionFactory, WarmUp,
};

use crate::support::*;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("customer-{number}")).collect()
}

fn ik(partition: &str) -> String {
    format!("_IK_{partition}_checkout_payments")
}

/// A store with keys for these partitions, and a process that has cached none.
async fn cold(partitions: &[String]) -> World {
    let home = World::new();
    for partition in partitions {
        home.session_of(partition).encrypt(b"").await.unwrap();
    }
    home.other_process()
}

async fn warm_up(world: &World, partitions: &[String]) -> WarmUp {
    world.factory.warm_up(partitions).await.unwrap()
}

/// Loaded, cached, missing, skipped, failed.
fn counts(report: &WarmUp) -> [usize; 5] {
    [report.loaded, report.cached, report.missing, report.skipped, report.failed.len()]
}

fn bulk_calls(world: &World) -> [usize; 2] {
    [Operation::LoadLatestMany, Operation::LoadMany].map(|operation| world.faults().calls_of(operation))
}

#[tokio::test]
async fn warm_up_of_ten_thousand_partitions_takes_eleven_calls_and_one_of_the_kms() {
    let partitions = names(10_000);
    let world = cold(&partitions).await;
    let report = warm_up(&world, &partitions).await;
    assert_eq!(counts(&report), [10_000, 0, 0, 0, 0]);
    assert_eq!(bulk_calls(&world), [10, 1]);
    assert_eq!(world.faults().calls(), 11);
    assert_eq!(world.kms_calls(), 1);
    for partition in &partitions {
        assert_eq!(created(&world.session_of(partition).encrypt(b"").await.unwrap()), 0);
    }
    assert_eq!((world.faults().calls(), world.kms_calls()), (11, 1), "nothing is left to load");
    assert_eq!(counts(&warm_up(&world, &partitions).await), [0, 10_000, 0, 0, 0]);
    assert_eq!(world.faults().calls(), 11);
}

#[tokio::test]
async fn warm_up_unwraps_each_system_key_once() {
    let partitions = names(20);
    let home = cold(&partitions[..10]).await;
    let first = home.latest_row(SK).await;
    home.revoke_latest(SK).await;
    for partition in &partitions[10..] {
        home.session_of(partition).encrypt(b"").await.unwrap();
    }
    home.put(first).await;
    assert_eq!(home.row_times(SK).await, [0, 1]);
    let world = home.other_process();
    assert_eq!(counts(&warm_up(&world, &partitions).await), [20, 0, 0, 0, 0]);
    assert_eq!((bulk_calls(&world), world.faults().calls(), world.kms_calls()), ([1, 1], 2, 2));
}

#[tokio::test]
async fn warm_up_creates_nothing() {
    let partitions = names(4);
    let world = cold(&partitions[..3]).await;
    world.revoke_latest(&ik("customer-1")).await;
    let expired = world.other_process();
    assert_eq!(counts(&warm_up(&world, &partitions).await), [2, 0, 2, 0, 0], "one revoked, one never made");
    expired.clock.advance(LIFE + MINUTE);
    assert_eq!(counts(&warm_up(&expired, &partitions).await), [0, 0, 4, 0, 0]);
    for world in [world, expired] {
        assert_eq!(world.calls(), Calls { unwrap: world.calls().unwrap, ..Calls::default() });
        assert_eq!(world.rows(&ik("customer-3")).await, []);
    }
}

#[tokio::test]
async fn warm_up_names_what_fails_and_loads_the_rest() {
    let mut partitions = names(100);
    let world = cold(&partitions).await;
    let row = world.latest_row(&ik("customer-7")).await;
    let mut wrapped_key = row.wrapped_key().to_vec();
    wrapped_key[5] ^= 1;
    world.put(EnvelopeKeyRecord::new(row.meta().clone(), wrapped_key, row.parent().cloned())).await;
    partitions.extend(["".to_owned(), "customer-8".to_owned()]);
    let report = warm_up(&world, &partitions).await;
    assert_eq!(counts(&report), [99, 0, 0, 0, 2], "who is named twice counts once");
    for (partition, error) in &report.failed {
        match partition.as_str() {
            "" => assert!(matches!(error, Error::InvalidPartition { .. }), "{error}"),
            _ => assert!(partition == "customer-7" && matches!(error, Error::Authentication), "{error}"),
        }
    }
}

/// A store whose calls for many fail if a certain row is among them, or too many are asked for.
#[derive(Clone, Debug, Default)]
struct PickyStore {
    rows: InMemoryMetastore,
    damaged: Arc<BTreeSet<String>>,
    batch_max: Option<usize>,
    reversed: bool,
    batches: Arc<Mutex<Vec<usize>>>,
}

impl Metastore for PickyStore {
    async fn load(
        &self,
        key: &KeyMeta,
        context: &CallContext,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        self.rows.load(key, context).await
    }

    async fn load_latest(
        &self,
        id: &KeyId,
        up_to: Created,
        context: &CallContext,
    ) -> Result<Option<Latest>, BackendError> {
        Ok(self.load_latest_many(std::slice::from_ref(id), up_to, context).await?.remove(0))
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        context: &CallContext,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        self.rows.load_many(keys, context).await
    }

    async fn load_latest_many(
        &self,
        ids: &[KeyId],
        up_to: Created,
        context: &CallContext,
    ) -> Result<Vec<Option<Latest>>, BackendError> {
        self.batches.lock().unwrap().push(ids.len());
        if self.batch_max.is_some_and(|max| ids.len() > max) {
            return Err(BackendError::transient("too much at once"));
        }
        if ids.iter().any(|id| self.damaged.contains(id.as_str())) {
            return Err(BackendError::damaged("a row cannot be read"));
        }
        let mut rows = self.rows.load_latest_many(ids, up_to, context).await?;
        if self.reversed {
            rows.reverse();
        }
        Ok(rows)
    }

    async fn insert(
        &self,
        record: &EnvelopeKeyRecord,
        context: &CallContext,
    ) -> Result<Insert, BackendError> {
        self.rows.insert(record, context).await
    }

    fn failovers(&self) -> u64 {
        self.rows.failovers()
    }
}

fn over(store: PickyStore, world: &World) -> SessionFactory {
    on_this_runtime(
        SessionFactory::builder(store, world.kms.clone())
            .service("checkout")
            .product("payments")
            .policy(policy())
            .limits(claviger::Limits::production().max_attempts(1))
            .clock(world.clock.clone()),
    )
    .build()
    .unwrap()
}

#[tokio::test]
async fn warm_up_poisoned_records_fail_alone() {
    let partitions = names(2_000);
    let world = cold(&partitions).await;
    let damaged = [0, 999, 1_000, 1_234].map(|number| ik(&format!("customer-{number}")));
    let store = PickyStore {
        rows: world.store.inner().clone(),
        damaged: Arc::new(damaged.clone().into()),
        ..PickyStore::default()
    };
    let factory = over(store.clone(), &world);
    let report = factory.warm_up(&partitions).await.unwrap();
    assert_eq!(counts(&report), [1_996, 0, 0, 0, 4]);
    for (partition, error) in &report.failed {
        assert!(damaged.contains(&ik(partition)), "{partition}");
        let named = matches!(error, Error::Metastore { key, .. } if key.as_str() == ik(partition));
        assert!(named && !error.is_retryable(), "{error}");
    }
    assert!(store.batches.lock().unwrap().len() < 100);
}

#[tokio::test]
async fn warm_up_halves_what_is_too_much_for_the_store() {
    let partitions = names(1_000);
    let world = cold(&partitions).await;
    let store =
        PickyStore { rows: world.store.inner().clone(), batch_max: Some(300), ..PickyStore::default() };
    let factory = over(store.clone(), &world);
    assert_eq!(counts(&factory.warm_up(&partitions).await.unwrap()), [1_000, 0, 0, 0, 0]);
    assert_eq!(*store.batches.lock().unwrap(), [1_000, 500, 250, 250, 500, 250, 250]);
}

#[tokio::test]
async fn warm_up_refuses_answers_in_another_order() {
    let partitions = names(5);
    let world = cold(&partitions).await;
    let store = PickyStore { rows: world.store.inner().clone(), reversed: true, ..PickyStore::default() };
    let factory = over(store, &world);
    // The one in the middle is in its place, and so is each that is asked for alone.
    let report = factory.warm_up(&partitions).await.unwrap();
    assert_eq!(counts(&report), [5, 0, 0, 0, 0]);
    for partition in &partitions {
        let record = factory.session(partition).unwrap().encrypt(b"").await.unwrap();
        assert_eq!(record.parent().unwrap().id().as_str(), ik(partition));
    }
}

#[tokio::test(start_paused = true)]
async fn warm_up_of_a_store_that_refuses_or_is_down_makes_few_calls() {
    for fault in [DENIED, DOWN] {
        let world = World::new();
        world.faults().always(fault);
        let report = warm_up(&world, &names(5_000)).await;
        assert_eq!(counts(&report), [0, 0, 0, 0, 5_000]);
        assert!(world.faults().calls() < 600, "{}", world.faults().calls());
    }
}

#[tokio::test]
async fn warm_up_and_encrypts_load_each_key_once() {
    let partitions = names(50);
    let world = cold(&partitions[..40]).await;
    // One encrypt is first; the others come while the warm-up reads.
    world.faults().next(Operation::LoadLatest, Fault::Hang);
    let first = spawn_encrypt(world.session_of("customer-0"));
    world.faults().until_hanging(1).await;
    world.faults().next(Operation::LoadLatestMany, Fault::HangReply);
    let (factory, all) = (world.factory.clone(), partitions.clone());
    let warm_up = tokio::spawn(async move { factory.warm_up(&all).await });
    world.faults().until_hanging(2).await;
    let encrypts: Vec<_> =
        partitions.iter().map(|partition| spawn_encrypt(world.session_of(partition))).collect();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.faults().calls(), 2);
    world.faults().release();
    assert_eq!(counts(&warm_up.await.unwrap().unwrap()), [40, 0, 10, 0, 0]);
    for (partition, encrypt) in partitions.iter().zip(encrypts) {
        let record = encrypt.await.unwrap().unwrap();
        assert_eq!((record.parent().unwrap().id().as_str(), created(&record)), (ik(partition).as_str(), 0));
    }
    first.await.unwrap().unwrap();
    // Those that were missing are asked for once more by whoever creates them.
    for (number, partition) in partitions.iter().enumerate() {
        let own_loads = usize::from(number == 0 || number >= 40);
        assert_eq!(world.calls_for(Operation::LoadLatest, &ik(partition)), own_loads, "{partition}");
    }
    assert_eq!((world.calls().insert, world.kms_calls()), (10, 1));
}

#[tokio::test]
async fn warm_up_stops_at_the_caches_bound() {
    let partitions = names(25);
    let home = cold(&partitions).await;
    let world =
        World::over(home.store.inner().clone(), home.clock.clone(), |builder| builder.limits(room_for(10)));
    assert_eq!(counts(&warm_up(&world, &partitions).await), [10, 0, 0, 15, 0]);
    assert_eq!(world.factory.status().unwrap().intermediate_keys, 10);
    assert_eq!(counts(&warm_up(&world, &partitions).await), [0, 10, 0, 15, 0]);
    // What is missing takes no room.
    world.delete(&ik("customer-24")).await;
    let others = ["customer-24", "none", "customer-23"].map(str::to_owned);
    assert_eq!(counts(&warm_up(&world, &others).await), [1, 0, 2, 0, 0]);
    assert_eq!(world.factory.status().unwrap().intermediate_keys, 10);
}

#[tokio::test]
async fn warm_up_that_is_dropped_ends_with_its_chunk() {
    let partitions = names(1_500);
    let world = cold(&partitions).await;
    world.faults().next(Operation::LoadLatestMany, Fault::HangReply);
    {
        let mut warm_up = Box::pin(world.factory.warm_up(&partitions));
        assert!(polled_once(&mut warm_up).await.is_none());
        world.faults().until_hanging(1).await;
    }
    let waiting = spawn_encrypt(world.session_of("customer-3"));
    world.faults().release();
    waiting.await.unwrap().unwrap();
    world.landed().await;
    assert_eq!(world.factory.status().unwrap().intermediate_keys, 1_000);
    assert_eq!((bulk_calls(&world), world.faults().calls()), ([1, 1], 2));
}

#[tokio::test(start_paused = true)]
async fn warm_up_that_hangs_is_not_waited_for_longer_than_a_load() {
    let partitions = names(3);
    let world = cold(&partitions).await;
    world.faults().always_for(Operation::LoadLatestMany, Fault::Hang);
    let (factory, all) = (world.factory.clone(), partitions.clone());
    let warm_up = tokio::spawn(async move { factory.warm_up(&all).await });
    world.faults().until_hanging(1).await;
    // It gets its own key, though the call that was to bring it never answers.
    world.session_of("customer-1").encrypt(b"").await.unwrap();
    let report = warm_up.await.unwrap().unwrap();
    assert_eq!(report.loaded + report.failed.len(), 3, "{report:?}");
    world.landed().await;
    assert_eq!(world.faults().hanging(), 0);
}

#[tokio::test]
async fn warm_up_overtaken_by_an_invalidation_leaves_nothing_fresh() {
    let partitions = names(3);
    let world = cold(&partitions).await;
    world.faults().next(Operation::LoadLatestMany, Fault::HangReply);
    let (factory, all) = (world.factory.clone(), partitions.clone());
    let warm_up = tokio::spawn(async move { factory.warm_up(&all).await });
    world.faults().until_hanging(1).await;
    world.revoke_latest(&ik("customer-1")).await;
    world.factory.invalidate(&KeyId::new(ik("customer-1"))).unwrap();
    world.faults().release();
    assert_eq!(counts(&warm_up.await.unwrap().unwrap()), [3, 0, 0, 0, 0]);
    for (partition, under) in partitions.iter().zip([0, 1, 0]) {
        assert_eq!(created(&world.session_of(partition).encrypt(b"").await.unwrap()), under, "{partition}");
    }
}

#[tokio::test]
async fn warm_up_learns_of_lost_rows_and_missing_parents() {
    let partitions = names(3);
    let world = cold(&partitions).await;
    drop(warm_up(&world, &partitions).await);
    world.delete(&ik("customer-1")).await;
    world.clock.advance(STALE);
    assert_eq!(counts(&warm_up(&world, &partitions).await), [2, 0, 1, 0, 0]);
    assert_eq!(world.factory.status().unwrap().intermediate_keys, 2);
    let orphaned = world.other_process();
    orphaned.delete(SK).await;
    assert_eq!(counts(&warm_up(&orphaned, &partitions).await), [0, 0, 3, 0, 0]);
    assert_eq!(orphaned.raised(claviger::Event::MissingParent), 2);
}

#[tokio::test]
async fn warm_up_while_the_kms_is_down_says_so() {
    let partitions = names(3);
    let world = cold(&partitions).await;
    world.kms.faults().always(DOWN);
    let report = warm_up(&world, &partitions).await;
    assert_eq!(counts(&report), [0, 0, 0, 0, 3]);
    assert!(
        report.failed.iter().all(|(_, error)| matches!(error, Error::Kms { .. }) && error.is_retryable())
    );
}

#[tokio::test(start_paused = true)]
async fn warm_up_and_close() {
    let partitions = names(3);
    let world = cold(&partitions).await;
    world.faults().next(Operation::LoadLatestMany, Fault::Hang);
    let (factory, all) = (world.factory.clone(), partitions.clone());
    let warm_up = tokio::spawn(async move { factory.warm_up(&all).await });
    world.faults().until_hanging(1).await;
    let report = world.factory.close(SECOND / 10).await.unwrap();
    assert_eq!(report.aborted_loads.len(), 3);
    let report = warm_up.await.unwrap().unwrap();
    assert!(report.failed.iter().all(|(_, error)| matches!(error, Error::Closed)), "{report:?}");
    assert_eq!((counts(&report), world.faults().hanging()), ([0, 0, 0, 0, 3], 0));
    assert!(matches!(world.factory.warm_up(&partitions).await, Err(Error::Closed)));
}

#[tokio::test(start_paused = true)]
async fn warm_up_leaves_to_others_what_it_cannot_read_and_loads_it_no_second_time() {
    let partitions = names(4);
    let world = cold(&partitions).await;
    world.faults().next(Operation::LoadLatestMany, Fault::Delay(SECOND));
    world.faults().next(Operation::LoadLatestMany, Fault::Hang);
    let begun = tokio::time::Instant::now();
    // The first call is in time.
    assert_eq!(counts(&warm_up(&world, &partitions[..2]).await), [2, 0, 0, 0, 0]);
    assert_eq!(begun.elapsed(), SECOND);
    let (factory, all) = (world.factory.clone(), partitions.clone());
    let warm_up = tokio::spawn(async move { factory.warm_up(&all).await });
    world.faults().until_hanging(1).await;
    let waiting = spawn_encrypt(world.session_of("customer-3"));
    assert_eq!(counts(&warm_up.await.unwrap().unwrap()), [2, 2, 0, 0, 0]);
    waiting.await.unwrap().unwrap();
    for partition in &partitions[2..] {
        assert_eq!(world.calls_for(Operation::LoadLatest, &ik(partition)), 1, "{partition}");
    }
}

#[tokio::test]
async fn warm_up_of_nothing_does_nothing() {
    let world = World::new();
    assert_eq!(counts(&warm_up(&world, &[]).await), [0; 5]);
    assert_eq!(world.faults().calls(), 0);
}

/// The warm-up leads the loads of keys that are due, and those that ask for these join them.
#[tokio::test(start_paused = true)]
async fn warm_up_that_waits_for_the_kms_has_learned_of_revocations_before() {
    let partitions = ["under-another", "revoked", "replaced"].map(str::to_owned);
    let world = cold(&partitions).await;
    for partition in &partitions {
        world.session_of(partition).encrypt(b"").await.unwrap();
    }
    let system_key = world.latest_row(SK).await;
    world.revoke_latest(SK).await;
    for partition in ["under-another", "replaced", "replaced"] {
        world.revoke_latest(&ik(partition)).await;
        world.other_process().session_of(partition).encrypt(b"").await.unwrap();
    }
    world.put(system_key).await;
    world.revoke_latest(&ik("revoked")).await;
    world.clock.advance(STALE);
    world.kms.faults().always(Fault::Hang);
    let warm_up = tokio::spawn({
        let (factory, partitions) = (world.factory.clone(), partitions.clone());
        async move { factory.warm_up(&partitions).await }
    });
    world.kms.faults().until_hanging(1).await;
    for encrypt in partitions.each_ref().map(|partition| spawn_encrypt(world.session_of(partition))) {
        let encrypted = encrypt.await.unwrap();
        assert!(encrypted.as_ref().is_err_and(Error::is_retryable), "{encrypted:?}");
    }
    assert_eq!(warm_up.await.unwrap().unwrap().loaded, 0);
}
