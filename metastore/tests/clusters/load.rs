//! What a service does: encrypts and decrypts for partitions that are new, cold and hot, and writes
//! down what it sealed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use claviger::{
    CryptoPolicy, DataRowRecord, Error, ErrorChain, Event, Limits, LockPolicy, Metastore, SecretKey,
    SessionFactory, SessionFactoryBuilder, StaticKms,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// A master key that all factories of a test have.
pub(crate) fn kms() -> StaticKms {
    let key = SecretKey::try_init(|bytes| {
        bytes.copy_from_slice(&std::array::from_fn::<u8, 32, _>(|n| u8::try_from(n).unwrap()));
        Ok::<_, ()>(())
    });
    StaticKms::new(&key.unwrap()).unwrap()
}

/// Checks keys often, and caches few, so that much is asked of the store.
pub(crate) fn policy() -> CryptoPolicy {
    CryptoPolicy::default().lock_policy(LockPolicy::Prefer).revoke_check_interval(Duration::from_millis(500))
}

pub(crate) fn limits() -> Limits {
    Limits::production().max_intermediate_keys(60)
}

pub(crate) fn builder(store: impl Metastore) -> SessionFactoryBuilder {
    SessionFactory::builder(store, kms()).service("svc").product("prod").policy(policy()).limits(limits())
}

pub(crate) fn factory(store: impl Metastore) -> SessionFactory {
    builder(store).build().unwrap()
}

/// A record that was returned.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) partition: String,
    plain: String,
    pub(crate) record: DataRowRecord,
}

impl Sealed {
    pub(crate) async fn new(factory: &SessionFactory, partition: &str, plain: &str) -> Result<Self, Error> {
        let record = factory.session(partition)?.encrypt(plain.as_bytes()).await?;
        Ok(Self { partition: partition.to_owned(), plain: plain.to_owned(), record })
    }

    pub(crate) async fn open(&self, factory: &SessionFactory) -> Result<(), Error> {
        let plain = factory.session(&self.partition)?.decrypt(&self.record).await?;
        assert_eq!(&*plain, self.plain.as_bytes(), "another plaintext");
        Ok(())
    }
}

/// What a load is made of: one operation in so many is the first of a new partition, and one for a
/// partition that is seldom cached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    pub(crate) tasks: u64,
    pub(crate) new: u64,
    pub(crate) cold: u64,
}

impl Default for Mix {
    fn default() -> Self {
        Self { tasks: 16, new: 10, cold: 3 }
    }
}

/// What came of a load.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) encrypts: u64,
    pub(crate) decrypts: u64,
    /// Failures by their text, and how often: of the first encrypts of partitions, of others.
    pub(crate) creations_failed: BTreeMap<String, u64>,
    pub(crate) encrypts_failed: BTreeMap<String, u64>,
    pub(crate) decrypts_failed: BTreeMap<String, u64>,
    pub(crate) permanent: BTreeMap<String, u64>,
    pub(crate) ledger: Vec<Sealed>,
}

/// A load under way.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    outcome: Arc<Mutex<Outcome>>,
    tasks: JoinSet<()>,
}

const HOT: u64 = 20;
const COLD: u64 = 500;
const PACE: Duration = Duration::from_millis(5);

