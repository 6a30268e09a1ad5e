//! T3: how a key is created, and the race for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use claviger::testing::{Fault, Operation};
use claviger::{
    BackendError, CallContext, Created, EnvelopeKeyRecord, Error, Event, FailureClass, InMemoryMetastore,
    Insert, KeyId, KeyMeta, Latest, Metastore, SessionFactory,
};

use crate::support::*;

/// A world in which the system key exists already, so that the only insert is alice's.
async fn with_system_key() -> World {
    let world = World::new();
    world.session_of("bob").encrypt(b"makes the system key").await.unwrap();
    world.faults().reset();
    world
}

#[tokio::test]
async fn t3_inserted_is_used_system_key_first() {
    let world = World::new();
    let (record, _) = world.sealed().await;
    let inserts: Vec<_> = world
        .faults()
        .log()
        .into_iter()
        .filter(|call| call.operation == Operation::Insert)
        .map(|call| call.key)
        .collect();
    assert_eq!(inserts, [meta(SK, 0).to_string(), meta(IK, 0).to_string()]);
    world.other_process().decrypts(&record).await;
}

#[tokio::test]
async fn t3_already_exists_uses_the_winner() {
    for existing in [World::new(), with_system_key().await] {
        let world = existing;
        let before = world.calls();
        world.faults().next(Operation::Insert, Fault::Hang);
        let encrypt = spawn_encrypt(world.session());
        world.faults().until_hanging(1).await;
        let winner = world.other_process();
        let (winners, _) = winner.sealed().await;
        world.faults().release();
        let losers = encrypt.await.unwrap().unwrap();
        assert_eq!(created(&losers), 0);
        assert_eq!((world.row_times(SK).await, world.row_times(IK).await), (vec![0], vec![0]));
        winner.decrypts(&losers).await;
        world.decrypts(&winners).await;
        assert!((world.calls() - before).insert <= 2, "nobody inserts again and again");
    }
}

#[tokio::test]
async fn t3_winner_that_is_not_valid_is_replaced_by_the_bump_rule() {
    for id in [IK, SK] {
        let world = with_system_key().await;
        world.faults().next(Operation::Insert, Fault::Hang);
        let encrypt = spawn_encrypt(world.session());
        world.faults().until_hanging(1).await;
        world.other_process().sealed().await;
        world.revoke_latest(id).await;
        world.clock.advance(STALE);
        world.faults().release();
        assert_ne!(created(&encrypt.await.unwrap().unwrap()), 0, "{id}");
    }
}

#[tokio::test]
async fn t3_parent_found_revoked_during_the_insert_is_replaced_with_the_key() {
    let world = World::new();
    let record = world.session_of("bob").encrypt(b"makes the system key").await.unwrap();
    world.faults().next(Operation::Insert, Fault::Hang);
    let encrypt = spawn_encrypt(world.session());
    world.faults().until_hanging(1).await;
    world.revoke_latest(SK).await;
    world.clock.advance(STALE);
    world.session_of("bob").decrypt(&record).await.unwrap();
    world.faults().release();
    assert_eq!(created(&encrypt.await.unwrap().unwrap()), seconds(STALE));
    assert_eq!(world.latest_row(IK).await.parent(), Some(&meta(SK, seconds(STALE))));
}

