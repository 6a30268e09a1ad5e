//! A factory on a paused clock, over a metastore and a KMS that answer each call as they are told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use claviger::testing::{Operation, SeededRandom, call};
use claviger::{
    BackendError, CryptoPolicy, DataRowRecord, Error, InMemoryMetastore, KeyMeta, Limits, LockPolicy,
    MetastoreAdmin, Plaintext, SecretKey, SessionFactory, StaticKms,
};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use crate::clock::RunningClock;
use crate::desk::{Asked, Watched};
use crate::runtime::on_this_runtime;

pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);

/// The default deadlines and waits that the bounds are made of.
pub(crate) const STORE_DEADLINE: Duration = Duration::from_secs(2);
pub(crate) const OPERATION_DEADLINE: Duration = Duration::from_secs(10);
pub(crate) const REFRESH_WAIT: Duration = Duration::from_millis(200);

/// A short interval between checks, so that many of them happen in a test.
pub(crate) const INTERVAL: Duration = Duration::from_secs(2);

/// How many permits there are in tables: the fewest, few, and the default.
pub(crate) const PERMITS: [usize; 3] = [1, 3, 64];

pub(crate) const SK: &str = "_SK_checkout_payments";

pub(crate) fn ik(partition: &str) -> String {
    format!("_IK_{partition}_checkout_payments")
}

/// The production policy, its memory not locked.
pub(crate) fn policy() -> CryptoPolicy {
    CryptoPolicy::production().lock_policy(LockPolicy::Off)
}

/// Keys are checked each [`INTERVAL`].
pub(crate) fn checked_often() -> CryptoPolicy {
    policy().revoke_check_interval(INTERVAL)
}

pub(crate) fn limits(permits: usize) -> Limits {
    Limits::production().max_store_calls(permits).max_kms_calls(permits)
}

pub(crate) struct World {
    pub(crate) clock: RunningClock,
    pub(crate) store: Watched<InMemoryMetastore>,
    pub(crate) kms: Watched<StaticKms>,
    pub(crate) factory: SessionFactory,
    /// They end with the world.
    clients: Mutex<JoinSet<()>>,
}

/// What became of an operation, and how long it took.
#[derive(Debug)]
pub(crate) struct Ended<T> {
    pub(crate) outcome: Result<T, Error>,
    pub(crate) took: Duration,
}

/// How the operations of a client ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(Arc<Mutex<Tallied>>);

#[derive(Clone, Debug, Default)]
pub(crate) struct Tallied {
    pub(crate) succeeded: usize,
    pub(crate) errors: Vec<Error>,
    pub(crate) longest: Duration,
    /// The key that sealed last, and when that encrypt began, by the store's desk; of each key.
    pub(crate) uses: Vec<(KeyMeta, Duration)>,
}

impl World {
    pub(crate) fn new(policy: CryptoPolicy, limits: Limits) -> Self {
        let kms = StaticKms::new(&master_key()).expect("a KMS");
        let (rows, random) = (Arc::new(InMemoryMetastore::new()), SeededRandom::new(1));
        Self::over((rows, Arc::new(kms)), RunningClock::new(), random, policy, limits)
    }

    /// A world whose system key is cached, and was checked just now.
    pub(crate) async fn warm(policy: CryptoPolicy, limits: Limits) -> Self {
        let world = Self::new(policy, limits);
        world.encrypt("first").await.expect_in(SECOND);
        world
    }

    /// Another process over the same rows, with nothing cached and desks of its own.
    pub(crate) fn other_process(&self, policy: CryptoPolicy, limits: Limits) -> Self {
        let (rows, kms) = (Arc::clone(self.store.inner()), Arc::clone(self.kms.inner()));
        Self::over((rows, kms), self.clock.clone(), SeededRandom::new(2), policy, limits)
    }

    fn over(
        (rows, kms): (Arc<InMemoryMetastore>, Arc<StaticKms>),
        clock: RunningClock,
        random: SeededRandom,
        policy: CryptoPolicy,
        limits: Limits,
    ) -> Self {
        let (store, kms) = (Watched::new(rows), Watched::new(kms));
        let builder = SessionFactory::builder(store.clone(), kms.clone())
            .service("checkout")
            .product("payments")
            .policy(policy)
            .limits(limits)
            .clock(clock.clone())
            .random(random);
        let factory = on_this_runtime(builder).build().expect("a factory");
        Self { clock, store, kms, factory, clients: Mutex::default() }
    }

    pub(crate) async fn encrypt(&self, partition: &str) -> Ended<DataRowRecord> {
        encrypted(self.factory.clone(), partition.to_owned()).await
    }

    pub(crate) async fn decrypt(&self, partition: &str, record: &DataRowRecord) -> Ended<Plaintext> {
        decrypted(self.factory.clone(), partition.to_owned(), record.clone()).await
    }

    /// Begins to encrypt, and goes on while the test does something else.
    pub(crate) fn begin_encrypt(&self, partition: &str) -> JoinHandle<Ended<DataRowRecord>> {
        tokio::spawn(encrypted(self.factory.clone(), partition.to_owned()))
    }

    pub(crate) fn begin_decrypt(
        &self,
        partition: &str,
        record: &DataRowRecord,
    ) -> JoinHandle<Ended<Plaintext>> {
        tokio::spawn(decrypted(self.factory.clone(), partition.to_owned(), record.clone()))
    }

    /// Begins to encrypt for so many partitions at once, named after a prefix.
    pub(crate) fn begin_encrypts(&self, prefix: &str, count: usize) -> Vec<JoinHandle<Ended<DataRowRecord>>> {
        (0..count).map(|number| self.begin_encrypt(&format!("{prefix}{number}"))).collect()
    }