impl Load {
    pub(crate) fn start(factory: &SessionFactory, mix: Mix, name: &str) -> Self {
        let load = Self { stop: Arc::default(), outcome: Arc::default(), tasks: JoinSet::new() };
        let fresh = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for task in 0..mix.tasks {
            let worker = Worker {
                factory: factory.clone(),
                mix,
                name: name.to_owned(),
                fresh: Arc::clone(&fresh),
                draws: (task + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
                mine: Vec::new(),
            };
            tasks.spawn(worker.run(Arc::clone(&load.stop), Arc::clone(&load.outcome)));
        }
        Self { tasks, ..load }
    }

    /// Runs one for a while.
    pub(crate) async fn run(factory: &SessionFactory, mix: Mix, name: &str, time: Duration) -> Outcome {
        let load = Self::start(factory, mix, name);
        sleep(time).await;
        load.end().await
    }

    /// How many first encrypts of partitions have failed so far.
    pub(crate) fn creations_failed(&self) -> u64 {
        self.outcome.lock().unwrap().creations_failed.values().sum()
    }

    /// Waits until so many more operations have succeeded.
    pub(crate) async fn goes_on(&self, operations: u64) {
        let done = || {
            let outcome = self.outcome.lock().unwrap();
            outcome.encrypts + outcome.decrypts
        };
        let (before, begun) = (done(), Instant::now());
        while done() < before + operations {
            assert!(begun.elapsed() < PATIENCE, "nothing succeeds any more");
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn end(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
        std::mem::take(&mut *self.outcome.lock().unwrap())
    }
}

struct Worker {
    factory: SessionFactory,
    mix: Mix,
    name: String,
    fresh: Arc<AtomicU64>,
    /// The state of a generator of pseudo-random numbers.
    draws: u64,
    mine: Vec<Sealed>,
}

impl Worker {
    fn draw(&mut self, below: u64) -> u64 {
        self.draws ^= self.draws << 13;
        self.draws ^= self.draws >> 7;
        self.draws ^= self.draws << 17;
        (self.draws >> 11) % below.max(1)
    }

    async fn run(mut self, stop: Arc<AtomicBool>, outcome: Arc<Mutex<Outcome>>) {
        while !stop.load(Ordering::Relaxed) {
            let is_new = self.draw(self.mix.new) == 0;
            let encrypts = is_new || self.mine.is_empty() || self.draw(2) == 0;
            let result = if encrypts { self.encrypt(is_new).await } else { self.decrypt().await };
            {
                let mut outcome = outcome.lock().unwrap();
                match result {
                    Ok(Some(sealed)) => {
                        outcome.encrypts += 1;
                        outcome.ledger.push(sealed);
                    }
                    Ok(None) => outcome.decrypts += 1,
                    Err(error) => {
                        let text = kind(&error);
                        if !error.is_retryable() {
                            *outcome.permanent.entry(text.clone()).or_default() += 1;
                        }
                        let failed = match (encrypts, is_new) {
                            (true, true) => &mut outcome.creations_failed,
                            (true, false) => &mut outcome.encrypts_failed,
                            (false, _) => &mut outcome.decrypts_failed,
                        };
                        *failed.entry(text).or_default() += 1;
                    }
                }
            }
            sleep(PACE).await;
        }
    }

    async fn encrypt(&mut self, is_new: bool) -> Result<Option<Sealed>, Error> {
        let partition = if is_new {
            format!("{}-new{}", self.name, self.fresh.fetch_add(1, Ordering::Relaxed))
        } else if self.draw(self.mix.cold) == 0 {
            format!("cold{}", self.draw(COLD))
        } else {
            format!("hot{}", self.draw(HOT))
        };
        let plain = format!("{partition} {}", self.draw(u64::MAX));
        let sealed = Sealed::new(&self.factory, &partition, &plain).await?;
        if self.mine.len() < 200 {
            self.mine.push(sealed.clone());
        } else {
            let place = usize::try_from(self.draw(200)).unwrap();
            *self.mine.get_mut(place).unwrap() = sealed.clone();
        }
        Ok(Some(sealed))
    }

    async fn decrypt(&mut self) -> Result<Option<Sealed>, Error> {
        let place = self.draw(self.mine.len() as u64);
        let sealed = self.mine.get(usize::try_from(place).unwrap()).unwrap().clone();
        sealed.open(&self.factory).await?;
        Ok(None)
    }
}

/// An error's text without the key ids in it.
fn kind(error: &Error) -> String {
    let text = ErrorChain::new(error).to_string();
    text.split(' ')
        .filter(|word| !word.contains("_IK_") && !word.contains("_SK_"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Makes the keys of all partitions that a load uses but for new ones.
pub(crate) async fn create_known(factory: &SessionFactory) {
    let hot = (0..HOT).map(|number| format!("hot{number}"));
    for partition in hot.chain((0..COLD).map(|number| format!("cold{number}"))) {
        Sealed::new(factory, &partition, "first").await.unwrap();
    }
}

/// More than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// How often the factory raised the event.
pub(crate) fn raised(factory: &SessionFactory, event: Event) -> u64 {
    let events = factory.status().unwrap().events;
    events.iter().find(|(raised, _)| *raised == event).map_or(0, |(_, count)| *count)
}

/// Opens all records in a fresh factory, and returns those that cannot be opened.
pub(crate) async fn lost(factory: &SessionFactory, ledger: &[Sealed]) -> Vec<(Sealed, Error)> {
    let mut lost = Vec::new();
    for sealed in ledger {
        let mut opened = sealed.open(factory).await;
        for _ in 0..20 {
            if !opened.as_ref().is_err_and(Error::is_retryable) {
                break;
            }
            sleep(Duration::from_millis(100)).await;
            opened = sealed.open(factory).await;
        }
        if let Err(error) = opened {
            lost.push((sealed.clone(), error));
        }
    }
    lost
}

/// How long a load goes on: a moment, or as long as `CLAVIGER_CLUSTER_SECONDS` says.
pub(crate) fn seconds(short: u64) -> Duration {
    let seconds = std::env::var("CLAVIGER_CLUSTER_SECONDS").ok().map(|text| text.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(short))
}

/// How often a drill is run: once, or as often as `CLAVIGER_CLUSTER_RUNS` says.
pub(crate) fn runs() -> u32 {
    std::env::var("CLAVIGER_CLUSTER_RUNS").map_or(1, |text| text.parse().unwrap())
}
