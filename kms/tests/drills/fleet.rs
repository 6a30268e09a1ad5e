//! Processes that write and read all the time, while an operator gives one after the other a new
//! configuration.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt::Debug;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use claviger::testing::{FixedClock, call};
use claviger::{
    Created, CryptoPolicy, DataRowRecord, Error, Event, KeyId, Metastore as _, MetastoreAdmin as _, Session,
    SessionFactory,
};
use claviger_metastore::SqliteMetastore;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::services::Configuration;

const PROCESSES: usize = 3;
const PRODUCTS: [&str; 2] = ["payments", "refunds"];
const PARTITIONS: usize = 8;
/// A revocation and a row that was rewrapped are seen this soon.
const CHECK_INTERVAL: Duration = Duration::from_millis(25);
/// Between two operations of one task, so that the other tests of the machine have some of it, too.
const PACE: Duration = Duration::from_millis(2);

/// For half a minute: longer than breakers leave a service alone.
const RETRIES_MAX: usize = 300;
const PAUSE: Duration = Duration::from_millis(100);

/// What was encrypted, by whom is all the same.
#[derive(Debug)]
struct Row {
    product: usize,
    partition: String,
    record: DataRowRecord,
    plaintext: String,
}

/// What all tasks share.
#[derive(Debug)]
struct Shared {
    store: SqliteMetastore,
    rows: Mutex<Vec<Arc<Row>>>,
    tally: watch::Sender<Tally>,
    counter: AtomicUsize,
}

/// What was done so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) writes: usize,
    pub(crate) reads: usize,
    /// By factories without a key in their caches.
    pub(crate) cold_reads: usize,
    /// What calls were made again for, with how often.
    pub(crate) retries: BTreeMap<String, usize>,
    pub(crate) failures: Vec<String>,
    /// Of each process: writes, reads and rounds of cold reads with its present configuration.
    present: [[usize; 3]; PROCESSES],
}

/// One process: a factory for each product, and the configuration they were built with.
#[derive(Clone)]
struct Process {
    configuration: Arc<Configuration>,
    factories: Arc<[SessionFactory; 2]>,
}

pub(crate) struct Fleet {
    shared: Arc<Shared>,
    processes: Vec<watch::Sender<Process>>,
    tasks: JoinSet<()>,
}

impl Process {
    fn start(store: &SqliteMetastore, configuration: &Arc<Configuration>) -> Self {
        let kms = configuration.open();
        let factories = PRODUCTS.map(|product| {
            SessionFactory::builder(store.clone(), kms.clone())
                .service("checkout")
                .product(product)
                .policy(CryptoPolicy::default().revoke_check_interval(CHECK_INTERVAL))
                .build()
                .unwrap()
        });
        Self { configuration: Arc::clone(configuration), factories: Arc::new(factories) }
    }

    async fn read(&self, row: &Row) -> Result<bool, Error> {
        let Some(factory) = self.factories.get(row.product) else { return Ok(false) };
        let plaintext = factory.session(&row.partition)?.decrypt(&row.record).await?;
        Ok(*plaintext == *row.plaintext.as_bytes())
    }

    async fn close(&self) {
        for factory in &*self.factories {
            drop(factory.close(Duration::from_secs(5)).await.unwrap());
        }
    }
}

impl Shared {
    fn next(&self) -> usize {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    fn note(&self, process: usize, kind: usize, count: usize) {
        self.tally.send_modify(|tally| {
            let total = match kind {
                0 => &mut tally.writes,
                1 => &mut tally.reads,
                _ => &mut tally.cold_reads,
            };
            *total += count;
            tally.present[process][kind] += 1;
        });
    }

    fn fail(&self, what: &str, configuration: &Configuration, cause: &dyn Debug) {
        let failure = format!("{what} by {}: {cause:?}", configuration.name());
        self.tally.send_modify(|tally| tally.failures.push(failure));
    }

    /// Some rows: the first, the last, and others here and there.
    fn sample(&self, seed: usize) -> Vec<Arc<Row>> {
        let rows = self.rows.lock().unwrap();
        let others = (1..=20).map(|n| seed.wrapping_mul(7_919).wrapping_add(n * 104_729) % rows.len());
        [0, rows.len() - 1].into_iter().chain(others).map(|place| Arc::clone(&rows[place])).collect()
    }

    /// Waits before a call is made again, as a service does that was told it may help. A machine under
    /// load makes deadlines pass, and how fast things are is not asserted here.
    async fn pause(&self, error: &Error) {
        let mut said = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            said = format!("{said}: {error}");
            cause = error.source();
        }
        self.tally.send_modify(|tally| *tally.retries.entry(said).or_default() += 1);
        tokio::time::sleep(PAUSE).await;
    }

