//! The store came to another server: what is cached is checked at once, whether or not it is used.

use std::time::Duration;

use claviger::testing::{Fault, FixedClock, Operation, call};
use claviger::{Event, FailureClass, KeyId, MetastoreAdmin, SessionFactory};

use crate::support::*;

/// A world with the keys of so many partitions, and of alice, in its cache.
async fn warm_with(world: World, partitions: usize) -> World {
    world.sealed().await;
    for number in 0..partitions {
        world.session_of(&name(number)).encrypt(b"").await.unwrap();
    }
    world.faults().reset();
    world
}

async fn warm(partitions: usize) -> World {
    warm_with(World::new(), partitions).await
}

fn name(number: usize) -> String {
    format!("customer-{number}")
}

async fn delete_customer(world: &World, number: usize) {
    let id = KeyId::new(format!("_IK_{}_checkout_payments", name(number)));
    assert_eq!(world.store.inner().delete(&id, &call()).await.unwrap(), 1);
}

/// Fails over, and makes a call that notices.
async fn fail_over(world: &World) {
    world.faults().fail_over();
    world.session_of("next-caller").encrypt(b"").await.unwrap();
}

#[tokio::test]
async fn failed_over_store_has_all_that_is_cached_checked_and_nothing_changed_costs_no_kms_call() {
    let world = warm(20).await;
    let kms_calls = world.kms_calls();
    fail_over(&world).await;
    world.landed().await;
    assert_eq!(world.raised(Event::FailedOver), 1);
    assert_eq!(world.faults().calls_of(Operation::LoadMany), 2, "system keys, and the others");
    assert_eq!(world.raised(Event::RowLost), 0);
    let before = world.calls();
    assert_eq!(world.encrypts_under().await, 0);
    for number in 0..20 {
        assert_eq!(created(&world.session_of(&name(number)).encrypt(b"").await.unwrap()), 0);
    }
    assert_eq!((world.calls(), world.kms_calls()), (before, kms_calls), "all are fresh");
    world.session_of("one more").encrypt(b"").await.unwrap();
    assert_eq!(world.raised(Event::FailedOver), 1);
}

#[tokio::test]
async fn failed_over_store_that_lost_rows_each_is_told_of_though_nobody_uses_it() {
    let world = warm(30).await;
    for number in 0..10 {
        delete_customer(&world, number).await;
    }
    fail_over(&world).await;
    world.landed().await;
    assert_eq!(world.raised(Event::RowLost), 10);
    assert_eq!(world.factory.status().unwrap().lost_rows.len(), 10);
    for row in world.factory.status().unwrap().lost_rows {
        assert!(world.factory.restore_lost(&row.key).await.unwrap());
    }
    for number in 0..30 {
        assert_eq!(created(&world.session_of(&name(number)).encrypt(b"").await.unwrap()), 0);
    }
}

#[tokio::test]
async fn failed_over_store_that_lost_a_system_key_and_all_under_it_gets_them_back() {
    for restores in [false, true] {
        let world = World::over(Default::default(), FixedClock::new(START.unsigned_abs()), |builder| {
            builder.restore_lost(restores)
        });
        let world = warm_with(world, 10).await;
        world.delete(SK).await;
        world.delete(IK).await;
        for number in 0..10 {
            delete_customer(&world, number).await;
        }
        world.faults().fail_over();
        world.session_of("next-caller").encrypt(b"").await.unwrap();
        world.landed().await;
        assert_eq!(world.raised(Event::RowLost), 12, "{restores}");
        let lost = world.factory.status().unwrap().lost_rows.len();
        assert_eq!(lost, if restores { 0 } else { 12 });
        let expected: &[i64] = if restores { &[0] } else { &[1] };
        assert_eq!(world.row_times(SK).await, expected, "the caller needed one");
        assert_eq!(world.row_times(IK).await.len(), usize::from(restores));
        if restores {
            assert_eq!(world.encrypts_under().await, 0);
        }
    }
}

/// Putting rows back takes its time, and nobody waits for that to hear of them.
#[tokio::test]
async fn failed_over_store_that_lost_rows_all_are_told_of_before_the_first_is_put_back() {
    let world = World::over(Default::default(), FixedClock::new(START.unsigned_abs()), |builder| {
        builder.restore_lost(true)
    });
    let world = warm_with(world, 10).await;
    for number in 0..10 {
        delete_customer(&world, number).await;
    }
    world.faults().next(Operation::Insert, Fault::Hang);
    world.clock.advance(STALE);
    world.faults().fail_over();
    world.encrypts_under().await;
    world.faults().until_hanging(1).await;
    assert_eq!(world.raised(Event::RowLost), 10);
    world.faults().release();
    world.landed().await;
    assert_eq!(world.factory.status().unwrap().lost_rows, []);
    for number in 0..10 {
        assert_eq!(created(&world.session_of(&name(number)).encrypt(b"").await.unwrap()), 0);
    }
}

