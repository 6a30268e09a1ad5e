//! What a factory tells of system keys that lack copies, and their repair.

use std::sync::Arc;

use claviger::testing::{Fault, FaultyKms, Operation};
use claviger::{
    Error, Event, FailureClass, InMemoryMetastore, Rewrap, RewrapOptions, SessionFactory, repair_system_keys,
};

use crate::regions::{Regions, master_key};
use crate::support::{START, assert_all_decrypt, factory, populate, system_keys};

fn raised(factory: &SessionFactory) -> u64 {
    let events = factory.status().unwrap().events;
    events.iter().find(|(event, _)| *event == Event::CopiesMissing).map_or(0, |(_, count)| *count)
}

fn missing(factory: &SessionFactory) -> Vec<String> {
    factory.status().unwrap().incomplete_keys.into_iter().flat_map(|key| key.missing).collect()
}

#[tokio::test]
async fn a_wrap_that_lacks_copies_is_told_by_its_maker_and_by_its_loaders() {
    let (store, kms) = (InMemoryMetastore::new(), Regions::new(&["us", "eu"]));
    kms.down("eu", true);
    let maker = factory(&store, kms.clone(), "checkout", START);
    let record = maker.session("alice").unwrap().encrypt(b"secret").await.unwrap();
    assert_eq!((raised(&maker), missing(&maker)), (1, vec!["eu".to_owned()]));
    kms.down("eu", false);
    let loader = factory(&store, kms.clone(), "checkout", START);
    loader.session("alice").unwrap().decrypt(&record).await.unwrap();
    assert_eq!((raised(&loader), missing(&loader)), (1, vec!["eu".to_owned()]));
}

#[tokio::test]
async fn whole_wrap_is_not_told() {
    let (store, kms) = (InMemoryMetastore::new(), Regions::new(&["us", "eu"]));
    let factory = factory(&store, kms, "checkout", START);
    factory.session("alice").unwrap().encrypt(b"secret").await.unwrap();
    assert_eq!((raised(&factory), missing(&factory)), (0, vec![]));
}

#[tokio::test]
async fn repair_makes_the_missing_copies_so_that_they_serve_alone() {
    let (store, kms) = (InMemoryMetastore::new(), Regions::new(&["us", "eu", "ap"]));
    kms.down("eu", true);
    let records = populate(&store, &kms).await;
    kms.down("eu", false);
    let report = repair_system_keys(&store, &kms, &RewrapOptions::new()).await.unwrap();
    assert!(report.is_clean());
    assert_eq!(report.keys.len(), 6);
    assert!(
        report
            .keys
            .iter()
            .all(|(_, done)| matches!(done, Rewrap::Rewrapped { missing } if missing.is_empty()))
    );
    kms.down("us", true);
    kms.down("ap", true);
    assert_all_decrypt(&store, &kms, &records).await;
    let again = repair_system_keys(&store, &kms, &RewrapOptions::new()).await.unwrap();
    assert!(again.keys.iter().all(|(_, done)| matches!(done, Rewrap::UpToDate)));
}

#[tokio::test(start_paused = true)]
async fn repair_never_takes_a_form_that_lacks_another_copy() {
    let (store, kms) = (InMemoryMetastore::new(), Regions::new(&["us", "eu", "ap"]));
    kms.down("eu", true);
    let records = populate(&store, &kms).await;
    let before = system_keys(&store).await;
    kms.down("eu", false);
    kms.down("ap", true);
    let report = repair_system_keys(&store, &kms, &RewrapOptions::new()).await.unwrap();
    assert!(!report.is_clean());
    let is_left =
        |done: &Rewrap| matches!(done, Rewrap::Failed(error @ Error::Kms { .. }) if error.is_retryable());
    assert!(report.keys.iter().all(|(_, done)| is_left(done)), "{report:?}");
    assert_eq!(system_keys(&store).await, before);
    assert_all_decrypt(&store, &kms, &records).await;
}

#[tokio::test(start_paused = true)]
async fn repair_takes_what_it_can_get() {
    let (store, kms) = (InMemoryMetastore::new(), Regions::new(&["us", "eu", "ap"]));
    kms.down("eu", true);
    kms.down("ap", true);
    populate(&store, &kms).await;
    kms.down("eu", false);
    let report = repair_system_keys(&store, &kms, &RewrapOptions::new()).await.unwrap();
    let is_better = |done: &Rewrap| matches!(done, Rewrap::Rewrapped { missing } if missing == &["ap"]);
    assert!(report.keys.iter().all(|(_, done)| is_better(done)), "{report:?}");
    assert!(!report.is_clean());
}

#[tokio::test]
async fn repair_unwraps_what_looks_whole_and_tells_what_another_master_key_wrapped() {
    let (store, kms) = (InMemoryMetastore::new(), FaultyKms::new(master_key("own")));
    let records = populate(&store, &Arc::new(master_key("own"))).await;
    let before = system_keys(&store).await;
    for dry_run in [true, false] {
        let options = RewrapOptions::new().dry_run(dry_run);
        let report = repair_system_keys(&store, &master_key("stranger"), &options).await.unwrap();
        let is_told = |done: &Rewrap| matches!(done, Rewrap::Failed(error @ Error::Kms { operation: "unwrap_key", .. }) if !error.is_retryable());
        assert_eq!(report.keys.len(), 6);
        assert!(report.keys.iter().all(|(_, done)| is_told(done)), "{report:?}");
        assert!(!report.is_clean());
    }
    let report = repair_system_keys(&store, &kms, &RewrapOptions::new()).await.unwrap();
    assert!(report.keys.iter().all(|(_, done)| matches!(done, Rewrap::UpToDate)), "{report:?}");
    assert_eq!(
        (kms.faults().calls_of(Operation::UnwrapKey), kms.faults().calls_of(Operation::WrapKey)),
        (6, 0)
    );
    assert_eq!(system_keys(&store).await, before);
    assert_all_decrypt(&store, &Arc::new(master_key("own")), &records).await;
}

#[tokio::test(start_paused = true)]
async fn repair_tells_an_outage_from_a_wrong_master_key() {
    let (store, kms) = (InMemoryMetastore::new(), FaultyKms::new(master_key("own")));
    populate(&store, &Arc::new(master_key("own"))).await;
    kms.faults().always_for(Operation::UnwrapKey, Fault::Fail(FailureClass::Transient));
    let report = repair_system_keys(&store, &kms, &RewrapOptions::new()).await.unwrap();
    let is_down = |done: &Rewrap| matches!(done, Rewrap::Failed(error) if error.is_retryable());
    assert!(report.keys.iter().all(|(_, done)| is_down(done)), "{report:?}");
}

#[tokio::test]
async fn running_factory_learns_of_the_repair_at_its_next_check() {
    let (store, kms) = (InMemoryMetastore::new(), Regions::new(&["us", "eu"]));
    kms.down("eu", true);
    let factory = factory(&store, kms.clone(), "checkout", START);
    let session = factory.session("alice").unwrap();
    session.encrypt(b"secret").await.unwrap();
    kms.down("eu", false);
    drop(repair_system_keys(&store, &kms, &RewrapOptions::new()).await.unwrap());
    let id = system_keys(&store).await[0].meta().id().clone();
    factory.invalidate(&id).unwrap();
    session.encrypt(b"more").await.unwrap();
    assert_eq!(missing(&factory), [""; 0]);
    assert_eq!(factory.status().unwrap().events, [(Event::CopiesMissing, 1)]);
}
