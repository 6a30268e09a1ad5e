//! Searches the memory of a whole process for keys: they may lie in protected slots and nowhere
//! else, and after the end nowhere at all.
//!
//! Each test runs the scenario in a process of its own, this binary again, so that nothing but the
//! scenario's doing is found. The needles are masked; see [`random`] and [`scan`].

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]
#![allow(clippy::cast_possible_truncation, reason = "takes words apart into bytes")]

#[path = "../common/child.rs"]
mod child;
mod random;
mod scan;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use claviger::testing::{Fault, FaultyMetastore, FixedClock, Operation, call};
use claviger::{
    CryptoPolicy, DataRowRecord, Error, FailureClass, InMemoryMetastore, LockPolicy, MetastoreAdmin,
    RandomError, SecretKey, SecureRandom, SessionFactory, StaticKms,
};
use tokio::runtime::{Builder, Runtime};

use random::Recomputable;
use scan::{Hits, scan};

#[test]
fn keys_lie_in_protected_slots_only_on_a_current_thread_runtime() {
    alone(NAMES[0], Leak::None);
}

#[test]
fn keys_lie_in_protected_slots_only_on_a_multi_thread_runtime() {
    alone(NAMES[1], Leak::None);
}

#[test]
fn a_deliberate_leak_is_found() {
    alone(NAMES[2], Leak::Deliberate);
}

