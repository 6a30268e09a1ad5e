//! Overload by real load, on the real clock: what the tests of `tests/isolation` show in small on a paused
//! one, at the size that the promises name. It prints figures, and fails where a bound is broken.
//!
//! `cargo bench --bench overload` takes seconds; `cargo bench --bench overload -- --long` is the whole, and
//! takes minutes.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a bench stops at the first fault, and reads the real clock"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use claviger::testing::{Fault, FaultyKms, FaultyMetastore, call};
use claviger::{
    CryptoPolicy, Error, InMemoryMetastore, Limits, MetastoreAdmin, SecretKey, SessionFactory, StaticKms,
    SystemRandom,
};
use tokio::task::JoinSet;
use tokio::time::sleep;

fn main() {
    let is_long = std::env::args().any(|argument| argument == "--long");
    let mut bounds = Bounds::default();
    // First, since memory that was given back is not always less.
    on_a_runtime(memory(&mut bounds));
    on_a_runtime(goodput(if is_long { 30 } else { 4 }, &mut bounds));
    for _ in 0..if is_long { 10 } else { 1 } {
        on_a_runtime(revocation_in_a_flood(&mut bounds));
    }
    bounds.end();
}

/// What was promised and not kept.
#[derive(Debug, Default)]
struct Bounds(Vec<String>);

impl Bounds {
    /// Prints a figure beside its bound.
    fn check(&mut self, figure: &str, is_kept: bool) {
        println!("{figure}{}", if is_kept { "" } else { "  BROKEN" });
        if !is_kept {
            self.0.push(figure.to_owned());
        }
    }

    fn end(self) {
        if !self.0.is_empty() {
            println!("{} bounds are broken", self.0.len());
            std::process::exit(1);
        }
    }
}

/// Each part has a runtime of its own: what it leaves behind is not in the next one's way.
fn on_a_runtime(part: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(part);
    runtime.shutdown_background();
}

struct World {
    store: FaultyMetastore<InMemoryMetastore>,
    kms: FaultyKms<StaticKms>,
    factory: SessionFactory,
}

impl World {
    fn new(policy: CryptoPolicy, limits: Limits) -> Self {
        let master_key = SecretKey::generate(&SystemRandom::new()).unwrap();
        let store = FaultyMetastore::new(InMemoryMetastore::new());
        let kms = FaultyKms::new(StaticKms::new(&master_key).unwrap());
        let factory = SessionFactory::builder(store.clone(), kms.clone())
            .service("bench")
            .product("claviger")
            .policy(policy)
            .limits(limits)
            .build()
            .unwrap();
        Self { store, kms, factory }
    }
}

/// The first encrypt of a partition.
async fn first_encrypt(factory: SessionFactory, partition: String) -> Result<(), Error> {
    factory.session(&partition)?.encrypt(b"payload").await.map(drop)
}

/// What first encrypts hold that wait for a KMS which does not answer.
async fn memory(bounds: &mut Bounds) {
    const AT_ONCE: usize = 100_000;
    const MAX_MB: u64 = 100;
    let world = World::new(CryptoPolicy::default(), Limits::production());
    world.kms.faults().always(Fault::Hang);
    let before = resident_kb();
    let mut encrypts = JoinSet::new();
    for number in 0..AT_ONCE {
        encrypts.spawn(first_encrypt(world.factory.clone(), format!("customer-{number}")));
        // Those that are refused end at once, and what is asked for here is what the others hold.
        if number % 1_000 == 999 {
            sleep(Duration::from_millis(20)).await;
            while encrypts.try_join_next().is_some() {}
        }
    }
    let held = resident_kb().saturating_sub(before) / 1024;
    bounds.check(
        &format!(
            "memory: {AT_ONCE} first encrypts beside a KMS that hangs, {} of them waiting: {held} MB \
             (at most {MAX_MB})",
            encrypts.len()
        ),
        held <= MAX_MB && !encrypts.is_empty(),
    );
}

/// How much of this process is in memory, in KiB.
fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// What is done of ten times what can be, beside what is done of just that.
async fn goodput(seconds: u64, bounds: &mut Bounds) {
    const SHARE_MIN: f64 = 0.9;
    let capacity = served_in_turns(Duration::from_secs(seconds.min(5))).await;
    let span = Duration::from_secs(seconds);
    let (at_capacity, _) = served_of_arrivals(capacity, span).await;
    let (over, refused) = served_of_arrivals(10.0 * capacity, span).await;
    let share = over / at_capacity;
    bounds.check(
        &format!(
            "goodput: capacity {capacity:.0}/s; of {capacity:.0}/s {at_capacity:.0}/s are served, of {:.0}/s \
             {over:.0}/s, {refused:.0}/s refused: {share:.2} (at least {SHARE_MIN})",
            10.0 * capacity
        ),
        share >= SHARE_MIN,
    );
}

