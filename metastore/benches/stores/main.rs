//! Each store beside the bare query that it is made of, in the same run: on the same pool where the
//! driver's is used, else on a connection of its own.
//!
//! Rounds of both alternate, and medians are compared, so that a busy machine slows both. It is to be
//! run on one core (`taskset -c 0`): on several, a round trip to a server on the same machine takes as
//! long as that machine takes to wake the other core. The servers are real and on loopback, started by
//! this program; the file is in the folder for temporary files.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    reason = "a bench stops at the first fault, and reads the real clock"
)]

#[cfg(feature = "dynamodb")]
mod dynamodb;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
mod sqlite;

use std::time::{Duration, Instant};

use claviger::testing::call;
use claviger::{Created, EnvelopeKeyRecord, Insert, KeyId, KeyMeta, Metastore};
use tokio::task::JoinSet;

/// 2023-11-14 22:13:20.
const NOW: i64 = 1_700_000_000;

/// How many keys there are, each of one version.
const KEYS: usize = 10_000;

fn main() {
    // `cargo test --benches` asks only whether it runs.
    let rounds = if std::env::args().any(|argument| argument == "--test") { 1 } else { ROUNDS };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let work = runtime.spawn(async move {
        sqlite::run(rounds).await;
        #[cfg(feature = "postgres")]
        postgres::run(rounds).await;
        #[cfg(feature = "mysql")]
        mysql::run(rounds).await;
        #[cfg(feature = "dynamodb")]
        dynamodb::run(rounds).await;
    });
    runtime.block_on(work).unwrap();
}

const ROUNDS: usize = 31;

fn record(number: usize) -> EnvelopeKeyRecord {
    let parent = KeyMeta::new(KeyId::new("_SK_bench_claviger"), Created::new(NOW).unwrap());
    EnvelopeKeyRecord::new(key(number), [7; 60], Some(parent))
}

fn key(number: usize) -> KeyMeta {
    let id = KeyId::new(format!("_IK_customer-{number:05}_bench_claviger"));
    KeyMeta::new(id, Created::new(NOW).unwrap())
}

/// Stores all keys, by a few writers at once.
async fn fill(store: &(impl Metastore + Clone)) {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            for number in (writer..KEYS).step_by(WRITERS) {
                assert_eq!(store.insert(&record(number), &call()).await.unwrap(), Insert::Inserted);
            }
        });
    }
    writers.join_all().await;
}

const WRITERS: usize = 16;

/// That of a load, unless set.
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(crate) const DEADLINE: Duration = Duration::from_millis(1_500);

/// Goes through all keys, with no two neighbours in turn.
fn shuffled() -> impl Iterator<Item = KeyMeta> {
    (0..).map(|turn: usize| key(turn * 7_919 % KEYS))
}

/// Compares a load of one key through the store with the query `bare`, in rounds of `loads`.
async fn compare_loads<F: Future<Output = usize>>(
    name: &str,
    rounds: usize,
    loads: usize,
    store: &impl Metastore,
    bare: impl Fn(KeyMeta) -> F,
) {
    let (mut bare_times, mut our_times) = (Vec::new(), Vec::new());
    let (mut bare_keys, mut our_keys) = (shuffled(), shuffled());
    for _ in 0..rounds {
        let begun = Instant::now();
        for key in bare_keys.by_ref().take(loads) {
            assert!(bare(key).await > 100, "no record was found");
        }
        bare_times.push(begun.elapsed() / u32::try_from(loads).unwrap());
        let begun = Instant::now();
        for key in our_keys.by_ref().take(loads) {
            assert!(store.load(&key, &call()).await.unwrap().is_some());
        }
        our_times.push(begun.elapsed() / u32::try_from(loads).unwrap());
    }
    print_ratio(&format!("{name}: load one key"), "bare query", bare_times, "load", our_times);
}

/// Prints the medians, and how many times the second is as long as the first.
fn print_ratio(what: &str, name: &str, times: Vec<Duration>, other_name: &str, other_times: Vec<Duration>) {
    let (time, other) = (median(times), median(other_times));
    let ratio = other.as_secs_f64() / time.as_secs_f64();
    println!("{what:<34} {name} {time:>10.1?}   {other_name} {other:>10.1?}   {ratio:>6.2} x");
}

fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|one, other| one.partial_cmp(other).unwrap());
    values[values.len() / 2]
}
