//! A mixed fleet on one MariaDB, with keys that live seconds, an operator who revokes, a member whose clock is
//! days ahead, and somebody who copies revoked rows: whatever one of it encrypts, every one decrypts.
//!
//! It runs for half a minute, or for `CLAVIGER_SOAK_SECONDS`. Five minutes of it:
//! `CLAVIGER_SOAK_SECONDS=300 cargo xtask test -- -p claviger-interop soak -- --nocapture`

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use claviger::testing::call;
use claviger::{
    Clock, Created, CryptoPolicy, DataRowRecord, EnvelopeKeyRecord, Event, KeyMeta, MetastoreAdmin,
    SessionFactory, SessionFactoryBuilder, SystemClock,
};

use crate::mariadb::{self, Server, Table};
use crate::peer::{Habits, Package, Peer, Place};
use crate::world::{NAMES, PRODUCT, kms};

const LASTS: Duration = Duration::from_secs(30);
const EXPIRE_AFTER: Duration = Duration::from_secs(4);
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
const MAX_STALE_ENCRYPT: Duration = Duration::from_secs(2);
const REVOKE_EVERY: Duration = Duration::from_millis(500);
/// From this part of its time on there are rows in the future. The others use those for ever, and rotate no more.
const AHEAD_FROM: f64 = 0.6;
/// How far ahead that member's clock is.
const AHEAD: Duration = Duration::from_secs(2 * 24 * 60 * 60);
/// In which most records are; one turn in `NEW_PARTITION_EVERY` is in one that nobody had before.
const PARTITIONS: usize = 12;
const NEW_PARTITION_EVERY: usize = 40;

