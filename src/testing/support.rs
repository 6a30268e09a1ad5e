//! What the contract suites share.

#![expect(clippy::expect_used, reason = "a contract that is broken fails its test by a panic")]

use crate::testing::call;
use std::fmt::{self, Write as _};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Barrier;
use std::task::Poll;
use std::thread;

use tokio::runtime::Handle;

use crate::error::BackendError;
use crate::metastore::{Insert, Metastore};
use crate::random::{SecureRandom, SystemRandom};
use crate::record::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};

/// The time the suites' keys are created at: 2023-11-14 22:13:20, a whole day's no multiple.
pub(super) const NOW: i64 = 1_700_000_000;

pub(super) fn created(unix_seconds: i64) -> Created {
    Created::new(unix_seconds).expect("suites use positive times")
}

/// Returns an id that no other test and no earlier run uses, ending in `tail`.
pub(super) fn fresh_id(tail: &str) -> KeyId {
    let mut id = String::from("_IK_contract-");
    for byte in random_bytes::<12>() {
        write!(id, "{byte:02x}").expect("writing to a string cannot fail");
    }
    id.push_str(tail);
    KeyId::new(id)
}

pub(super) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
    bytes
}

/// Returns a version of a key of its own.
pub(super) fn fresh_meta() -> KeyMeta {
    KeyMeta::new(fresh_id(""), created(NOW))
}

/// Returns an intermediate key's record with random bytes, so that any two records differ.
pub(super) fn record(meta: &KeyMeta) -> EnvelopeKeyRecord {
    let parent = KeyMeta::new(KeyId::new("_SK_contract_suite"), created(NOW - 60));
    EnvelopeKeyRecord::new(meta.clone(), random_bytes::<60>(), Some(parent))
}

/// Unwraps an answer, or fails the test with every cause.
#[track_caller]
pub(super) fn ok<T>(answer: Result<T, BackendError>) -> T {
    answer.expect("the call succeeds")
}

/// Inserts a record that is new.
pub(super) async fn insert(store: &impl Metastore, record: &EnvelopeKeyRecord) {
    assert_eq!(ok(store.insert(record, &call()).await), Insert::Inserted);
}

pub(super) async fn load(store: &impl Metastore, key: &KeyMeta) -> Option<EnvelopeKeyRecord> {
    ok(store.load(key, &call()).await)
}

/// Returns the latest record of an id, however late.
pub(super) async fn latest(store: &impl Metastore, id: &KeyId) -> Option<EnvelopeKeyRecord> {
    ok(try_latest(store, id).await)
}

pub(super) async fn try_latest(
    store: &impl Metastore,
    id: &KeyId,
) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
    Ok(store.load_latest(id, Created::MAX, &call()).await?.map(|latest| latest.record))
}

/// Returns the latest record of each id, however late.
pub(super) async fn latest_many(store: &impl Metastore, ids: &[KeyId]) -> Vec<Option<EnvelopeKeyRecord>> {
    ok(try_latest_many(store, ids).await)
}

pub(super) async fn try_latest_many(
    store: &impl Metastore,
    ids: &[KeyId],
) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
    let found = store.load_latest_many(ids, Created::MAX, &call()).await?;
    Ok(found.into_iter().map(|found| found.map(|latest| latest.record)).collect())
}

/// Returns `true` if the store refused for good and by itself, which says nothing of whether its server is up.
pub(super) fn is_refused_unasked<T>(answer: &Result<T, BackendError>) -> bool {
    answer.as_ref().is_err_and(|error| !error.is_transient() && !error.was_asked())
}

/// Returns the version of the same key that was created `seconds` later.
pub(super) fn later(key: &KeyMeta, seconds: i64) -> KeyMeta {
    KeyMeta::new(key.id().clone(), created(key.created().unix_seconds() + seconds))
}

pub(super) async fn assert_kept(store: &impl Metastore, record: &EnvelopeKeyRecord) {
    insert(store, record).await;
    assert_eq!(load(store, record.meta()).await.as_ref(), Some(record));
    assert_eq!(latest(store, record.meta().id()).await.as_ref(), Some(record));
}

/// A store that cannot hold a key says so for good, and then does not find it.
pub(super) async fn assert_kept_or_refused(store: &impl Metastore, key: &KeyMeta) {
    let record = record(key);
    match keep(store, &record, Lookalikes::ApartOrRefused).await {
        Some(kept) => assert_eq!(load(store, key).await, Some(kept)),
        None => assert!(matches!(store.load(key, &call()).await, Ok(None) | Err(_))),
    }
}

/// What a table does with keys that differ by no more than its collation or its clock can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookalikes {
    /// They are kept, and told apart.
    Apart,
    /// As a table made by others may: what cannot be told apart from a key that is there, or cannot
    /// be held at all, is refused for good, and nothing is found or changed by its name.
    ApartOrRefused,
}

/// The ends of ids that differ in case, in accents, in how an accent is composed, in trailing white
/// space, and in characters that a table of fewer characters cannot hold.
pub(super) const LOOKALIKES: [[&str; 2]; 10] = [
    ["alice", "ALICE"],
    ["stra\u{df}e", "strasse"],
    ["andre", "andr\u{e9}"],
    ["\u{e9}", "e"],
    ["andr\u{e9}", "andre\u{301}"],
    ["x", "x "],
    ["y ", "y  "],
    ["z", "z\t"],
    ["\u{1f600}", "\u{1f601}"],
    ["\u{1f600}", "?"],
];

/// Returns a key of each end; the ids are the same before it.
pub(super) fn fresh_pair(tails: [&str; 2]) -> [KeyMeta; 2] {
    let stem = fresh_id("");
    tails.map(|tail| KeyMeta::new(KeyId::new(format!("{stem}{tail}")), created(NOW)))
}

