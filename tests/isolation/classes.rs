//! Checks of keys in use go before all loads: no flood of cold partitions holds up a refresh, word of a
//! revocation, or the replacement of a key that is at its end.

use std::time::Duration;

use claviger::{CryptoPolicy, DataRowRecord, KeyId, KeyMeta, Limits};
use tokio::time::sleep;

use crate::desk::{Asked, Reply};
use crate::support::{
    HOUR, INTERVAL, MILLISECOND, PERMITS, REFRESH_WAIT, SECOND, SK, STORE_DEADLINE, Tally, World,
    checked_often, ik, limits, policy,
};

/// How long the store takes for each answer.
const LATENCY: Duration = Duration::from_millis(20);

/// A world whose places for loads are all taken, with as many again that are refused, and one partition that
/// is warm.
struct Flood {
    world: World,
    cold: Vec<Tally>,
    record: DataRowRecord,
}

impl Flood {
    async fn begin(policy: CryptoPolicy, permits: usize) -> Self {
        let waiting = permits + 50;
        let world = World::warm(policy, limits(permits).max_waiting_calls(waiting)).await;
        let record = world.encrypt("hot").await.expect_in(SECOND);
        world.store.all(Reply::Late(LATENCY));
        let flood = permits + waiting + 20;
        let cold =
            (0..flood).map(|client| world.client_of_new(&format!("c{client}x"), 50 * MILLISECOND)).collect();
        sleep(SECOND).await;
        Self { world, cold, record }
    }

    fn key(&self) -> &KeyMeta {
        self.record.parent().unwrap()
    }

    #[track_caller]
    fn assert_was_one(&self) {
        let tallied: Vec<_> = self.cold.iter().map(Tally::now).collect();
        assert!(tallied.iter().any(|client| client.succeeded > 0), "some were served");
        assert!(tallied.iter().any(|client| !client.errors.is_empty()), "some were refused");
    }
}

#[tokio::test(start_paused = true)]
async fn flood_of_cold_partitions_holds_up_no_check() {
    for permits in PERMITS {
        for revoked_id in [ik("hot"), SK.to_owned()] {
            let flood = Flood::begin(checked_often(), permits).await;
            let (world, key) = (&flood.world, flood.key().clone());
            let hot = world.client("hot", 10 * MILLISECOND);
            sleep(INTERVAL).await;
            let revoked = world.store.now();
            world.revoke(&KeyMeta::new(KeyId::new(revoked_id), key.created())).await;
            sleep(2 * INTERVAL).await;
            // A key's replacement takes three calls, or five with its parent.
            hot.assert_well(REFRESH_WAIT);
            let used = hot.now().last_use(&key).unwrap().saturating_sub(revoked);
            assert!(used <= INTERVAL, "{permits} permits: used {used:?} after the revocation");
            let gap = world.reads_for("hot").longest_gap();
            assert!(gap <= INTERVAL, "{permits} permits: {gap:?} between two checks");
            flood.assert_was_one();
        }
    }
}

/// Word that was given counts at once.
#[tokio::test(start_paused = true)]
async fn flood_of_cold_partitions_holds_up_no_word_of_a_revocation() {
    for permits in PERMITS {
        for id in [ik("hot"), SK.to_owned()] {
            let flood = Flood::begin(policy(), permits).await;
            let (world, key) = (&flood.world, flood.key());
            for _ in 0..5 {
                let used = world.encrypt("hot").await.expect_in(Duration::ZERO);
                assert_eq!(used.parent().unwrap(), key);
            }
            world.revoke(&KeyMeta::new(KeyId::new(id.as_str()), key.created())).await;
            world.factory.invalidate(&KeyId::new(id.as_str())).unwrap();
            for _ in 0..20 {
                let used = world.encrypt("hot").await.expect_in(REFRESH_WAIT);
                assert_ne!(used.parent().unwrap(), key, "{permits} permits, {id}");
            }
            flood.assert_was_one();
        }
    }
}

/// Why a key is to be replaced.
#[derive(Clone, Copy, Debug)]
enum End {
    Expired,
    KnownRevoked,
    Exhausted,
}

const WRAPS_MAX: u64 = 64;

