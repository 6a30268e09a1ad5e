//! The file: who may read it, what it survives, what is said when it cannot be used.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use claviger::testing::call;
use claviger::{Insert, Metastore as _, MetastoreAdmin as _};
use claviger_metastore::{FindingId, SqliteMetastore};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteSynchronous};

use crate::latest::LatestRecord as _;
use crate::processes::alone;
use crate::refused::assert_refused_unasked;
use crate::support::{
    NOW, Place, assert_dangerous, assert_permanent, assert_shows_no_sql, chain, meta, record,
};

#[tokio::test]
async fn a_new_file_and_its_side_files_are_their_owners_alone() {
    let place = Place::new();
    let store = place.open().await;
    assert_eq!(store.insert(&record("_IK_a_svc_prod", NOW), &call()).await.unwrap(), Insert::Inserted);
    let mut names = Vec::new();
    for entry in fs::read_dir(place.folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["keys.db", "keys.db-shm", "keys.db-wal"]);
}

#[tokio::test]
async fn a_file_of_others_keeps_its_mode_and_its_rows() {
    let place = Place::new();
    place.open().await.close().await;
    let record = record("_IK_a_svc_prod", NOW);
    place.write_row("_IK_a_svc_prod", "'2023-11-14 22:13:20'", &record.to_json()).await;
    fs::set_permissions(&place.file, fs::Permissions::from_mode(0o640)).unwrap();
    let store = place.open().await;
    assert_eq!(store.latest(record.meta().id()).await.unwrap(), Some(record));
    assert_eq!(fs::metadata(&place.file).unwrap().permissions().mode() & 0o777, 0o640);
}

#[tokio::test]
async fn names_that_are_no_files_to_sqlite_are_refused_and_nothing_is_made() {
    let names = [":memory:", "file::memory:?cache=shared", "file:keys.db?mode=memory", "FILE:keys.db"];
    for name in names {
        for builder in [SqliteMetastore::builder(), SqliteMetastore::builder().migrate()] {
            assert_permanent(builder.open(name).await, "a database in memory or for a URI");
        }
        assert!(!Path::new(name).exists(), "{name}");
    }
    assert_permanent(SqliteMetastore::open("").await, "No such file");
}

#[tokio::test]
async fn a_pool_in_memory_is_refused() {
    let memory = SqliteConnectOptions::new().in_memory(true).filename("file:keys").shared_cache(true);
    for options in [SqliteConnectOptions::new(), memory, SqliteConnectOptions::new().filename("")] {
        let pool = SqlitePool::connect_with(options).await.unwrap();
        let opened = SqliteMetastore::builder().migrate().open_with(pool).await;
        assert_dangerous(opened, FindingId::NotDurable, "is in memory");
    }
}

#[tokio::test]
async fn open_makes_no_key_store_where_one_was_lost() {
    let place = Place::new();
    let open = || SqliteMetastore::open(&place.file);
    for builder in [
        SqliteMetastore::builder(),
        SqliteMetastore::builder().danger_unchecked(),
        SqliteMetastore::builder().accept(FindingId::TableMissing),
        SqliteMetastore::builder().read_only(true).migrate(),
    ] {
        assert_permanent(builder.open(&place.file).await, "No such file");
    }
    assert!(!place.file.exists());
    fs::write(&place.file, "").unwrap();
    assert_dangerous(open().await, FindingId::TableMissing, "no table");
    assert_eq!(fs::read(&place.file).unwrap(), b"");
    // A file of other tables, too.
    let pool = place.pool().await;
    sqlx::raw_sql("CREATE TABLE other (x)").execute(&pool).await.unwrap();
    pool.close().await;
    let before = fs::read(&place.file).unwrap();
    assert_dangerous(open().await, FindingId::TableMissing, "no table");
    assert_eq!(fs::read(&place.file).unwrap(), before);
    let accepted =
        SqliteMetastore::builder().accept(FindingId::TableMissing).open(&place.file).await.unwrap();
    assert_permanent(accepted.count(&call()).await, "there is no such table");
    accepted.close().await;
    SqliteMetastore::migrate(&place.file).await.unwrap().close().await;
    open().await.unwrap().close().await;
}

