//! A quorum of a file, AWS and a hardware module: one is lost, and then another.

use std::sync::Arc;
use std::time::Duration;

use claviger::testing::{Operation, call};
use claviger::{KeyManagementService as _, MetastoreAdmin as _, Rewrap, RewrapOptions, repair_system_keys};
use claviger_kms::{CopyCheck, KofNKms};
use claviger_testkit::{Direction, Fault, HsmFault, Moto, Proxy, SoftHsm};

use crate::fleet::{Fleet, PATIENCE};
use crate::moves::report;
use crate::services::{Configuration, Service};

/// `CKR_DEVICE_REMOVED`.
const DEVICE_REMOVED: u32 = 0x32;

fn two_of(members: [&Service; 3]) -> KofNKms {
    let builder = KofNKms::builder(2).asherah_compatible(false);
    let add = |builder: claviger_kms::KofNKmsBuilder, member: &Service| {
        builder.member(member.name, member.kms.clone())
    };
    members.into_iter().fold(builder, add).build().unwrap()
}

/// How many stored system keys lack a share, as their envelopes say.
async fn lacking(fleet: &Fleet, kms: &KofNKms) -> usize {
    let records = fleet.store().list("", None, 100_000, &call()).await.unwrap().records;
    let mut lacking = 0;
    for record in records.iter().filter(|record| record.parent().is_none()) {
        lacking += usize::from(!kms.inspect(record.wrapped_key()).unwrap().missing.is_empty());
    }
    lacking
}

/// Repairs until nothing is missing, as an operator does who is told that a service is still left alone;
/// then makes new keys, which lack nothing any more. Returns how many were repaired.
async fn repair(fleet: &Fleet, kms: &KofNKms) -> usize {
    let all_of_it = async {
        let mut repaired = 0;
        loop {
            let report = repair_system_keys(fleet.store(), kms, &RewrapOptions::new()).await.unwrap();
            let is_repaired = |done: &Rewrap| matches!(done, Rewrap::Rewrapped { .. });
            repaired += report.keys.iter().filter(|(_, done)| is_repaired(done)).count();
            if report.is_clean() && kms.check(&call()).await.iter().all(CopyCheck::is_good) {
                return repaired;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let repaired = tokio::time::timeout(PATIENCE, all_of_it).await.expect("what is missing can be made");
    fleet.rotate().await;
    assert_eq!(lacking(fleet, kms).await, 0);
    repaired
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_outlives_each_of_its_members_in_turn_once_it_was_repaired() {
    // It starts the process anew, so it comes before the other servers.
    let token = SoftHsm::token("quorum");
    let moto = Moto::start();
    let proxy = Proxy::start(moto.endpoint().trim_start_matches("http://")).await;
    let folder = tempfile::tempdir().unwrap();
    let local = Service::local(folder.path());
    let aws = Service::aws(&format!("http://{}", proxy.address())).await;
    let hsm = Service::hsm(&token).await;
    let members = [&local, &aws, &hsm];
    let kms = Arc::new(two_of(members));
    let quorum = Configuration::of(&[&Service::new("quorum", Arc::clone(&kms))]);
    let fleet = Fleet::start(folder.path(), &quorum).await;
    assert_eq!(lacking(&fleet, &kms).await, 0);

    // AWS is out of reach: keys are made without it, and said to be.
    proxy.set(Fault::Cut { direction: Direction::ToServer, after: 0 });
    proxy.cut_all();
    fleet.rotate().await;
    let keys = fleet.system_keys().await;
    let degraded = lacking(&fleet, &kms).await;
    println!("without AWS: {degraded} of {keys} system keys lack its share");
    assert!(degraded > 0 && fleet.missing_copies() > 0);
    report(&fleet, &quorum).await;

    // It is back, and they are repaired.
    proxy.set(Fault::None);
    let count = repair(&fleet, &kms).await;
    println!("repaired {count}");
    assert!(count >= degraded);

    // Any one of the others may go now.
    local.switch_off();
    fleet.rotate().await;
    report(&fleet, &quorum).await;
    // Keys made without it need both of the others.
    assert!(lacking(&fleet, &kms).await > 0);
    local.switch_on();
    println!("repaired {}", repair(&fleet, &kms).await);

    token.fault_all(HsmFault::Fail(DEVICE_REMOVED, u32::MAX));
    fleet.rotate().await;
    report(&fleet, &quorum).await;
    token.fault_all(HsmFault::None);
    fleet.stop().await;

    for member in members {
        println!(
            "{}: {} wraps, {} unwraps",
            member.name,
            member.calls_of(Operation::WrapKey),
            member.calls_of(Operation::UnwrapKey),
        );
    }
}
