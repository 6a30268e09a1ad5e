//! A load through outages of all lengths: nothing is lost, and nothing grows.

use std::fs;
use std::time::Duration;

use claviger_metastore::PostgresMetastore;
use claviger_testkit::Postgres;
use tokio::time::{Instant, sleep};

use crate::load::{Load, Mix, factory, lost, seconds};

/// The process's memory in KiB, and its open files.
fn usage() -> (u64, usize) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    (line.trim().trim_end_matches(" kB").parse().unwrap(), fs::read_dir("/proc/self/fd").unwrap().count())
}

/// Of 1 to 20 seconds in the long form, and as much shorter in the short one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outages_lose_nothing_and_leave_nothing_behind() {
    let mut server = Postgres::start();
    let url = server.url("postgres");
    let unchecked = PostgresMetastore::builder().danger_unchecked();
    unchecked.migrate().open(&url).await.unwrap();
    let factory = factory(PostgresMetastore::open(&url).await.unwrap());
    let time = seconds(8);
    let (begun, mut samples) = (Instant::now(), Vec::new());
    // Loads one after the other, so that what they wrote down is checked and dropped on the way.
    for round in 0.. {
        if begun.elapsed() >= time && round >= 2 {
            break;
        }
        let load = Load::start(&factory, Mix::default(), &format!("round{round}"));
        let scale = time.as_secs_f64() / 600.0;
        let outage = Duration::from_secs(1 + round * 7 % 20).mul_f64(scale.clamp(0.05, 1.0));
        load.goes_on(200).await;
        if round % 2 == 0 {
            server.kill();
            sleep(outage).await;
            server.restart();
        } else {
            // It answers nothing, and keeps its connections.
            server.pause();
            sleep(outage).await;
            server.resume();
        }
        load.goes_on(200).await;
        let outcome = load.end().await;
        assert!(outcome.permanent.is_empty(), "{:?}", outcome.permanent);
        let fresh = crate::load::factory(PostgresMetastore::open(&url).await.unwrap());
        let lost = lost(&fresh, &outcome.ledger).await;
        assert!(lost.is_empty(), "{lost:?}");
        drop(fresh.close(Duration::from_secs(5)).await.unwrap());
        let failed = [&outcome.creations_failed, &outcome.encrypts_failed, &outcome.decrypts_failed];
        let failed: u64 = failed.iter().flat_map(|failed| failed.values()).sum();
        drop(outcome);
        samples.push(usage());
        let (memory, files) = samples[samples.len() - 1];
        println!("outage of {outage:?}: {failed} failed; {memory} KiB, {files} files");
    }
    let (first, last) = (samples[samples.len() / 4], samples[samples.len() - 1]);
    assert!(last.1 <= first.1 + 15, "files: {samples:?}");
    assert!(last.0 <= first.0 + first.0 / 2, "memory: {samples:?}");
}
