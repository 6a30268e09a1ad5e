//! A master key that has become known: its keys are revoked as they move, and the whole procedure, with an
//! attacker who knows it and writes the table.

use std::sync::Arc;
use std::time::Duration;

use claviger::testing::{Fault, FaultyKms, FaultyMetastore, FixedClock, Operation};
use claviger::{
    BackendError, Created, CryptoPolicy, DataRowRecord, EnvelopeKeyRecord, Error, FailureClass,
    InMemoryMetastore, Insert, KeyId, KeyManagementService, KeyMeta, Limits, LockPolicy, Metastore as _,
    MetastoreAdmin as _, Rewrap, RewrapOptions, SecretKey, SessionFactory, StaticKms, SystemRandom,
    WrapHealth, WrappedKey, rewrap_system_keys,
};

use crate::regions::master_key;
use crate::support::{START, assert_all_decrypt, populate, rewrapped, system_key_metas, system_keys};

static REVOKING: RewrapOptions = RewrapOptions::new().revoke(true);

fn kms(name: &str) -> Arc<StaticKms> {
    Arc::new(master_key(name))
}

/// Requires that nothing that `to` opens is to encrypt.
async fn assert_nothing_is_laundered(store: &InMemoryMetastore, to: &StaticKms, case: &str) {
    for row in system_keys(store).await {
        let is_moved = to.unwrap_key(row.wrapped_key(), row.meta()).await.is_ok();
        assert!(!is_moved || row.is_revoked(), "{case}: {}", row.meta());
    }
}

#[tokio::test]
async fn what_is_wrapped_anew_is_revoked_and_goes_on_decrypting() {
    let (store, old, new) = (InMemoryMetastore::new(), kms("old"), kms("new"));
    let records = populate(&store, &old).await;
    let report = rewrap_system_keys(&store, &old, &new, &REVOKING).await.unwrap();
    assert!(report.is_clean());
    assert_eq!((rewrapped(&report), report.keys.len()), (6, 6));
    assert!(system_keys(&store).await.iter().all(EnvelopeKeyRecord::is_revoked));
    assert_all_decrypt(&store, &new, &records).await;
    let again = rewrap_system_keys(&store, &old, &new, &REVOKING).await.unwrap();
    assert!(again.keys.iter().all(|(_, done)| matches!(done, Rewrap::UpToDate)), "{again:?}");
}

#[tokio::test]
async fn keys_that_are_up_to_date_are_not_revoked() {
    let (store, old, new) = (InMemoryMetastore::new(), kms("old"), kms("new"));
    populate(&store, &new).await;
    let report = rewrap_system_keys(&store, &old, &new, &REVOKING).await.unwrap();
    assert_eq!((rewrapped(&report), report.keys.len()), (0, 6));
    assert!(!system_keys(&store).await.iter().any(EnvelopeKeyRecord::is_revoked));
}

