//! A fail-over to a standby that lacks the last commits.

use std::collections::BTreeSet;
use std::time::Duration;

use claviger::{Event, KeyMeta, Limits, SessionFactory};
use claviger_metastore::PostgresMetastore;
use claviger_testkit::Postgres;

use crate::load::{Sealed, builder, factory, lost, policy, raised, until};

/// A primary and a standby, a store that knows both, and a factory that makes no regular check during
/// the drill.
struct Drill {
    primary: Postgres,
    standby: Postgres,
    factory: SessionFactory,
    /// Sealed under keys that the standby has, and under those that it has not.
    kept: Vec<Sealed>,
    missed: Vec<Sealed>,
}

impl Drill {
    async fn new(restore: bool, with_system_key: bool) -> Self {
        let primary = Postgres::start();
        let unchecked = PostgresMetastore::builder().danger_unchecked();
        unchecked.migrate().open(&primary.url("postgres")).await.unwrap();
        let standby = Postgres::standby_of(&primary, "second");
        let store = PostgresMetastore::open(&both(&primary, &standby)).await.unwrap();
        let policy = policy().revoke_check_interval(Duration::from_secs(600));
        let factory = builder(store)
            .policy(policy)
            .limits(Limits::production().max_intermediate_keys(1_000))
            .restore_lost(restore)
            .build()
            .unwrap();
        let mut drill = Self { primary, standby, factory, kept: Vec::new(), missed: Vec::new() };
        if with_system_key {
            for number in 0..20 {
                drill.kept.push(drill.seal(&format!("kept{number}")).await);
            }
        }
        drill.wait_for_standby().await;
        drill.standby.disconnect();
        for number in 0..30 {
            drill.missed.push(drill.seal(&format!("missed{number}")).await);
        }
        drill
    }

    async fn seal(&self, partition: &str) -> Sealed {
        Sealed::new(&self.factory, partition, "text").await.unwrap()
    }

    async fn wait_for_standby(&self) {
        let rows = |server: &Postgres| server.psql("postgres", "SELECT count(*) FROM encryption_key");
        let (rows, all) = (|| rows(&self.standby), rows(&self.primary));
        until("the standby has all rows", async || rows() == all).await;
    }

    /// Kills the primary, promotes the standby, and has the store connect again.
    async fn fail_over(&mut self) {
        self.primary.kill();
        self.standby.promote();
        self.fail_over_noticed().await;
    }

    async fn fail_over_noticed(&self) {
        // Any call that makes a connection. It may fail while the others are found dead.
        let mut number = 0;
        until("it is noticed", async || {
            number += 1;
            drop(Sealed::new(&self.factory, &format!("after{number}"), "text").await);
            raised(&self.factory, Event::FailedOver) > 0
        })
        .await;
    }

    /// The keys that are told of as lost, though nobody uses them.
    async fn told(&self, count: usize) -> BTreeSet<KeyMeta> {
        let rows = || self.factory.status().unwrap().lost_rows;
        let told = || usize::try_from(raised(&self.factory, Event::RowLost)).unwrap();
        until("all lost rows are told", async || told() >= count).await;
        assert_eq!(told(), count);
        rows().into_iter().map(|row| row.key).collect()
    }

    /// What a process that was started after the fail-over cannot read.
    async fn lost(&self) -> Vec<(Sealed, claviger::Error)> {
        let fresh = factory(PostgresMetastore::open(&self.standby.url("postgres")).await.unwrap());
        let all: Vec<_> = self.kept.iter().chain(&self.missed).cloned().collect();
        lost(&fresh, &all).await
    }

    fn missed_keys(&self) -> BTreeSet<KeyMeta> {
        self.missed.iter().map(|sealed| sealed.record.parent().unwrap().clone()).collect()
    }
}

