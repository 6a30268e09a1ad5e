//! Rows whose id the store's table takes for another one: they decrypt where the store gives them out,
//! and never encrypt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use claviger::testing::{FixedClock, call};
use claviger::{
    BackendError, CallContext, Created, CryptoPolicy, DataRowRecord, EnvelopeKeyRecord, Error, Event,
    FailureClass, InMemoryMetastore, Insert, KeyId, KeyMeta, Latest, Metastore, MetastoreAdmin as _,
    RevokedDecrypt, SessionFactory, SessionFactoryBuilder,
};

use crate::support::*;

const OWN: &str = "_IK_Alice_checkout_payments";

/// A table that folds case: of a version it has one row, whatever the case of the id.
#[derive(Clone, Debug)]
struct Folding {
    rows: InMemoryMetastore,
    /// Gives folded rows out; else it says that they are there.
    serves: bool,
    /// Takes them for the latest too, as no store may.
    is_careless: Arc<AtomicBool>,
    failovers: Arc<AtomicU64>,
}

#[derive(Debug, thiserror::Error)]
#[error("kept under another id")]
struct OtherId;

impl Folding {
    async fn folded(&self, key: &KeyMeta) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        let is_it = |row: &EnvelopeKeyRecord| {
            row.meta().created() == key.created()
                && row.meta().id().as_str().eq_ignore_ascii_case(key.id().as_str())
        };
        let rows = self.rows.list("", None, usize::MAX, &call()).await?.records;
        let Some(row) = rows.into_iter().find(is_it) else { return Ok(None) };
        if !self.serves {
            return Err(BackendError::folded(OtherId));
        }
        let asked = EnvelopeKeyRecord::new(key.clone(), Arc::clone(row.wrapped_key()), row.parent().cloned());
        Ok(Some(asked.revoked(row.is_revoked()).folded(row.meta().id().clone())))
    }
}

impl Metastore for Folding {
    async fn load(
        &self,
        key: &KeyMeta,
        context: &CallContext,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        match self.rows.load(key, context).await? {
            Some(row) => Ok(Some(row)),
            None => self.folded(key).await,
        }
    }

    async fn load_latest(
        &self,
        id: &KeyId,
        up_to: Created,
        context: &CallContext,
    ) -> Result<Option<Latest>, BackendError> {
        let latest = self.rows.load_latest(id, up_to, context).await?;
        if latest.is_some() || !self.is_careless.load(Ordering::Relaxed) {
            return Ok(latest);
        }
        let other = KeyId::new(id.as_str().replace("Alice", "alice"));
        let Some(other) = self.rows.load_latest(&other, up_to, context).await? else { return Ok(None) };
        let folded = self.folded(&KeyMeta::new(id.clone(), other.record.meta().created())).await?;
        Ok(folded.map(|record| Latest::new(record, None)))
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        context: &CallContext,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        let mut rows = Vec::new();
        for key in keys {
            rows.push(self.load(key, context).await?);
        }
        Ok(rows)
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
        if self.rows.load(record.meta(), context).await?.is_none() {
            let table = Self { serves: true, ..self.clone() };
            if table.folded(record.meta()).await?.is_some() {
                return Err(BackendError::permanent(OtherId));
            }
        }
        self.rows.insert(record, context).await
    }

    fn failovers(&self) -> u64 {
        self.failovers.load(Ordering::Relaxed)
    }
}

/// A record of Alice whose key, or its parent, another program has put under a lower-case id.
struct Folded {
    store: Folding,
    clock: FixedClock,
    record: DataRowRecord,
    factory: SessionFactory,
}