    async fn read(&self, process: &Process, row: &Row) -> Result<bool, Error> {
        for _ in 0..RETRIES_MAX {
            match process.read(row).await {
                Err(error) if error.is_retryable() => self.pause(&error).await,
                answer => return answer,
            }
        }
        process.read(row).await
    }

    async fn encrypt(&self, session: &Session, plaintext: &str) -> Result<DataRowRecord, Error> {
        for _ in 0..RETRIES_MAX {
            match session.encrypt(plaintext.as_bytes()).await {
                Err(error) if error.is_retryable() => self.pause(&error).await,
                answer => return answer,
            }
        }
        session.encrypt(plaintext.as_bytes()).await
    }

    async fn write(&self, process: &Process, at: &str) -> Result<(), Error> {
        let number = self.next();
        let product = number % PRODUCTS.len();
        let partition = format!("customer-{}", number / PRODUCTS.len() % PARTITIONS);
        let plaintext = format!("{at} {number}");
        let session = process.factories[product].session(&partition)?;
        let record = self.encrypt(&session, &plaintext).await?;
        self.rows.lock().unwrap().push(Arc::new(Row { product, partition, record, plaintext }));
        Ok(())
    }

    async fn write_on(self: Arc<Self>, number: usize, process: watch::Receiver<Process>) {
        loop {
            let present = process.borrow().clone();
            match self.write(&present, "written").await {
                Ok(()) => self.note(number, 0, 1),
                // Replaced since; its successor writes on.
                Err(Error::Closed) => {}
                Err(error) => self.fail("write", &present.configuration, &error),
            }
            tokio::time::sleep(PACE).await;
        }
    }

    async fn read_on(self: Arc<Self>, number: usize, process: watch::Receiver<Process>) {
        loop {
            let present = process.borrow().clone();
            for row in self.sample(self.next()) {
                match self.read(&present, &row).await {
                    Ok(true) => self.note(number, 1, 1),
                    Ok(false) => self.fail("read", &present.configuration, &"another plaintext"),
                    Err(Error::Closed) => break,
                    Err(error) => self.fail("read", &present.configuration, &(&row.record, error)),
                }
            }
            tokio::time::sleep(PACE).await;
        }
    }

    /// As processes that were just started do, of which there is always one.
    async fn read_cold_on(self: Arc<Self>, number: usize, process: watch::Receiver<Process>) {
        loop {
            let configuration = Arc::clone(&process.borrow().configuration);
            let rows = self.sample(self.next());
            self.read_cold(&configuration, &rows).await;
            self.note(number, 2, rows.len());
            tokio::time::sleep(PACE).await;
        }
    }

    async fn read_cold(&self, configuration: &Arc<Configuration>, rows: &[Arc<Row>]) {
        let process = Process::start(&self.store, configuration);
        for row in rows {
            match self.read(&process, row).await {
                Ok(true) => {}
                Ok(false) => self.fail("cold read", configuration, &"another plaintext"),
                Err(error) => self.fail("cold read", configuration, &(&row.record, error)),
            }
        }
        no_alarms(&process);
        process.close().await;
    }
}

impl Fleet {
    /// Fills a store with what was written over two years, under some generations of keys; then starts
    /// processes that write and read on.
    pub(crate) async fn start(folder: &Path, configuration: &Arc<Configuration>) -> Self {
        let store = SqliteMetastore::migrate(folder.join("keys.db")).await.unwrap();
        let shared = Arc::new(Shared {
            store,
            rows: Mutex::default(),
            tally: watch::Sender::default(),
            counter: AtomicUsize::new(0),
        });
        populate(&shared, configuration).await;
        let mut tasks = JoinSet::new();
        let mut processes = Vec::new();
        for number in 0..PROCESSES {
            let process = watch::Sender::new(Process::start(&shared.store, configuration));
            tasks.spawn(Arc::clone(&shared).write_on(number, process.subscribe()));
            tasks.spawn(Arc::clone(&shared).read_on(number, process.subscribe()));
            tasks.spawn(Arc::clone(&shared).read_cold_on(number, process.subscribe()));
            processes.push(process);
        }
        let fleet = Self { shared, processes, tasks };
        for number in 0..PROCESSES {
            fleet.until_at_work(number).await;
        }
        fleet
    }

    pub(crate) fn store(&self) -> &SqliteMetastore {
        &self.shared.store
    }

    /// Gives one process after the other the new configuration, each when the one before is at work with
    /// it, and lets whoever comes first make new keys meanwhile: so all mixtures of the two were at work,
    /// on keys of both.
    pub(crate) async fn roll(&self, configuration: &Arc<Configuration>) {
        for number in 0..PROCESSES {
            let old = self.processes[number].send_replace(Process::start(self.store(), configuration));
            self.shared.tally.send_modify(|tally| tally.present[number] = [0; 3]);
            no_alarms(&old);
            old.close().await;
            self.until_at_work(number).await;
            self.rotate().await;
        }
    }

