//! Models of schedules: the real code of what threads share, run under loom in every order that up to three
//! preemptions allow, with every value that the memory orders let a load return.
//!
//! `cargo xtask test loom` runs them, in a build of its own with `--cfg claviger_loom`, where
//! [`sync`](crate::sync) has loom's types. What is tokio's or moka's own is not under loom.
//!
//! These mistakes were seen to fail them; the others are still to be tried on the models of the pointer, the
//! registry and the hand-over:
//!
//! | mistake | fails |
//! |---|---|
//! | the age is read after what is known of the key, or without `Acquire` | `freshness` |
//! | `is_checked_after` asks for the replica first | `freshness` |
//! | `KeyCache::add`, or `put_aside`, does not ask whether the cache is closed | `closing` |
//! | `KeyCache::add` leaves the key among the orphans | `adoption` |
//! | `KeyCache::remove` takes keys out before it takes the lock | `adoption` |
#![expect(clippy::unwrap_used, reason = "what fails here fails the model")]

mod adoption;
mod closing;
mod freshness;
mod hand_over;
mod pointer;
mod registry;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use claviger_memory::{Arena, ForkSentinel, LockPolicy};
use loom::thread::{self, JoinHandle};
use metrics::Gauge;

use crate::clock::{Clock, Moment, NANOS_PER_SECOND};
use crate::key::known::Known;
use crate::key::{CryptoKey, Life, Parent};
use crate::keyring::Keyring;
use crate::keyring::cache::KeyCache;
use crate::keyring::key_set::Role;
use crate::keyring::orphans::Orphans;
use crate::record::{Created, EnvelopeKeyRecord, KeyMeta};
use crate::secret::SecretKey;
use crate::telemetry::keys::KeyMetrics;
use crate::testing::FixedClock;

const PREEMPTIONS: usize = 3;
/// Making a key wipes more stack than loom gives a thread by itself; in words.
const STACK_WORDS: usize = 32 * 1024;
const NOW: u64 = 1_700_000_000;

/// Costly to make, and nothing that loom schedules.
static ARENA: LazyLock<Arena> = LazyLock::new(|| Arena::new(LockPolicy::Off));
static SENTINEL: LazyLock<Arc<ForkSentinel>> = LazyLock::new(|| Arc::new(ForkSentinel::new().unwrap()));

/// Runs `model` in every schedule.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let schedules = Arc::new(AtomicUsize::new(0));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.max_branches = 100_000;
    let (model, counted) = (Arc::new(model), Arc::clone(&schedules));
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let model = Arc::clone(&model);
        spawn(move || model()).join().unwrap();
    });
    println!("{} schedules", schedules.load(Ordering::Relaxed));
}

fn spawn<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::Builder::new().stack_size(STACK_WORDS).spawn(run).unwrap()
}

fn second(seconds: u64) -> Moment {
    let nanos = seconds * NANOS_PER_SECOND;
    Moment { wall: NOW * NANOS_PER_SECOND + nanos, monotonic: nanos }
}

fn created(number: i64) -> Created {
    Created::new(NOW.cast_signed() + number).unwrap()
}

/// A cache with nothing above it.
struct Bench {
    cache: KeyCache,
    orphans: Arc<Orphans>,
    known: Arc<Known>,
}

impl Bench {
    fn new(keys_max: u64) -> Arc<Self> {
        let (orphans, sentinel) = (Arc::new(Orphans::new(&KeyMetrics::default())), Arc::clone(&*SENTINEL));
        let known = Arc::new(Known::new(false, Arc::clone(&sentinel)));
        let clock: Arc<dyn Clock> = Arc::new(FixedClock::new(NOW));
        let cache = KeyCache::new(keys_max.into(), Arc::clone(&orphans), clock, sentinel, Gauge::noop());
        Arc::new(Self { cache, orphans, known })
    }

    fn keyring(&self, id: &str) -> Arc<Keyring> {
        self.cache.keyring(id)
    }

    /// Makes a key that is cached nowhere.
    fn key(&self, keyring: &Keyring, number: i64, parent: Option<&CryptoKey>) -> Arc<CryptoKey> {
        let meta = KeyMeta::new(keyring.id().clone(), created(number));
        let wrapped = format!("{} {number}", keyring.id());
        let record = EnvelopeKeyRecord::new(meta.clone(), wrapped.clone().into_bytes(), None);
        let secret = SecretKey::try_init(|bytes| {
            // Each key is another one.
            bytes.iter_mut().zip(wrapped.bytes()).for_each(|(byte, of_row)| *byte = of_row);
            Ok::<_, ()>(())
        });
        let life = Life { expires: u64::MAX, replace_from: u64::MAX };
        let (state, parent) = (keyring.state(meta.created()), parent.map(Parent::of));
        let key = CryptoKey::new(&ARENA, &secret.unwrap(), &record, life, state, parent, &self.known);
        Arc::new(key.unwrap())
    }

    /// Makes a key and caches it as the latest.
    fn cached(&self, keyring: &Arc<Keyring>, number: i64) -> Arc<CryptoKey> {
        let key = self.key(keyring, number, None);
        self.cache.add(keyring, &key, Role::Latest);
        key
    }

    /// Lists the orphans' versions.
    fn orphaned(&self) -> Vec<KeyMeta> {
        self.orphans.list(second(0)).into_iter().map(|orphan| orphan.key).collect()
    }
}

/// Returns `true` if the keyring holds this very key.
fn holds(keyring: &Keyring, key: &Arc<CryptoKey>) -> bool {
    keyring.version(key.created()).is_some_and(|held| Arc::ptr_eq(&held, key))
}
