//! Behind PgBouncer, which lends one server connection to many.

use std::error::Error as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use claviger::testing::call;
use claviger::{
    BackendError, CallContext, ErrorChain, Invalidation, InvalidationSource as _, KeyId, Metastore as _,
    MetastoreAdmin as _,
};
use claviger_metastore::{
    DangerousSchema, FindingId, PostgresInvalidations, PostgresMetastore, SchemaReport,
};
use claviger_testkit::{PgBouncer, PoolMode, Postgres};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::load::{Load, Mix, factory, lost, runs, seconds};
use crate::record;

async fn with_table() -> Postgres {
    let server = Postgres::start();
    let store = PostgresMetastore::builder()
        .danger_unchecked()
        .migrate()
        .open(&server.url("postgres"))
        .await
        .unwrap();
    store.close().await;
    server
}

fn dangers(error: &BackendError) -> Vec<FindingId> {
    let danger = error.source().and_then(|source| source.downcast_ref::<DangerousSchema>());
    danger.map(|danger| danger.findings.iter().map(|finding| finding.id).collect()).unwrap_or_default()
}

fn has_pooler(report: &SchemaReport) -> bool {
    report.findings().iter().any(|finding| finding.id == FindingId::SharedStatements)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_mixes_up_statements_is_refused_and_others_are_not() {
    let server = with_table().await;
    let old = |mode| PgBouncer::start(&server, mode, &[]);
    let newer = |settings: &[(&str, &str)]| PgBouncer::start_newer(&server, PoolMode::Transaction, settings);
    for pooler in
        [old(PoolMode::Transaction), old(PoolMode::Statement), newer(&[("max_prepared_statements", "0")])]
    {
        let url = pooler.url("postgres");
        let error = PostgresMetastore::open(&url).await.unwrap_err();
        assert_eq!(dangers(&error), [FindingId::SharedStatements]);
        assert!(error.source().unwrap().to_string().contains("PgBouncer"));
        // Statements without names are never mixed up.
        let unnamed = PostgresMetastore::open(&format!("{url}?prepared-statements=off")).await.unwrap();
        assert!(!has_pooler(&unnamed.check_schema(&call()).await.unwrap()));
        unnamed.close().await;
    }
    for pooler in [old(PoolMode::Session), newer(&[("max_prepared_statements", "100")])] {
        let store = PostgresMetastore::open(&pooler.url("postgres")).await.unwrap();
        assert!(!has_pooler(&store.check_schema(&call()).await.unwrap()));
        store.close().await;
    }
}

/// Deletes keys of customers who are gone: ids that no record has. What the store says of failures is
/// added to `said`.
fn deleter(store: PostgresMetastore, said: &Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    let said = Arc::clone(said);
    tokio::spawn(async move {
        for number in 0.. {
            let id = KeyId::new(format!("_IK_gone{number}_svc_prod"));
            match store.delete(&id, &call()).await {
                Ok(deleted) => assert_eq!(deleted, 0),
                Err(error) => said.lock().unwrap().push(ErrorChain::new(&error).to_string()),
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_is_lost_behind_a_pooler_that_mixes_up_statements_though_it_was_accepted() {
    let server = with_table().await;
    let pooler = PgBouncer::start(&server, PoolMode::Transaction, &[("default_pool_size", "3")]);
    let accepted = PostgresMetastore::builder().accept(FindingId::SharedStatements);
    let store = accepted.open(&pooler.url("postgres")).await.unwrap();
    let said = Arc::default();
    let deleting = deleter(store.clone(), &said);
    let outcome = Load::run(&factory(store.clone()), Mix::default(), "crossed", seconds(3)).await;
    deleting.abort();
    // It cannot work well. But what was answered is there.
    let failed = [&outcome.creations_failed, &outcome.encrypts_failed, &outcome.decrypts_failed];
    assert!(failed.iter().any(|failed| !failed.is_empty()), "nothing was mixed up: {outcome:?}");
    // Which calls are mixed up is the pooler's to choose; a read that is, is made again.
    let mut said: Vec<String> = said.lock().unwrap().clone();
    said.extend(failed.into_iter().flat_map(|failed| failed.keys().cloned()));
    assert!(said.iter().any(|text| text.contains("PgBouncer")), "no statement was mixed up: {said:?}");
    let direct = factory(PostgresMetastore::open(&server.url("postgres")).await.unwrap());
    assert!(lost(&direct, &outcome.ledger).await.is_empty());
}

/// It forgets the statements of a connection each time that it gives it to another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_goes_on_mixing_up_statements_is_named_and_no_matter_of_time() {
    let server = with_table().await;
    let forgetful = [("server_reset_query", "DISCARD ALL"), ("server_reset_query_always", "1")];
    let pooler = PgBouncer::start(&server, PoolMode::Transaction, &forgetful);
    let accepted = PostgresMetastore::builder().accept(FindingId::SharedStatements);
    let store = accepted.open(&pooler.url("postgres")).await.unwrap();
    for is_first in [true, false] {
        let error = store.insert(&record("_IK_a_svc_prod", 0), &call()).await.unwrap_err();
        assert_eq!(error.is_transient(), is_first, "{error:?}");
        let said = ErrorChain::new(&error).to_string();
        assert!(said.contains("PgBouncer") && said.contains("26000"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_names_nothing_is_lost_and_nothing_fails_for_good_behind_any_pooler() {
    let server = with_table().await;
    for run in 0..runs() {
        for mode in [PoolMode::Transaction, PoolMode::Statement] {
            let pooler = PgBouncer::start(&server, mode, &[("default_pool_size", "3")]);
            let url = format!("{}?prepared-statements=off", pooler.url("postgres"));
            let store = PostgresMetastore::open(&url).await.unwrap();
            let deleting = deleter(store.clone(), &Arc::default());
            let name = format!("run{run}");
            let outcome = Load::run(&factory(store.clone()), Mix::default(), &name, seconds(2)).await;
            deleting.abort();
            println!("{} encrypts, {} decrypts", outcome.encrypts, outcome.decrypts);
            assert!(outcome.encrypts > 100 && outcome.decrypts > 100, "{outcome:?}");
            assert_eq!((outcome.encrypts_failed, outcome.decrypts_failed), Default::default());
            let direct = factory(PostgresMetastore::open(&server.url("postgres")).await.unwrap());
            assert!(lost(&direct, &outcome.ledger).await.is_empty());
            store.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_keeps_statements_apart_is_used_with_names() {
    let server = with_table().await;
    let settings = [("max_prepared_statements", "100"), ("default_pool_size", "3")];
    let pooler = PgBouncer::start_newer(&server, PoolMode::Transaction, &settings);
    let store = PostgresMetastore::open(&pooler.url("postgres")).await.unwrap();
    let deleting = deleter(store.clone(), &Arc::default());
    let outcome = Load::run(&factory(store), Mix::default(), "tracked", seconds(2)).await;
    deleting.abort();
    assert_eq!((outcome.encrypts_failed, outcome.decrypts_failed), Default::default());
    let direct = factory(PostgresMetastore::open(&server.url("postgres")).await.unwrap());
    assert!(lost(&direct, &outcome.ledger).await.is_empty());
    // Nothing of ours was set on connections that others use.
    let setting = "SHOW statement_timeout";
    assert_eq!(pooler.psql("postgres", setting), server.psql("postgres", setting));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_listens_through_a_pooler_in_transaction_mode_is_not_connected() {
    let server = with_table().await;
    let pooler = PgBouncer::start(&server, PoolMode::Transaction, &[]);
    let source = |url: &str| {
        let source = PostgresInvalidations::from_url(url).unwrap();
        source.heartbeat(Duration::from_millis(200))
    };
    for _ in 0..3 {
        let mut deaf = source(&pooler.url("postgres"));
        let error = timeout(Duration::from_secs(10), deaf.next(&CallContext::within(Duration::from_secs(2))))
            .await
            .unwrap()
            .unwrap_err();
        assert!(error.source().unwrap().to_string().contains("transaction mode"), "{error:?}");
    }
    let through = PgBouncer::start(&server, PoolMode::Session, &[]);
    for url in [server.url("postgres"), through.url("postgres")] {
        let mut source = source(&url);
        assert_eq!(source.next(&call()).await.unwrap(), Invalidation::Everything);
        server.psql("postgres", "NOTIFY claviger_invalidations, '_IK_a_svc_prod'");
        let told = timeout(Duration::from_secs(10), source.next(&call())).await.unwrap().unwrap();
        assert_eq!(told, Invalidation::Key(KeyId::new("_IK_a_svc_prod")));
    }
}
