//! From a file to AWS, and from there into a hardware module.

use std::sync::Arc;

use claviger::testing::Operation;
use claviger::{Rewrap, RewrapOptions, RewrapReport, rewrap_system_keys};
use claviger_testkit::{Moto, SoftHsm};

use crate::fleet::Fleet;
use crate::services::{Configuration, Service};

/// The order of `docs/kms.md`: everybody reads both, everybody writes the new, what is stored is wrapped
/// anew, nobody needs the old, and then it is switched off.
async fn move_fleet(fleet: &Fleet, old: &Service, new: &Service) {
    println!("from {} to {}:", old.name, new.name);
    let both = [Configuration::of(&[old, new]), Configuration::of(&[new, old])];
    for configuration in &both {
        fleet.roll(configuration).await;
        report(fleet, configuration).await;
    }
    // Some are the new service's already: those made since it writes.
    let counts = counts(&rewrap(fleet, both.last().unwrap(), new).await);
    println!("  rewrapped {} system keys, {} were up to date", counts.0, counts.1);
    assert!(counts.0 > 0 && counts.1 > 0);
    fleet.rotate().await;
    let again = counts_of_all_up_to_date(&rewrap(fleet, both.last().unwrap(), new).await);
    println!("  a second run found {again} up to date");

    let alone = Configuration::of(&[new]);
    fleet.roll(&alone).await;
    assert_eq!(fleet.missing_copies(), 0);
    let asked = old.switch_off();
    fleet.rotate().await;
    report(fleet, &alone).await;
    assert_eq!(old.calls(), asked, "somebody asked {} after it was switched off", old.name);
}

async fn rewrap(fleet: &Fleet, from: &Arc<Configuration>, to: &Service) -> RewrapReport {
    let report =
        rewrap_system_keys(fleet.store(), &from.open(), &to.kms, &RewrapOptions::new()).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    report
}

/// How many were rewrapped, and how many were up to date.
fn counts(report: &RewrapReport) -> (usize, usize) {
    let count = |wanted: fn(&Rewrap) -> bool| report.keys.iter().filter(|(_, done)| wanted(done)).count();
    let rewrapped = count(|done| matches!(done, Rewrap::Rewrapped { missing } if missing.is_empty()));
    let up_to_date = count(|done| matches!(done, Rewrap::UpToDate));
    assert_eq!(rewrapped + up_to_date, report.keys.len(), "{report:?}");
    (rewrapped, up_to_date)
}

fn counts_of_all_up_to_date(report: &RewrapReport) -> usize {
    let (rewrapped, up_to_date) = counts(report);
    assert_eq!(rewrapped, 0);
    up_to_date
}

/// Reads all there is without a key in the cache, and says so.
pub(crate) async fn report(fleet: &Fleet, configuration: &Arc<Configuration>) {
    let rows = fleet.read_all(configuration).await;
    let keys = fleet.system_keys().await;
    let tally = fleet.tally();
    println!(
        "  {}: all {rows} records read cold; so far {} writes, {} reads, {} cold reads, {} retries, {keys} system keys, {} undecryptable",
        configuration.name(),
        tally.writes,
        tally.reads,
        tally.cold_reads,
        tally.retries.values().sum::<usize>(),
        tally.failures.len(),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_moves_from_a_file_to_aws_to_an_hsm_with_writers_running() {
    // It starts the process anew, so it comes before the other servers.
    let token = SoftHsm::token("move");
    let mut moto = Moto::start();
    let folder = tempfile::tempdir().unwrap();
    let (local, aws, hsm) =
        (Service::local(folder.path()), Service::aws(&moto.endpoint()).await, Service::hsm(&token).await);

    let fleet = Fleet::start(folder.path(), &Configuration::of(&[&local])).await;
    move_fleet(&fleet, &local, &aws).await;
    std::fs::remove_file(folder.path().join("master.key")).unwrap();
    move_fleet(&fleet, &aws, &hsm).await;
    moto.kill();

    let alone = Configuration::of(&[&hsm]);
    fleet.rotate().await;
    report(&fleet, &alone).await;
    for (cause, times) in fleet.stop().await.retries {
        println!("made again {times} times: {cause}");
    }
    for service in [&local, &aws, &hsm] {
        println!(
            "{}: {} wraps, {} unwraps",
            service.name,
            service.calls_of(Operation::WrapKey),
            service.calls_of(Operation::UnwrapKey),
        );
    }
}
