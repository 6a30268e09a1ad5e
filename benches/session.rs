//! Encrypt and decrypt beside the floor: the same envelope by hand over ring, with one draw from
//! the operating system, no cache, no policy, no wiping but of the plaintext. A second floor wipes
//! its stack after each call, as we do, which shows what of the difference that is.
//!
//! `cargo bench --bench session` first prints ratios of medians from interleaved rounds, which hold
//! on a busy machine too, then criterion's figures.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a bench stops at the first fault, and reads the real clock"
)]

use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use claviger::{
    DataRowRecord, InMemoryMetastore, Limits, Plaintext, SecretKey, Session, SessionFactory, StaticKms,
    SystemRandom,
};
use claviger_memory::StackWipe;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::SecureRandom as _;

const SIZES: [usize; 3] = [64, 1024, 64 * 1024];
const PARTITIONS: usize = 10_000;
/// How many places on the stack are tried, each as often as the others.
const PLACES: usize = 41;
const ROUNDS: usize = 4 * PLACES;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let factory = runtime.block_on(warm_factory());
    // The hot path needs no runtime; loads, if any came, would.
    let _entered = runtime.enter();
    print_ratios(&factory);
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    bench(&mut criterion, &factory);
    criterion.final_summary();
}

/// A factory whose cache holds the keys of all partitions.
async fn warm_factory() -> SessionFactory {
    let master_key = SecretKey::generate(&SystemRandom::new()).unwrap();
    let factory = SessionFactory::builder(InMemoryMetastore::new(), StaticKms::new(&master_key).unwrap())
        .service("bench")
        .product("claviger")
        .limits(Limits::production().max_intermediate_keys(2 * PARTITIONS as u64))
        .build()
        .unwrap();
    for partition in partitions() {
        let record = factory.session(&partition).unwrap().encrypt(b"warm").await.unwrap();
        drop(record);
    }
    factory
}

fn partitions() -> Vec<String> {
    (0..PARTITIONS).map(|number| format!("customer-{number:05}")).collect()
}

/// Polls a future of the hot path, which is ready at once.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the hot path waited"),
    }
}

fn encrypt(session: &Session, plaintext: &[u8]) -> DataRowRecord {
    ready(session.encrypt(plaintext)).unwrap()
}

fn decrypt(session: &Session, record: &DataRowRecord) -> Plaintext {
    ready(session.decrypt(record)).unwrap()
}

/// An envelope by hand.
struct Floor(LessSafeKey);

struct FloorRecord {
    wrapped_key: [u8; 60],
    data: Vec<u8>,
}

impl Floor {
    fn new() -> Self {
        Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap()))
    }

    fn encrypt(&self, plaintext: &[u8]) -> FloorRecord {
        let mut draw = [0; 56];
        ring::rand::SystemRandom::new().fill(&mut draw).unwrap();
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &draw[..32]).unwrap());
        let mut data = Vec::with_capacity(plaintext.len() + 28);
        data.extend_from_slice(plaintext);
        seal(&cipher, draw[32..44].try_into().unwrap(), &mut data);
        let mut wrapped_key = [0; 60];
        wrapped_key[..32].copy_from_slice(&draw[..32]);
        let nonce: [u8; 12] = draw[44..].try_into().unwrap();
        let tag = self
            .0
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::empty(),
                &mut wrapped_key[..32],
            )
            .unwrap();
        wrapped_key[32..48].copy_from_slice(tag.as_ref());
        wrapped_key[48..].copy_from_slice(&nonce);
        FloorRecord { wrapped_key, data }
    }

    fn decrypt(&self, record: &FloorRecord) -> FloorPlaintext {
        let mut key = record.wrapped_key;
        let nonce = Nonce::try_assume_unique_for_key(&record.wrapped_key[48..]).unwrap();
        let key = self.0.open_in_place(nonce, Aad::empty(), &mut key[..48]).unwrap();
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
        let mut data = record.data.clone();
        let end = data.len() - 12;
        let nonce = Nonce::try_assume_unique_for_key(&record.data[end..]).unwrap();
        let plaintext_len = cipher.open_in_place(nonce, Aad::empty(), &mut data[..end]).unwrap().len();
        data.truncate(plaintext_len);
        FloorPlaintext(data)
    }
}

/// Decrypted data that is wiped by memset, as ours is.
struct FloorPlaintext(Vec<u8>);

impl Drop for FloorPlaintext {
    fn drop(&mut self) {
        self.0.fill(0);
        black_box(&mut self.0);
    }
}

fn seal(cipher: &LessSafeKey, nonce: [u8; 12], data: &mut Vec<u8>) {
    let tag =
        cipher.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), data).unwrap();
    data.extend_from_slice(tag.as_ref());
    data.extend_from_slice(&nonce);
}

