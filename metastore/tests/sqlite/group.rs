//! Writes that are committed together.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::{fs, thread};

use claviger::testing::{ReplaceOne as _, call};
use claviger::{BackendError, EnvelopeKeyRecord, Insert, Metastore as _, MetastoreAdmin as _};
use claviger_metastore::SqliteMetastore;
use sqlx::sqlite::SqlitePool;
use sqlx::{Sqlite, Transaction};

use crate::latest::LatestRecord as _;
use crate::processes::alone;
use crate::support::{NOW, Place, assert_permanent, block_on, chain, meta, record};

type Call<T> = Pin<Box<dyn Future<Output = Result<T, BackendError>> + Send>>;

/// Keeps the file busy, so that what is written meanwhile waits.
async fn hold(place: &Place) -> (SqlitePool, Transaction<'static, Sqlite>) {
    let pool = place.pool().await;
    let held = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    (pool, held)
}

/// Puts a call into the queue, and leaves it there.
fn queue<T: Send + 'static>(call: impl Future<Output = Result<T, BackendError>> + Send + 'static) -> Call<T> {
    // Or tokio would make it give way to others after a hundred of its like.
    let mut call: Call<T> = Box::pin(tokio::task::unconstrained(call));
    assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    call
}

fn insert(store: &SqliteMetastore, record: EnvelopeKeyRecord) -> Call<Insert> {
    let store = store.clone();
    queue(async move { store.insert(&record, &call()).await })
}

/// How many transactions are in the log: a commit is told by the size of the file in its last frame.
fn commits(place: &Place) -> usize {
    let log = fs::read(place.folder.path().join("keys.db-wal")).unwrap();
    let word = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().unwrap());
    let frame = 24 + word(8) as usize;
    (32..log.len()).step_by(frame).filter(|at| at + frame <= log.len() && word(at + 4) != 0).count()
}

#[tokio::test]
async fn what_waits_is_committed_at_once() {
    let place = Place::new();
    let store = place.open().await;
    let before = commits(&place);
    let (_pool, held) = hold(&place).await;
    let calls: Vec<_> = (0..200).map(|second| insert(&store, record("_IK_a", NOW + second))).collect();
    held.rollback().await.unwrap();
    for call in calls {
        assert_eq!(call.await.unwrap(), Insert::Inserted);
    }
    // The first batch was what there was when the writer came, the second the rest.
    let commits = commits(&place) - before;
    assert!((1..=2).contains(&commits), "{commits} commits");
    assert_eq!(place.rows_of("_IK_a").await, 200);
}

/// Makes the table refuse the ids that begin with `refused` when they are written: the statement is
/// given up, or with `ROLLBACK` the whole transaction.
async fn refuse_when_written(place: &Place, how: &str) {
    let trigger = format!(
        "CREATE TRIGGER refuse BEFORE INSERT ON encryption_key WHEN new.id LIKE 'refused%' \
         BEGIN SELECT RAISE({how}, 'refused'); END"
    );
    execute(place, &trigger).await;
}

/// Makes the table refuse those ids when they are committed.
async fn refuse_when_committed(place: &Place) {
    execute(
        place,
        "CREATE TABLE nobody (id PRIMARY KEY); \
         CREATE TABLE refused (id REFERENCES nobody (id) DEFERRABLE INITIALLY DEFERRED); \
         CREATE TRIGGER refuse AFTER INSERT ON encryption_key WHEN new.id LIKE 'refused%' \
         BEGIN INSERT INTO refused VALUES (new.id); END",
    )
    .await;
}

async fn execute(place: &Place, sql: &str) {
    let pool = place.pool().await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&pool).await.unwrap();
    pool.close().await;
}