/// Inserts the record; `None` if the store refuses it for good, where it may.
pub(super) async fn keep(
    store: &impl Metastore,
    record: &EnvelopeKeyRecord,
    lookalikes: Lookalikes,
) -> Option<EnvelopeKeyRecord> {
    let key = record.meta();
    match store.insert(record, &call()).await {
        Err(error) if lookalikes == Lookalikes::ApartOrRefused => {
            assert!(!error.is_transient(), "{key} will not fit later either: {error:?}");
            None
        }
        answer => {
            assert_eq!(ok(answer), Insert::Inserted, "{key} was taken for another key");
            Some(record.clone())
        }
    }
}

/// Inserts a record of each of two keys that look alike.
pub(super) async fn keep_pair(
    store: &impl Metastore,
    pair: &[KeyMeta; 2],
    lookalikes: Lookalikes,
) -> [Option<EnvelopeKeyRecord>; 2] {
    let [one, other] = pair;
    [keep_first(store, one, lookalikes).await, keep(store, &record(other), lookalikes).await]
}

/// Plain letters fit into every table, so the first key of such is kept.
async fn keep_first(
    store: &impl Metastore,
    key: &KeyMeta,
    lookalikes: Lookalikes,
) -> Option<EnvelopeKeyRecord> {
    let is_plain = key.id().as_str().is_ascii();
    let lookalikes = if is_plain { Lookalikes::Apart } else { lookalikes };
    keep(store, &record(key), lookalikes).await
}

/// Asserts an answer about a key: of a key that the store refused, a refusal will do.
#[track_caller]
pub(super) fn assert_answer<T: PartialEq + fmt::Debug>(
    answer: Result<T, BackendError>,
    expected: &T,
    was_refused: bool,
) {
    match answer {
        Err(error) if was_refused => assert!(!error.is_transient(), "{error:?}"),
        answer => assert_eq!(ok(answer), *expected),
    }
}

pub(super) async fn assert_tails_told_apart(
    store: &impl Metastore,
    tails: [&str; 2],
    lookalikes: Lookalikes,
) {
    let pair = fresh_pair(tails);
    assert_told_apart(store, &pair, lookalikes).await;
    // The same the other way round: it is the second one that is refused.
    let [one, other] = fresh_pair(tails);
    assert_told_apart(store, &[other, one], lookalikes).await;
}

/// Two keys: neither is found by the other's name, neither is in the other's way.
pub(super) async fn assert_told_apart(store: &impl Metastore, pair: &[KeyMeta; 2], lookalikes: Lookalikes) {
    let [one, other] = pair;
    let first = keep_first(store, one, lookalikes).await;
    let may_refuse = lookalikes == Lookalikes::ApartOrRefused;
    assert_answer(store.load(other, &call()).await, &None, may_refuse);
    let second = keep(store, &record(other), lookalikes).await;
    for (key, kept) in pair.iter().zip([first, second]) {
        assert_answer(store.load(key, &call()).await, &kept, kept.is_none());
        if one.id() != other.id() {
            assert_answer(try_latest(store, key.id()).await, &kept, kept.is_none());
        }
    }
}

/// Runs `call` in as many threads as there are `runners`, all let go at once. Needs a runtime with
/// worker threads, since the caller's thread waits.
pub(super) fn race<T, F>(runners: usize, call: impl Fn(usize) -> F + Sync) -> Vec<T>
where
    T: Send,
    F: Future<Output = T>,
{
    let runtime = Handle::current();
    let start = Barrier::new(runners);
    thread::scope(|scope| {
        let run = |runner| {
            let (runtime, start, call) = (&runtime, &start, &call);
            scope.spawn(move || {
                start.wait();
                runtime.block_on(call(runner))
            })
        };
        let threads: Vec<_> = (0..runners).map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("no runner panics")).collect()
    })
}

/// Polls `call` at most `polls` times, then drops it.
pub(super) async fn abandon(call: impl Future, polls: usize) {
    let mut call = pin!(call);
    for _ in 0..polls {
        if poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_ready())).await {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Tests that a suite's macros name each of its clauses: one that is forgotten would never run. A
/// suite for tables made by others has a clause of its own for each that it leaves out. `files` are
/// the suite's own, the one with its modules among them.
#[cfg(test)]
pub(super) fn assert_macro_names_every_clause(files: &[&str]) {
    let source = files.concat();
    let modules = source.lines().filter(|line| line.starts_with("mod ") && line.ends_with(';')).count();
    assert_eq!(files.len(), 1 + modules, "a file of the suite was not read");
    let clauses: Vec<&str> = source
        .lines()
        .filter_map(|line| line.strip_prefix("pub async fn "))
        .filter_map(|rest| rest.split(['(', '<']).next())
        .collect();
    assert!(clauses.len() > 5, "the source was not understood");
    let named = |list: &str| {
        list.lines().map(str::trim).filter(|line| clauses.contains(line)).map(str::to_owned).collect()
    };
    let lists: Vec<Vec<String>> = source.split("macro_rules! ").skip(1).map(named).collect();
    for clause in &clauses {
        let named = lists.iter().flatten().filter(|named| *named == clause).count();
        assert_eq!(named, 1, "{clause}");
    }
    if let [own, legacy, _of_both] = lists.as_slice() {
        let of_legacy = |clause: &String| ["_or_refused", "_or_refuses"].map(|end| format!("{clause}{end}"));
        for clause in own {
            assert!(of_legacy(clause).iter().any(|name| legacy.contains(name)), "{clause}");
        }
        assert_eq!(own.len(), legacy.len());
    }
}