    /// Waits until a process has done each of its works some times from now on.
    async fn until_at_work(&self, number: usize) {
        const TIMES: usize = 2;
        let mut tally = self.shared.tally.subscribe();
        let before = tally.borrow().present[number];
        let is_at_work = |tally: &Tally| {
            let done = tally.present[number].into_iter().zip(before).all(|(now, then)| now >= then + TIMES);
            done || !tally.failures.is_empty()
        };
        let waited = tokio::time::timeout(PATIENCE, tally.wait_for(is_at_work));
        drop(waited.await.expect("the fleet works").unwrap());
        self.assert_no_failures();
    }

    /// Revokes the newest system keys, and waits until the fleet has made new ones.
    pub(crate) async fn rotate(&self) {
        let mut tally = self.shared.tally.subscribe();
        for product in PRODUCTS {
            let id = KeyId::new(format!("_SK_checkout_{product}"));
            let latest = self.store().load_latest(&id, Created::MAX, &call()).await.unwrap().unwrap().record;
            assert!(self.store().revoke(latest.meta(), &call()).await.unwrap());
            while self.store().load_latest(&id, Created::MAX, &call()).await.unwrap().unwrap().record.meta()
                == latest.meta()
            {
                tokio::time::timeout(PATIENCE, tally.changed()).await.expect("the fleet works").unwrap();
                self.assert_no_failures();
            }
        }
    }

    /// Returns how many there are in the store.
    pub(crate) async fn system_keys(&self) -> usize {
        let page = self.store().list("", None, 100_000, &call()).await.unwrap();
        assert!(page.next.is_none());
        page.records.iter().filter(|record| record.meta().id().as_str().starts_with("_SK_")).count()
    }

    /// Reads every row there is by a factory that starts without keys. Returns how many there were.
    pub(crate) async fn read_all(&self, configuration: &Arc<Configuration>) -> usize {
        let rows = self.shared.rows.lock().unwrap().clone();
        self.shared.read_cold(configuration, &rows).await;
        self.assert_no_failures();
        rows.len()
    }

    pub(crate) fn tally(&self) -> Tally {
        self.shared.tally.borrow().clone()
    }

    fn assert_no_failures(&self) {
        let tally = self.shared.tally.borrow();
        assert!(tally.failures.is_empty(), "{:#?}", tally.failures);
    }

    /// Tells what the system keys lack, as the fleet's processes know it.
    pub(crate) fn missing_copies(&self) -> usize {
        let of = |process: &watch::Sender<Process>| {
            let factories = Arc::clone(&process.borrow().factories);
            factories.iter().map(|factory| factory.status().unwrap().incomplete_keys.len()).sum::<usize>()
        };
        self.processes.iter().map(of).sum()
    }

    /// Ends the work. Fails if anything ever failed.
    pub(crate) async fn stop(mut self) -> Tally {
        self.tasks.abort_all();
        while let Some(ended) = self.tasks.join_next().await {
            assert!(ended.is_ok() || ended.is_err_and(|error| error.is_cancelled()), "a task panicked");
        }
        for process in &self.processes {
            let process = process.borrow().clone();
            no_alarms(&process);
            process.close().await;
        }
        self.assert_no_failures();
        self.tally()
    }
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Two years of records: every hundred days keys have expired.
async fn populate(shared: &Shared, configuration: &Arc<Configuration>) {
    const GENERATIONS: u64 = 7;
    const DAY: u64 = 24 * 60 * 60;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let clock = FixedClock::new(now - GENERATIONS * 100 * DAY);
    let kms = configuration.open();
    for generation in 0..GENERATIONS {
        let factories = PRODUCTS.map(|product| {
            SessionFactory::builder(shared.store.clone(), kms.clone())
                .service("checkout")
                .product(product)
                .clock(clock.clone())
                .build()
                .unwrap()
        });
        let process = Process { configuration: Arc::clone(configuration), factories: Arc::new(factories) };
        for _ in 0..PRODUCTS.len() * PARTITIONS * 2 {
            shared.write(&process, &format!("generation {generation}")).await.unwrap();
        }
        process.close().await;
        clock.advance(Duration::from_secs(100 * DAY));
    }
}

/// Nobody was told that a key is damaged, changed or gone.
fn no_alarms(process: &Process) {
    for factory in &*process.factories {
        let events = factory.status().unwrap().events;
        let alarms = [
            Event::Tampered,
            Event::KeyChanged,
            Event::Malformed,
            Event::ForeignParent,
            Event::MissingParent,
        ];
        let raised: Vec<_> = events.iter().filter(|(event, _)| alarms.contains(event)).collect();
        assert!(raised.is_empty(), "{}: {raised:?}", process.configuration.name());
    }
}