#[tokio::test]
async fn failed_over_again_during_the_check_all_is_checked_again_by_one_task() {
    let world = warm(5).await;
    // The system keys are read, the others hang.
    world.faults().next(Operation::LoadMany, Fault::Delay(Duration::ZERO));
    world.faults().next(Operation::LoadMany, Fault::HangReply);
    fail_over(&world).await;
    world.faults().until_hanging(1).await;
    // What the read that hangs has seen is there no more.
    delete_customer(&world, 2).await;
    for number in 0..3 {
        world.faults().fail_over();
        world.session_of(&format!("caller-{number}")).encrypt(b"").await.unwrap();
    }
    assert_eq!(world.faults().calls_of(Operation::LoadMany), 2, "there is one task");
    world.faults().release();
    world.landed().await;
    assert_eq!(world.raised(Event::FailedOver), 4);
    assert_eq!(world.raised(Event::RowLost), 1);
    // Once more for all three, and of the intermediate keys only: the callers read the system key.
    assert_eq!(world.faults().calls_of(Operation::LoadMany), 3);
}

/// A load that was under way has seen what the old server knew.
#[tokio::test(start_paused = true)]
async fn failed_over_during_a_flight_what_it_read_is_not_fresh() {
    let world = warm(1).await;
    world.clock.advance(STALE);
    world.faults().next(Operation::LoadLatest, Fault::HangReply);
    world.faults().always_for(Operation::LoadMany, DENIED);
    let encrypt = spawn_encrypt(world.session());
    world.faults().until_hanging(1).await;
    world.revoke_latest(IK).await;
    fail_over(&world).await;
    world.faults().release();
    encrypt.await.unwrap().unwrap();
    world.landed().await;
    assert_ne!(world.encrypts_under().await, 0, "it is asked for again");
}

#[tokio::test(start_paused = true)]
async fn failed_over_store_that_does_not_answer_at_once_is_asked_again() {
    for fault in [DOWN, Fault::Hang, Fault::Fail(FailureClass::Damaged)] {
        let world = warm(10).await;
        delete_customer(&world, 3).await;
        for _ in 0..2 {
            world.faults().next(Operation::LoadMany, fault);
        }
        fail_over(&world).await;
        while world.factory.status().unwrap().loads > 0 {
            tokio::time::sleep(SECOND / 10).await;
        }
        assert_eq!(world.raised(Event::RowLost), 1, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn failed_over_store_that_never_answers_is_left_to_the_regular_checks() {
    for fault in [DOWN, DENIED] {
        let world = warm(10).await;
        delete_customer(&world, 3).await;
        world.faults().always_for(Operation::LoadMany, fault);
        fail_over(&world).await;
        while world.factory.status().unwrap().loads > 0 {
            tokio::time::sleep(SECOND / 10).await;
        }
        assert!(world.faults().calls_of(Operation::LoadMany) < 50);
        assert!(world.raised(Event::RefreshFailed) > 0);
        assert_ne!(created(&world.session_of(&name(3)).encrypt(b"").await.unwrap()), 0);
        assert_eq!(world.raised(Event::RowLost), 1);
        // The next one is checked as ever.
        world.faults().heal();
        delete_customer(&world, 4).await;
        world.faults().fail_over();
        world.session_of("another").encrypt(b"").await.unwrap();
        world.landed().await;
        assert_eq!(world.raised(Event::RowLost), 2);
    }
}

#[tokio::test]
async fn failed_over_store_is_asked_for_a_thousand_rows_at_a_time() {
    let world = warm(1_100).await;
    delete_customer(&world, 1_050).await;
    fail_over(&world).await;
    world.landed().await;
    let log = world.faults().log();
    let sizes = log.iter().filter(|call| call.operation == Operation::LoadMany);
    let mut sizes: Vec<_> = sizes.map(|call| call.key.split(' ').count()).collect();
    sizes.sort_unstable();
    assert_eq!((sizes.len(), sizes[0], sizes[2]), (3, 1, 1_000), "{sizes:?}");
    assert_eq!(world.raised(Event::RowLost), 1);
}

#[tokio::test(start_paused = true)]
async fn failed_over_factory_closes_at_once() {
    let world = warm(1).await;
    world.faults().always_for(Operation::LoadMany, DOWN);
    fail_over(&world).await;
    tokio::time::sleep(SECOND / 100).await;
    let begun = tokio::time::Instant::now();
    assert!(world.factory.close(10 * SECOND).await.unwrap().is_clean());
    assert!(begun.elapsed() < SECOND / 10, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn failed_over_before_the_factory_was_built_is_nothing_to_it() {
    let world = World::new();
    world.faults().fail_over();
    let factory = on_this_runtime(
        SessionFactory::builder(world.store.clone(), world.kms.clone())
            .service("checkout")
            .product("payments")
            .policy(policy())
            .clock(world.clock.clone()),
    )
    .build()
    .unwrap();
    factory.session("alice").unwrap().encrypt(b"").await.unwrap();
    assert_eq!(factory.status().unwrap().events, []);
}
