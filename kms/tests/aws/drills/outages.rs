//! A region that is dead, throttles, hangs, or whose key is taken away: writes and reads go on, what
//! lacks a copy is told and mended, and then that region alone does.

use std::time::Duration;

use claviger::testing::call;
use claviger::{Event, MetastoreAdmin as _, Rewrap, RewrapOptions, repair_system_keys};
use claviger_testkit::{shared_localstack, shared_moto};

use crate::drills::world::{Site, World, assert_reads, missing, raised, write};

#[derive(Clone, Copy, Debug)]
enum Trouble {
    Dead,
    Stalled,
    Throttling,
    KeyDisabled,
    KeyPendingDeletion,
}

impl Trouble {
    async fn begin(self, site: &Site) {
        let (kms, key) = (&site.operator, &site.arn);
        match self {
            Self::Dead => site.die(),
            Self::Stalled => site.stall(),
            Self::Throttling => site.throttle(true),
            Self::KeyDisabled => drop(kms.disable_key().key_id(key).send().await.unwrap()),
            Self::KeyPendingDeletion => {
                let deletion = kms.schedule_key_deletion().key_id(key).pending_window_in_days(7);
                drop(deletion.send().await.unwrap());
            }
        }
    }

    async fn end(self, site: &Site) {
        let (kms, key) = (&site.operator, &site.arn);
        match self {
            Self::Dead | Self::Stalled => site.revive(),
            Self::Throttling => site.throttle(false),
            Self::KeyPendingDeletion => {
                drop(kms.cancel_key_deletion().key_id(key).send().await.unwrap());
                drop(kms.enable_key().key_id(key).send().await.unwrap());
            }
            Self::KeyDisabled => drop(kms.enable_key().key_id(key).send().await.unwrap()),
        }
    }
}

/// Long enough for a busy machine; a region that hangs is waited for so long.
const DEADLINE: Duration = Duration::from_secs(3);
/// Longer than another region takes.
const HEDGE: Duration = Duration::from_millis(500);

/// How long a breaker leaves a region alone, and a key's check counts.
const HOUR: Duration = Duration::from_secs(60 * 60);

async fn drill(endpoint: &'static str, trouble: Trouble, place: usize) {
    let mut world = World::new(endpoint).await;
    if let Trouble::Stalled = trouble {
        world.kms_deadline = DEADLINE;
    }
    let site = &world.sites[place];
    let builder = match trouble {
        Trouble::Stalled => world.builder().hedge_after(HEDGE),
        _ => world.builder(),
    };
    let kms = builder.open().await.unwrap();
    let before = world.process(&kms, "before");
    let old = write(&before, "alice").await;
    assert_eq!(missing(&before), Vec::<Vec<String>>::new());

    trouble.begin(site).await;
    // Under a system key from before: what is there is read, and new partitions are written, by a
    // process that runs and by one that starts.
    let process = world.process(&kms, "before");
    let mut rows = vec![("before", "alice", old)];
    for (process, partition) in [(&before, "bob"), (&process, "carol")] {
        assert_reads(process, "alice", &rows[0].2).await;
        rows.push(("before", partition, write(process, partition).await));
        assert_eq!((raised(process, Event::CopiesMissing), missing(process).len()), (0, 0));
    }
    // Under one that is made now.
    let during = world.process(&kms, "during");
    rows.push(("during", "dave", write(&during, "dave").await));
    let degraded = &rows[3].2;
    assert_eq!(
        (raised(&during, Event::CopiesMissing), missing(&during)),
        (1, vec![vec![site.region.into()]])
    );
    // Who comes later is told so, too, and reads it.
    let reader = world.process(&kms, "during");
    assert_reads(&reader, "dave", degraded).await;
    assert_eq!(
        (raised(&reader, Event::CopiesMissing), missing(&reader)),
        (1, vec![vec![site.region.into()]])
    );
    // While there is trouble, repair changes nothing.
    let early = repair_system_keys(&world.store, &kms, &RewrapOptions::new()).await.unwrap();
    assert!(!early.is_clean(), "{early:?}");

    trouble.end(site).await;
    world.clock.advance(HOUR);
    let repaired = repair_system_keys(&world.store, &kms, &RewrapOptions::new()).await.unwrap();
    assert!(repaired.is_clean(), "{repaired:?}");
    let done = |id: &str| &repaired.keys.iter().find(|(key, _)| key.id().as_str() == id).unwrap().1;
    assert!(matches!(done("_SK_shop_before"), Rewrap::UpToDate), "{repaired:?}");
    assert!(
        matches!(done("_SK_shop_during"), Rewrap::Rewrapped { missing } if missing.is_empty()),
        "{repaired:?}"
    );
    // The process that made it finds the same key whole at its next check.
    assert_reads(&during, "dave", degraded).await;
    write(&during, "dave").await;
    assert_eq!((raised(&during, Event::KeyChanged), missing(&during).len()), (0, 0));

    for other in world.sites.iter().filter(|other| other.region != site.region) {
        other.die();
    }
    world.clock.advance(HOUR);
    for (product, partition, row) in &rows {
        let process = world.process(&kms, product);
        assert_reads(&process, partition, row).await;
        assert_eq!(missing(&process).len(), 0, "{product}");
    }
}

