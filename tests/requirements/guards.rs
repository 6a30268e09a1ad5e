//! S0.8: whatever goes wrong, every key, permit and place is given back.

use std::time::Duration;

use claviger::testing::{Fault, Operation, call};
use claviger::{Error, FailureClass, Limits, MetastoreAdmin, SessionFactory};

use crate::world::{DAY, Dice, World, assert_at_rest, policy, poll_and_drop, settle};

/// The register asks for 10^6 operations; these are what a debug build does in about ten seconds.
const OPERATIONS: u64 = 100_000;
/// Operations under way at once.
const ABREAST: u64 = 8;
const PARTITIONS: u64 = 40;
const STORE_CALLS_MAX: usize = 4;
const WAITING_CALLS_MAX: usize = 6;

#[tokio::test(start_paused = true)]
async fn s0_8_every_guard_is_returned() {
    let world = World::new();
    // Few keys fit, so that most operations load one and evict another.
    let limits = Limits::production()
        .max_intermediate_keys(10)
        .max_store_calls(STORE_CALLS_MAX)
        .max_kms_calls(1)
        .max_waiting_calls(WAITING_CALLS_MAX);
    let factory = world.builder().policy(policy().max_wraps_per_key(200)).limits(limits).build().unwrap();
    let mut dice = Dice(8);
    let mut tally = Tally::default();
    for _ in 0..OPERATIONS / ABREAST {
        let go_wrong = dice.roll(4) == 0;
        if go_wrong {
            let part = dice.roll(8);
            break_something(&world, &mut dice, part).await;
        }
        pass_time(&world, &mut dice);
        let operations: Vec<_> = (0..ABREAST).map(|_| operation(&factory, dice.roll(u64::MAX))).collect();
        for ended in join_all(operations).await {
            tally.count(ended);
        }
        if go_wrong {
            world.store.faults().reset();
            world.kms.faults().reset();
        }
        let status = factory.status().unwrap();
        // What lives beyond the cache are loads that go on without their callers.
        assert!(status.memory.slots <= status.intermediate_keys + status.system_keys + 2 * status.loads);
    }
    println!("{tally:?}");
    assert!(
        tally.served > OPERATIONS / 2 && tally.failed > OPERATIONS / 100 && tally.dropped > OPERATIONS / 100
    );

    settle(&factory).await;
    assert_at_rest(&factory.status().unwrap());
    assert_all_permits_are_back(&world, &factory).await;
    let report = factory.close(DAY).await.unwrap();
    assert!(report.is_clean());
    assert_eq!(factory.status().unwrap().memory.slots, 0);
    assert_eq!((world.store.faults().hanging(), world.kms.faults().hanging()), (0, 0));
}

#[derive(Debug, Default)]
struct Tally {
    served: u64,
    failed: u64,
    dropped: u64,
}

impl Tally {
    fn count(&mut self, ended: Option<Result<(), Error>>) {
        match ended {
            Some(Ok(())) => self.served += 1,
            Some(Err(_)) => self.failed += 1,
            None => self.dropped += 1,
        }
    }
}

/// Has one part fail, or an operator revoke a key.
async fn break_something(world: &World, dice: &mut Dice, part: u64) {
    let class = [FailureClass::Transient, FailureClass::Permanent][dice.roll(2) as usize];
    let fault = match dice.roll(5) {
        0 => Fault::LoseReply(class),
        1 => Fault::Hang,
        2 => Fault::HangReply,
        3 => Fault::Delay(Duration::from_millis(dice.roll(3_000))),
        _ => Fault::Fail(class),
    };
    let store = world.store.faults();
    match part {
        0 => world.random.fail_next(),
        1 => store.next(Operation::Load, fault),
        2 => store.next(Operation::LoadLatest, fault),
        3 => store.next(Operation::Insert, fault),
        4 => store.always(fault),
        5 => world.kms.faults().next(Operation::WrapKey, fault),
        6 => world.kms.faults().next(Operation::UnwrapKey, fault),
        _ => {
            let rows = world.store.inner().list("", None, usize::MAX, &call()).await.unwrap().records;
            if let Some(row) = rows.get(dice.roll(rows.len().max(1) as u64) as usize) {
                assert!(world.store.inner().revoke(row.meta(), &call()).await.unwrap());
            }
        }
    }
}

fn pass_time(world: &World, dice: &mut Dice) {
    world.clock.advance(match dice.roll(200) {
        0 => 30 * DAY,
        1..5 => Duration::from_secs(dice.roll(7_200)),
        _ => Duration::from_secs(1),
    });
}

/// Encrypts and decrypts once, or goes away while that is under way.
async fn operation(factory: &SessionFactory, choice: u64) -> Option<Result<(), Error>> {
    let session = factory.session(&(choice % PARTITIONS).to_string()).unwrap();
    let round_trip = async {
        let record = session.encrypt(b"payload").await?;
        session.decrypt(&record).await.map(|payload| assert_eq!(*payload, *b"payload"))
    };
    match choice / PARTITIONS % 10 {
        0 => poll_and_drop(round_trip, (choice % 7) as usize).await,
        _ => Some(round_trip.await),
    }
}

async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut is_pending = false;
        for (future, output) in futures.iter_mut().filter(|(_, output)| output.is_none()) {
            match future.as_mut().poll(context) {
                std::task::Poll::Ready(ready) => *output = Some(ready),
                std::task::Poll::Pending => is_pending = true,
            }
        }
        if is_pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}

/// As many calls as are allowed can be under way at once and as many wait, so that no permit and no
/// place in the queue was lost.
async fn assert_all_permits_are_back(world: &World, factory: &SessionFactory) {
    // All keys have expired: a new system key takes the KMS's one permit.
    world.clock.advance(91 * DAY);
    factory.session("probe").unwrap().encrypt(b"").await.unwrap();
    world.store.faults().always(Fault::Hang);
    let calls: Vec<_> = (0..STORE_CALLS_MAX + WAITING_CALLS_MAX)
        .map(|new| {
            let session = factory.session(&format!("new {new}")).unwrap();
            tokio::spawn(async move { session.encrypt(b"").await })
        })
        .collect();
    world.store.faults().until_hanging(STORE_CALLS_MAX).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(calls.iter().all(|call| !call.is_finished()), "none was refused a place");
    world.store.faults().heal();
    for call in calls {
        // What was let in is not refused at its second call.
        call.await.unwrap().unwrap();
    }
    settle(factory).await;
    assert_at_rest(&factory.status().unwrap());
}