/// Writes of every kind and every outcome, in one batch.
async fn assert_each_gets_its_own_outcome(place: &Place, with_refused: bool) {
    let store = place.open().await;
    let [there, to_revoke, to_replace] = ["there", "revoke", "replace"].map(|id| record(id, NOW));
    for record in [&there, &to_revoke, &to_replace] {
        assert_eq!(store.insert(record, &call()).await.unwrap(), Insert::Inserted);
    }
    for second in 0..3 {
        assert_eq!(store.insert(&record("delete", NOW + second), &call()).await.unwrap(), Insert::Inserted);
    }
    place.write_row("broken", "'2023-11-14 22:13:20'", "{").await;
    let (_pool, held) = hold(place).await;
    // What takes the writer away, so that the rest is one batch.
    let first = insert(&store, record("first", NOW));
    let new = record("new", NOW);
    let inserts = [
        insert(&store, new.clone()),
        insert(&store, EnvelopeKeyRecord::new(new.meta().clone(), *b"another", None)),
        insert(&store, there.clone()),
    ];
    let revoke = |id: &'static str| {
        let store = store.clone();
        queue(async move { store.revoke(&meta(id, NOW), &call()).await })
    };
    let revokes = [revoke("revoke"), revoke("broken"), revoke("missing")];
    let replace = |old: &'static str| {
        let store = store.clone();
        queue(async move { store.replace_one(&meta("replace", NOW), old.as_bytes(), b"new", &call()).await })
    };
    let replaces = [replace("other"), replace("replace@1700000000")];
    let refused = with_refused.then(|| insert(&store, record("refused", NOW)));
    let delete = queue({
        let store = store.clone();
        async move { store.delete(meta("delete", NOW).id(), &call()).await }
    });
    held.rollback().await.unwrap();

    assert_eq!(first.await.unwrap(), Insert::Inserted);
    let mut inserted = Vec::new();
    for insert in inserts {
        inserted.push(insert.await.unwrap());
    }
    assert_eq!(inserted, [Insert::Inserted, Insert::AlreadyExists, Insert::AlreadyExists]);
    let [revoked, broken, missing] = revokes;
    assert!(revoked.await.unwrap());
    assert_permanent(broken.await, "cannot be read");
    assert!(!missing.await.unwrap());
    let [other, replaced] = replaces;
    assert!(!other.await.unwrap());
    assert!(replaced.await.unwrap());
    if let Some(refused) = refused {
        assert!(!refused.await.unwrap_err().is_transient());
        assert_eq!(place.rows_of("refused").await, 0);
    }
    assert_eq!(delete.await.unwrap(), 3);
    for expected in [new, there, to_revoke.revoked(true)] {
        assert_eq!(store.load(expected.meta(), &call()).await.unwrap(), Some(expected));
    }
    let replaced = store.load(to_replace.meta(), &call()).await.unwrap().unwrap();
    assert_eq!(**replaced.wrapped_key(), *b"new");
    assert_eq!(store.latest(meta("delete", NOW).id()).await.unwrap(), None);
}

#[tokio::test]
async fn each_of_a_batch_gets_its_own_outcome() {
    assert_each_gets_its_own_outcome(&Place::new(), false).await;
}

#[tokio::test]
async fn a_write_that_the_table_refuses_does_not_fail_the_others() {
    for how in ["ABORT", "FAIL", "ROLLBACK"] {
        let place = Place::new();
        place.open().await.close().await;
        refuse_when_written(&place, how).await;
        assert_each_gets_its_own_outcome(&place, true).await;
    }
}

#[tokio::test]
async fn a_write_that_cannot_be_committed_does_not_fail_the_others() {
    let place = Place::new();
    place.open().await.close().await;
    refuse_when_committed(&place).await;
    assert_each_gets_its_own_outcome(&place, true).await;
}

#[tokio::test]
async fn a_commit_that_fails_is_no_ones_success() {
    let place = Place::new();
    let store = place.open().await;
    refuse_when_committed(&place).await;
    let (_pool, held) = hold(&place).await;
    let records = [1, 2, 3].map(|second| record("refused", NOW + second));
    let calls = records.clone().map(|record| insert(&store, record));
    held.rollback().await.unwrap();
    for call in calls {
        assert!(!call.await.unwrap_err().is_transient());
    }
    assert_eq!(place.rows_of("refused").await, 0);
    // The connection that the commit failed on is not used for the next.
    let record = record("_IK_a", NOW);
    assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
    assert!(store.revoke(record.meta(), &call()).await.unwrap());
}

#[tokio::test]
async fn who_goes_away_leaves_nothing_behind() {
    let place = Place::new();
    let store = place.open().await;
    let (_pool, held) = hold(&place).await;
    let first = insert(&store, record("first", NOW));
    // Twice as many as there are places in the queue, so that some wait for one.
    let calls: Vec<_> = (0..2_048).map(|second| insert(&store, record("dropped", NOW + second))).collect();
    drop(calls);
    held.rollback().await.unwrap();
    assert_eq!(first.await.unwrap(), Insert::Inserted);
    for second in 0..50 {
        assert_eq!(store.insert(&record("after", NOW + second), &call()).await.unwrap(), Insert::Inserted);
    }
    // The writer may have taken a batch of them with the first one, but no more.
    assert!(place.rows_of("dropped").await < 256);
}

