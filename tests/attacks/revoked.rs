//! A key that was revoked, since it leaked, comes back.

use claviger::testing::call;
use claviger::{
    BackendError, CallContext, Consistency, Created, DataRowRecord, EnvelopeKeyRecord, Error, Event,
    InMemoryMetastore, Insert, KeyId, KeyMeta, Latest, Metastore, MetastoreAdmin, SecretKey, SessionFactory,
    StaticKms, SystemRandom,
};

use crate::forged::{copy, relabelled};
use crate::support::*;

/// A world that knows of alice's first key that it is revoked, its row, and the row of its successor.
async fn known_revoked(world: &World) -> EnvelopeKeyRecord {
    world.sealed().await;
    let leaked = world.latest_row(IK).await;
    world.revoke_latest(IK).await;
    world.factory.invalidate(&KeyId::new(IK)).unwrap();
    assert_eq!(world.encrypts_under().await, 1);
    leaked
}

/// He writes its bytes into a later row: they encrypt nothing, and a new key takes their place.
#[tokio::test]
async fn revoked_key_in_a_new_row_encrypts_nothing_and_is_replaced() {
    let world = World::new();
    let leaked = known_revoked(&world).await;
    world.put(copy(&leaked, meta(IK, 60))).await;
    world.clock.advance(STALE + SECOND);
    let at = world.encrypts_under().await;
    assert_eq!(at, seconds(STALE));
    assert_ne!(world.latest_row(IK).await.wrapped_key(), leaked.wrapped_key());
    assert_eq!(world.raised(Event::Tampered), 1);
    // Nor under another id, for which the row is valid.
    let of_bob = meta("_IK_bob_checkout_payments", 60);
    world.put(copy(&leaked, of_bob)).await;
    let record = world.session_of("bob").encrypt(b"secret").await.unwrap();
    assert_eq!(created(&record), at);
    assert_eq!(world.raised(Event::Tampered), 2);
}

/// A process that is started after the revocation never unwraps the key, and knows it by the row before the
/// latest: one that it saw earlier, or that it sees beside the copy.
#[tokio::test]
async fn process_that_was_started_after_the_revocation_knows_it_by_the_row_before() {
    for is_seen_before in [true, false] {
        let home = World::new();
        let leaked = known_revoked(&home).await;
        let world = home.other_process();
        if is_seen_before {
            assert_eq!(world.encrypts_under().await, 1);
        } else {
            // As if the new key had never been.
            world.delete(IK).await;
            world.put(leaked.clone().revoked(true)).await;
        }
        world.put(copy(&leaked, meta(IK, 60))).await;
        world.factory.invalidate(&KeyId::new(IK)).unwrap();
        assert_eq!(world.encrypts_under().await, 61, "{is_seen_before}");
        assert_ne!(world.latest_row(IK).await.wrapped_key(), leaked.wrapped_key());
        assert_eq!(world.raised(Event::Tampered), 1, "{is_seen_before}");
    }
}

/// What a process cannot see that was started later: the threat model says so, and this is how it is.
#[tokio::test]
async fn process_that_is_started_does_not_see_a_copy_of_what_was_revoked_before_the_last_key() {
    let home = World::new();
    let leaked = known_revoked(&home).await;
    home.put(copy(&leaked, meta(IK, 60))).await;
    let world = home.other_process();
    assert_eq!(world.encrypts_under().await, 60);
    assert_eq!(world.raised(Event::Tampered), 0);
    // Once anybody reads what was sealed before, it is seen.
    let (record, _) = home.sealed().await;
    drop(world.session().decrypt(&relabelled(&record, &meta(IK, 0))).await);
    assert_eq!(world.raised(Event::Tampered), 1);
    assert_eq!(world.encrypts_under().await, 61);
}

/// He takes the mark away, after the process has forgotten the key: by eviction, by idling, by many others.
#[tokio::test]
async fn revocation_is_not_undone_by_evictions_idling_or_other_revocations() {
    for how in ["held", "evicted", "idle", "others"] {
        let world = World::with((policy(), room_for(2)));
        let leaked = known_revoked(&world).await;
        // As if the new key had never been.
        world.delete(IK).await;
        world.put(leaked.clone()).await;
        match how {
            "evicted" => {
                for partition in 0..10 {
                    world.session_of(&format!("p{partition}")).encrypt(b"x").await.unwrap();
                }
            }
            "idle" => {
                world.clock.advance(3 * HOUR);
                world.at_rest().await;
            }
            "others" => {
                for number in 1..=300 {
                    let dummy = EnvelopeKeyRecord::new(
                        meta(IK, -number),
                        vec![u8::try_from(number % 251).unwrap(); 60],
                        leaked.parent().cloned(),
                    );
                    world.put(dummy.revoked(true)).await;
                    let (record, _) = world.sealed().await;
                    drop(world.session().decrypt(&relabelled(&record, &meta(IK, -number))).await);
                }
            }
            _ => {}
        }
        world.factory.invalidate(&KeyId::new(IK)).unwrap();
        assert_ne!(world.encrypts_under().await, 0, "{how}");
        assert!(world.raised(Event::Unrevoked) > 0 || how == "others", "{how}");
        assert_eq!(world.raised(Event::RevocationsForgotten), 0, "{how}");
    }
}

