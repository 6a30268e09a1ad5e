//! A server that is killed in mid-work, again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use claviger::testing::call;
use claviger::{FailureClass, Insert, Metastore as _};
use claviger_testkit::{Dynalite, Proxy};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::support::{NOW, builder, chain, new_named_table, record};

const KILLS: usize = 20;
const WRITERS: usize = 4;
/// How many records are written between two deaths.
const BETWEEN: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_5_a_server_killed_in_mid_work_loses_nothing_that_was_answered() {
    let mut server = Dynalite::start();
    let (direct, table) = new_named_table(&server.endpoint()).await;
    let proxy = Proxy::start(server.endpoint().trim_start_matches("http://")).await;
    let store = builder(&format!("http://{}", proxy.address()), &table).open().await.unwrap();
    let (stop, done, progress) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (store, stop, done, progress) =
            (store.clone(), Arc::clone(&stop), Arc::clone(&done), Arc::clone(&progress));
        writers.spawn(async move {
            let (mut answered, mut failures) = (Vec::new(), 0);
            for second in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let record = record(&format!("_IK_{writer}_svc_prod"), NOW + second);
                match store.insert(&record, &call()).await {
                    Ok(inserted) => {
                        assert_eq!(inserted, Insert::Inserted);
                        answered.push(record);
                        done.fetch_add(1, Ordering::SeqCst);
                        progress.notify_one();
                    }
                    Err(error) => {
                        assert_eq!(error.class(), FailureClass::Transient, "{}", chain(&error));
                        failures += 1;
                        tokio::task::yield_now().await;
                    }
                }
            }
            (answered, failures)
        });
    }
    for kill in 1..=KILLS {
        while done.load(Ordering::SeqCst) < kill * BETWEEN {
            progress.notified().await;
        }
        server.kill();
        server.restart();
    }
    stop.store(true, Ordering::SeqCst);
    let written = writers.join_all().await;
    assert!(written.iter().map(|(_, failures)| failures).sum::<usize>() > 0, "it was noticed");
    let answered: Vec<_> = written.into_iter().flat_map(|(answered, _)| answered).collect();
    println!("{KILLS} deaths, {} records", answered.len());
    for store in [&store, &direct] {
        let keys: Vec<_> = answered.iter().map(|record| record.meta().clone()).collect();
        let loaded = store.load_many(&keys, &call()).await.unwrap();
        assert_eq!(loaded.into_iter().flatten().collect::<Vec<_>>(), answered);
    }
    // No more connections than are used at once, by the writers or the eight batches of the last load.
    assert!(proxy.connections() <= 8 + WRITERS, "{} connections", proxy.connections());
}
