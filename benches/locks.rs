//! How long calls that concern all cached keys take, and for how long sessions of other threads wait
//! meanwhile, with 600 000 keys in the cache.
//!
//! `cargo bench --bench locks`. Other work on the machine only adds to a wait, so of several rounds the
//! best one counts; a busy machine adds time slices still, unless the threads are given a real-time
//! priority (`chrt`). The first line is of rounds in which nothing happens: it shows what the machine adds.
//! While the sweep drops all at once, sessions wait for the allocator, not for locks of ours.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a bench stops at the first fault, and reads the real clock"
)]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use claviger::testing::FixedClock;
use claviger::{
    Capacity, CryptoPolicy, InMemoryMetastore, KeyId, Limits, LockPolicy, SecretKey, SessionFactory,
    StaticKms, SystemRandom,
};
use tokio::runtime::Builder;

const KEYS: usize = 600_000;
const ROUNDS: usize = 7;
/// The cache is swept eight times as often.
const IDLE_TIMEOUT: Duration = Duration::from_secs(16);

fn main() {
    // A bench that is run as a test shows that it works.
    let keys = if std::env::args().any(|arg| arg == "--bench") { KEYS } else { 1_000 };
    let clock = FixedClock::new(1_700_000_000);
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let factory = runtime.block_on(warm_factory(keys, &clock));
    let system_key = KeyId::new("_SK_bench_claviger");
    println!("{:<34}{:>14}{:>26}", format!("with {keys} keys"), "the call", "longest session()");
    print("nothing", (0..ROUNDS).map(|_| beside(&factory, || thread::sleep(Duration::from_millis(20)))));
    print("status()", (0..ROUNDS).map(|_| beside(&factory, || drop(black_box(factory.status())))));
    let invalidate = || factory.invalidate(&system_key).unwrap();
    print("invalidate(a system key)", (0..ROUNDS).map(|_| beside(&factory, invalidate)));
    print("invalidate_all()", (0..ROUNDS).map(|_| beside(&factory, || factory.invalidate_all().unwrap())));
    clock.advance(IDLE_TIMEOUT + Duration::from_secs(2));
    let swept = beside(&factory, || {
        while factory.status().unwrap().intermediate_keys > 0 {
            thread::sleep(Duration::from_millis(5));
        }
    });
    print("the sweep, which drops all", [swept].into_iter());
}

async fn warm_factory(keys: usize, clock: &FixedClock) -> SessionFactory {
    let master_key = SecretKey::generate(&SystemRandom::new()).unwrap();
    let policy = CryptoPolicy::default().lock_policy(LockPolicy::Off).idle_timeout(IDLE_TIMEOUT);
    let factory = SessionFactory::builder(InMemoryMetastore::new(), StaticKms::new(&master_key).unwrap())
        .service("bench")
        .product("claviger")
        .policy(policy)
        .limits(Limits::production().max_intermediate_keys(Capacity::Unbounded))
        .clock(clock.clone())
        .build()
        .unwrap();
    for number in 0..keys {
        let session = factory.session(&format!("customer-{number:06}")).unwrap();
        drop(session.encrypt(b"warm").await.unwrap());
    }
    factory
}

/// Runs `call` while another thread makes sessions of partitions that are not cached. Returns how long
/// the call took, and the longest of the sessions.
fn beside(factory: &SessionFactory, call: impl FnOnce()) -> [Duration; 2] {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let sessions = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !is_over.load(Ordering::Relaxed) {
                let partition = format!("cold-{}", NEXT.fetch_add(1, Ordering::Relaxed));
                let begun = Instant::now();
                drop(black_box(factory.session(&partition).unwrap()));
                longest = longest.max(begun.elapsed());
            }
            longest
        });
        thread::sleep(Duration::from_millis(20));
        let begun = Instant::now();
        call();
        let took = begun.elapsed();
        is_over.store(true, Ordering::Relaxed);
        [took, sessions.join().unwrap()]
    })
}

fn print(what: &str, rounds: impl Iterator<Item = [Duration; 2]>) {
    let best = rounds.reduce(|best, round| [best[0].min(round[0]), best[1].min(round[1])]);
    let [took, longest] = best.unwrap();
    println!("{what:<34}{took:>14.1?}{longest:>26.1?}");
}
