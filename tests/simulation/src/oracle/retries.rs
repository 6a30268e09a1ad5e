//! How often a back end is asked the same (S0.6), and how often those in trouble are (§6).

use std::time::Duration;

use tokio::time::Instant;

use crate::plan::Road;
use crate::world::World;

/// What became of the last call of a subject.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Last {
    attempt: u32,
    asked: Instant,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It is under way.
    None,
    Answered,
    Failed,
    /// Nobody waits for it any more: it took too long, or its caller went away with it.
    Dropped,
}

const TROUBLE_PERIOD: Duration = Duration::from_secs(1);

/// A call begins.
pub(crate) fn asked(world: &mut World, who: usize, subject: &str, attempt: u32) {
    // A call for many is no subject: its failure speaks against none of them.
    if who >= world.settings.processes || subject.contains("_many") {
        return;
    }
    let now = Instant::now();
    let most = world.settings.attempts;
    if attempt > most {
        world
            .violate("retries_keep_to_their_budget", format!("{who} asks {subject} for the {attempt}. time"));
    }
    let key = (who, world.life(who), subject.to_owned());
    let last = world.last_calls.get(&key).copied();
    if let Some(last) = last.filter(|last| last.end == End::Failed && last.attempt >= most && attempt == 1)
        && now - last.asked < TROUBLE_PERIOD
        && world.served.get(&who).is_none_or(|served| *served < last.asked)
    {
        let what = format!("{who} asks {subject} {:?} after it failed for good", now - last.asked);
        world.violate("those_in_trouble_are_asked_once_a_second", what);
    }
    world.last_calls.insert(key, Last { attempt, asked: now, end: End::None });
}

/// It was answered, if only by a refusal.
pub(crate) fn answered(world: &mut World, who: usize, road: Road, subject: &str) {
    end(world, who, subject, End::Answered);
    if road != Road::Replica {
        world.served.insert(who, Instant::now());
    }
}

/// It failed in a way that may pass.
pub(crate) fn failed(world: &mut World, who: usize, subject: &str) {
    end(world, who, subject, End::Failed);
}

pub(crate) fn dropped(world: &mut World, who: usize, subject: &str) {
    end(world, who, subject, End::Dropped);
}

fn end(world: &mut World, who: usize, subject: &str, end: End) {
    let key = (who, world.life(who), subject.to_owned());
    if let Some(last) = world.last_calls.get_mut(&key) {
        last.end = end;
    }
}