const NAMES: [&str; 3] = [
    "keys_lie_in_protected_slots_only_on_a_current_thread_runtime",
    "keys_lie_in_protected_slots_only_on_a_multi_thread_runtime",
    "a_deliberate_leak_is_found",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Leak {
    None,
    Deliberate,
}

/// Runs the test of this name in a process of its own and asserts how that ends.
fn alone(test: &str, leak: Leak) {
    let body = || {
        let code = if runtime(test).block_on(live(Recomputable::new(SEED), leak)) { CLEAN } else { FOUND };
        std::process::exit(code);
    };
    let (status, said) = child::run(test, body).unwrap();
    let expected = if leak == Leak::None { CLEAN } else { FOUND };
    assert_eq!(status.code(), Some(expected), "{said}");
}

const SEED: u64 = 7;
const CLEAN: i32 = 40;
const FOUND: i32 = 41;

fn runtime(test: &str) -> Runtime {
    let mut builder =
        if test == NAMES[1] { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    builder.enable_time().worker_threads(2).build().unwrap()
}

/// Looks for every key that was drawn, and remembers whether all was well.
///
/// It does so on a thread of its own, made beforehand, so that the stack on which the service just
/// worked is searched as it was left.
struct Watch {
    looks: SyncSender<()>,
    hits: Receiver<Hits>,
    is_clean: bool,
}

impl Watch {
    fn new(random: Recomputable) -> Self {
        let ((looks, asked), (sender, hits)) = (sync_channel(0), sync_channel(0));
        thread::spawn(move || while asked.recv().is_ok() && sender.send(scan(&random.needles())).is_ok() {});
        Self { looks, hits, is_clean: true }
    }

    /// Each of `slots` protected keys must be there once, and nothing elsewhere.
    fn look(&mut self, moment: &str, slots: usize) {
        self.looks.send(()).unwrap();
        let hits = self.hits.recv().unwrap();
        println!(
            "{moment}: {slots} slots, {} halves protected, elsewhere {:?}",
            hits.protected, hits.elsewhere
        );
        self.is_clean &= hits.elsewhere.is_empty() && hits.protected == 2 * slots;
    }
}

/// What the factories draw from; it refuses what is drawn for a record, if it is told to.
#[derive(Debug)]
struct Refusing {
    inner: Recomputable,
    refuses_records: Arc<AtomicBool>,
}

impl SecureRandom for Refusing {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        // Of one key and its nonces; a key alone is shorter.
        if bytes.len() > 32 && self.refuses_records.load(Ordering::Relaxed) {
            return Err(RandomError::new());
        }
        self.inner.fill(bytes)
    }
}

/// A service with two factories over one store and one static KMS.
struct Service {
    store: FaultyMetastore<InMemoryMetastore>,
    clock: FixedClock,
    random: Recomputable,
    refuses_records: Arc<AtomicBool>,
    factories: [SessionFactory; 2],
}

impl Service {
    fn new(random: &Recomputable) -> Self {
        let store = FaultyMetastore::new(InMemoryMetastore::new());
        let clock = FixedClock::new(1_700_000_000);
        let master_key = SecretKey::generate(random).unwrap();
        let kms = Arc::new(
            StaticKms::with_lock_policy(&master_key, LockPolicy::Require).unwrap().random(random.clone()),
        );
        let refuses_records = Arc::<AtomicBool>::default();
        let factory = || {
            SessionFactory::builder(store.clone(), Arc::clone(&kms))
                .service("service")
                .product("product")
                .policy(CryptoPolicy::production().lock_policy(LockPolicy::Require))
                .clock(clock.clone())
                .random(Refusing { inner: random.clone(), refuses_records: Arc::clone(&refuses_records) })
                .build()
                .unwrap()
        };
        let factories = [factory(), factory()];
        Self { store, clock, random: random.clone(), refuses_records, factories }
    }

    /// Counts the keys in protected memory: the KMS's and the factories'.
    fn slots(&self) -> usize {
        1 + self.factories.iter().map(|factory| factory.status().unwrap().memory.slots).sum::<usize>()
    }

    /// Encrypts a payload that is as secret as a key.
    async fn encrypt(&self, partition: &str) -> Result<DataRowRecord, Error> {
        let payload = SecretKey::generate(&self.random).unwrap();
        self.factories[0].session(partition).unwrap().encrypt(payload.expose_secret()).await
    }

    async fn decrypt(&self, factory: usize, record: &DataRowRecord) -> Result<(), Error> {
        self.factories[factory].session(PARTITION).unwrap().decrypt(record).await.map(drop)
    }
}

const PARTITION: &str = "partition";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Lives through all that happens to keys, looking after each step; tells whether all was well.
async fn live(random: Recomputable, leak: Leak) -> bool {
    let mut watch = Watch::new(random.clone());
    let service = Service::new(&random);
    watch.look("built", service.slots());

    let record = service.encrypt(PARTITION).await.unwrap();
    watch.look("created the keys and encrypted", service.slots());
    service.encrypt(PARTITION).await.unwrap();
    watch.look("encrypted with cached keys", service.slots());
    service.decrypt(0, &record).await.unwrap();
    watch.look("decrypted with cached keys", service.slots());
    service.decrypt(1, &record).await.unwrap();
    watch.look("decrypted with keys loaded from the store", service.slots());

    let plaintext = service.factories[1].session(PARTITION).unwrap().decrypt(&record).await.unwrap();
    assert!(plaintext.into_string().is_err());
    watch.look("refused a text that is none", service.slots());

    service.clock.advance(91 * DAY);
    let newest = service.encrypt(PARTITION).await.unwrap();
    watch.look("rotated", service.slots());
    service.store.revoke(newest.parent().unwrap(), &call()).await.unwrap();
    service.clock.advance(DAY);
    service.encrypt(PARTITION).await.unwrap();
    watch.look("replaced a revoked key", service.slots());

    let mut forged = record.to_json().into_bytes();
    let last = forged.len() - 6;
    forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
    let forged = DataRowRecord::from_json(&forged).unwrap();
    assert!(service.decrypt(0, &forged).await.is_err());
    watch.look("refused a forged record", service.slots());
    service.store.faults().next(Operation::Insert, Fault::Fail(FailureClass::Permanent));
    assert!(service.encrypt("denied").await.is_err());
    watch.look("could not store a key", service.slots());
    service.refuses_records.store(true, Ordering::Relaxed);
    assert!(service.encrypt(PARTITION).await.is_err());
    service.refuses_records.store(false, Ordering::Relaxed);
    watch.look("drew no key for a payload", service.slots());

    let _copy = (leak == Leak::Deliberate).then(|| {
        // The same sequence once more begins with the same key.
        let mut copy = vec![0; 32];
        Recomputable::new(SEED).fill(&mut copy).unwrap();
        copy
    });
    for factory in &service.factories {
        assert!(factory.close(DAY).await.unwrap().is_clean());
    }
    watch.look("closed", 1);
    drop(service);
    watch.look("dropped", 0);
    watch.is_clean
}