macro_rules! drills {
    ($server:ident, $endpoint:expr, $($name:ident: $trouble:ident in $place:expr;)+) => {
        mod $server {
            use super::*;

            $(
                #[tokio::test]
                async fn $name() {
                    drill($endpoint, Trouble::$trouble, $place).await;
                }
            )+
        }
    };
}

drills! { localstack, shared_localstack(),
    the_preferred_region_is_dead: Dead in 0;
    the_preferred_region_hangs: Stalled in 0;
    the_preferred_region_throttles: Throttling in 0;
    the_preferred_regions_key_is_disabled: KeyDisabled in 0;
    the_preferred_regions_key_is_pending_deletion: KeyPendingDeletion in 0;
    another_region_is_dead: Dead in 1;
    another_region_hangs: Stalled in 2;
    another_region_throttles: Throttling in 1;
    another_regions_key_is_disabled: KeyDisabled in 2;
    another_regions_key_is_pending_deletion: KeyPendingDeletion in 1;
}

// Which does not know the states of keys.
drills! { moto, shared_moto(),
    the_preferred_region_is_dead: Dead in 0;
    the_preferred_region_hangs: Stalled in 0;
    the_preferred_region_throttles: Throttling in 0;
    another_region_is_dead: Dead in 2;
    another_region_hangs: Stalled in 1;
    another_region_throttles: Throttling in 2;
}

/// Slow, but up: it is not waited for where another region will do, and its copy is made where all
/// are to be.
async fn slow(endpoint: &'static str) {
    let world = World::new(endpoint).await;
    let kms = world.builder().hedge_after(HEDGE).open().await.unwrap();
    let old = write(&world.process(&kms, "before"), "alice").await;
    world.sites[0].slow_down(Duration::from_secs(2));
    world.forget();
    assert_reads(&world.process(&kms, "before"), "alice", &old).await;
    assert_eq!(world.asked()[1], ["Decrypt"]);
    let writer = world.process(&kms, "during");
    let new = write(&writer, "bob").await;
    assert_eq!((raised(&writer, Event::CopiesMissing), missing(&writer).len()), (0, 0));
    // Its own copy serves.
    world.sites[1..].iter().for_each(Site::die);
    assert_reads(&world.process(&kms, "during"), "bob", &new).await;
}

#[tokio::test]
async fn localstack_a_slow_region_makes_its_copy_and_holds_up_no_read() {
    slow(shared_localstack()).await;
}

#[tokio::test]
async fn moto_a_slow_region_makes_its_copy_and_holds_up_no_read() {
    slow(shared_moto()).await;
}