/// A store that takes 20 ms, of which 8 may be asked at once.
async fn slow_store() -> World {
    let limits = Limits::production().max_store_calls(8).max_waiting_calls(100);
    let world = World::new(CryptoPolicy::default(), limits.max_intermediate_keys(200_000_u64));
    first_encrypt(world.factory.clone(), "warm".to_owned()).await.unwrap();
    world.store.faults().always(Fault::Delay(Duration::from_millis(20)));
    world
}

/// Returns how many first encrypts a second are served of clients that wait for each other.
async fn served_in_turns(span: Duration) -> f64 {
    const CLIENTS: usize = 64;
    let world = slow_store().await;
    let served = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (factory, served) = (world.factory.clone(), Arc::clone(&served));
        clients.spawn(async move {
            for number in 0.. {
                first_encrypt(factory.clone(), format!("customer-{client}-{number}")).await.unwrap();
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    sleep(span).await;
    served.load(Ordering::Relaxed) as f64 / span.as_secs_f64()
}

/// Returns how many first encrypts a second are served and refused of so many that come.
async fn served_of_arrivals(per_second: f64, span: Duration) -> (f64, f64) {
    let world = slow_store().await;
    let (served, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let begun = Instant::now();
    let mut came = 0;
    let mut encrypts = JoinSet::new();
    while begun.elapsed() < span {
        while f64::from(came) < per_second * begun.elapsed().as_secs_f64() {
            came += 1;
            let encrypt = first_encrypt(world.factory.clone(), format!("customer-{came}"));
            let (served, refused) = (Arc::clone(&served), Arc::clone(&refused));
            encrypts.spawn(async move {
                let count = if encrypt.await.is_ok() { served } else { refused };
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
        while encrypts.try_join_next().is_some() {}
        sleep(Duration::from_millis(2)).await;
    }
    let per_second = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64 / span.as_secs_f64();
    (per_second(&served), per_second(&refused))
}

/// How long a key goes on after it was revoked, while more clients than there are places want new keys.
async fn revocation_in_a_flood(bounds: &mut Bounds) {
    const CLIENTS: usize = 11_000;
    let (interval, deadline) = (Duration::from_secs(2), Duration::from_secs(2));
    let policy = CryptoPolicy::default()
        .revoke_check_interval(interval)
        .max_stale_encrypt(Duration::from_secs(20))
        .max_stale_decrypt(Duration::from_secs(60))
        .creation_precision(Duration::from_secs(1));
    let limits = Limits::production().operation_deadline(deadline).store_deadline(Duration::from_millis(500));
    let world = World::new(policy, limits);
    let hot = world.factory.session("hot").unwrap();
    let key = hot.encrypt(b"payload").await.unwrap().parent().unwrap().clone();
    world.store.faults().always(Fault::Delay(Duration::from_millis(5)));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let factory = world.factory.clone();
        clients.spawn(async move {
            for number in 0.. {
                let encrypt = first_encrypt(factory.clone(), format!("customer-{client}-{number}"));
                if encrypt.await.is_err() {
                    sleep(Duration::from_millis(1)).await;
                }
            }
        });
    }
    sleep(Duration::from_millis(300)).await;
    assert!(world.store.inner().revoke(&key, &call()).await.unwrap());
    let revoked = Instant::now();
    let (mut last_use, mut errors, mut encrypts) = (Duration::ZERO, 0, 0);
    while revoked.elapsed() < 2 * (interval + deadline) {
        let began = revoked.elapsed();
        encrypts += 1;
        match hot.encrypt(b"payload").await {
            Ok(record) if *record.parent().unwrap() == key => last_use = began,
            Ok(_) => {}
            Err(_) => errors += 1,
        }
        sleep(Duration::from_millis(5)).await;
    }
    bounds.check(
        &format!(
            "flood of {CLIENTS} clients: a revoked key was used up to {last_use:.2?} after its revocation (at \
             most {:?}), and of {encrypts} warm encrypts {errors} failed (none)",
            interval + deadline
        ),
        last_use <= interval + deadline && errors == 0,
    );
}