fn both(primary: &Postgres, standby: &Postgres) -> String {
    let url = primary.url("postgres");
    let (before, database) = url.rsplit_once('/').unwrap();
    format!("{before},127.0.0.1:{}/{database}", standby.port())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_lost_row_is_told_and_exactly_what_was_sealed_under_them_is_lost() {
    let mut drill = Drill::new(false, true).await;
    drill.fail_over().await;
    assert_eq!(drill.told(30).await, drill.missed_keys());
    let lost = drill.lost().await;
    let partitions: BTreeSet<_> = lost.iter().map(|(sealed, _)| sealed.partition.clone()).collect();
    let missed: BTreeSet<_> = drill.missed.iter().map(|sealed| sealed.partition.clone()).collect();
    assert_eq!(partitions, missed);
    for (sealed, error) in &lost {
        assert!(
            matches!(error, claviger::Error::KeyNotFound(key) if key == sealed.record.parent().unwrap()),
            "{error:?}"
        );
    }
    // New keys of the same partitions are in nobody's place, so that the old ones can come back.
    for sealed in drill.missed.clone().iter().take(10) {
        assert_ne!(
            drill.seal(&sealed.partition).await.record.parent().unwrap(),
            sealed.record.parent().unwrap()
        );
    }
    for key in drill.missed_keys() {
        assert!(drill.factory.restore_lost(&key).await.unwrap(), "{key}");
    }
    assert!(drill.factory.status().unwrap().lost_rows.is_empty());
    assert!(drill.lost().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_restore_lost_nothing_is_lost_of_a_process_that_lives() {
    for with_system_key in [true, false] {
        let mut drill = Drill::new(true, with_system_key).await;
        drill.fail_over().await;
        drill.told(if with_system_key { 30 } else { 31 }).await;
        until("all are back", async || drill.factory.status().unwrap().lost_rows.is_empty()).await;
        assert!(drill.lost().await.is_empty());
        // They are the ones that are used on.
        for sealed in &drill.missed {
            assert_eq!(
                drill.seal(&sealed.partition).await.record.parent().unwrap(),
                sealed.record.parent().unwrap()
            );
        }
        assert_eq!(raised(&drill.factory, Event::KeyChanged), 0);
    }
}

/// Another process that knew nothing made a key anew under the same id and time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_made_anew_in_the_place_of_a_lost_one_is_told() {
    let mut drill = Drill::new(false, true).await;
    let victim = drill.missed[0].record.parent().unwrap().clone();
    let other = drill.missed[1].record.parent().unwrap().clone();
    drill.primary.kill();
    drill.standby.promote();
    // A new key's row under the victim's name and time, as a racing process would have made one.
    let elsewhere = factory(PostgresMetastore::open(&drill.standby.url("postgres")).await.unwrap());
    let template =
        Sealed::new(&elsewhere, "elsewhere", "text").await.unwrap().record.parent().unwrap().clone();
    drill.standby.psql(
        "postgres",
        &format!(
            "INSERT INTO encryption_key SELECT '{}', to_timestamp({}), regexp_replace(key_record::text, \
             '\"Created\":{}', '\"Created\":{}')::json FROM encryption_key WHERE id = '{}'",
            victim.id(),
            victim.created().unix_seconds(),
            template.created().unix_seconds(),
            victim.created().unix_seconds(),
            template.id(),
        ),
    );
    drill.fail_over_noticed().await;
    assert!(!drill.told(29).await.contains(&victim));
    assert!(drill.told(29).await.contains(&other));
    assert_eq!(raised(&drill.factory, Event::KeyChanged), 1);
    let lost = drill.lost().await;
    let of_victim = lost.iter().find(|(sealed, _)| sealed.record.parent().unwrap() == &victim).unwrap();
    assert!(matches!(of_victim.1, claviger::Error::Authentication), "{:?}", of_victim.1);
}

/// Word of a deletion that was meant, by the table's own trigger: nothing comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_for_good_is_neither_told_as_lost_nor_restored() {
    let server = Postgres::start();
    let url = server.url("postgres");
    let unchecked = PostgresMetastore::builder().danger_unchecked();
    unchecked.migrate().open(&url).await.unwrap();
    let store = PostgresMetastore::open(&url).await.unwrap();
    let policy = policy().revoke_check_interval(Duration::from_secs(600));
    let source = store.invalidations();
    let factory = builder(store)
        .policy(policy)
        .limits(Limits::production().max_intermediate_keys(1_000))
        .restore_lost(true)
        .invalidations(source)
        .build()
        .unwrap();
    let sealed = Sealed::new(&factory, "gone", "text").await.unwrap();
    until("it listens", async || factory.status().unwrap().sources_connected == [true]).await;
    // What the source told first has the keys checked: a check that met the deletion before word of it came
    // would put the row back.
    sealed.open(&factory).await.unwrap();
    until("the keys are checked", async || factory.status().unwrap().loads == 0).await;
    let id = sealed.record.parent().unwrap().id().clone();
    server.psql("postgres", &format!("DELETE FROM encryption_key WHERE id = '{id}'"));
    until("it is noticed", async || sealed.open(&factory).await.is_err()).await;
    assert!(matches!(sealed.open(&factory).await, Err(claviger::Error::KeyNotFound(_))));
    assert_eq!(raised(&factory, Event::RowLost), 0);
    assert!(factory.status().unwrap().lost_rows.is_empty());
    assert_eq!(
        server.psql("postgres", &format!("SELECT count(*) FROM encryption_key WHERE id = '{id}'")),
        "0"
    );
}
