//! Rows that are as long as a foreign writer likes: no call fetches them.

use claviger::testing::{ReplaceOne as _, call};
use claviger::{BackendError, FailureClass, MetastoreAdmin};

use crate::support::{NOW, meta, record};

/// Whose rows they are, and how many there are: a second apart, from [`NOW`] on.
pub(crate) const ID: &str = "_IK_huge_svc_prod";
pub(crate) const ROWS: i64 = 4;

/// How many bytes the record of each has.
pub(crate) const BYTES: u64 = 64 << 20;

/// Much less than one of them, and more than calls need.
const MEMORY_MAX: u64 = 32 << 20;

/// Asks for the rows by every call, in a process that does nothing else, and deletes them at last.
pub(crate) async fn assert_not_fetched<S: MetastoreAdmin>(store: S) {
    let sound = record(ID, NOW - 1);
    assert_eq!(store.insert(&sound, &call()).await.unwrap(), claviger::Insert::Inserted);
    let before = peak_memory();
    let (first, last) = (meta(ID, NOW), meta(ID, NOW + ROWS - 1));
    for key in [&first, &last] {
        assert_damaged(store.load(key, &call()).await);
        assert_damaged(store.load_many(&[sound.meta().clone(), key.clone()], &call()).await);
        assert_damaged(store.load_latest(key.id(), key.created(), &call()).await);
        assert_damaged(store.load_latest_many(&[key.id().clone()], key.created(), &call()).await);
        assert_damaged(store.revoke(key, &call()).await);
        assert_damaged(store.replace_one(key, b"old", b"new", &call()).await);
    }
    // One that is damaged is no predecessor, and hides none of those before it.
    let newest = record(ID, NOW + ROWS);
    assert_eq!(store.insert(&newest, &call()).await.unwrap(), claviger::Insert::Inserted);
    let latest =
        store.load_latest(newest.meta().id(), newest.meta().created(), &call()).await.unwrap().unwrap();
    assert_eq!((latest.record, latest.predecessor), (newest.clone(), None));
    let oldest =
        store.load_latest(sound.meta().id(), sound.meta().created(), &call()).await.unwrap().unwrap();
    assert_eq!((oldest.record, oldest.predecessor), (sound.clone(), None));
    let page = store.list("", None, 100, &call()).await.unwrap();
    assert_eq!(page.records, [sound, newest]);
    let damaged: Vec<_> = page.damaged.iter().map(|row| (row.id.as_str(), row.created)).collect();
    assert_eq!(damaged, (0..ROWS).map(|n| (ID, Some(meta(ID, NOW + n).created()))).collect::<Vec<_>>());
    page.damaged.into_iter().for_each(|row| assert_damaged(Err::<(), _>(row.error)));
    assert_eq!(store.delete(first.id(), &call()).await.unwrap(), 2 + ROWS.unsigned_abs());
    let grown = peak_memory() - before;
    assert!(grown < MEMORY_MAX, "{grown} bytes");
}

#[track_caller]
fn assert_damaged<T: std::fmt::Debug>(answer: Result<T, BackendError>) {
    let error = answer.unwrap_err();
    assert_eq!(error.class(), FailureClass::Damaged, "{error:?}");
    assert!(format!("{error:?}").contains("RecordTooLarge"), "{error:?}");
}

/// The most memory that this process ever had, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
