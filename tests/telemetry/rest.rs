//! S0.4: every gauge moves with what it shows, and comes back to rest.

use std::time::Duration;

use claviger::testing::{Fault, Operation};
use claviger::{Limits, SessionFactoryBuilder};

use crate::support::{DAY, DOWN, World, in_world};

/// Those that show what is held or under way.
const GAUGES: [&str; 9] = [
    "claviger_cached_keys",
    "claviger_live_keys",
    "claviger_orphaned_keys",
    "claviger_memory_bytes",
    "claviger_loads",
    "claviger_waiting_operations",
    "claviger_permits",
    "claviger_queued_calls",
    "claviger_breaker_open",
];

fn gauges(world: &World) -> [f64; 9] {
    GAUGES.map(|gauge| world.value(gauge, &[]))
}

#[test]
fn s0_4_each_gauge_moves_and_comes_back_to_rest() {
    let narrow = |builder: SessionFactoryBuilder| {
        builder.limits(Limits::production().max_attempts(1).max_system_keys(1).max_store_calls(1))
    };
    in_world(narrow, async |world| {
        let encrypt = |partition: &str| {
            let session = world.session(partition);
            tokio::spawn(async move { session.encrypt(b"").await })
        };
        assert_eq!(gauges(&world), [0.0; 9]);
        let record = world.session("alice").encrypt(b"").await.unwrap();
        // The next system key takes the only place.
        world.clock.advance(91 * DAY);
        world.session("bob").encrypt(b"").await.unwrap();
        let at_rest = gauges(&world);
        assert_eq!(
            at_rest.map(|gauge| gauge > 0.0),
            [true, true, false, true, false, false, false, false, false]
        );

        // A load holds that key, which has to go for the first one.
        world.store.faults().next(Operation::Insert, Fault::Hang);
        let held = encrypt("carol");
        world.store.faults().until_hanging(1).await;
        world.session("alice").decrypt(&record).await.unwrap();
        let [_, live, orphaned, _, loads, waiting, permits, ..] = gauges(&world);
        assert_eq!([orphaned, loads, waiting, permits], [1.0; 4]);
        assert_eq!(live, at_rest[1] + 1.0, "the first system key, and not carol's, which is not stored yet");

        // Reads have one permit, and three ask for it.
        world.store.faults().always_for(Operation::LoadLatest, Fault::Hang);
        let queued = ["dora", "emil", "fritz"].map(encrypt);
        world.store.faults().until_hanging(2).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        let [.., loads, waiting, permits, waiting_calls, _] = gauges(&world);
        assert_eq!([loads, waiting, permits, waiting_calls], [4.0, 4.0, 2.0, 2.0]);
        world.store.faults().heal();
        world.store.faults().release();
        for encrypt in [held].into_iter().chain(queued) {
            encrypt.await.unwrap().unwrap();
        }

        // The breaker opens, and closes with the next answer.
        world.store.faults().always(DOWN);
        for number in 0..5 {
            assert!(world.session(&format!("p{number}")).encrypt(b"").await.is_err());
        }
        assert_eq!(world.value("claviger_breaker_open", &[]), 1.0);
        world.store.faults().heal();
        world.clock.advance(Duration::from_secs(2));
        world.session("p0").encrypt(b"").await.unwrap();
        assert_eq!(gauges(&world)[2], 0.0);
        assert_eq!(gauges(&world)[4..], [0.0; 5]);
        assert!(world.factory.close(Duration::from_secs(1)).await.unwrap().is_clean());
        let [cached, live, orphaned, _room, ref others @ ..] = gauges(&world);
        // The room that keys lay in goes with the factory.
        assert_eq!(([cached, live, orphaned], others), ([0.0; 3], &[0.0; 5]));
    });
}