#[test]
fn a_runtime_that_goes_away_takes_no_one_elses_writes_with_it() {
    let place = Place::new();
    let store = block_on(place.open());
    for is_dropped in [true, false] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (pool, held) = block_on(hold(&place));
        let theirs = {
            let _entered = runtime.enter();
            insert(&store, record("theirs", NOW))
        };
        // What began the writing is not driven any more, or is gone.
        let _undriven = (!is_dropped).then_some(runtime);
        block_on(async {
            let ours = record("ours", NOW + i64::from(is_dropped));
            let inserting = insert(&store, ours.clone());
            held.rollback().await.unwrap();
            assert_eq!(inserting.await.unwrap(), Insert::Inserted);
            assert_eq!(store.load(ours.meta(), &call()).await.unwrap(), Some(ours));
            pool.close().await;
        });
        drop(theirs);
    }
}

#[test]
fn runtimes_share_a_store() {
    const RUNTIMES: i64 = 6;
    const WRITES: i64 = 40;
    let place = Place::new();
    let store = block_on(place.open());
    thread::scope(|scope| {
        for runtime in 0..RUNTIMES {
            let store = &store;
            scope.spawn(move || {
                for write in 0..WRITES {
                    // A runtime for each, that ends as soon as the answer is there.
                    block_on(async {
                        let record = record("_IK_a", NOW + runtime * WRITES + write);
                        assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
                        assert!(store.revoke(record.meta(), &call()).await.unwrap());
                    });
                }
            });
        }
    });
    let records = block_on(store.list("", None, 1_000, &call())).unwrap().records;
    assert_eq!(i64::try_from(records.len()).unwrap(), RUNTIMES * WRITES);
    assert!(records.iter().all(EnvelopeKeyRecord::is_revoked));
}

#[test]
fn there_is_no_writer_while_nobody_writes() {
    alone("group::there_is_no_writer_while_nobody_writes", false, async || {
        let place = Place::new();
        let store = place.open().await;
        assert_eq!(store.latest(meta("_IK_a", NOW).id()).await.unwrap(), None);
        assert_eq!(writers(), 0);
        let (_pool, held) = hold(&place).await;
        let calls: Vec<_> = (0..9).map(|second| insert(&store, record("_IK_a", NOW + second))).collect();
        // It may still be on its way in.
        wait_for_writers(1).await;
        held.rollback().await.unwrap();
        for call in calls {
            assert_eq!(call.await.unwrap(), Insert::Inserted);
        }
        // It may still be on its way out.
        wait_for_writers(0).await;
    });
}

async fn wait_for_writers(number: usize) {
    poll_fn(|context| {
        context.waker().wake_by_ref();
        if writers() == number { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn writers() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    // A thread may end between the two looks.
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.trim() == "claviger-sqlite").count()
}

#[test]
fn a_full_disk_is_transient_for_all_of_a_batch_and_passes() {
    crate::processes::on_a_small_disk(
        "group::a_full_disk_is_transient_for_all_of_a_batch_and_passes",
        async |folder| {
            let place = Place::at(folder);
            let store = place.open().await;
            let kept = record("_IK_kept", NOW);
            assert_eq!(store.insert(&kept, &call()).await.unwrap(), Insert::Inserted);
            let filler = folder.join("filler");
            fill(&filler);
            // Fills up what the log still has room for in its last block.
            let mut seconds = NOW..;
            let error = loop {
                let large =
                    EnvelopeKeyRecord::new(meta("_IK_large", seconds.next().unwrap()), [7; 20_000], None);
                if let Err(error) = store.insert(&large, &call()).await {
                    break error;
                }
            };
            assert!(error.is_transient(), "{}", chain(&error));
            let records = [1, 2, 3]
                .map(|second| EnvelopeKeyRecord::new(meta("_IK_batch", NOW + second), [7; 20_000], None));
            let (_pool, held) = hold(&place).await;
            let calls = records.clone().map(|record| insert(&store, record));
            // Not inserts alone, so that the batch is a transaction of several statements.
            let revoke = queue({
                let (store, key) = (store.clone(), kept.meta().clone());
                async move { store.revoke(&key, &call()).await.map(|_found| Insert::Inserted) }
            });
            held.rollback().await.unwrap();
            for call in calls.into_iter().chain([revoke]) {
                let error = call.await.unwrap_err();
                assert!(error.is_transient(), "{}", chain(&error));
            }
            assert_eq!(store.latest(records[0].meta().id()).await.unwrap(), None);
            fs::remove_file(&filler).unwrap();
            for record in &records {
                assert_eq!(store.insert(record, &call()).await.unwrap(), Insert::Inserted);
            }
            assert!(store.revoke(kept.meta(), &call()).await.unwrap());
            assert_eq!(store.latest(kept.meta().id()).await.unwrap(), Some(kept.revoked(true)));
        },
    );
}

/// Writes zeros until there is no room for another.
fn fill(file: &std::path::Path) {
    use std::io::Write as _;
    let mut file = fs::File::create(file).unwrap();
    for block in [65_536, 4_096, 1] {
        while file.write_all(&vec![0; block]).is_ok() {}
    }
}