impl Folded {
    async fn with(
        renamed: &str,
        serves: bool,
        options: impl FnOnce(SessionFactoryBuilder) -> SessionFactoryBuilder,
    ) -> Self {
        let home = World::new();
        let record = home.session_of("Alice").encrypt(b"secret").await.unwrap();
        let rows = InMemoryMetastore::new();
        for row in home.store.inner().list("", None, usize::MAX, &call()).await.unwrap().records {
            let id = row.meta().id().as_str();
            let id = if id == renamed {
                id.to_lowercase().replace("_ik_", "_IK_").replace("_sk_", "_sK_")
            } else {
                id.to_owned()
            };
            let meta = KeyMeta::new(KeyId::new(id), row.meta().created());
            let row = EnvelopeKeyRecord::new(meta, Arc::clone(row.wrapped_key()), row.parent().cloned());
            assert_eq!(rows.insert(&row, &call()).await.unwrap(), Insert::Inserted);
        }
        let store = Folding { rows, serves, is_careless: Arc::default(), failovers: Arc::default() };
        let builder = SessionFactory::builder(store.clone(), home.kms.clone())
            .service("checkout")
            .product("payments")
            .policy(policy())
            .clock(home.clock.clone());
        let factory = options(builder).build().unwrap();
        home.clock.advance(MINUTE);
        Self { store, clock: home.clock, record, factory }
    }

    async fn new(serves: bool) -> Self {
        Self::with(OWN, serves, |builder| builder).await
    }

    /// Copies the row under the id that the record names.
    async fn give_a_row_of_its_own(&self) {
        let folded = self.folded_row().await;
        let meta = KeyMeta::new(KeyId::new(OWN), folded.meta().created());
        let own = EnvelopeKeyRecord::new(meta, Arc::clone(folded.wrapped_key()), folded.parent().cloned());
        assert_eq!(self.store.rows.insert(&own, &call()).await.unwrap(), Insert::Inserted);
    }

    async fn decrypts(&self) {
        let plaintext = self.factory.session("Alice").unwrap().decrypt(&self.record).await.unwrap();
        assert_eq!(*plaintext, *b"secret");
    }

    async fn decrypt_error(&self) -> Error {
        self.factory.session("Alice").unwrap().decrypt(&self.record).await.unwrap_err()
    }

    /// Returns when the key was created under which Alice's data is encrypted now, from [`START`].
    async fn encrypts_under(&self) -> i64 {
        created(&self.factory.session("Alice").unwrap().encrypt(b"new").await.unwrap())
    }

    async fn ids(&self) -> Vec<String> {
        let rows = self.store.rows.list("", None, usize::MAX, &call()).await.unwrap().records;
        rows.iter().map(|row| row.meta().id().as_str().to_owned()).collect()
    }

    async fn folded_row(&self) -> EnvelopeKeyRecord {
        self.store.rows.load_latest(&KeyId::new(IK), Created::MAX, &call()).await.unwrap().unwrap().record
    }

    fn events(&self) -> Vec<Event> {
        self.factory.status().unwrap().events.into_iter().map(|(event, _)| event).collect()
    }
}

fn is_folded(error: &Error) -> bool {
    !error.is_retryable()
        && matches!(error, Error::Metastore { source, .. } if source.class() == FailureClass::Folded)
}

#[tokio::test]
async fn record_whose_key_has_a_folded_id_is_refused_as_that_and_told_of() {
    let world = Folded::new(false).await;
    assert!(is_folded(&world.decrypt_error().await));
    assert_eq!(world.events(), [Event::FoldedId]);
}

#[tokio::test]
async fn record_whose_key_has_a_folded_id_is_opened_where_the_store_gives_it_out_and_told_of() {
    let world = Folded::new(true).await;
    for _ in 0..3 {
        world.decrypts().await;
    }
    assert_eq!(world.factory.status().unwrap().events, [(Event::FoldedId, 1)]);
}

#[tokio::test]
async fn folded_key_does_not_open_records_for_the_session_of_its_own_id() {
    let world = Folded::new(true).await;
    world.decrypts().await;
    let others = world.factory.session("alice").unwrap();
    assert!(matches!(others.decrypt(&world.record).await, Err(Error::ForeignRecord)));
}

#[tokio::test]
async fn folded_key_never_encrypts_and_decrypts_on_beside_the_key_that_does() {
    for decrypts_first in [true, false] {
        let world = Folded::new(true).await;
        if decrypts_first {
            world.decrypts().await;
            world.clock.advance(SECOND);
        }
        assert_eq!(world.encrypts_under().await, 60);
        world.decrypts().await;
        assert_eq!(world.encrypts_under().await, 60);
        assert_eq!(world.ids().await, [OWN, IK, SK]);
        assert_eq!(world.events(), [Event::FoldedId], "its row is not lost");
        assert_eq!(world.factory.status().unwrap().intermediate_keys, 2);
    }
}