#[tokio::test(start_paused = true)]
async fn flood_of_cold_partitions_holds_up_no_replacement() {
    for permits in PERMITS {
        for end in [End::Expired, End::KnownRevoked, End::Exhausted] {
            let policy = match end {
                End::Expired => checked_often().expire_after(3 * HOUR).max_stale_encrypt(HOUR),
                End::KnownRevoked => checked_often(),
                End::Exhausted => policy().max_wraps_per_key(WRAPS_MAX),
            };
            let flood = Flood::begin(policy, permits).await;
            let (world, key) = (&flood.world, flood.key().clone());
            match end {
                End::Expired => world.clock.advance(3 * HOUR),
                End::KnownRevoked => {
                    world.revoke(&key).await;
                    // A decrypt learns it, and makes no new key.
                    world.factory.invalidate(key.id()).unwrap();
                    world.decrypt("hot", &flood.record).await.expect_in(REFRESH_WAIT);
                }
                End::Exhausted => {
                    let mut wraps = 1;
                    while *world.encrypt("hot").await.expect_in(REFRESH_WAIT).parent().unwrap() == key {
                        wraps += 1;
                    }
                    assert!(wraps <= WRAPS_MAX, "{wraps}");
                }
            }
            let used = world.encrypt("hot").await.expect_in(REFRESH_WAIT);
            assert_ne!(*used.parent().unwrap(), key, "{end:?}, {permits} permits");
            flood.assert_was_one();
        }
    }
}

/// With one permit for checks: what is due is left for later if it is taken; what is overdue queues.
#[tokio::test(start_paused = true)]
async fn due_check_is_skipped_where_permits_run_out_and_overdue_one_waits_for_its_turn() {
    let interval = 10 * SECOND;
    let policy = policy().revoke_check_interval(interval);
    let world = World::warm(policy, limits(1).store_deadline(STORE_DEADLINE)).await;
    for partition in ["slow", "other"] {
        world.encrypt(partition).await.expect_in(Duration::ZERO);
    }
    let slow =
        |asked: &Asked| if asked.is_for("slow") { Reply::Late(150 * MILLISECOND) } else { Reply::Answer };
    world.store.rule(slow);
    let read_since = |partition, moment| world.reads_for(partition).since(moment).len();

    sleep(interval * 85 / 100).await;
    let due = world.store.now();
    world.encrypt("slow").await.expect_in(Duration::ZERO);
    sleep(10 * MILLISECOND).await;
    assert_eq!(read_since("slow", due), 1);
    world.encrypt("other").await.expect_in(Duration::ZERO);
    sleep(SECOND).await;
    assert_eq!(read_since("other", due), 0, "it is not made up for");

    // The one is overdue when the other's check is under way again.
    sleep(interval - SECOND - MILLISECOND * 2_000).await;
    world.clock.advance(interval / 2);
    let overdue = world.store.now();
    let check = world.begin_encrypt("slow");
    sleep(10 * MILLISECOND).await;
    let waiting = world.begin_encrypt("other");
    sleep(10 * MILLISECOND).await;
    assert_eq!((read_since("slow", overdue), read_since("other", overdue)), (1, 0));
    waiting.await.unwrap().expect_in(REFRESH_WAIT);
    check.await.unwrap().expect_in(REFRESH_WAIT);
    assert_eq!(read_since("other", overdue), 1);
}

/// The same at the default limits and a load of many clients, in small: `benches/overload` has the whole.
#[tokio::test(start_paused = true)]
async fn s0_11_warm_partitions_never_fail_beside_three_times_what_the_store_can_do() {
    let limits = Limits::production().max_store_calls(8).max_waiting_calls(100);
    let world = World::warm(checked_often(), limits).await;
    let warm = world.clients("warm", 30, 50 * MILLISECOND);
    sleep(SECOND).await;
    world.store.all(Reply::Late(LATENCY));
    // Eight permits of 20 ms are 400 a second; these are 1 200.
    let cold: Vec<_> =
        (0..120).map(|client| world.client_of_new(&format!("c{client}x"), 100 * MILLISECOND)).collect();
    sleep(20 * SECOND).await;
    warm.iter().for_each(|client| client.assert_well(REFRESH_WAIT));
    assert!(cold.iter().any(|client| client.now().succeeded > 0));
}
