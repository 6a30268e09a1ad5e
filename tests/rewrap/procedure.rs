//! What is done when a master key has become known, as docs/kms.md has it, with an attacker who knows it and
//! writes the table at each step.

use std::sync::Arc;
use std::time::Duration;

use claviger::testing::{FixedClock, call};
use claviger::{
    BackendError, CallContext, Created, CryptoPolicy, DataRowRecord, EnvelopeKeyRecord, Error,
    InMemoryMetastore, KeyId, KeyManagementService, KeyMeta, LockPolicy, Metastore as _, MetastoreAdmin as _,
    RewrapOptions, SecretKey, SessionFactory, StaticKms, SystemRandom, WrapHealth, WrappedKey,
    rewrap_system_keys,
};

use crate::known::{REVOKING, kms};
use crate::support::{START, system_key_metas, system_keys};

/// Wraps by the new master key, and unwraps by the old one as well: as a service in the middle of a move.
#[derive(Clone, Debug)]
struct Both {
    new: Arc<StaticKms>,
    old: Arc<StaticKms>,
}

impl KeyManagementService for Both {
    async fn wrap_key(
        &self,
        key: &SecretKey,
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        self.new.wrap_key(key, meta, context).await
    }

    async fn unwrap_key(
        &self,
        wrapped: &[u8],
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        match self.new.unwrap_key(wrapped, meta, context).await {
            Ok(key) => Ok(key),
            Err(_) => self.old.unwrap_key(wrapped, meta, context).await,
        }
    }

    fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        self.new.inspect(wrapped)
    }
}

const SERVICE: &str = "checkout";
const INTERVAL: Duration = Duration::from_secs(60 * 60);

/// The key table, and who uses it.
struct World {
    store: InMemoryMetastore,
    clock: FixedClock,
    old: Arc<StaticKms>,
    new: Arc<StaticKms>,
    /// Everything that was ever sealed.
    records: Vec<(String, DataRowRecord)>,
    /// Every system key that the attacker has seen the bytes of.
    known: Vec<SecretKey>,
}

impl World {
    async fn new() -> Self {
        let clock = FixedClock::new(START);
        let mut world = Self {
            store: InMemoryMetastore::new(),
            clock,
            old: kms("old"),
            new: kms("new"),
            records: Vec::new(),
            known: Vec::new(),
        };
        let service = world.service(Arc::clone(&world.old));
        for _ in 0..3 {
            world.seal(&service, "alice").await.unwrap();
            world.clock.advance(Duration::from_secs(100 * 24 * 60 * 60));
        }
        world
    }

    /// A process that begins now.
    fn service(&self, kms: impl KeyManagementService) -> SessionFactory {
        SessionFactory::builder(self.store.clone(), kms)
            .service(SERVICE)
            .product("payments")
            .policy(CryptoPolicy::production().lock_policy(LockPolicy::Off))
            .clock(self.clock.clone())
            .build()
            .unwrap()
    }

    async fn seal(&mut self, service: &SessionFactory, partition: &str) -> Result<DataRowRecord, Error> {
        let record = service.session(partition).unwrap().encrypt(b"secret").await?;
        self.records.push((partition.to_owned(), record.clone()));
        Ok(record)
    }

    fn now(&self) -> i64 {
        i64::try_from(claviger::Clock::wall(&self.clock).as_secs()).unwrap()
    }

    /// Reads the table with the old master key, and puts keys of his own there: of now, from before, and
    /// from what will be a while ahead.
    async fn attack(&mut self) {
        let newest =
            system_key_metas(&self.store).await.last().map_or(0, |meta| meta.created().unix_seconds());
        let id = KeyId::new(format!("_SK_{SERVICE}_payments"));
        for created in [self.now().max(newest) + 1, self.now() - 150 * 24 * 60 * 60, self.now() + 60 * 60] {
            let meta = KeyMeta::new(id.clone(), Created::new(created).unwrap());
            let wrapped = self
                .old
                .wrap_key(&SecretKey::generate(&SystemRandom::new()).unwrap(), &meta, &call())
                .await
                .unwrap();
            // One of his earlier ones may have the place.
            let _taken = self
                .store
                .insert(&EnvelopeKeyRecord::new(meta, Arc::clone(wrapped.bytes()), None), &call())
                .await
                .unwrap();
        }
        for row in system_keys(&self.store).await {
            if let Ok(key) = self.old.unwrap_key(row.wrapped_key(), row.meta(), &call()).await {
                self.known.push(key);
            }
        }
    }

    /// Tells whether the attacker can open a record: its key is under a system key that he knows.
    async fn is_known(&self, record: &DataRowRecord) -> bool {
        let parent = record.parent().unwrap();
        let row = self
            .store
            .load(parent, &call().consistency(claviger::Consistency::Strong))
            .await
            .unwrap()
            .unwrap();
        for key in &self.known {
            if StaticKms::new(key).unwrap().unwrap_key(row.wrapped_key(), parent, &call()).await.is_ok() {
                return true;
            }
        }
        false
    }

    /// Requires that what this process seals now, if it can, is no record that the attacker opens; whether
    /// the partition has a key already or is new.
    async fn assert_seals_in_secret(&mut self, service: &SessionFactory, step: &str) -> bool {
        let new = format!("new-{}", self.records.len());
        let mut sealed = true;
        for partition in ["alice", &new] {
            match self.seal(service, partition).await {
                Ok(record) => assert!(!self.is_known(&record).await, "{step}: {partition}"),
                Err(_) => sealed = false,
            }
        }
        sealed
    }

