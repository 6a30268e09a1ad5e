//! Calls that are dropped, and connections that die.

use claviger::testing::call;
use claviger::{Insert, Metastore, MetastoreAdmin};
use claviger_testkit::{abandon, shown_number};
use tokio::task::JoinSet;

use crate::latest::LatestRecord as _;
use crate::told::{NOW, record};

pub(crate) const CONNECTIONS: u32 = 5;

/// Uses every connection at once, each as good as new, and finds none lost.
pub(crate) async fn assert_whole(store: &(impl Metastore + Clone)) {
    let id = record("_IK_whole_svc_prod", NOW).meta().id().clone();
    let mut loads = JoinSet::new();
    for _ in 0..10 * CONNECTIONS {
        let (store, id) = (store.clone(), id.clone());
        loads.spawn(async move { store.latest(&id).await.unwrap() });
    }
    loads.join_all().await;
    loop {
        let (all, idle) = (shown_number(store, "connections"), shown_number(store, "idle"));
        assert!(all <= CONNECTIONS, "{store:?}");
        if all == idle {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Calls that are dropped half-way cross no replies, and give their connections back.
pub(crate) async fn dropped_calls(store: &(impl MetastoreAdmin + Clone)) {
    for round in 0..500 {
        let record = record("_IK_a_svc_prod", NOW + round);
        let calls = async {
            let _either = store.insert(&record, &call()).await?;
            store.revoke(record.meta(), &call()).await?;
            store.list("", None, 3, &call()).await?;
            store.latest(record.meta().id()).await
        };
        abandon(calls, usize::try_from(round % 40).unwrap()).await;
    }
    let mut tasks = JoinSet::new();
    for worker in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            for second in 0..100 {
                let record = record(&format!("_IK_{worker}_svc_prod"), NOW + second);
                assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
                assert_eq!(store.load(record.meta(), &call()).await.unwrap().as_ref(), Some(&record));
                assert_eq!(store.latest(record.meta().id()).await.unwrap(), Some(record));
            }
        });
    }
    tasks.join_all().await;
    assert_whole(store).await;
}

/// Reads do not notice that all pooled connections died.
pub(crate) async fn dead_connections(store: &(impl MetastoreAdmin + Clone), kill_all: impl AsyncFn()) {
    let first = record("_IK_a_svc_prod", NOW);
    assert_eq!(store.insert(&first, &call()).await.unwrap(), Insert::Inserted);
    for round in 1..=10 {
        assert_whole(store).await;
        kill_all().await;
        assert_eq!(store.latest(first.meta().id()).await.unwrap().as_ref(), Some(&first));
        assert_whole(store).await;
        kill_all().await;
        // A write may have happened: the caller decides. Each try closes one connection.
        let another = record("_IK_b_svc_prod", NOW + round);
        let mut inserted = store.insert(&another, &call()).await;
        for _ in 0..CONNECTIONS {
            let Err(error) = &inserted else { break };
            assert!(error.is_transient(), "{error:?}");
            inserted = store.insert(&another, &call()).await;
        }
        assert_eq!(inserted.unwrap(), Insert::Inserted);
    }
    assert_whole(store).await;
}
