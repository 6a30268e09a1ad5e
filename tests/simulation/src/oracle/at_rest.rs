//! What must hold of a process at each moment, and when it is at rest.

use claviger::{Event, SessionFactory};

use crate::world::{Shared, World};

/// Looks at what a process holds.
pub(crate) fn look(world: &Shared, who: usize, factory: &SessionFactory) {
    let Ok(status) = factory.status() else { return };
    let mut world = world.lock();
    let under_way = world.machines.get(who).map_or(0, |seen| seen.operations);
    let (cached, orphans) = (status.intermediate_keys + status.system_keys, status.orphans.len());
    let live = status.memory.slots;
    let most = usize::try_from(world.settings.capacity).unwrap_or(usize::MAX) * 11 / 10;
    let most_system = 110;
    if live > most + most_system + status.loads * 2 + under_way {
        let what =
            format!("{who} holds {live} keys: {cached} cached, {orphans} orphans, {under_way} operations");
        world.violate("cache_is_bounded", what);
    }
    // A load under way holds keys that are neither.
    if status.loads == 0 && under_way == 0 && live != cached + orphans {
        let what = format!("{who} holds {live} keys: {cached} cached, {orphans} orphans");
        world.violate("live_keys_are_the_cached_ones_and_the_orphans", what);
    }
    alarms(&mut world, who, &status.events);
}

/// An alarm says that somebody tampered with rows. Nobody does here; but a key that is made anew in its minute, after
/// its row was lost, is another key, and a back end may say that what it holds is damaged.
fn alarms(world: &mut World, who: usize, events: &[(Event, u64)]) {
    let mut expected = Vec::new();
    if world.has_damage {
        expected.extend([Event::Malformed, Event::Tampered]);
    }
    if world.table.was_any_gone() {
        expected.push(Event::Tampered);
    }
    let alarms =
        [Event::Tampered, Event::Malformed, Event::ForeignParent, Event::Indistinct, Event::FoldedId];
    for event in alarms.into_iter().filter(|event| !expected.contains(event)) {
        if events.iter().any(|(raised, _)| *raised == event) {
            world.violate("no_alarm_is_false", format!("{who} raised {event}"));
        }
    }
}

/// Looks at what a closed process has left.
pub(crate) fn look_after_close(world: &Shared, who: usize, factory: &SessionFactory) {
    let Ok(status) = factory.status() else { return };
    let live = status.memory.slots;
    if live > 0 || status.loads > 0 || status.intermediate_keys + status.system_keys > 0 {
        let what = format!(
            "{who} left {live} keys ({} and {} cached, {} orphans) and {} loads",
            status.intermediate_keys,
            status.system_keys,
            status.orphans.len(),
            status.loads
        );
        world.lock().violate("nothing_is_left_after_close", what);
    }
}
