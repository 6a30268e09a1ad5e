//! What must hold of each answer. Each rule is named after what it shows; a violation says which, and where.

pub(crate) mod at_rest;
pub(crate) mod creation;
pub(crate) mod decrypt;
pub(crate) mod encrypt;
pub(crate) mod retries;

use std::time::Duration;

use claviger::{Clock as _, Error, KeyMeta};
use tokio::time::Instant;

use crate::operator;
use crate::plan::Road;
use crate::settings::ms;
use crate::world::World;

/// An operation: whose, for which partition, and when it began.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) who: usize,
    /// Which of the process's lives it belongs to.
    pub(crate) life: u64,
    pub(crate) partition: String,
    pub(crate) at: Instant,
}

const STORE: [Road; 1] = [Road::Reads];
const ALL: [Road; 4] = [Road::Reads, Road::Writes, Road::Replica, Road::Kms];

/// How long trouble of a key, or of a back end, is felt at most after the last call that was not well.
const AFTER_TROUBLE: Duration = Duration::from_secs(61);

/// Returns `true` if the store answered all reads in time while the operation ran, and for a while before:
/// long enough that nothing is kept from being asked.
fn store_is_well(world: &World, asked: &Asked) -> bool {
    let from = before(world, asked.at, ms(2_000));
    let is_calm = world.is_calm_since(asked.who, Road::Reads, from);
    is_calm && rows_are_calm(world, asked, from) && !world.calls.are_bad_since(asked.who, &STORE, from, true)
}

fn rows_are_calm(world: &World, asked: &Asked, from: Instant) -> bool {
    world.are_rows_calm_since(&operator::key_of(&asked.partition), from)
}

/// Returns `true` if nothing was wrong for so long that no trouble is remembered. That other partitions' rows are
/// hanging, slow or refused is no excuse (T6.3).
fn is_calm(world: &World, asked: &Asked) -> bool {
    let from = before(world, asked.at, AFTER_TROUBLE);
    ALL.iter().all(|road| world.is_calm_since(asked.who, *road, from))
        && rows_are_calm(world, asked, from)
        && !world.calls.are_bad_since(asked.who, &ALL, from, false)
        && !has_jumped_since(world, asked.who, from)
}

fn before(world: &World, moment: Instant, span: Duration) -> Instant {
    moment.checked_sub(span).map_or(world.began, |then| then.max(world.began))
}

fn has_jumped_since(world: &World, who: usize, from: Instant) -> bool {
    world.machines.get(who).and_then(|seen| seen.jumped).is_some_and(|jumped| jumped >= from)
}

/// Returns the key and the one it is wrapped by.
pub(crate) fn with_parent(world: &World, key: &KeyMeta) -> Vec<KeyMeta> {
    std::iter::once(key).chain(world.table.parent(key)).cloned().collect()
}

/// Returns `true` if the key's life is over by this process's clock, or nearly.
pub(crate) fn is_ending(world: &World, who: usize, key: &KeyMeta) -> bool {
    let Some(seen) = world.machines.get(who) else { return true };
    let life = Duration::from_secs(world.settings.expire_seconds);
    let created = Duration::from_secs(key.created().unix_seconds().unsigned_abs());
    seen.clock.wall() > created + life / 100 * 95
}

/// Returns `true` if the operation's factory was closed: operations under way are refused then.
fn is_closed(world: &World, asked: &Asked) -> bool {
    world.machines.get(asked.who).is_none_or(|seen| seen.is_closed || seen.life != asked.life)
}

/// Returns `true` if a key may not unwrap. A system key that is made anew in its minute, after its row was lost, does
/// not open what the one before wrapped; nothing is created then (T2.10).
pub(crate) fn is_explained_by_losses(world: &World, error: &Error) -> bool {
    matches!(error, Error::Authentication) && (world.has_damage || world.table.was_any_gone())
}

/// A process's operation took longer than it may.
fn in_time(world: &mut World, asked: &Asked) {
    let took = asked.at.elapsed();
    if took > world.settings.operation_deadline() + ms(100) {
        world.violate("operations_end_by_their_deadline", format!("{} took {took:?}", asked.who));
    }
}
