//! T5 with replicas that may answer: what they say is enough to decrypt, and for nothing else.

use std::time::Duration;

use claviger::testing::{Fault, FaultyMetastore, Operation, call};
use claviger::{
    BackendError, CallContext, Consistency, Created, DataRowRecord, EnvelopeKeyRecord, Error, Event,
    FailureClass, FailureKind, InMemoryMetastore, Insert, KeyId, KeyMeta, Latest, Metastore, MetastoreAdmin,
    RevokedDecrypt, SessionFactory,
};

use crate::support::*;

/// A store and its replica, each with its faults and its log.
#[derive(Clone, Debug)]
struct Replicated {
    primary: FaultyMetastore<InMemoryMetastore>,
    replica: FaultyMetastore<InMemoryMetastore>,
}

impl Metastore for Replicated {
    async fn load(
        &self,
        key: &KeyMeta,
        context: &CallContext,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        match context.consistency {
            Consistency::Strong => self.primary.load(key, context).await,
            Consistency::Eventual => self.replica.load(key, context).await,
        }
    }

    async fn load_latest(
        &self,
        id: &KeyId,
        up_to: Created,
        context: &CallContext,
    ) -> Result<Option<Latest>, BackendError> {
        self.primary.load_latest(id, up_to, context).await
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        context: &CallContext,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        assert_eq!(context.consistency, Consistency::Strong);
        self.primary.load_many(keys, context).await
    }

    async fn load_latest_many(
        &self,
        ids: &[KeyId],
        up_to: Created,
        context: &CallContext,
    ) -> Result<Vec<Option<Latest>>, BackendError> {
        self.primary.load_latest_many(ids, up_to, context).await
    }

    async fn insert(
        &self,
        record: &EnvelopeKeyRecord,
        context: &CallContext,
    ) -> Result<Insert, BackendError> {
        self.primary.insert(record, context).await
    }

    fn failovers(&self) -> u64 {
        self.primary.failovers()
    }
}

/// A process that has cached nothing, over a store and a replica with the same rows.
struct Pair {
    world: World,
    replica: FaultyMetastore<InMemoryMetastore>,
    record: DataRowRecord,
}

async fn pair_with(rules: impl Into<Rules>) -> Pair {
    let home = World::new();
    let (record, _) = home.sealed().await;
    let mut world = home.other_process();
    let replica = FaultyMetastore::new(InMemoryMetastore::new());
    let store = Replicated { primary: world.store.clone(), replica: replica.clone() };
    let builder = SessionFactory::builder(store, world.kms.clone())
        .service("checkout")
        .product("payments")
        .clock(world.clock.clone());
    world.factory = on_this_runtime(rules.into().of(builder)).build().unwrap();
    let pair = Pair { world, replica, record };
    pair.catch_up().await;
    pair
}

async fn pair() -> Pair {
    pair_with(policy().replica_reads(true)).await
}

impl Pair {
    /// Makes the replica what the store is now.
    async fn catch_up(&self) {
        for id in [IK, SK] {
            self.replica.inner().delete(&KeyId::new(id), &call()).await.unwrap();
            for row in self.world.rows(id).await {
                assert_eq!(self.replica.inner().insert(&row, &call()).await.unwrap(), Insert::Inserted);
            }
        }
    }

    /// Loads of the key's row from the store, and from its replica.
    fn loads(&self) -> [usize; 2] {
        let of_replica = self.replica.faults();
        assert_eq!(of_replica.calls(), of_replica.calls_of(Operation::Load));
        assert!(
            of_replica.log().iter().all(|call| call.key.starts_with(IK)),
            "system keys are not asked of it"
        );
        [self.world.calls_for(Operation::Load, IK), of_replica.calls()]
    }
}

#[tokio::test]
async fn t5_replicas_are_off_by_default_and_with_interval_0() {
    let interval_0 = policy().replica_reads(true).revoke_check_interval(std::time::Duration::ZERO);
    for policy in [policy(), interval_0] {
        let pair = pair_with(policy).await;
        pair.world.decrypts(&pair.record).await;
        assert_eq!(pair.loads(), [1, 0]);
    }
}

