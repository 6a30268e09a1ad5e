//! However many hang, and whatever of: those that are known to delay nobody, those that are not a cold
//! partition by so many deadlines as they fill the permits, and none a warm one.

use std::time::Duration;

use claviger::Limits;
use tokio::time::sleep;

use crate::desk::{DOWN, Reply};
use crate::support::{
    HOUR, INTERVAL, MILLISECOND, OPERATION_DEADLINE, PERMITS, REFRESH_WAIT, SECOND, STORE_DEADLINE, Tally,
    World, checked_often, limits, of_earlier_version, policy, reads_of,
};

/// Nobody's operation ends before those that hang did.
fn patient(permits: usize) -> Limits {
    limits(permits).operation_deadline(HOUR)
}

/// The deadlines that so many that hang may cost: those of as many rounds as they fill.
fn bound(hanging: usize, permits: usize) -> Duration {
    STORE_DEADLINE * u32::try_from(hanging.div_ceil(permits)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn hanging_versions_of_one_partition_delay_nobody_else() {
    for permits in [3, 64] {
        let world = World::warm(policy(), limits(permits)).await;
        let record = world.encrypt("hung").await.expect_in(SECOND);
        world.store.rule(reads_of("hung", Reply::Hang));
        for version in 1..=64 {
            world.begin_decrypt("hung", &of_earlier_version(&record, 60 * version));
        }
        sleep(50 * MILLISECOND).await;
        let others = world.client_of_new("other", 100 * MILLISECOND);
        sleep(60 * SECOND).await;
        others.assert_well(Duration::ZERO);
    }
}

/// With one permit it is taken by whoever comes first.
#[tokio::test(start_paused = true)]
async fn hanging_versions_of_one_partition_delay_others_by_two_deadlines_where_there_is_one_permit() {
    let world = World::warm(policy(), limits(1)).await;
    let record = world.encrypt("hung").await.expect_in(SECOND);
    world.store.rule(reads_of("hung", Reply::Hang));
    for version in 1..=64 {
        world.begin_decrypt("hung", &of_earlier_version(&record, 60 * version));
    }
    sleep(50 * MILLISECOND).await;
    world.encrypt("other").await.expect_in(2 * STORE_DEADLINE);
}

/// On a store that answers others meanwhile.
#[tokio::test(start_paused = true)]
async fn those_that_hang_when_first_asked_delay_a_cold_partition_by_the_rounds_they_fill() {
    for permits in PERMITS {
        for hanging in [1, 64, 640] {
            for decrypts in [false, true] {
                println!("{permits} permits, {hanging} hang, decrypts: {decrypts}");
                let writer = World::warm(policy(), Limits::production()).await;
                let record = writer.encrypt("cold").await.expect_in(SECOND);
                let world = writer.other_process(checked_often(), patient(permits));
                let others = keep_in_use(&world).await;
                world.store.rule(reads_of("hung", Reply::Hang));
                world.begin_encrypts("hung", hanging);
                // They are before it in the queue.
                sleep(MILLISECOND).await;
                let bound = bound(hanging, permits);
                if decrypts {
                    world.decrypt("cold", &record).await.expect_in(bound);
                } else {
                    world.encrypt("cold").await.expect_in(bound);
                }
                others.iter().for_each(|client| client.assert_well(REFRESH_WAIT));
            }
        }
    }
}

/// On a store that is asked by nobody else, which may be down as far as anybody can tell.
#[tokio::test(start_paused = true)]
async fn those_that_hang_when_first_asked_delay_a_cold_partition_by_a_probe_more_on_a_quiet_store() {
    for permits in PERMITS {
        for hanging in [1, 3, 5, 64].into_iter().filter(|hanging| *hanging <= permits.max(5)) {
            println!("{permits} permits, {hanging} hang");
            let world = World::warm(policy(), patient(permits)).await;
            sleep(11 * SECOND).await;
            world.store.rule(reads_of("hung", Reply::Hang));
            world.begin_encrypts("hung", hanging);
            sleep(MILLISECOND).await;
            world.encrypt("cold").await.expect_in(bound(hanging, permits) + STORE_DEADLINE);
        }
    }
}

/// Partitions whose checks are answered again and again.
async fn keep_in_use(world: &World) -> Vec<Tally> {
    let mut clients = Vec::new();
    for number in 0..4 {
        clients.push(world.client(&format!("used{number}"), 500 * MILLISECOND));
        sleep(INTERVAL / 4).await;
    }
    clients
}

#[tokio::test(start_paused = true)]
async fn those_known_to_hang_delay_nobody() {
    for permits in PERMITS {
        for hanging in [1, 64, 640] {
            println!("{permits} permits, {hanging} hang");
            let world = World::warm(policy(), limits(permits)).await;
            world.store.rule(reads_of("hung", DOWN));
            for number in 0..hanging {
                assert!(world.encrypt(&format!("hung{number}")).await.outcome.is_err());
                // The store answers others.
                world.encrypt(&format!("well{number}")).await.expect_in(Duration::ZERO);
            }
            world.store.rule(reads_of("hung", Reply::Hang));
            let others = world.client_of_new("other", 50 * MILLISECOND);
            world.clients("hung", hanging, SECOND);
            sleep(15 * SECOND).await;
            others.assert_well(Duration::ZERO);
        }
    }
}

/// Its row is read in time, word of its revocation heeded, and none of its encrypts fails, beside any number
/// that hang, cold or warm.
#[tokio::test(start_paused = true)]
async fn warm_partition_is_refreshed_in_time_beside_any_number_that_hang() {
    for permits in PERMITS {
        for hanging in [64, 640] {
            for are_warm in [false, true] {
                println!("{permits} permits, {hanging} hang, warm: {are_warm}");
                beside_those_that_hang(permits, hanging, are_warm, true).await;
            }
        }
    }
}

/// The same where nobody but the one is answered, so that all the store says comes from it.
#[tokio::test(start_paused = true)]
async fn lone_warm_partition_is_refreshed_in_time_where_all_others_hang() {
    for permits in PERMITS {
        for are_warm in [false, true] {
            println!("{permits} permits, warm: {are_warm}");
            beside_those_that_hang(permits, 64, are_warm, false).await;
        }
    }
}

async fn beside_those_that_hang(permits: usize, hanging: usize, are_warm: bool, is_in_use: bool) {
    let world = World::warm(checked_often(), limits(permits)).await;
    if are_warm {
        for number in 0..hanging {
            world.encrypt(&format!("hung{number}")).await.expect_in(SECOND);
        }
    }
    let hot = world.client("hot", 20 * MILLISECOND);
    let others = if is_in_use { keep_in_use(&world).await } else { Vec::new() };
    world.store.rule(reads_of("hung", Reply::Hang));
    world.clients("hung", hanging, if hanging <= 64 { SECOND / 10 } else { SECOND });
    let key = world.encrypt("hot").await.expect_in(SECOND).parent().unwrap().clone();
    sleep(15 * SECOND).await;
    let revoked = world.store.now();
    world.revoke(&key).await;
    sleep(15 * SECOND).await;
    // Warm ones that hang for the first time give way after `refresh_wait`, a round of permits after the
    // other.
    let rounds = if are_warm { hanging.div_ceil((permits / 2).max(1)) } else { 0 };
    let turn = STORE_DEADLINE + REFRESH_WAIT * u32::try_from(rounds).unwrap();
    assert_in_time(&world, &hot, (&key, revoked), INTERVAL + OPERATION_DEADLINE.max(turn));
    others.iter().for_each(|other| other.assert_well(REFRESH_WAIT));
}

#[track_caller]
fn assert_in_time(
    world: &World,
    hot: &Tally,
    (key, revoked): (&claviger::KeyMeta, Duration),
    bound: Duration,
) {
    // It waits for the successor of its revoked key.
    hot.assert_well(OPERATION_DEADLINE);
    let reads = world.reads_for("hot");
    let gap = reads.longest_gap();
    assert!(gap <= bound, "{gap:?} between two checks");
    let used = hot.now().last_use(key).unwrap().saturating_sub(revoked);
    assert!(used <= bound, "used {used:?} after its revocation");
    println!(
        "checks at most {gap:?} apart, last used {used:?} after its revocation, {:?}",
        hot.now().longest
    );
}