    async fn assert_all_is_readable(&self, service: &SessionFactory, step: &str) {
        for (partition, record) in &self.records {
            let opened = service.session(partition).unwrap().decrypt(record).await;
            assert!(opened.is_ok_and(|plaintext| *plaintext == *b"secret"), "{step}: {partition}");
        }
    }

    /// Requires that no key that he knows is one that the new master key opens and that is not revoked.
    async fn assert_nothing_is_laundered(&self, step: &str) {
        for row in system_keys(&self.store).await.into_iter().filter(|row| !row.is_revoked()) {
            if let Ok(key) = self.new.unwrap_key(row.wrapped_key(), row.meta(), &call()).await {
                let is_known = self.known.iter().any(|known| known.expose_secret() == key.expose_secret());
                assert!(!is_known, "{step}: {}", row.meta());
            }
        }
    }

    async fn rewrap(&self, options: &RewrapOptions) -> claviger::RewrapReport {
        rewrap_system_keys(&self.store, &self.old, &self.new, options).await.unwrap()
    }

    /// Time for every process to look at its keys again.
    fn wait(&self) {
        self.clock.advance(INTERVAL + Duration::from_secs(60));
    }
}

/// What a known master key is worth before anything is done: the test's own attacker works.
#[tokio::test]
async fn who_knows_the_master_key_and_writes_the_table_chooses_the_key() {
    let mut world = World::new().await;
    let service = world.service(Arc::clone(&world.old));
    world.attack().await;
    let record = world.seal(&service, "alice").await.unwrap();
    assert!(world.is_known(&record).await);
    // And a move that revokes nothing makes his keys as good as any.
    let report = world.rewrap(&RewrapOptions::new()).await;
    assert!(report.is_clean());
    let service = world.service(Arc::clone(&world.new));
    let record = world.seal(&service, "alice").await.unwrap();
    assert!(world.is_known(&record).await);
}

/// As docs/kms.md has it: the old one goes first, then what is under it moves, revoked.
#[tokio::test]
async fn known_master_key_is_replaced_and_nothing_is_sealed_under_a_key_that_the_attacker_knows() {
    let mut world = World::new().await;
    world.attack().await;
    // 1. All processes are begun anew with the new one alone.
    let service = world.service(Arc::clone(&world.new));
    world.attack().await;
    assert!(!world.assert_seals_in_secret(&service, "with the new one").await);
    // 2. What is there is wrapped anew, and revoked.
    let cut = Created::new(world.now()).unwrap();
    world.wait();
    world.attack().await;
    let report = world.rewrap(&REVOKING.clone().created_up_to(cut)).await;
    assert!(report.is_clean());
    assert!(report.left_out().count() > 0, "what he made since");
    world.assert_nothing_is_laundered("moved").await;
    world.assert_seals_in_secret(&service, "moved").await;
    // 3. What was left out is nobody's: it is deleted or revoked, and does not stand in the way any more.
    for key in report.left_out() {
        assert!(world.store.revoke(key, &call()).await.unwrap());
    }
    world.wait();
    assert!(world.assert_seals_in_secret(&service, "left out").await, "services go on by themselves");
    world.assert_all_is_readable(&service, "left out").await;
    // 4. Later he may stop new processes, and no more than that.
    world.attack().await;
    for process in [service, world.service(Arc::clone(&world.new))] {
        world.assert_seals_in_secret(&process, "later").await;
        world.wait();
        world.assert_seals_in_secret(&process, "later still").await;
        world.assert_all_is_readable(&process, "later").await;
    }
}

/// As docs/kms.md has it for those who cannot stop: what is sealed is secret from the moment on when the old one
/// is gone from all processes, and not before.
#[tokio::test]
async fn known_master_key_is_replaced_without_a_stop_and_from_its_end_on_nothing_is_sealed_under_known_keys()
{
    let mut world = World::new().await;
    let both = Both { new: Arc::clone(&world.new), old: Arc::clone(&world.old) };
    // 1. All processes have both.
    let service = world.service(both.clone());
    world.attack().await;
    world.seal(&service, "alice").await.unwrap();
    // 2. What is there is wrapped anew, and revoked: nobody notices.
    assert!(world.rewrap(&REVOKING).await.is_clean());
    world.wait();
    assert!(world.assert_seals_in_secret(&service, "moved").await);
    world.assert_all_is_readable(&service, "moved").await;
    world.attack().await;
    world.wait();
    let record = world.seal(&service, "bob").await.unwrap();
    assert!(world.is_known(&record).await, "the old one is still heeded");
    // 3. The old one goes.
    let service = world.service(Arc::clone(&world.new));
    world.attack().await;
    world.assert_seals_in_secret(&service, "the old one is gone").await;
    // 4. And what came meanwhile moves likewise.
    assert!(world.rewrap(&REVOKING).await.is_clean());
    world.assert_nothing_is_laundered("moved again").await;
    world.wait();
    assert!(world.assert_seals_in_secret(&service, "moved again").await);
    world.assert_all_is_readable(&service, "moved again").await;
    world.attack().await;
    world.wait();
    world.assert_seals_in_secret(&service, "later").await;
    world.assert_all_is_readable(&service, "later").await;
}