#[tokio::test(start_paused = true)]
async fn t3_insert_failed_is_never_taken_for_a_duplicate() {
    for (fault, is_retryable) in [(DOWN, true), (DENIED, false)] {
        let world = with_system_key().await;
        world.faults().always_for(Operation::Insert, fault);
        let error = world.encrypt_error().await;
        assert!(matches!(error, Error::Metastore { operation: "insert", .. }), "{error}");
        assert_eq!(error.is_retryable(), is_retryable);
        assert_eq!(world.calls().load, 0, "no look for a winner");
        assert_eq!(world.rows(IK).await, []);
        world.heal();
        world.clock.advance(SECOND);
        assert_eq!(world.encrypts_under().await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn t3_reply_lost_then_retry_uses_our_row() {
    let world = with_system_key().await;
    world.faults().next(Operation::Insert, Fault::LoseReply(FailureClass::Transient));
    let (record, created) = world.sealed().await;
    assert_eq!((created, world.row_times(IK).await), (0, vec![0]));
    world.other_process().decrypts(&record).await;
}

#[tokio::test(start_paused = true)]
async fn t3_reply_lost_for_good_leaves_a_row_that_the_next_call_uses() {
    let world = with_system_key().await;
    world.faults().next(Operation::Insert, Fault::LoseReply(FailureClass::Permanent));
    assert!(!world.encrypt_error().await.is_retryable());
    let (record, created) = world.sealed().await;
    assert_eq!((created, world.row_times(IK).await), (0, vec![0]));
    world.other_process().decrypts(&record).await;
}

#[tokio::test(start_paused = true)]
async fn t3_reply_that_comes_too_late_leaves_a_row_that_the_retry_uses() {
    let world = with_system_key().await;
    world.faults().next(Operation::Insert, Fault::HangReply);
    let (record, created) = world.sealed().await;
    assert_eq!((created, world.row_times(IK).await), (0, vec![0]));
    world.other_process().decrypts(&record).await;
}

#[tokio::test(start_paused = true)]
async fn t3_wrap_failed_stores_nothing() {
    for (fault, is_retryable) in [(DOWN, true), (DENIED, false)] {
        let world = World::new();
        world.kms.faults().always(fault);
        let error = world.encrypt_error().await;
        assert!(matches!(error, Error::Kms { operation: "wrap_key", .. }), "{error}");
        assert_eq!(error.is_retryable(), is_retryable);
        assert_eq!(world.calls().insert, 0);
    }
}

/// A store that does not keep its word.
#[derive(Debug)]
struct Odd {
    rows: InMemoryMetastore,
    oddity: Oddity,
    looks: Arc<AtomicUsize>,
}

impl Odd {
    /// Tells whether a look for this key sees what was written.
    fn sees(&self, id: &KeyId) -> bool {
        if id.as_str() != IK {
            return true;
        }
        let look = self.looks.fetch_add(1, Ordering::Relaxed);
        match self.oddity {
            Oddity::AppliesLate(blind) => look >= blind,
            Oddity::SeesOnce(seen) => look == seen,
            Oddity::FoldsCase | Oddity::NeverLatest => true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Oddity {
    /// Its primary key folds case, its look-up compares bytes.
    FoldsCase,
    /// Its latest never sees what was written.
    NeverLatest,
    /// Another node of it answers reads, which applies an intermediate key's row after so many looks.
    AppliesLate(usize),
    /// Of its nodes only the one that answers this look has an intermediate key's row.
    SeesOnce(usize),
}

impl Metastore for Odd {
    async fn load(
        &self,
        key: &KeyMeta,
        context: &CallContext,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        let row = self.rows.load(key, context).await?;
        Ok(row.filter(|_| self.sees(key.id())))
    }

    async fn load_latest(
        &self,
        id: &KeyId,
        up_to: Created,
        context: &CallContext,
    ) -> Result<Option<Latest>, BackendError> {
        let latest = self.rows.load_latest(id, up_to, context).await?;
        Ok(latest
            .filter(|_| self.sees(id))
            .filter(|_| self.oddity != Oddity::NeverLatest || id.as_str() == SK))
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
        self.rows.load_latest_many(ids, up_to, context).await
    }

    async fn insert(
        &self,
        record: &EnvelopeKeyRecord,
        context: &CallContext,
    ) -> Result<Insert, BackendError> {
        if self.oddity == Oddity::FoldsCase {
            let folded = KeyId::new(record.meta().id().as_str().replace("ALICE", "alice"));
            let taken = KeyMeta::new(folded, record.meta().created());
            if self.rows.load(&taken, context).await?.is_some() {
                return Ok(Insert::AlreadyExists);
            }
        }
        self.rows.insert(record, context).await
    }

    fn failovers(&self) -> u64 {
        self.rows.failovers()
    }
}

fn factory_over(world: &World, oddity: Oddity) -> SessionFactory {
    factory_with_looks(world, oddity, &Arc::default())
}

/// Counts the looks for an intermediate key's rows.
fn factory_with_looks(world: &World, oddity: Oddity, looks: &Arc<AtomicUsize>) -> SessionFactory {
    let store = Odd { rows: world.store.inner().clone(), oddity, looks: Arc::clone(looks) };
    on_this_runtime(
        SessionFactory::builder(store, world.kms.clone())
            .service("checkout")
            .product("payments")
            .policy(policy())
            .clock(world.clock.clone()),
    )
    .build()
    .unwrap()
}

#[tokio::test(start_paused = true)]
async fn t3_indistinct_table_is_an_error_and_an_alarm() {
    let world = World::new();
    world.sealed().await;
    let factory = factory_over(&world, Oddity::FoldsCase);
    let error = factory.session("ALICE").unwrap().encrypt(b"").await.unwrap_err();
    assert!(
        matches!(&error, Error::IndistinctKey(key) if key.id().as_str() == "_IK_ALICE_checkout_payments")
    );
    assert!(!error.is_retryable());
    assert_eq!(factory.status().unwrap().events, [(Event::Indistinct, 1)]);
}

#[tokio::test(start_paused = true)]
async fn t3_race_that_is_never_won_ends_after_five_rounds() {
    let world = World::new();
    world.sealed().await;
    let looks = Arc::default();
    let factory = factory_with_looks(&world, Oddity::NeverLatest, &looks);
    let error = factory.session("alice").unwrap().encrypt(b"").await.unwrap_err();
    assert!(matches!(error, Error::CreationRace(_)), "{error}");
    assert_eq!(
        looks.load(Ordering::Relaxed),
        5 * 2,
        "one for the latest row and one for the winner's, each round"
    );
    assert!(error.is_retryable());
    assert_eq!(world.row_times(IK).await, [0]);
}

/// Each round looks twice: for the latest row, and for the one that is said to exist.
#[tokio::test(start_paused = true)]
async fn t3_winners_row_that_a_node_applies_late_is_a_race_and_no_alarm() {
    for blind in [1, 4, 8] {
        let world = World::new();
        world.sealed().await;
        let factory = factory_over(&world, Oddity::AppliesLate(blind));
        let record = factory.session("alice").unwrap().encrypt(b"").await.unwrap();
        assert_eq!(created(&record), 0, "{blind}: the winner's key");
        assert_eq!(factory.status().unwrap().events, [], "{blind}");
        assert_eq!(world.row_times(IK).await, [0], "{blind}");
    }
}

#[tokio::test(start_paused = true)]
async fn t3_winners_row_that_is_seen_too_late_is_a_lost_race_and_one_never_seen_an_alarm() {
    for (blind, is_seen) in [(9, true), (10, false)] {
        let world = World::new();
        world.sealed().await;
        let factory = factory_over(&world, Oddity::AppliesLate(blind));
        let error = factory.session("alice").unwrap().encrypt(b"").await.unwrap_err();
        assert_eq!(matches!(error, Error::CreationRace(_)), is_seen, "{error}");
        assert_eq!(matches!(error, Error::IndistinctKey(_)), !is_seen, "{error}");
        assert_eq!(factory.status().unwrap().events.is_empty(), is_seen);
    }
}

/// A row that was seen in one round shows that the table tells its id from others, whatever the last round saw.
#[tokio::test(start_paused = true)]
async fn t3_winners_row_that_is_seen_in_any_round_is_a_lost_race_and_no_alarm() {
    // The looks for the one that is said to exist, in the first and in the last round.
    for look in [1, 9] {
        let world = World::new();
        world.sealed().await;
        let factory = factory_over(&world, Oddity::SeesOnce(look));
        let error = factory.session("alice").unwrap().encrypt(b"").await.unwrap_err();
        assert!(matches!(error, Error::CreationRace(_)), "{look}: {error}");
        assert_eq!(factory.status().unwrap().events, [], "{look}");
    }
}
