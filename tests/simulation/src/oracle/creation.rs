//! When a key may be made.

use claviger::{Created, EnvelopeKeyRecord};
use tokio::time::Instant;

use super::{before, has_jumped_since, is_ending, with_parent};
use crate::settings::ms;
use crate::world::World;

/// A row arrives at the store. No key is made where a good one has been there since before the load that makes it
/// began (T2).
pub(crate) fn inserted(world: &mut World, who: usize, record: &EnvelopeKeyRecord) {
    let (now, id) = (Instant::now(), record.meta().id());
    let begun = before(world, now, world.settings.operation_deadline() + ms(4_000));
    if begun <= world.began || who >= world.settings.processes {
        return;
    }
    let Some(latest) = world.table.latest(id, Created::MAX, begun) else { return };
    let key = latest.record.meta();
    // Of a later one some process may know more.
    if key >= record.meta() || world.table.newest_ever(id) != Some(key) {
        return;
    }
    let is_good = |key| {
        !world.table.was_ever_gone(key) && !world.table.was_ever_revoked(key) && !is_ending(world, who, key)
    };
    let is_needed = world.settings.wraps < 1 << 28
        || has_jumped_since(world, who, begun)
        // It is put back, or was made by another process meanwhile.
        || world.table.was_ever_there(record.meta());
    if with_parent(world, key).iter().all(is_good) && !is_needed {
        let (made, good) = (crate::short(record.meta()), crate::short(key));
        world.violate("no_key_is_made_where_there_is_a_good_one", format!("{who} made {made} beside {good}"));
    }
}