    /// A client that encrypts for a partition again and again, whatever comes of it.
    pub(crate) fn client(&self, partition: &str, pause: Duration) -> Tally {
        let partition = partition.to_owned();
        self.run(pause, move |_| partition.clone())
    }

    /// A client that encrypts for ever new partitions.
    pub(crate) fn client_of_new(&self, prefix: &str, pause: Duration) -> Tally {
        let prefix = prefix.to_owned();
        self.run(pause, move |number| format!("{prefix}{number}"))
    }

    /// Clients of this many partitions that all want their keys at once.
    pub(crate) fn clients(&self, prefix: &str, count: usize, pause: Duration) -> Vec<Tally> {
        (0..count).map(|number| self.client(&format!("{prefix}{number}"), pause)).collect()
    }

    fn run(&self, pause: Duration, partition: impl Fn(usize) -> String + Send + 'static) -> Tally {
        let (tally, factory, desk) = (Tally::default(), self.factory.clone(), self.store.clone());
        let told = tally.clone();
        self.clients.lock().expect("no test panics here").spawn(async move {
            for number in 0.. {
                let began = desk.now();
                let ended = encrypted(factory.clone(), partition(number)).await;
                told.note(ended, began);
                sleep(pause).await;
            }
        });
        tally
    }

    pub(crate) fn metastore_is_down(&self) -> bool {
        self.factory.status().expect("a status").metastore_down
    }

    pub(crate) fn kms_is_down(&self) -> bool {
        self.factory.status().expect("a status").kms_down
    }

    pub(crate) async fn revoke(&self, key: &KeyMeta) {
        assert!(self.store.inner().revoke(key, &call()).await.expect("revoked"));
    }

    /// Returns the calls of the metastore for rows of this partition.
    pub(crate) fn reads_for(&self, partition: &str) -> crate::desk::Log {
        self.store.log().that(|asked| asked.is_for(partition) && !asked.is_insert())
    }
}

impl<T> Ended<T> {
    /// Asserts that it succeeded, within this time.
    #[track_caller]
    pub(crate) fn expect_in(self, bound: Duration) -> T {
        let Self { outcome, took } = self;
        let value = outcome.unwrap_or_else(|error| panic!("after {took:?}: {error:?}"));
        assert!(took <= bound, "it took {took:?}, more than {bound:?}");
        value
    }

    /// Asserts that it failed, at once.
    #[track_caller]
    pub(crate) fn refused_at_once(self) -> Error {
        assert_eq!(self.took, Duration::ZERO);
        self.outcome.err().expect("it was to be refused")
    }
}

impl Tally {
    fn note(&self, ended: Ended<DataRowRecord>, began: Duration) {
        let mut tallied = self.0.lock().expect("no test panics here");
        tallied.longest = tallied.longest.max(ended.took);
        match ended.outcome {
            Ok(record) => {
                tallied.succeeded += 1;
                match tallied.uses.iter_mut().find(|(key, _)| key == record.parent().unwrap()) {
                    Some((_, last)) => *last = began,
                    None => tallied.uses.push((record.parent().unwrap().clone(), began)),
                }
            }
            Err(error) => tallied.errors.push(error),
        }
    }

    pub(crate) fn now(&self) -> Tallied {
        self.0.lock().expect("no test panics here").clone()
    }

    /// Asserts that all went well so far, none longer than this.
    #[track_caller]
    pub(crate) fn assert_well(&self, bound: Duration) {
        let Tallied { succeeded, errors, longest, .. } = self.now();
        assert!(errors.is_empty(), "{} errors beside {succeeded}, first {:?}", errors.len(), errors[0]);
        assert!(succeeded > 0 && longest <= bound, "{succeeded} took up to {longest:?}, not {bound:?}");
    }
}

impl Tallied {
    /// Returns when the last encrypt that this key did began.
    pub(crate) fn last_use(&self, key: &KeyMeta) -> Option<Duration> {
        self.uses.iter().find(|(used, _)| used == key).map(|(_, last)| *last)
    }
}

async fn encrypted(factory: SessionFactory, partition: String) -> Ended<DataRowRecord> {
    let session = factory.session(&partition).expect("a session");
    let began = Instant::now();
    let outcome = session.encrypt(b"secret").await;
    Ended { outcome, took: began.elapsed() }
}

async fn decrypted(factory: SessionFactory, partition: String, record: DataRowRecord) -> Ended<Plaintext> {
    let session = factory.session(&partition).expect("a session");
    let began = Instant::now();
    let outcome = session.decrypt(&record).await;
    Ended { outcome, took: began.elapsed() }
}

/// The record as if a version of its key had sealed it that is so many seconds older.
pub(crate) fn of_earlier_version(record: &DataRowRecord, seconds: i64) -> DataRowRecord {
    let created =
        |seconds: i64| format!("\"Created\":{}}}", record.parent_created().unix_seconds() - seconds);
    let json = record.to_json().replace(&created(0), &created(seconds));
    DataRowRecord::from_json(json.as_bytes()).expect("a record")
}

/// A rule that lets the metastore's reads for partitions of such names come to this, and answers all else.
pub(crate) fn reads_of(
    prefix: &'static str,
    reply: crate::desk::Reply,
) -> impl Fn(&Asked) -> crate::desk::Reply {
    move |asked| {
        let is_it = asked.is_for_one_of(prefix) && asked.operation != Operation::Insert;
        if is_it { reply } else { crate::desk::Reply::Answer }
    }
}

fn master_key() -> SecretKey {
    let key = SecretKey::try_init(|bytes| {
        *bytes = *b"the master key of the isolation.";
        Ok::<(), BackendError>(())
    });
    key.expect("a key")
}