#[tokio::test]
async fn t5_replica_answers_for_a_key_that_is_not_cached() {
    let pair = pair().await;
    pair.world.decrypts(&pair.record).await;
    assert_eq!((pair.loads(), pair.world.calls_for(Operation::Load, SK)), ([0, 1], 1));
    pair.world.decrypts(&pair.record).await;
    assert_eq!(pair.loads(), [0, 1], "the key is cached");
    assert_eq!(pair.world.kms_calls(), 1);
}

#[tokio::test]
async fn t5_replica_makes_no_key_fresh_for_encrypting() {
    for is_revoked in [false, true] {
        let pair = pair().await;
        if is_revoked {
            pair.world.revoke_latest(IK).await;
        }
        pair.world.decrypts(&pair.record).await;
        assert_eq!(pair.world.encrypts_under().await, i64::from(is_revoked));
        assert_eq!(pair.world.calls_for(Operation::LoadLatest, IK), 1);
    }
}

#[tokio::test]
async fn t5_replica_says_nothing_to_an_encrypt_while_the_store_is_down() {
    let pair = pair().await;
    pair.world.decrypts(&pair.record).await;
    pair.world.faults().always(DOWN);
    assert!(pair.world.encrypt_error().await.is_retryable());
    pair.world.decrypts(&pair.record).await;
}

#[tokio::test]
async fn t5_checks_of_a_key_that_a_replica_brought_are_strong() {
    for age in [DUE, STALE, TOO_OLD_TO_DECRYPT] {
        let pair = pair().await;
        pair.world.decrypts(&pair.record).await;
        pair.world.clock.advance(age);
        pair.world.decrypts(&pair.record).await;
        pair.world.landed().await;
        assert_eq!(pair.loads(), [1, 1], "{age:?}");
    }
}