/// The preferred region never answers, and nothing but the hedge could end the wait for it: no
/// deadline comes while a test runs.
async fn hedged(endpoint: &'static str) {
    let world = World::new(endpoint).await;
    // Longer than a busy machine holds up the others, of which a single late answer would be counted.
    let kms = world.builder().hedge_after(HEDGE * 4).open().await.unwrap();
    let row = write(&world.process(&kms, "before"), "alice").await;
    let start = async || assert_reads(&world.process(&kms, "before"), "alice", &row).await;
    let east = &world.sites[0];
    east.stall();
    for second in 1..=3 {
        world.forget();
        start().await;
        assert!(world.asked()[0].is_empty(), "nothing passed there");
        assert_eq!(world.asked()[1], ["Decrypt"], "second {second}");
        // The call that lost was dropped, with its connection.
        east.until_deserted().await;
        // Nobody waits for it again before a second is over.
        let connections = east.way.accepted();
        for _ in 0..10 {
            start().await;
        }
        assert_eq!((east.way.accepted(), world.asked()[1].len()), (connections, 11));
        world.clock.advance(Duration::from_secs(1));
    }
    east.revive();
    world.forget();
    start().await;
    assert_eq!(world.asked()[0], ["Decrypt"], "the preferred region is preferred again");
}

#[tokio::test]
async fn localstack_the_hedge_answers_for_a_region_that_hangs_and_the_loser_is_cancelled() {
    hedged(shared_localstack()).await;
}

#[tokio::test]
async fn moto_the_hedge_answers_for_a_region_that_hangs_and_the_loser_is_cancelled() {
    hedged(shared_moto()).await;
}

/// With all regions dead, who has the keys goes on and who starts errs, for a while; nothing is stored
/// that could not be read, and nothing has to be done when they are back.
#[tokio::test]
async fn all_regions_are_dead_and_nothing_is_lost() {
    let world = World::new(shared_localstack()).await;
    let kms = world.kms().await;
    let running = world.process(&kms, "before");
    let row = write(&running, "alice").await;
    world.sites.iter().for_each(Site::die);
    assert_reads(&running, "alice", &row).await;
    let another = write(&running, "bob").await;
    let (starting, new) = (world.process(&kms, "before"), world.process(&kms, "during"));
    let refused = starting.session("alice").unwrap().decrypt(&row).await.unwrap_err();
    assert!(refused.is_retryable(), "{refused:?}");
    let refused = new.session("carol").unwrap().encrypt(b"carol").await.unwrap_err();
    assert!(refused.is_retryable(), "{refused:?}");
    // The system key of the first product, and its two partitions'.
    assert_eq!(world.store.count(&call()).await.unwrap(), 3);
    world.sites.iter().for_each(Site::revive);
    world.clock.advance(Duration::from_secs(1));
    assert_reads(&starting, "bob", &another).await;
    write(&new, "carol").await;
    assert_eq!(missing(&new).len(), 0);
}

#[tokio::test]
async fn with_min_regions_a_system_key_with_too_few_copies_is_not_stored() {
    let world = World::new(shared_localstack()).await;
    let kms = world.builder().min_regions(3).open().await.unwrap();
    let row = write(&world.process(&kms, "before"), "alice").await;
    world.sites[2].die();
    let process = world.process(&kms, "during");
    let refused = process.session("bob").unwrap().encrypt(b"bob").await.unwrap_err();
    assert!(refused.is_retryable(), "{refused:?}");
    assert_eq!(world.store.count(&call()).await.unwrap(), 2, "those from before");
    // It is about wraps alone.
    assert_reads(&world.process(&kms, "before"), "alice", &row).await;
    world.sites[2].revive();
    world.clock.advance(Duration::from_secs(1));
    write(&process, "bob").await;
    assert_eq!((raised(&process, Event::CopiesMissing), missing(&process).len()), (0, 0));
}