/// What was sealed a moment before is of the same minute.
#[tokio::test]
async fn store_that_gives_a_folded_row_for_the_latest_brings_nobody_to_encrypt_under_it() {
    let world = Folded::new(true).await;
    world.store.is_careless.store(true, Ordering::Relaxed);
    assert_eq!(world.encrypts_under().await, 60);
    world.decrypts().await;
}

#[tokio::test]
async fn key_whose_parent_has_a_folded_id_decrypts_and_encrypts_no_more() {
    for serves in [true, false] {
        let world = Folded::with(SK, serves, |builder| builder).await;
        if serves {
            world.decrypts().await;
        } else {
            assert!(is_folded(&world.decrypt_error().await));
        }
        assert_eq!(world.encrypts_under().await, 60);
        assert_eq!(world.ids().await, [OWN, OWN, SK, "_sK_checkout_payments"]);
        if serves {
            world.decrypts().await;
        }
    }
}

#[tokio::test]
async fn revocation_of_the_row_is_learned_under_each_id_that_it_serves() {
    let policy = policy().revoked_decrypt(RevokedDecrypt::Deny);
    let world = Folded::with(OWN, true, |builder| builder.policy(policy)).await;
    world.decrypts().await;
    assert!(world.store.rows.revoke(world.folded_row().await.meta(), &call()).await.unwrap());
    world.clock.advance(STALE);
    assert!(matches!(world.decrypt_error().await, Error::KeyRevoked(_)));
}

#[tokio::test]
async fn folded_row_that_is_gone_is_told_once_and_not_put_back() {
    let world = Folded::with(OWN, true, |builder| builder.restore_lost(true)).await;
    world.decrypts().await;
    world.store.rows.delete(&KeyId::new(IK), &call()).await.unwrap();
    for _ in 0..2 {
        world.clock.advance(STALE);
        assert!(matches!(world.decrypt_error().await, Error::KeyNotFound(_)));
    }
    assert_eq!(world.factory.status().unwrap().events, [(Event::RowLost, 1), (Event::FoldedId, 1)]);
    assert_eq!(world.ids().await, [SK]);
}

#[tokio::test]
async fn key_that_gets_a_row_of_its_own_id_encrypts_again() {
    let world = Folded::with(OWN, true, |builder| builder.folded_ids(true)).await;
    world.decrypts().await;
    world.give_a_row_of_its_own().await;
    assert_eq!(world.encrypts_under().await, 0);
    world.decrypts().await;
}

/// Where that is not allowed it may as well be somebody else's copy.
#[tokio::test]
async fn key_that_is_known_under_a_folded_id_is_refused_in_a_row_of_its_own() {
    let world = Folded::new(true).await;
    world.decrypts().await;
    world.give_a_row_of_its_own().await;
    let error = world.factory.session("Alice").unwrap().encrypt(b"new").await.unwrap_err();
    assert!(matches!(error, Error::Authentication), "{error}");
    assert!(world.events().contains(&Event::Tampered));
}

#[tokio::test]
async fn folded_key_outlives_a_fail_over() {
    let world = Folded::new(true).await;
    world.decrypts().await;
    world.store.failovers.fetch_add(1, Ordering::Relaxed);
    world.encrypts_under().await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    world.decrypts().await;
    assert!(!world.events().contains(&Event::RowLost), "{:?}", world.events());
}

#[tokio::test]
async fn replica_that_gives_a_folded_row_serves_decrypts_only_and_one_that_refuses_it_is_not_lost() {
    let policy: fn() -> CryptoPolicy = || policy().replica_reads(true);
    let world = Folded::with(OWN, true, |builder| builder.policy(policy())).await;
    world.decrypts().await;
    assert_eq!(world.encrypts_under().await, 60);
    world.decrypts().await;
    assert_eq!(world.events(), [Event::FoldedId]);

    let world = Folded::with(OWN, false, |builder| builder.policy(policy())).await;
    assert!(is_folded(&world.decrypt_error().await));
    assert_eq!(world.events(), [Event::FoldedId]);
}
