//! Very many partitions, once each, through a small cache, beside some that are in use all the time.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use claviger::{
    BackendError, CallContext, Created, CryptoPolicy, EnvelopeKeyRecord, Insert, KeyId, KeyMeta, Latest,
    Limits, LockPolicy, Metastore, SecretKey, SessionFactory, StaticKms,
};
use tokio::runtime::Handle;
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::clock::MachineClock;
use crate::dice::MachineRandom;
use crate::run::{Report, alone};
use crate::settings::ms;
use crate::world::Violation;
use crate::{PRODUCT, SERVICE};

/// How many operations are under way at once.
const CALLERS: u64 = 64;
/// How many partitions are in use all the time.
const IN_USE: u64 = 20;

/// A store that keeps the rows of those in use, and forgets the others: none of them is asked for again.
#[derive(Clone, Debug)]
struct Sieve {
    rows: Arc<Mutex<BTreeMap<KeyMeta, EnvelopeKeyRecord>>>,
    loads_in_use: Arc<Mutex<u64>>,
    latency: Duration,
}

type Failed = Box<dyn std::error::Error>;

/// What the callers have in common.
struct Flood {
    factory: SessionFactory,
    next: Cell<u64>,
    end: u64,
    capacity: u64,
    most: Cell<usize>,
    sealed: Cell<usize>,
    violations: std::cell::RefCell<Vec<Violation>>,
}

/// Encrypts once for each of so many partitions, with a cache of a hundredth as many keys.
#[must_use]
pub fn flood(partitions: u64) -> Report {
    alone("flood".to_owned(), move || async move {
        match in_virtual_time(partitions).await {
            Ok(report) => report,
            Err(error) => {
                Report { violations: vec![violation("flood", error.to_string())], ..Report::default() }
            }
        }
    })
}

fn violation(rule: &'static str, what: String) -> Violation {
    Violation { rule, what, line: 0 }
}

async fn in_virtual_time(partitions: u64) -> Result<Report, Failed> {
    let capacity = (partitions / 100).max(100);
    // Three seconds pass before the whole cache has other keys: about once a second it hears what is in use.
    let store = Sieve {
        rows: Arc::default(),
        loads_in_use: Arc::default(),
        latency: ms(3_000 * CALLERS / 2 / capacity).max(ms(1)),
    };
    let factory = factory(store.clone(), capacity)?;
    let flood = Rc::new(Flood {
        factory,
        next: Cell::new(0),
        end: partitions,
        capacity,
        most: Cell::new(0),
        sealed: Cell::new(0),
        violations: std::cell::RefCell::default(),
    });
    for number in 0..IN_USE {
        flood.encrypt(&format!("in-use-{number}")).await;
    }
    let callers = LocalSet::new();
    for _ in 0..CALLERS {
        let flood = Rc::clone(&flood);
        callers.spawn_local(async move { flood.call().await });
    }
    callers.await;
    let report = flood.factory.close(ms(5_000)).await?;
    let left = flood.factory.status()?.memory.slots;
    let mut violations = flood.violations.take();
    if !report.is_clean() || left > 0 {
        violations.push(violation("nothing_is_left_after_close", format!("{left} keys, {report:?}")));
    }
    let loads = *store.loads_in_use.lock().unwrap_or_else(PoisonError::into_inner);
    if loads > IN_USE {
        violations.push(violation("a_flood_crowds_out_none_in_use", format!("{loads} loads for {IN_USE}")));
    }
    let history = vec![format!(
        "{partitions} partitions through a cache of {capacity} keys: at most {} keys at once; \
         {IN_USE} partitions in use were loaded {loads} times",
        flood.most.get()
    )];
    Ok(Report { violations, history, sealed: flood.sealed.get(), calls: 0 })
}

fn factory(store: Sieve, capacity: u64) -> Result<SessionFactory, Failed> {
    let random = MachineRandom::new(0, 0);
    let kms = StaticKms::with_lock_policy(&SecretKey::generate(&random)?, LockPolicy::Off)?;
    let factory = SessionFactory::builder(store, kms)
        .service(SERVICE)
        .product(PRODUCT)
        .policy(CryptoPolicy::production().lock_policy(LockPolicy::Off))
        .limits(Limits::production().max_intermediate_keys(capacity))
        .runtime(Handle::current())
        .clock(MachineClock::new(0))
        .random(random)
        .build()?;
    Ok(factory)
}

impl Flood {
    /// One caller: new partitions one after the other, and now and then one of those in use.
    async fn call(&self) {
        loop {
            let number = self.next.get();
            if number >= self.end {
                return;
            }
            self.next.set(number + 1);
            self.encrypt(&format!("new-{number}")).await;
            if number.is_multiple_of(7) {
                self.encrypt(&format!("in-use-{}", number / 7 % IN_USE)).await;
            }
        }
    }

    async fn encrypt(&self, partition: &str) {
        let outcome = match self.factory.session(partition) {
            Ok(session) => session.encrypt(b"secret").await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(_) => self.sealed.set(self.sealed.get() + 1),
            Err(error) => self.violate("nothing_fails_in_a_flood", format!("{partition}: {error}")),
        }
        self.look();
    }

    /// The bound holds at each instant: a tenth more than the capacity, loads, and operations under way.
    fn look(&self) {
        let Ok(status) = self.factory.status() else { return };
        let live = status.memory.slots;
        let most = usize::try_from(self.capacity * 11 / 10 + CALLERS).unwrap_or(usize::MAX);
        self.most.set(self.most.get().max(live));
        if live > most + status.system_keys + status.loads {
            self.violate("cache_is_bounded", format!("{live} keys, {} loads", status.loads));
        }
    }

    fn violate(&self, rule: &'static str, what: String) {
        let mut violations = self.violations.borrow_mut();
        // One tells of all that follow.
        if violations.len() < 10 {
            violations.push(violation(rule, what));
        }
    }
}

impl Sieve {
    fn keeps(id: &KeyId) -> bool {
        id.as_str().starts_with("_SK_") || id.as_str().contains("in-use")
    }

    fn latest(&self, id: &KeyId) -> Option<Latest> {
        if id.as_str().contains("in-use") {
            *self.loads_in_use.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        }
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.values().rev().find(|row| row.meta().id() == id).map(|row| Latest::new(row.clone(), None))
    }
}

impl Metastore for Sieve {
    async fn load(
        &self,
        key: &KeyMeta,
        _context: &CallContext,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        sleep(self.latency).await;
        Ok(self.rows.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    async fn load_latest(
        &self,
        id: &KeyId,
        _up_to: Created,
        _context: &CallContext,
    ) -> Result<Option<Latest>, BackendError> {
        sleep(self.latency).await;
        Ok(self.latest(id))
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        context: &CallContext,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        let mut rows = Vec::with_capacity(keys.len());
        for key in keys {
            rows.push(self.load(key, context).await?);
        }
        Ok(rows)
    }

    async fn load_latest_many(
        &self,
        ids: &[KeyId],
        _up_to: Created,
        _context: &CallContext,
    ) -> Result<Vec<Option<Latest>>, BackendError> {
        sleep(self.latency).await;
        Ok(ids.iter().map(|id| self.latest(id)).collect())
    }

    async fn insert(
        &self,
        record: &EnvelopeKeyRecord,
        _context: &CallContext,
    ) -> Result<Insert, BackendError> {
        sleep(self.latency).await;
        if Self::keeps(record.meta().id()) {
            let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
            rows.insert(record.meta().clone(), record.clone());
        }
        Ok(Insert::Inserted)
    }

    fn failovers(&self) -> u64 {
        0
    }
}