#[tokio::test]
async fn nothing_is_revoked_in_a_dry_run_or_where_it_cannot_be_wrapped_anew() {
    let (store, old, new) = (InMemoryMetastore::new(), kms("old"), FaultyKms::new(master_key("new")));
    populate(&store, &old).await;
    let rows = system_keys(&store).await;
    rewrap_system_keys(&store, &old, &new, &REVOKING.clone().dry_run(true)).await.unwrap();
    rewrap_system_keys(&store, &kms("stranger"), &new, &REVOKING).await.unwrap();
    new.faults().always_for(Operation::WrapKey, Fault::Fail(FailureClass::Permanent));
    assert!(!rewrap_system_keys(&store, &old, &new, &REVOKING).await.unwrap().is_clean());
    assert_eq!(system_keys(&store).await, rows);
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_no_key_is_wrapped_anew_and_not_revoked() {
    let count = async |fault_at: Option<(u8, u64, Fault)>| {
        let (rows, old, new) = (InMemoryMetastore::new(), kms("old"), kms("new"));
        let records = populate(&rows, &old).await;
        let store = FaultyMetastore::new(rows.clone());
        let (from, to) = (FaultyKms::new(Arc::clone(&old)), FaultyKms::new(Arc::clone(&new)));
        let parts = [store.faults(), from.faults(), to.faults()];
        if let Some((part, n, fault)) = fault_at {
            parts[usize::from(part)].at(n, fault);
        }
        let once = REVOKING.clone().limits(Limits::new().attempts_max(1));
        let report = rewrap_system_keys(&store, &from, &to, &once).await;
        let calls = parts.map(|faults| faults.calls() as u64);
        assert_nothing_is_laundered(&rows, &new, &format!("{fault_at:?}")).await;
        assert!(rewrap_system_keys(&rows, &old, &new, &REVOKING).await.unwrap().is_clean());
        assert!(system_keys(&rows).await.iter().all(EnvelopeKeyRecord::is_revoked), "{fault_at:?}");
        assert_all_decrypt(&rows, &new, &records).await;
        (calls, report)
    };
    let (calls, report) = count(None).await;
    assert!(report.unwrap().is_clean());
    let mut failed = 0;
    for part in 0..3_u8 {
        for n in 1..=calls[usize::from(part)] {
            for fault in
                [Fault::Fail(FailureClass::Permanent), Fault::LoseReply(FailureClass::Transient), Fault::Hang]
            {
                let (_, report) = count(Some((part, n, fault))).await;
                failed += u32::from(!report.is_ok_and(|report| report.is_clean()));
            }
        }
    }
    assert!(failed > 0);
}

#[tokio::test(start_paused = true)]
async fn dropped_at_every_await_no_key_is_wrapped_anew_and_not_revoked() {
    let slow = Fault::Delay(Duration::from_millis(3));
    for polls in 0.. {
        let (rows, old, new) = (InMemoryMetastore::new(), kms("old"), kms("new"));
        populate(&rows, &old).await;
        let store = FaultyMetastore::new(rows.clone());
        let (from, to) = (FaultyKms::new(Arc::clone(&old)), FaultyKms::new(Arc::clone(&new)));
        for faults in [store.faults(), from.faults(), to.faults()] {
            faults.always(slow);
        }
        let run = async { rewrap_system_keys(&store, &from, &to, &REVOKING).await };
        let ended = tokio::time::timeout(Duration::from_millis(3) * polls, run).await.is_ok();
        assert_nothing_is_laundered(&rows, &new, &format!("{polls}")).await;
        if ended {
            assert!(polls > 30, "it was dropped at {polls} points only");
            return;
        }
    }
}

#[tokio::test]
async fn keys_created_later_are_left_out_and_told_and_those_that_are_up_to_date_are_not() {
    let (store, old, new) = (InMemoryMetastore::new(), kms("old"), kms("new"));
    populate(&store, &old).await;
    let metas = system_key_metas(&store).await;
    // The second of three of each service: up to it, that time included.
    let upto = REVOKING.clone().created_up_to(metas[1].created());
    let before = system_keys(&store).await;
    let report = rewrap_system_keys(&store, &old, &new, &upto).await.unwrap();
    assert!(report.is_clean(), "what is left out is no failure");
    assert_eq!(report.left_out().collect::<Vec<_>>(), [&metas[2], &metas[5]]);
    assert_eq!(rewrapped(&report), 4);
    for (index, (before, now)) in before.iter().zip(system_keys(&store).await).enumerate() {
        assert_eq!(*before == now, index % 3 == 2, "{index}");
    }
    rewrap_system_keys(&store, &old, &new, &RewrapOptions::new()).await.unwrap();
    let report = rewrap_system_keys(&store, &old, &new, &upto).await.unwrap();
    assert_eq!((report.left_out().count(), report.keys.len()), (0, 6));
    let dry = REVOKING.clone().created_up_to(Created::MIN).even_if_up_to_date(true).dry_run(true);
    assert_eq!(rewrap_system_keys(&store, &new, &new, &dry).await.unwrap().left_out().count(), 6);
}

/// A store whose writer takes back a revocation before the new form is there.
#[tokio::test]
async fn a_key_whose_revocation_is_taken_back_meanwhile_is_put_back() {
    let (store, old) = (InMemoryMetastore::new(), kms("old"));
    populate(&store, &old).await;
    let new = FaultyKms::new(master_key("new"));
    let only = system_keys(&store).await.swap_remove(0);
    let id = only.meta().id().clone();
    // One version only, so that it can be deleted by its id.
    store.delete(&id).await.unwrap();
    insert(&store, &only).await;
    let faulty = FaultyMetastore::new(store.clone());
    faulty.faults().next(Operation::ReplaceWrappedKey, Fault::Hang);
    let options = REVOKING.clone().only([id.clone()]);
    let (report, ()) = tokio::join!(rewrap_system_keys(&faulty, &old, &new, &options), async {
        faulty.faults().until_hanging(1).await;
        store.delete(&id).await.unwrap();
        insert(&store, &only).await;
        faulty.faults().release();
    });
    assert!(!report.unwrap().is_clean());
    assert_nothing_is_laundered(&store, &master_key("new"), "taken back").await;
}

async fn insert(store: &InMemoryMetastore, record: &EnvelopeKeyRecord) {
    assert_eq!(store.insert(record).await.unwrap(), Insert::Inserted);
}

/// Wraps by the new master key, and unwraps by the old one as well: as a service in the middle of a move.
#[derive(Clone, Debug)]
struct Both {
    new: Arc<StaticKms>,
    old: Arc<StaticKms>,
}

impl KeyManagementService for Both {
    async fn wrap_key(&self, key: &SecretKey, meta: &KeyMeta) -> Result<WrappedKey, BackendError> {
        self.new.wrap_key(key, meta).await
    }

    async fn unwrap_key(&self, wrapped: &[u8], meta: &KeyMeta) -> Result<SecretKey, BackendError> {
        match self.new.unwrap_key(wrapped, meta).await {
            Ok(key) => Ok(key),
            Err(_) => self.old.unwrap_key(wrapped, meta).await,
        }
    }

    async fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        self.new.inspect(wrapped).await
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
            let wrapped =
                self.old.wrap_key(&SecretKey::generate(&SystemRandom::new()).unwrap(), &meta).await.unwrap();
            // One of his earlier ones may have the place.
            let _taken = self
                .store
                .insert(&EnvelopeKeyRecord::new(meta, Arc::clone(wrapped.bytes()), None))
                .await
                .unwrap();
        }
        for row in system_keys(&self.store).await {
            if let Ok(key) = self.old.unwrap_key(row.wrapped_key(), row.meta()).await {
                self.known.push(key);
            }
        }
    }

    /// Tells whether the attacker can open a record: its key is under a system key that he knows.
    async fn is_known(&self, record: &DataRowRecord) -> bool {
        let parent = record.parent();
        let row = self.store.load(parent, claviger::Consistency::Strong).await.unwrap().unwrap();
        for key in &self.known {
            if StaticKms::new(key).unwrap().unwrap_key(row.wrapped_key(), parent).await.is_ok() {
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
            assert_eq!(*opened.unwrap_or_else(|error| panic!("{step}: {error:?}")), *b"secret", "{step}");
        }
    }

    /// Requires that no key that he knows is one that the new master key opens and that is not revoked.
    async fn assert_nothing_is_laundered(&self, step: &str) {
        for row in system_keys(&self.store).await.into_iter().filter(|row| !row.is_revoked()) {
            if let Ok(key) = self.new.unwrap_key(row.wrapped_key(), row.meta()).await {
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
        assert!(world.store.revoke(key).await.unwrap());
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
