//! What a back end refuses by itself says nothing of what is behind it.

use claviger::{DataRowRecord, Limits};
use tokio::time::sleep;

use crate::desk::{Asked, DOWN, Reply};
use crate::support::{MILLISECOND, SECOND, STORE_DEADLINE, World, checked_often, policy};

/// A version that the back end refuses by itself.
const REFUSED: i64 = 1_600_000_000;

fn is_refused(asked: &Asked) -> bool {
    asked.created.is_some_and(|created| (REFUSED..REFUSED + 1_000).contains(&created))
}

/// Makes a record name another version of its key.
fn naming(record: &DataRowRecord, created: i64) -> DataRowRecord {
    let old = format!("\"Created\":{}}}", record.parent_created());
    let json = record.to_json();
    assert!(json.contains(&old), "{json}");
    DataRowRecord::from_json(json.replace(&old, &format!("\"Created\":{created}}}")).as_bytes()).unwrap()
}

/// However many are refused, and whose, the store counts as down as long as it is, is asked as seldom, and is
/// used again as soon.
#[tokio::test(start_paused = true)]
async fn forged_records_that_a_back_end_refuses_keep_no_breaker_closed() {
    for reply in [DOWN, Reply::Hang] {
        for versions in [1, 1_000] {
            let case = format!("{reply:?}, {versions} versions");
            let world = World::warm(checked_often(), Limits::production()).await;
            let record = world.encrypt("mallory").await.expect_in(SECOND);
            world.store.rule(move |asked| if is_refused(asked) { Reply::Refuse } else { reply });
            let _clients = world.clients("p", 40, 1_600 * MILLISECOND);
            sleep(10 * SECOND).await;
            let dead = world.store.now();
            for number in 0..600 {
                let forged = naming(&record, REFUSED + number % versions);
                world.begin_decrypt("mallory", &forged);
                sleep(100 * MILLISECOND).await;
                assert!(world.metastore_is_down(), "{case}: {number}");
            }
            let asked = world.store.log().since(dead).that(|asked| !is_refused(asked));
            assert!(asked.most_in_a_second() <= 1, "{case}: {:?}", asked.0);
            assert!(asked.longest_gap() <= STORE_DEADLINE + SECOND, "{case}: {:?}", asked.longest_gap());
            world.store.heal();
            sleep(STORE_DEADLINE + SECOND).await;
            assert!(!world.metastore_is_down(), "{case}");
        }
    }
}

/// Nor do they keep it from being opened.
#[tokio::test(start_paused = true)]
async fn forged_records_that_a_back_end_refuses_keep_no_breaker_from_opening() {
    let world = World::warm(policy(), Limits::production()).await;
    let record = world.encrypt("mallory").await.expect_in(SECOND);
    // What was asked before is too long ago to count.
    sleep(11 * SECOND).await;
    world.store.rule(|asked| if is_refused(asked) { Reply::Refuse } else { DOWN });
    for round in 0..5 {
        for number in 0..3 {
            world.begin_decrypt("mallory", &naming(&record, REFUSED + number));
        }
        sleep(10 * MILLISECOND).await;
        // One client alone: without the refused there are no others to wait for.
        assert!(world.encrypt("p").await.outcome.is_err(), "{round}");
        sleep(SECOND).await;
    }
    assert!(world.metastore_is_down());
}
