//! What the contract suites share.

#![expect(clippy::expect_used, reason = "a contract that is broken fails its test by a panic")]

use std::fmt::Write as _;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Barrier;
use std::task::Poll;
use std::thread;

use tokio::runtime::Handle;

use crate::error::BackendError;
use crate::metastore::{Consistency, Insert, Metastore};
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
    assert_eq!(ok(store.insert(record).await), Insert::Inserted);
}

pub(super) async fn load(store: &impl Metastore, key: &KeyMeta) -> Option<EnvelopeKeyRecord> {
    ok(store.load(key, Consistency::Strong).await)
}

/// Returns the version of the same key that was created `seconds` later.
pub(super) fn later(key: &KeyMeta, seconds: i64) -> KeyMeta {
    KeyMeta::new(key.id().clone(), created(key.created().unix_seconds() + seconds))
}

pub(super) async fn assert_kept(store: &impl Metastore, record: &EnvelopeKeyRecord) {
    insert(store, record).await;
    assert_eq!(load(store, record.meta()).await.as_ref(), Some(record));
    assert_eq!(ok(store.load_latest(record.meta().id()).await).as_ref(), Some(record));
}

/// A store that cannot hold a key says so for good, and then does not find it.
pub(super) async fn assert_kept_or_refused(store: &impl Metastore, key: &KeyMeta) {
    let record = record(key);
    match store.insert(&record).await {
        Ok(inserted) => {
            assert_eq!(inserted, Insert::Inserted, "{key} was taken for another key");
            assert_eq!(load(store, key).await, Some(record));
        }
        Err(error) => {
            assert!(!error.is_transient(), "{key} will not fit later either");
            assert!(matches!(store.load(key, Consistency::Strong).await, Ok(None) | Err(_)));
        }
    }
}

pub(super) async fn assert_tails_told_apart(store: &impl Metastore, one: &str, other: &str) {
    let stem = fresh_id("");
    let [one, other] =
        [one, other].map(|tail| KeyMeta::new(KeyId::new(format!("{stem}{tail}")), created(NOW)));
    assert_told_apart(store, &one, &other).await;
}

/// Two keys: neither is found by the other's name, neither is in the other's way.
pub(super) async fn assert_told_apart(store: &impl Metastore, one: &KeyMeta, other: &KeyMeta) {
    let (one, other) = (record(one), record(other));
    insert(store, &one).await;
    assert_eq!(load(store, other.meta()).await, None);
    insert(store, &other).await;
    assert_eq!(load(store, one.meta()).await.as_ref(), Some(&one));
    assert_eq!(load(store, other.meta()).await.as_ref(), Some(&other));
    if one.meta().id() != other.meta().id() {
        assert_eq!(ok(store.load_latest(one.meta().id()).await), Some(one));
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

/// Tests that a suite's macro names each of its clauses: one that is forgotten would never run.
#[cfg(test)]
pub(super) fn assert_macro_names_every_clause(source: &str) {
    let clauses: Vec<&str> = source
        .lines()
        .filter_map(|line| line.strip_prefix("pub async fn "))
        .filter_map(|rest| rest.split(['(', '<']).next())
        .collect();
    assert!(clauses.len() > 5, "the source was not understood");
    let (_, list) = source.split_once("macro_rules!").expect("the suite has a macro");
    for clause in clauses {
        let named = list.lines().filter(|line| line.trim() == clause).count();
        assert_eq!(named, 1, "{clause}");
    }
}