/// Runs a floor as we run the same work: what it leaves on the stack is wiped.
fn wiping<R>(floor: impl FnOnce() -> R) -> R {
    static WIPE: StackWipe = StackWipe::new();
    WIPE.run(|| Ok::<_, ()>(floor())).unwrap()
}

fn print_ratios(factory: &SessionFactory) {
    let floor = Floor::new();
    let session = factory.session("customer-00000").unwrap();
    println!("{:<34}{:>12}{:>12}{:>12}{:>8}{:>8}", "work", "floor", "+ wiping", "ours", "ratio", "ratio");
    for size in SIZES {
        let plaintext = vec![b'p'; size];
        let repeats = (4 * 1024 * 1024 / (size + 2048)) as u32;
        let times = interleaved(
            repeats,
            || drop(black_box(floor.encrypt(black_box(&plaintext)))),
            || drop(black_box(wiping(|| floor.encrypt(black_box(&plaintext))))),
            || drop(black_box(encrypt(&session, black_box(&plaintext)))),
        );
        print_ratio(&format!("encrypt {size} B"), times);
        let (floor_record, record) = (floor.encrypt(&plaintext), encrypt(&session, &plaintext));
        let times = interleaved(
            repeats,
            || drop(black_box(floor.decrypt(black_box(&floor_record)))),
            || drop(black_box(wiping(|| floor.decrypt(black_box(&floor_record))))),
            || drop(black_box(decrypt(&session, black_box(&record)))),
        );
        print_ratio(&format!("decrypt {size} B"), times);
    }
    let partitions = partitions();
    let mut next = partitions.iter().cycle();
    let times = interleaved(
        PARTITIONS as u32 / 4,
        || drop(black_box(floor.encrypt(black_box(&[b'p'; 64])))),
        || drop(black_box(wiping(|| floor.encrypt(black_box(&[b'p'; 64]))))),
        || {
            let session = factory.session(next.next().unwrap()).unwrap();
            drop(black_box(encrypt(&session, black_box(&[b'p'; 64]))));
        },
    );
    print_ratio("session() + encrypt 64 B, 10 000", times);
}

/// Times all three in turns; returns the median nanoseconds of one call of each.
fn interleaved(
    repeats: u32,
    mut floor: impl FnMut(),
    mut wiping_floor: impl FnMut(),
    mut ours: impl FnMut(),
) -> [f64; 3] {
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        deeper(round % PLACES, &mut || {
            times[0].push(time(repeats, &mut floor));
            times[1].push(time(repeats, &mut wiping_floor));
            times[2].push(time(repeats, &mut ours));
        });
    }
    times.map(median)
}

/// Runs a round some way down the stack. Where the stack lies against the heap is drawn by the
/// system for each process, and is worth up to a tenth; so each round has it differently.
#[inline(never)]
fn deeper(levels: usize, round: &mut dyn FnMut()) {
    let room = black_box([0_u8; 80]);
    if levels == 0 {
        round()
    } else {
        deeper(levels - 1, round)
    }
    black_box(&room);
}

fn time(repeats: u32, work: &mut impl FnMut()) -> f64 {
    let begun = Instant::now();
    for _ in 0..repeats {
        work();
    }
    begun.elapsed().as_nanos() as f64 / f64::from(repeats)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn print_ratio(work: &str, [floor, wiping_floor, ours]: [f64; 3]) {
    let ratios = (ours / floor, ours / wiping_floor);
    println!(
        "{work:<34}{floor:>9.0} ns{wiping_floor:>9.0} ns{ours:>9.0} ns{:>8.2}{:>8.2}",
        ratios.0, ratios.1
    );
}

fn bench(criterion: &mut Criterion, factory: &SessionFactory) {
    let floor = Floor::new();
    let session = factory.session("customer-00000").unwrap();
    for size in SIZES {
        let plaintext = vec![b'p'; size];
        let mut group = criterion.benchmark_group("encrypt");
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::new("floor", size), &plaintext, |b, p| {
            b.iter(|| floor.encrypt(p))
        });
        group.bench_with_input(BenchmarkId::new("claviger", size), &plaintext, |b, p| {
            b.iter(|| encrypt(&session, p));
        });
        group.finish();
        let (floor_record, record) = (floor.encrypt(&plaintext), encrypt(&session, &plaintext));
        let mut group = criterion.benchmark_group("decrypt");
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::new("floor", size), &floor_record, |b, r| {
            b.iter(|| floor.decrypt(r))
        });
        group.bench_with_input(BenchmarkId::new("claviger", size), &record, |b, r| {
            b.iter(|| decrypt(&session, r));
        });
        group.finish();
    }
    let partitions = partitions();
    let mut next = partitions.iter().cycle();
    criterion.bench_function("session() + encrypt 64 B over 10 000 partitions", |b| {
        b.iter_batched(
            || next.next().unwrap(),
            |partition| encrypt(&factory.session(partition).unwrap(), &[b'p'; 64]),
            BatchSize::SmallInput,
        );
    });
}