#[tokio::test]
async fn t5_row_missing_in_a_replica_is_asked_for_with_strong_consistency() {
    let pair = pair().await;
    pair.replica.inner().delete(&KeyId::new(IK), &call()).await.unwrap();
    pair.world.decrypts(&pair.record).await;
    assert_eq!(pair.loads(), [1, 1]);
    // What neither has is not found, and remembered.
    let gone = self::pair().await;
    gone.world.delete(IK).await;
    gone.catch_up().await;
    for _ in 0..3 {
        assert!(matches!(gone.world.decrypt_error(&gone.record).await, Error::KeyNotFound(_)));
    }
    assert_eq!(gone.loads(), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn t5_answer_of_a_replica_that_cannot_be_used_is_asked_for_with_strong_consistency() {
    for fault in [DOWN, DENIED, Fault::Fail(FailureClass::Damaged), Fault::Hang] {
        let pair = pair().await;
        pair.replica.faults().always(fault);
        pair.world.decrypts(&pair.record).await;
        assert_eq!(pair.loads(), [1, 1], "{fault:?}");
        let is_lost = fault != Fault::Fail(FailureClass::Damaged);
        let expected: &[_] = if is_lost { &[(Event::ReplicaLost, 1)] } else { &[] };
        assert_eq!(pair.world.factory.status().unwrap().events, expected, "{fault:?}");
    }
    let other_key = {
        let other = World::new();
        other.clock.advance(MINUTE);
        other.sealed().await;
        other.latest_row(IK).await
    };
    for (case, is_row) in [("tampered", 0), ("foreign parent", 1), ("parent gone", 2)] {
        let pair = pair().await;
        let row = pair.world.latest_row(IK).await;
        let parent = match is_row {
            1 => KeyMeta::new(KeyId::new("_SK_other"), row.meta().created()),
            2 => meta(SK, 7),
            _ => row.parent().unwrap().clone(),
        };
        let wrapped_key = if is_row == 0 { other_key.wrapped_key() } else { row.wrapped_key() };
        let bad =
            EnvelopeKeyRecord::new(row.meta().clone(), std::sync::Arc::clone(wrapped_key), Some(parent));
        pair.replica.inner().delete(row.meta().id(), &call()).await.unwrap();
        assert_eq!(pair.replica.inner().insert(&bad, &call()).await.unwrap(), Insert::Inserted);
        pair.world.decrypts(&pair.record).await;
        assert_eq!(pair.loads(), [1, 1], "{case}");
        assert_eq!(pair.world.factory.status().unwrap().events, [], "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn t5_replica_that_is_down_costs_one_decrypt_a_second_a_call() {
    for fault in [DOWN, DENIED, Fault::Hang] {
        let pair = pair_with((policy().replica_reads(true), room_for(1))).await;
        pair.replica.faults().always(fault);
        let began = tokio::time::Instant::now();
        for round in 0..20 {
            pair.world.decrypts(&pair.record).await;
            pair.world.session_of("bob").encrypt(b"takes the place").await.unwrap();
            assert_eq!(pair.loads(), [round + 1, 1], "after one failure it is left alone for a second");
        }
        let waited = if fault == Fault::Hang { SECOND / 5 } else { Duration::ZERO };
        assert_eq!(began.elapsed(), waited, "refresh_wait, once");
        let status = pair.world.factory.status().unwrap();
        assert!(status.replica_down && !status.metastore_down && !status.metastore_read_only);
        pair.world.clock.advance(SECOND);
        for _ in 0..5 {
            pair.world.decrypts(&pair.record).await;
            pair.world.session_of("bob").encrypt(b"takes the place").await.unwrap();
        }
        assert_eq!(pair.loads()[1], 2, "then one asks again");
        assert_eq!(pair.world.raised(Event::ReplicaLost), 1, "it is one outage");
        pair.replica.faults().heal();
        pair.world.clock.advance(SECOND);
        pair.world.decrypts(&pair.record).await;
        assert_eq!(pair.loads()[1], 3);
        assert!(!pair.world.factory.status().unwrap().replica_down);
        pair.world.session_of("bob").encrypt(b"takes the place").await.unwrap();
        pair.replica.faults().always(fault);
        pair.world.decrypts(&pair.record).await;
        assert_eq!(pair.world.raised(Event::ReplicaLost), 2, "it is another one");
    }
}

/// The store answers while the replica hangs, however many ask at once.
#[tokio::test(start_paused = true)]
async fn t5_replica_that_hangs_delays_nobody_longer_than_refresh_wait() {
    let pair = pair().await;
    let names: Vec<String> = (0..500).map(|number| format!("customer-{number}")).collect();
    let (home, mut records) = (pair.world.other_process(), Vec::new());
    for name in &names {
        records.push(home.session_of(name).encrypt(b"secret").await.unwrap());
    }
    pair.replica.faults().always(Fault::Hang);
    let began = tokio::time::Instant::now();
    let decrypts: Vec<_> = names
        .iter()
        .zip(records)
        .map(|(name, record)| {
            let session = pair.world.session_of(name);
            tokio::spawn(async move { session.decrypt(&record).await.map(drop) })
        })
        .collect();
    for decrypt in decrypts {
        decrypt.await.unwrap().unwrap();
    }
    assert_eq!(began.elapsed(), SECOND / 5);
    assert!(pair.replica.faults().calls() <= 64, "the others did not even ask");
    assert_eq!(pair.world.raised(Event::ReplicaLost), 1);
}

#[tokio::test]
async fn t5_replica_that_lags_behind_is_believed_until_the_next_check() {
    let pair = pair_with(policy().replica_reads(true).revoked_decrypt(RevokedDecrypt::Deny)).await;
    pair.world.revoke_latest(IK).await;
    pair.world.decrypts(&pair.record).await;
    pair.world.clock.advance(STALE);
    assert!(matches!(pair.world.decrypt_error(&pair.record).await, Error::KeyRevoked(_)));
    let informed = pair_with(policy().replica_reads(true).revoked_decrypt(RevokedDecrypt::Deny)).await;
    informed.world.revoke_latest(IK).await;
    informed.catch_up().await;
    assert!(matches!(informed.world.decrypt_error(&informed.record).await, Error::KeyRevoked(_)));
    assert_eq!(informed.loads(), [0, 1]);
}

#[tokio::test]
async fn t5_replica_that_lags_behind_takes_back_no_revocation_and_raises_no_alarm() {
    let policy = policy().replica_reads(true).revoked_decrypt(RevokedDecrypt::Warn);
    let pair = pair_with((policy, room_for(1))).await;
    let session = pair.world.session();
    pair.world.revoke_latest(IK).await;
    session.encrypt(b"learns of it").await.unwrap();
    pair.world.session_of("bob").encrypt(b"takes the place").await.unwrap();
    session.decrypt(&pair.record).await.unwrap();
    assert_eq!(pair.loads(), [0, 1]);
    assert_eq!((pair.world.raised(Event::RevokedDecrypt), pair.world.raised(Event::Unrevoked)), (1, 0));
}

#[tokio::test]
async fn t5_invalidated_key_is_not_asked_of_a_replica() {
    let policy = policy().replica_reads(true).revoked_decrypt(RevokedDecrypt::Deny);
    for is_all in [false, true] {
        let pair = pair_with((policy.clone(), room_for(1))).await;
        let session = pair.world.session();
        session.decrypt(&pair.record).await.unwrap();
        pair.world.revoke_latest(IK).await;
        if is_all {
            pair.world.factory.invalidate_all().unwrap();
        } else {
            pair.world.factory.invalidate(&KeyId::new(IK)).unwrap();
        }
        pair.world.session_of("bob").encrypt(b"takes the place").await.unwrap();
        assert!(matches!(session.decrypt(&pair.record).await, Err(Error::KeyRevoked(_))), "{is_all}");
    }
}

/// A load of the latest from the store is under way while a replica answers for that version.
#[tokio::test]
async fn t5_replica_does_not_make_the_stores_word_younger() {
    let pair = pair().await;
    pair.world.faults().next(Operation::LoadLatest, Fault::HangReply);
    let encrypt = spawn_encrypt(pair.world.session());
    pair.world.faults().until_hanging(1).await;
    pair.world.clock.advance(DUE - SECOND);
    pair.world.decrypts(&pair.record).await;
    assert_eq!(pair.loads(), [0, 1]);
    pair.world.revoke_latest(IK).await;
    pair.world.faults().release();
    assert_eq!(created(&encrypt.await.unwrap().unwrap()), 0);
    pair.world.clock.advance(STALE - DUE + SECOND);
    assert_ne!(pair.world.encrypts_under().await, 0, "its age counts from what the store said");
}

#[tokio::test(start_paused = true)]
async fn t5_replica_that_cannot_hold_one_key_is_neither_down_nor_left_alone() {
    let pair = pair_with((policy().replica_reads(true), room_for(1))).await;
    pair.replica.faults().always(Fault::Refuse(FailureKind::Encoding));
    for round in 1..=5 {
        pair.world.decrypts(&pair.record).await;
        pair.world.session_of("bob").encrypt(b"takes the place").await.unwrap();
        assert_eq!(pair.loads()[1], round, "it is asked each time");
    }
    assert!(!pair.world.factory.status().unwrap().replica_down);
    assert_eq!(pair.world.raised(Event::ReplicaLost), 0);
}

#[tokio::test(start_paused = true)]
async fn t5_key_that_the_store_cannot_hold_is_asked_for_once_a_call_and_is_no_outage() {
    let world = World::new();
    let (record, _) = world.sealed().await;
    for &kind in FailureKind::ALL.iter().filter(|kind| kind.is_of_one_key()) {
        let world = world.other_process();
        world.faults().always_for(Operation::Load, Fault::Refuse(kind));
        for _ in 0..20 {
            let error = world.decrypt_error(&record).await;
            assert!(
                matches!(&error, Error::Metastore { source, .. } if source.kind() == Some(kind)),
                "{error:?}"
            );
        }
        assert_eq!(world.faults().calls_of(Operation::Load), 20, "{kind}: not one was repeated or refused");
        assert!(!world.factory.status().unwrap().metastore_down, "{kind}");
        world.faults().heal();
    }
}
