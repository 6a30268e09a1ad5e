//! S3.5, S3.8 and the end of a factory: closing it, dropping it, outliving it.

use std::sync::Arc;
use std::time::Duration;

use claviger::testing::{Fault, Operation, call};
use claviger::{Error, KeyId, MetastoreAdmin, OrphanCause, SessionFactory};
use tokio::time::Instant;

use crate::world::{DAY, HeldOperation, HeldRandom, SECOND, World};

/// What a close may take beyond its deadline.
const GRACE: Duration = Duration::from_millis(100);

#[tokio::test(start_paused = true)]
async fn s3_5_use_after_close_is_a_typed_error() {
    let world = World::new();
    let factory = world.factory();
    let session = factory.session("partition").unwrap();
    let record = session.encrypt(b"").await.unwrap();
    let report = factory.close(DAY).await.unwrap();
    assert!(report.is_clean());
    assert!(matches!(factory.session("partition"), Err(Error::Closed)));
    assert!(matches!(session.encrypt(b"").await, Err(Error::Closed)));
    assert!(matches!(session.decrypt(&record).await, Err(Error::Closed)));
    assert!(matches!(session.encrypt_json(b"").await, Err(Error::Closed)));
    assert!(matches!(session.decrypt_json(record.to_json().as_bytes()).await, Err(Error::Closed)));
    assert_eq!(factory.close(Duration::ZERO).await.unwrap(), report, "the same report again");
    assert_closed(&factory);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s3_5_sixty_four_concurrent_closes_under_load() {
    let world = World::new();
    let factory = world.factory();
    let load: Vec<_> = (0..16)
        .map(|task| {
            let factory = factory.clone();
            tokio::spawn(async move {
                for partition in (task..).step_by(16) {
                    let encrypted = match factory.session(&partition.to_string()) {
                        Ok(session) => session.encrypt(b"").await,
                        Err(error) => Err(error),
                    };
                    if let Err(error) = encrypted {
                        return error;
                    }
                }
                unreachable!("partitions do not run out")
            })
        })
        .collect();
    // The load is well under way.
    while factory.status().unwrap().intermediate_keys < 100 {
        tokio::task::yield_now().await;
    }
    let closes: Vec<_> = (0..64)
        .map(|_| {
            let factory = factory.clone();
            tokio::spawn(async move { factory.close(DAY).await.unwrap() })
        })
        .collect();
    for close in closes {
        assert!(close.await.unwrap().is_clean());
    }
    for task in load {
        let error = task.await.unwrap();
        assert!(matches!(error, Error::Closed), "{error:?}");
    }
    // A load that came just too late was refused; its task may be on its last step.
    while factory.status().unwrap().loads > 0 {
        tokio::task::yield_now().await;
    }
    assert_closed(&factory);
}

#[tokio::test(start_paused = true)]
async fn s3_8_close_names_the_loads_it_aborts_and_keeps_to_its_deadline() {
    let ids =
        [["_IK_partition_service_product"; 2], ["_IK_partition_service_product", "_SK_service_product"]];
    // An intermediate key's load hangs alone, or with the system key's that it waits for.
    let positions = [
        (Operation::Insert, 2, &ids[0][..1]),
        (Operation::Insert, 1, &ids[1]),
        (Operation::WrapKey, 1, &ids[1]),
    ];
    for (operation, nth, aborted) in positions {
        for fault in [Fault::Hang, Fault::HangReply] {
            let world = World::new();
            let faults =
                if operation == Operation::WrapKey { world.kms.faults() } else { world.store.faults() };
            for _ in 1..nth {
                faults.next(operation, Fault::Delay(Duration::ZERO));
            }
            faults.next(operation, fault);
            let factory = world.factory();
            let session = factory.session("partition").unwrap();
            let stuck = tokio::spawn(async move { session.encrypt(b"").await });
            faults.until_hanging(1).await;

            let begun = Instant::now();
            let report = factory.close(SECOND).await.unwrap();
            assert!(begun.elapsed() <= SECOND + GRACE, "{operation:?}: {:?}", begun.elapsed());
            let mut named: Vec<&str> = report.aborted_loads.iter().map(KeyId::as_str).collect();
            named.sort_unstable();
            assert_eq!(named, *aborted, "{operation:?} {nth}");
            assert_closed(&factory);
            assert_eq!(faults.hanging(), 0, "the call was dropped");
            assert!(matches!(stuck.await.unwrap(), Err(Error::Closed)), "its caller hears of it");
        }
    }
}

/// Under load, with a KMS that hangs: what is in time ends, what is not is named, and nothing is left.
#[tokio::test(start_paused = true)]
async fn s2_2_close_under_load_with_a_hung_kms_keeps_to_its_deadline_and_names_what_is_stuck() {
    let world = World::new();
    let factory = world.factory();
    let encrypt = |partition: String| {
        let session = factory.session(&partition).unwrap();
        tokio::spawn(async move { session.encrypt(b"").await })
    };
    for number in 0..64 {
        encrypt(format!("cached-{number}")).await.unwrap().unwrap();
    }
    let system_key = world.latest_row("_SK_service_product").await;
    assert!(world.store.inner().revoke(system_key.meta(), &call()).await.unwrap());
    factory.invalidate(system_key.meta().id()).unwrap();
    world.kms.faults().always(Fault::Hang);
    let stuck: Vec<_> = (0..64).map(|number| encrypt(format!("stuck-{number}"))).collect();
    world.kms.faults().until_hanging(1).await;

    let begun = Instant::now();
    let report = factory.close(SECOND).await.unwrap();
    assert!(begun.elapsed() <= SECOND + GRACE, "{:?}", begun.elapsed());
    assert_eq!(report.aborted_loads.len(), 65, "64 partitions, and the system key that they wait for");
    assert!(report.aborted_loads.contains(system_key.meta().id()));
    assert!(matches!(factory.session("new"), Err(Error::Closed)));
    for encrypt in stuck {
        assert!(matches!(encrypt.await.unwrap(), Err(Error::Closed)));
    }
    assert_eq!(world.kms.faults().hanging(), 0, "the call was dropped");
    assert_closed(&factory);
}

#[tokio::test(start_paused = true)]
async fn s3_8_close_waits_for_loads_that_end_in_time() {
    let world = World::new();
    world.store.faults().always(Fault::Delay(SECOND / 10));
    let factory = world.factory();
    let session = factory.session("partition").unwrap();
    let slow = tokio::spawn(async move { session.encrypt(b"").await });
    while factory.status().unwrap().loads == 0 {
        tokio::task::yield_now().await;
    }
    assert!(factory.close(SECOND).await.unwrap().is_clean());
    slow.await.unwrap().unwrap();
    assert_eq!(world.rows().await, 2, "what was begun is stored");
    assert_closed(&factory);
}

#[tokio::test(start_paused = true)]
async fn s3_8_close_names_the_keys_in_use_at_its_deadline() {
    let (world, random) = (World::new(), HeldRandom::new());
    let factory = world.builder().random(random.clone()).build().unwrap();
    let session = factory.session("partition").unwrap();
    let key = session.encrypt(b"").await.unwrap().parent().unwrap().clone();
    let operation = HeldOperation::encrypt(&random, &session);
    // And one load that hangs, so that both parts of the report have something to say.
    world.store.faults().always(Fault::Hang);
    let other = factory.session("other").unwrap();
    let stuck = tokio::spawn(async move { other.encrypt(b"").await });
    world.store.faults().until_hanging(1).await;

    let begun = Instant::now();
    let report = factory.close(SECOND).await.unwrap();
    assert!(begun.elapsed() <= SECOND + GRACE, "{:?}", begun.elapsed());
    let aborted: Vec<&str> = report.aborted_loads.iter().map(KeyId::as_str).collect();
    assert_eq!(aborted, ["_IK_other_service_product"]);
    let in_use: Vec<_> = report.keys_in_use.iter().map(|orphan| (&orphan.key, orphan.cause)).collect();
    assert_eq!(in_use, [(&key, OrphanCause::Closed)]);
    assert_eq!(factory.status().unwrap().memory.slots, 1, "the one in use");
    assert!(matches!(stuck.await.unwrap(), Err(Error::Closed)));
    operation.finish().unwrap();
    assert_closed(&factory);
}

#[tokio::test(start_paused = true)]
async fn s3_8_close_waits_for_keys_in_use() {
    let (world, random) = (World::new(), HeldRandom::new());
    let factory = world.builder().random(random.clone()).build().unwrap();
    let session = factory.session("partition").unwrap();
    session.encrypt(b"").await.unwrap();
    let operation = HeldOperation::encrypt(&random, &session);
    let finish = async {
        tokio::time::sleep(SECOND / 2).await;
        operation.finish().unwrap();
    };
    let (report, ()) = tokio::join!(factory.close(SECOND), finish);
    assert!(report.unwrap().is_clean());
    assert_closed(&factory);
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_dropped_is_gone_on_with_by_the_next() {
    let world = World::new();
    let factory = world.factory();
    let session = factory.session("partition").unwrap();
    world.store.faults().always(Fault::Hang);
    let stuck = tokio::spawn({
        let session = session.clone();
        async move { session.encrypt(b"").await }
    });
    world.store.faults().until_hanging(1).await;
    assert!(tokio::time::timeout(SECOND, factory.close(DAY)).await.is_err());
    assert!(matches!(session.encrypt(b"").await, Err(Error::Closed)), "new work stays refused");
    assert!(!factory.close(SECOND).await.unwrap().is_clean());
    assert!(stuck.await.unwrap().is_err());
    assert_closed(&factory);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_ends_the_tasks_and_frees_everything() {
    let world = World::new();
    let store = Arc::new(world.store.clone());
    let factory = SessionFactory::builder(Arc::clone(&store), world.kms.clone())
        .service("service")
        .product("product")
        .runtime(tokio::runtime::Handle::current())
        .build()
        .unwrap();
    let session = factory.session("partition").unwrap();
    session.encrypt(b"").await.unwrap();
    drop(factory);
    session.encrypt(b"").await.expect("a session outlives its factory's handle");

    world.store.faults().always(Fault::Hang);
    let stuck = session.clone();
    let stuck = tokio::spawn(async move { stuck.decrypt(&foreign_version(&stuck).await).await });
    world.store.faults().until_hanging(1).await;
    stuck.abort();
    assert!(stuck.await.unwrap_err().is_cancelled());
    drop(session);
    // The tasks that were told to end take a turn each.
    while tokio::runtime::Handle::current().metrics().num_alive_tasks() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(Arc::strong_count(&store), 1, "the factory let go of the store");
    assert_eq!(world.store.faults().hanging(), 0);
}

/// A record under a version of the key that is not cached.
async fn foreign_version(session: &claviger::Session) -> claviger::DataRowRecord {
    let json = session.encrypt_json(b"").await.unwrap();
    let (head, created) = json.rsplit_once("\"Created\":").unwrap();
    let rest = created.trim_start_matches(|digit: char| digit.is_ascii_digit());
    claviger::DataRowRecord::from_json(format!("{head}\"Created\":60{rest}").as_bytes()).unwrap()
}

#[track_caller]
fn assert_closed(factory: &SessionFactory) {
    let status = factory.status().unwrap();
    assert!(status.closed);
    assert_eq!((status.loads, status.intermediate_keys, status.system_keys), (0, 0, 0), "{status:?}");
    assert_eq!((status.memory.slots, status.orphans.len()), (0, 0), "{status:?}");
}