/// In the order of [`Fleet`].
const MEMBERS: [&str; 4] = ["claviger", "claviger, the second", "asherah in Go", "asherah in Rust"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_of_a_mixed_fleet_leaves_no_record_undecryptable() {
    let (first, place) = mariadb::open(Server::Utc, Table::Legacy).await;
    // A pool of its own, as in another process.
    let second = mariadb::reopen(Server::Utc, Table::Legacy, &place).await;
    let mut fleet = Fleet::start(&first, &second, &place);
    let mut operator = Operator::new(first.clone());
    let ahead = builder(first.clone(), 1).clock(Ahead(SystemClock::new())).build().unwrap();
    let mut log = Log::default();
    let started = uptime();
    while uptime() - started < lasts() {
        if log.turns.is_multiple_of(7) && uptime() - started > lasts().mul_f64(AHEAD_FROM) {
            let partition = format!("customer-{}", log.turns % PARTITIONS);
            let record = ahead.session(&partition).unwrap().encrypt(b"from the future").await.unwrap();
            log.from_the_future.insert(record.parent().unwrap().clone());
        }
        let written = fleet.encrypt(log.turns, &mut log).await;
        fleet.decrypt(&written, &mut log).await;
        operator.end_revoke().await;
        if let Some(last) = written.last() {
            // It revokes while the next turn runs.
            operator.begin_revoke(last.record.parent().unwrap());
        }
        log.keep(written);
    }
    let lasted = uptime() - started;
    operator.end_revoke().await;

    let mut cold = Fleet::start(&first, &second, &place);
    for written in log.of_each_key() {
        cold.decrypt(&[written], &mut log).await;
    }
    log.print(lasted, &operator);
    assert_eq!(log.lost, BTreeMap::new());
    assert_eq!(log.refused, BTreeMap::new());
    assert_eq!(log.reads, MEMBERS.len() * (MEMBERS.len() * log.turns + log.samples.len()));
    assert!(log.rotations() > 0 && operator.intermediate_keys > 0 && operator.system_keys > 0);
    // The others did use what was written for them, and ours told of it.
    let used = log.keys().into_iter().filter(|key| log.from_the_future.contains(key)).count();
    assert!(used > 0 && operator.copies > 0);
    for (number, factory) in fleet.ours.iter().enumerate() {
        let events = factory.status().unwrap().events;
        let is_told = |told: Event| events.iter().any(|(event, _)| *event == told);
        assert!(is_told(Event::ClockSkew) && is_told(Event::Tampered), "{number}: {events:?}");
        let own = MEMBERS[number];
        assert!(
            log.samples.keys().all(|(by, key)| *by != own || !log.from_the_future.contains(key)),
            "{own}"
        );
    }
}

/// A clock that is ahead of the others.
#[derive(Debug)]
struct Ahead(SystemClock);

impl Clock for Ahead {
    fn wall(&self) -> Duration {
        self.0.wall() + AHEAD
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

#[expect(clippy::disallowed_methods, reason = "so the soak is told how long it may take")]
fn lasts() -> Duration {
    let seconds = std::env::var("CLAVIGER_SOAK_SECONDS");
    seconds.map_or(LASTS, |seconds| Duration::from_secs(seconds.parse().unwrap()))
}

fn uptime() -> Duration {
    SystemClock::new().monotonic()
}

struct Fleet {
    ours: [SessionFactory; 2],
    peers: Vec<Peer>,
}

#[derive(Clone, Debug)]
struct Written {
    by: &'static str,
    partition: String,
    plaintext: Vec<u8>,
    record: DataRowRecord,
}

impl Fleet {
    fn start<S: MetastoreAdmin + Clone>(first: &S, second: &S, place: &Place) -> Self {
        let habits = Habits {
            names: NAMES,
            expire_after: EXPIRE_AFTER,
            check_interval: CHECK_INTERVAL,
            precision: Duration::from_secs(1),
            live: true,
        };
        Self {
            // All of them round creation times to something else; Go to minutes.
            ours: [factory(first.clone(), 1), factory(second.clone(), 2)],
            peers: Peer::start_all(&[Package::Go, Package::Rust], place, &habits),
        }
    }

    /// All of it encrypts at once, in one partition.
    async fn encrypt(&mut self, turn: usize, log: &mut Log) -> Vec<Written> {
        let partition = match turn % NEW_PARTITION_EVERY {
            0 => format!("new in turn {turn}"),
            _ => format!("customer-{}", turn % PARTITIONS),
        };
        let plaintexts = MEMBERS.map(|by| format!("{turn}: {by}").into_bytes());
        let (for_ours, for_peers) = plaintexts.split_at(self.ours.len());
        for (peer, plaintext) in self.peers.iter_mut().zip(for_peers) {
            peer.begin_encrypt(&partition, plaintext);
        }
        let ours: Vec<_> = (self.ours.iter().zip(for_ours.to_vec()))
            .map(|(factory, plaintext)| {
                let session = factory.session(&partition).unwrap();
                tokio::spawn(async move { session.encrypt(&plaintext).await })
            })
            .collect();
        let mut outcomes = Vec::new();
        for task in ours {
            outcomes.push(task.await.unwrap().map_err(|error| format!("{error:?}")));
        }
        outcomes.extend(self.peers.iter_mut().map(Peer::end_encrypt));
        let mut written = Vec::new();
        for ((by, plaintext), outcome) in MEMBERS.into_iter().zip(plaintexts).zip(outcomes) {
            match outcome {
                Ok(record) => written.push(Written { by, partition: partition.clone(), plaintext, record }),
                Err(error) => log.refused.entry(by).or_insert((0, error)).0 += 1,
            }
        }
        written
    }

    /// Each of it decrypts all of these.
    async fn decrypt(&mut self, written: &[Written], log: &mut Log) {
        for peer in &mut self.peers {
            written.iter().for_each(|written| peer.begin_decrypt(&written.partition, &written.record));
        }
        let ours: Vec<_> = (self.ours.iter().cloned())
            .map(|factory| tokio::spawn(decrypt_all(factory, written.to_vec())))
            .collect();
        let mut outcomes = Vec::new();
        for task in ours {
            outcomes.push(task.await.unwrap());
        }
        for peer in &mut self.peers {
            outcomes.push(written.iter().map(|_| peer.end_decrypt()).collect());
        }
        for (reader, outcomes) in MEMBERS.into_iter().zip(outcomes) {
            for (written, outcome) in written.iter().zip(outcomes) {
                log.reads += 1;
                if outcome.as_ref() != Ok(&written.plaintext) {
                    let fault = format!("{:?}: {outcome:?}", written.record.parent().unwrap());
                    log.lost.entry((reader, written.by)).or_insert((0, fault)).0 += 1;
                }
            }
        }
    }
}

async fn decrypt_all(factory: SessionFactory, all: Vec<Written>) -> Vec<Result<Vec<u8>, String>> {
    let mut outcomes = Vec::new();
    for Written { partition, record, .. } in all {
        let decrypted = factory.session(&partition).unwrap().decrypt(&record).await;
        outcomes.push(decrypted.map(|bytes| bytes.to_vec()).map_err(|error| format!("{error:?}")));
    }
    outcomes
}

/// What became of it all.
#[derive(Debug, Default)]
struct Log {
    turns: usize,
    reads: usize,
    from_the_future: BTreeSet<KeyMeta>,
    /// One record of each member under each key.
    samples: BTreeMap<(&'static str, KeyMeta), Written>,
    /// How many encrypts failed and why the first, by who should have.
    refused: BTreeMap<&'static str, (usize, String)>,
    /// How many decrypts failed and why the first, by reader and writer.
    lost: BTreeMap<(&'static str, &'static str), (usize, String)>,
}

impl Log {
    fn keep(&mut self, all: Vec<Written>) {
        self.turns += 1;
        for written in all {
            self.samples.entry((written.by, written.record.parent().unwrap().clone())).or_insert(written);
        }
    }

    fn of_each_key(&self) -> Vec<Written> {
        self.samples.values().cloned().collect()
    }

    fn keys(&self) -> BTreeSet<&KeyMeta> {
        self.samples.keys().map(|(_, key)| key).collect()
    }

    /// Keys that came after another one of their partition.
    fn rotations(&self) -> usize {
        let keys = self.keys();
        let ids: BTreeSet<_> = keys.iter().map(|key| key.id()).collect();
        keys.len() - ids.len()
    }

    #[expect(clippy::print_stdout, reason = "the figures are what the soak is run for")]
    fn print<S>(&self, lasted: Duration, operator: &Operator<S>) {
        println!("soak of {} s: {} members, {} records of each", lasted.as_secs(), MEMBERS.len(), self.turns);
        for by in MEMBERS {
            let keys = self.samples.keys().filter(|(writer, _)| *writer == by).count();
            println!("  {by}: encrypted under {keys} keys");
        }
        println!("  {} keys in all, {} of them by rotation", self.keys().len(), self.rotations());
        let Operator { intermediate_keys, system_keys, .. } = operator;
        println!("  {intermediate_keys} intermediate keys and {system_keys} system keys revoked");
        println!(
            "  {} of the revoked ones copied to a later row, {} keys from the future",
            operator.copies,
            self.from_the_future.len()
        );
        let lost: usize = self.lost.values().map(|(count, _)| count).sum();
        let refused: usize = self.refused.values().map(|(count, _)| count).sum();
        println!(
            "  {} decrypts, {} of them cold; {lost} failed",
            self.reads,
            self.samples.len() * MEMBERS.len()
        );
        println!("  {refused} encrypts failed");
    }
}

/// Revokes while the fleet works. Of each second intermediate key it revokes somebody writes a copy.
struct Operator<S> {
    store: S,
    revoked: Duration,
    at_work: Option<tokio::task::JoinHandle<()>>,
    intermediate_keys: usize,
    system_keys: usize,
    copies: usize,
}

impl<S: MetastoreAdmin + Clone> Operator<S> {
    fn new(store: S) -> Self {
        Self { store, revoked: uptime(), at_work: None, intermediate_keys: 0, system_keys: 0, copies: 0 }
    }

    /// When it is time: the key, or one time in eight the system key above it.
    fn begin_revoke(&mut self, key: &KeyMeta) {
        if uptime() - self.revoked < REVOKE_EVERY {
            return;
        }
        self.revoked = uptime();
        let above = (self.intermediate_keys + self.system_keys) % 8 == 7;
        *(if above { &mut self.system_keys } else { &mut self.intermediate_keys }) += 1;
        let is_copied = !above && self.intermediate_keys.is_multiple_of(2);
        self.copies += usize::from(is_copied);
        let (store, key) = (self.store.clone(), key.clone());
        self.at_work = Some(tokio::spawn(async move {
            let record = store.load(&key, &call()).await.unwrap().unwrap();
            let key = if above { record.parent().unwrap() } else { &key };
            assert!(store.revoke(key, &call()).await.unwrap());
            if is_copied {
                let later = Created::new(key.created().unix_seconds() + 1).unwrap();
                let copy = KeyMeta::new(key.id().clone(), later);
                let copy = EnvelopeKeyRecord::new(copy, &record.wrapped_key()[..], record.parent().cloned());
                // Another key may be there by now.
                let _either = store.insert(&copy, &call()).await.unwrap();
            }
        }));
    }

    async fn end_revoke(&mut self) {
        if let Some(task) = self.at_work.take() {
            task.await.unwrap();
        }
    }
}

fn factory(store: impl MetastoreAdmin, precision_seconds: u64) -> SessionFactory {
    builder(store, precision_seconds).build().unwrap()
}

fn builder(store: impl MetastoreAdmin, precision_seconds: u64) -> SessionFactoryBuilder {
    let policy = CryptoPolicy::default()
        .expire_after(EXPIRE_AFTER)
        .revoke_check_interval(CHECK_INTERVAL)
        .creation_precision(Duration::from_secs(precision_seconds))
        .max_stale_encrypt(MAX_STALE_ENCRYPT);
    SessionFactory::builder(store, kms()).service(NAMES.service).product(PRODUCT).policy(policy)
}
