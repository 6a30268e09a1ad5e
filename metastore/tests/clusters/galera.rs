//! A Galera cluster: every node takes writes, and may apply what the others committed a moment later.

use std::collections::BTreeSet;
use std::time::Duration;

use claviger::testing::call;
use claviger::{CryptoPolicy, SessionFactory};
use claviger_metastore::{FindingId, MysqlMetastore};
use claviger_testkit::{Balancer, Galera};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::load::{Load, Mix, Sealed, builder, factory, lost, policy, runs, seconds};

async fn cluster() -> Galera {
    let galera = Galera::start(3);
    galera.sql(0, "", "CREATE DATABASE `keys` CHARACTER SET utf8mb4");
    let unchecked = MysqlMetastore::builder().danger_unchecked();
    unchecked.migrate().open(&galera.url(0, "keys")).await.unwrap();
    galera
}

async fn store_on(galera: &Galera, node: usize) -> MysqlMetastore {
    // The cluster has agreed on the table before a node that lags has it.
    MysqlMetastore::open(&galera.url(node, "keys")).await.unwrap()
}

fn checking_seldom(store: MysqlMetastore) -> SessionFactory {
    let policy: CryptoPolicy = policy().revoke_check_interval(Duration::from_secs(600));
    builder(store).policy(policy).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn factories_that_race_on_three_nodes_make_one_key_each_and_read_each_others_at_once() {
    let galera = cluster().await;
    let mut factories = Vec::new();
    for number in 0..9 {
        factories.push(checking_seldom(store_on(&galera, number % 3).await));
    }
    for round in 0..40 * runs() {
        let partition = format!("race{round}");
        let mut racing = JoinSet::new();
        for factory in &factories {
            let (factory, partition) = (factory.clone(), partition.clone());
            racing.spawn(async move { Sealed::new(&factory, &partition, "text").await });
        }
        // A race is no error, and neither is a row that another node has not applied yet.
        let sealed: Vec<_> = racing.join_all().await.into_iter().map(Result::unwrap).collect();
        let versions: BTreeSet<_> = sealed.iter().map(|sealed| sealed.record.parent()).collect();
        assert_eq!(versions.len(), 1, "{versions:?}");
        for (sealed, factory) in sealed.iter().zip(factories.iter().rev()) {
            sealed.open(factory).await.unwrap();
        }
    }
    // What one node has just answered another one's factory reads, which has never heard of it.
    for round in 0..100 {
        let sealed = Sealed::new(&factories[0], &format!("relay{round}"), "text").await.unwrap();
        sealed.open(&factories[1 + round % 2]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_balancer_a_node_that_dies_loses_nothing_and_is_no_fail_over() {
    let mut galera = cluster().await;
    let target = |galera: &Galera, node| format!("127.0.0.1:{}", galera.port(node));
    let balancer = Balancer::start(&[0, 1, 2].map(|node| target(&galera, node))).await;
    let url = galera.url(0, "keys").replace(&galera.port(0).to_string(), &balancer.port().to_string());
    let store = MysqlMetastore::open(&url).await.unwrap();
    let factory = factory(store.clone());
    let load = Load::start(&factory, Mix::default(), "balanced");
    load.goes_on(300).await;
    galera.kill(2);
    balancer.set_targets(&[target(&galera, 0), target(&galera, 1)]);
    sleep(seconds(4)).await;
    load.goes_on(300).await;
    galera.restart(2);
    balancer.set_targets(&[0, 1, 2].map(|node| target(&galera, node)));
    load.goes_on(300).await;
    let outcome = load.end().await;
    println!(
        "{} encrypts, {} decrypts, failed: {:?} {:?} {:?}",
        outcome.encrypts,
        outcome.decrypts,
        outcome.creations_failed,
        outcome.encrypts_failed,
        outcome.decrypts_failed
    );
    assert!(outcome.permanent.is_empty(), "{:?}", outcome.permanent);
    for node in 0..3 {
        let fresh = crate::load::factory(store_on(&galera, node).await);
        assert!(lost(&fresh, &outcome.ledger).await.is_empty());
    }
    // The nodes have one history.
    use claviger::Metastore as _;
    assert_eq!(store.failovers(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_do_not_wait_for_other_nodes_are_found() {
    let galera = cluster().await;
    let found = async |builder: claviger_metastore::MysqlBuilder| {
        let store = builder.open(&galera.url(1, "keys")).await.unwrap();
        let report = store.check_schema(&call()).await.unwrap();
        report.findings().iter().any(|finding| finding.id == FindingId::StaleReads)
    };
    assert!(!found(MysqlMetastore::builder()).await);
    assert!(found(MysqlMetastore::builder().on_connect("SET SESSION wsrep_sync_wait = 0")).await);
}