#[tokio::test]
async fn a_log_whose_file_is_lost_is_not_deleted() {
    let place = Place::new();
    let store = place.open().await;
    assert_eq!(store.insert(&record("_IK_a_svc_prod", NOW), &call()).await.unwrap(), Insert::Inserted);
    let (file, log) = (fs::read(&place.file).unwrap(), place.folder.path().join("keys.db-wal"));
    let held = fs::read(&log).unwrap();
    store.close().await;
    fs::write(&log, &held).unwrap();
    for lost in [true, false] {
        if lost {
            fs::remove_file(&place.file).unwrap();
        } else {
            fs::write(&place.file, "").unwrap();
        }
        for builder in [SqliteMetastore::builder(), SqliteMetastore::builder().migrate()] {
            assert_permanent(builder.open(&place.file).await, "its log (-wal) is there");
        }
        assert_eq!(fs::read(&log).unwrap(), held);
    }
    // With its file it is what it was.
    fs::write(&place.file, file).unwrap();
    assert_eq!(place.open().await.count(&call()).await.unwrap(), 1);
}

#[tokio::test]
async fn records_outlive_the_process_that_wrote_them() {
    let place = Place::new();
    let record = record("_IK_a_svc_prod", NOW);
    let store = place.open().await;
    assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
    store.close().await;
    assert_permanent(store.insert(&record, &call()).await, "closed");
    assert_eq!(place.open().await.load(record.meta(), &call()).await.unwrap(), Some(record));
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_a_permanent_error() {
    let place = Place::new();
    for builder in [SqliteMetastore::builder(), SqliteMetastore::builder().migrate()] {
        assert_permanent(builder.clone().open(place.folder.path().join("no/keys.db")).await, "No such file");
        assert_permanent(builder.open(place.folder.path()).await, "unable to open");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_a_permanent_error_and_is_left_alone() {
    let place = Place::new();
    let text = "customer_id,email\n".repeat(1_000);
    fs::write(&place.file, &text).unwrap();
    for builder in [SqliteMetastore::builder(), SqliteMetastore::builder().migrate()] {
        assert_permanent(builder.open(&place.file).await, "not a database");
    }
    assert_eq!(fs::read_to_string(&place.file).unwrap(), text);
}

#[tokio::test]
async fn a_damaged_file_is_a_permanent_error() {
    let place = Place::new();
    let store = place.open().await;
    for created in 0..500 {
        assert_eq!(
            store.insert(&record("_IK_a_svc_prod", NOW + created), &call()).await.unwrap(),
            Insert::Inserted
        );
    }
    store.close().await;
    // All pages but the first, which holds the schema.
    let mut bytes = fs::read(&place.file).unwrap();
    bytes[4_096..].fill(0xa5);
    fs::write(&place.file, bytes).unwrap();
    let store = place.open().await;
    let key = meta("_IK_a_svc_prod", NOW);
    assert_permanent(store.load(&key, &call()).await, "what it holds cannot be read");
    assert_permanent(store.latest(key.id()).await, "what it holds cannot be read");
    assert_permanent(
        store.insert(&record("_IK_a_svc_prod", NOW - 1), &call()).await,
        "what it holds cannot be read",
    );
}

#[tokio::test]
async fn a_missing_table_is_a_permanent_error_until_migrated() {
    let place = Place::new();
    place.open().await.close().await;
    let pool = place.pool().await;
    sqlx::query("DROP TABLE encryption_key").execute(&pool).await.unwrap();
    let refused = SqliteMetastore::new(pool.clone()).await.unwrap_err();
    assert!(chain(&refused).contains("SqliteMetastore::migrate"), "{}", chain(&refused));
    let store = SqliteMetastore::builder().danger_unchecked().open_with(pool.clone()).await.unwrap();
    let record = record("_IK_a_svc_prod", NOW);
    assert_permanent(store.latest(record.meta().id()).await, "there is no such table");
    assert_permanent(store.insert(&record, &call()).await, "there is no such table");
    for _ in 0..2 {
        SqliteMetastore::builder().migrate().open_with(pool.clone()).await.unwrap();
    }
    SqliteMetastore::migrate(&place.file).await.unwrap();
    assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
}

#[tokio::test]
async fn a_pool_that_does_not_commit_durably_is_refused() {
    let place = Place::new();
    place.open().await.close().await;
    let options = SqliteConnectOptions::new().filename(&place.file);
    for weak in [SqliteSynchronous::Off, SqliteSynchronous::Normal] {
        let pool = SqlitePool::connect_with(options.clone().synchronous(weak)).await.unwrap();
        assert_dangerous(SqliteMetastore::new(pool.clone()).await, FindingId::NotDurable, "synchronous is");
        pool.close().await;
    }
    let durable = options.clone().synchronous(SqliteSynchronous::Extra);
    SqliteMetastore::new(SqlitePool::connect_with(durable).await.unwrap()).await.unwrap().close().await;
    let rollback_journal = options.journal_mode(SqliteJournalMode::Delete);
    let pool = SqlitePool::connect_with(rollback_journal).await.unwrap();
    assert_dangerous(SqliteMetastore::new(pool).await, FindingId::NotDurable, "journal_mode is delete");
}

#[tokio::test]
async fn a_file_that_stays_busy_is_a_transient_error() {
    let place = Place::new();
    place.open().await.close().await;
    let options = SqliteConnectOptions::new().filename(&place.file).busy_timeout(Duration::from_millis(1));
    let store = SqliteMetastore::new(SqlitePool::connect_with(options).await.unwrap()).await.unwrap();
    let other = place.pool().await;
    let writing = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let record = record("_IK_a_svc_prod", NOW);
    let error = store.insert(&record, &call()).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert_shows_no_sql(&chain(&error));
    assert!(store.revoke(record.meta(), &call()).await.unwrap_err().is_transient());
    // Who reads is not in the way.
    assert_eq!(store.latest(record.meta().id()).await.unwrap(), None);
    writing.rollback().await.unwrap();
    assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
}

#[test]
fn a_read_only_file_gives_its_keys_and_takes_none() {
    // Root writes where it may not, unless its right to is taken away.
    alone("files::a_read_only_file_gives_its_keys_and_takes_none", true, async || {
        let place = Place::new();
        let record = record("_IK_a_svc_prod", NOW);
        let store = place.open().await;
        assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
        for entry in fs::read_dir(place.folder.path()).unwrap() {
            fs::set_permissions(entry.unwrap().path(), fs::Permissions::from_mode(0o400)).unwrap();
        }
        assert!(fs::File::options().write(true).open(&place.file).is_err(), "the file can be written");
        let reader = place.open().await;
        assert_eq!(reader.latest(record.meta().id()).await.unwrap().as_ref(), Some(&record));
        let another = crate::support::record("_IK_b_svc_prod", NOW);
        assert_permanent(reader.insert(&another, &call()).await, "it takes no writes");
        assert_permanent(reader.revoke(record.meta(), &call()).await, "it takes no writes");
        assert_eq!(reader.load(another.meta(), &call()).await.unwrap(), None);
    });
}

#[test]
fn a_folder_that_cannot_be_written_is_named_as_what_is_wrong() {
    alone("files::a_folder_that_cannot_be_written_is_named_as_what_is_wrong", true, async || {
        let place = Place::new();
        let folder = place.folder.path();
        let close = |mode| fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
        close(0o500);
        assert_permanent(SqliteMetastore::migrate(&place.file).await, "folder of the file cannot be written");
        close(0o700);
        place.open().await.close().await;
        close(0o500);
        // The file is there and may be written; its log may not be made.
        assert_permanent(SqliteMetastore::open(&place.file).await, "folder of the file cannot be written");
        close(0o700);
        place.open().await.close().await;
    });
}

#[test]
fn s1_6_no_file_handle_leaks() {
    alone("files::s1_6_no_file_handle_leaks", false, async || {
        let place = Place::new();
        place.open().await.close().await;
        let before = open_files();
        for round in 0..20 {
            let store = place.open().await;
            let record = record("_IK_a_svc_prod", NOW + round);
            assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
            drop(store.load(record.meta(), &call()));
            assert_eq!(store.latest(record.meta().id()).await.unwrap(), Some(record));
            assert!(open_files() > before, "open files are not counted");
            assert!(SqliteMetastore::open(place.folder.path()).await.is_err());
            store.close().await;
        }
        assert_eq!(open_files(), before);
    });
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test]
async fn a_torn_tail_of_the_log_loses_nothing_that_was_answered() {
    let place = Place::new();
    let store = place.open().await;
    let records: Vec<_> = (0..20).map(|second| record("_IK_a_svc_prod", NOW + second)).collect();
    for record in &records {
        assert_eq!(store.insert(record, &call()).await.unwrap(), Insert::Inserted);
    }
    // What a power cut leaves: the files as they are on disk, and half a write at the end.
    let copy = Place::new();
    for side in ["", "-wal"] {
        fs::copy(with_suffix(&place.file, side), with_suffix(&copy.file, side)).unwrap();
    }
    let mut log = fs::File::options().append(true).open(with_suffix(&copy.file, "-wal")).unwrap();
    log.write_all(&[0xa5; 1_000]).unwrap();
    let store = copy.open().await;
    assert_eq!(store.list("", None, 100, &call()).await.unwrap().records, records);
}

fn with_suffix(path: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[tokio::test]
async fn what_is_refused_here_says_so_also_when_the_server_is_gone() {
    let place = Place::new();
    let store = place.open().await;
    store.close().await;
    assert_refused_unasked(&store).await;
}