/// The same of a system key, under which all partitions are.
#[tokio::test]
async fn revocation_of_a_system_key_is_not_undone_either() {
    let world = World::new();
    world.sealed().await;
    let leaked = world.latest_row(SK).await;
    world.revoke_latest(SK).await;
    world.factory.invalidate(&KeyId::new(SK)).unwrap();
    assert_eq!(world.encrypts_under().await, 1);
    world.delete(SK).await;
    world.put(leaked).await;
    world.factory.invalidate_all().unwrap();
    let record = world.session_of("bob").encrypt(b"x").await.unwrap();
    let row = world.latest_row("_IK_bob_checkout_payments").await;
    assert_eq!(row.meta(), record.parent().unwrap());
    assert_ne!(row.parent(), Some(&meta(SK, 0)));
    assert!(world.raised(Event::Unrevoked) > 0);
}

/// A hundred thousand more are learned, and that those which came first are forgotten is told, once.
#[tokio::test]
async fn that_revocations_are_forgotten_is_told_once() {
    const DUMMIES: usize = 100_003;
    let world = World::new();
    let row = world.sealed_row(IK).await;
    let partitions: Vec<String> = (0..DUMMIES).map(|number| format!("p{number}")).collect();
    for (number, partition) in partitions.iter().enumerate() {
        let mut wrapped = number.to_le_bytes().repeat(7);
        wrapped.extend([0; 4]);
        let key = meta(&format!("_IK_{partition}_checkout_payments"), 0);
        let dummy = EnvelopeKeyRecord::new(key, wrapped, row.parent().cloned()).revoked(true);
        let inserted = Metastore::insert(world.store.inner(), &dummy, &call()).await.unwrap();
        assert_eq!(inserted, Insert::Inserted);
    }
    let warmed = world.factory.warm_up(&partitions).await.unwrap();
    assert_eq!(warmed.missing, DUMMIES, "{:?}", warmed.failed.first());
    assert_eq!(world.raised(Event::RevocationsForgotten), 1);
    assert_eq!(world.store.inner().count(&call()).await.unwrap(), DUMMIES as u64 + 2);
}

/// A store in which each row that is written is revoked by the time the writer hears of it.
#[derive(Clone, Debug, Default)]
struct Topped(InMemoryMetastore);

impl Metastore for Topped {
    async fn load(
        &self,
        key: &KeyMeta,
        context: &CallContext,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        self.0.load(key, context).await
    }

    async fn load_latest(
        &self,
        id: &KeyId,
        up_to: Created,
        context: &CallContext,
    ) -> Result<Option<Latest>, BackendError> {
        self.0.load_latest(id, up_to, context).await
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        context: &CallContext,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        self.0.load_many(keys, context).await
    }

    async fn load_latest_many(
        &self,
        ids: &[KeyId],
        up_to: Created,
        context: &CallContext,
    ) -> Result<Vec<Option<Latest>>, BackendError> {
        self.0.load_latest_many(ids, up_to, context).await
    }

    async fn insert(
        &self,
        record: &EnvelopeKeyRecord,
        context: &CallContext,
    ) -> Result<Insert, BackendError> {
        let _either = self.0.insert(&record.clone().revoked(true), context).await?;
        Ok(Insert::AlreadyExists)
    }

    fn failovers(&self) -> u64 {
        0
    }
}

/// Who revokes each new key at once has no key used, and a bounded number of rows made for each call.
#[tokio::test(start_paused = true)]
async fn keys_that_are_revoked_as_they_are_made_are_not_made_without_end() {
    let store = Topped::default();
    let kms = StaticKms::new(&SecretKey::generate(&SystemRandom::new()).unwrap()).unwrap();
    let builder = SessionFactory::builder(store.clone(), kms).service("checkout").product("payments");
    let factory = on_this_runtime(builder).policy(policy()).build().unwrap();
    for calls in 1..=3 {
        let error = factory.session("alice").unwrap().encrypt(b"x").await.unwrap_err();
        assert!(matches!(error, Error::CreationRace(_)) && error.is_retryable(), "{error:?}");
        assert!(store.0.count(&call()).await.unwrap() <= 5 * calls, "{calls}");
    }
}
