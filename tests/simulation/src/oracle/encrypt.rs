//! Which keys may encrypt, and when an encrypt may fail.

use claviger::{Error, KeyMeta};
use tokio::time::Instant;

use super::{
    Asked, before, has_jumped_since, in_time, is_calm, is_closed, is_ending, is_explained_by_losses,
    store_is_well, with_parent,
};
use crate::settings::ms;
use crate::world::{Sealed, World};

/// An encrypt returned a record.
pub(crate) fn returned(world: &mut World, asked: &Asked, sealed: &Sealed) {
    let key = &sealed.key;
    in_time(world, asked);
    if world.table.parent(key).is_none() {
        let what = format!("{} used {}, whose row never was", asked.who, crate::short(key));
        world.violate("keys_are_used_after_their_rows_are_durable", what);
    }
    let keys = with_parent(world, key);
    for of in &keys {
        revocation_bound(world, asked, key, of);
        what_was_told(world, asked, key, of);
    }
    let now = Instant::now();
    let seen = world.machines.get_mut(asked.who).filter(|seen| seen.life == asked.life);
    if let Some(seen) = seen {
        seen.latest.insert(asked.partition.clone(), (key.clone(), now));
        seen.served.insert(key.clone(), now);
    }
}

/// T6.1. `of` is the key or its parent.
fn revocation_bound(world: &mut World, asked: &Asked, key: &KeyMeta, of: &KeyMeta) {
    let since = world.table.unusable_since(of, Instant::now());
    let Some(since) = since.filter(|since| *since <= asked.at) else { return };
    let (interval, late) = (world.settings.interval(), asked.at - since);
    let operation = world.settings.operation_deadline();
    let most = (interval + world.settings.stale_encrypt()).max(operation);
    let what = format!(
        "{} used {} though {} was revoked or gone {late:?} before",
        asked.who,
        crate::short(key),
        crate::short(of)
    );
    if late > most {
        world.violate("revocation_bound_in_any_weather", what);
        return;
    }
    if !store_is_well(world, asked) {
        return;
    }
    let told = told(world, asked, of).is_some_and(|told| told >= since && told < asked.at);
    if interval.is_zero() && !late.is_zero() {
        world.violate("interval_of_zero_asks_on_every_call", what);
    } else if told {
        world.violate("invalidated_keys_are_checked_before_use", what);
    } else if late > interval + operation {
        world.violate("revocation_bound", what);
    }
}

/// Returns when the process was last told that rows of the key may have changed.
fn told(world: &World, asked: &Asked, of: &KeyMeta) -> Option<Instant> {
    let seen = world.machines.get(asked.who)?;
    seen.told.get(of.id()).copied().max(seen.told_all)
}

/// T1.2: what a process knows to be revoked it never uses, whatever fails.
fn what_was_told(world: &mut World, asked: &Asked, key: &KeyMeta, of: &KeyMeta) {
    let Some(told) = world.calls.told_revoked(asked.who, of) else { return };
    // A key that is made anew in its minute has the name of the one before, and no more of it.
    if told < asked.at && !world.table.was_ever_gone(of) {
        let ago = asked.at - told;
        let (who, key, of) = (asked.who, crate::short(key), crate::short(of));
        world.violate(
            "keys_known_to_be_revoked_never_encrypt",
            format!("{who} used {key}; it was told {ago:?} before that {of} is revoked"),
        );
    }
}

/// An encrypt returned an error.
pub(crate) fn failed(world: &mut World, asked: &Asked, error: &Error) {
    in_time(world, asked);
    if is_closed(world, asked) && matches!(error, Error::Closed | Error::Interrupted { .. }) {
        return;
    }
    if is_explained_by_losses(world, error) {
        return;
    }
    let what = format!("{} cannot encrypt {}: {error}", asked.who, asked.partition);
    if is_calm(world, asked) && !matches!(error, Error::Overloaded { .. }) {
        world.violate("nothing_fails_in_calm_weather", what);
    } else if is_owed(world, asked) {
        world.violate("availability_bound", what);
    }
}

/// T6.2: a total outage began when the partition's key was cached and lately checked.
fn is_owed(world: &World, asked: &Asked) -> bool {
    let (settings, who) = (&world.settings, asked.who);
    let Some(seen) = world.machines.get(who) else { return false };
    let Some(dark) = seen.dark_since.filter(|dark| *dark <= asked.at) else { return false };
    let Some((key, used)) = seen.latest.get(&asked.partition) else { return false };
    let checked: Option<Vec<_>> =
        with_parent(world, key).iter().map(|key| world.calls.last_read(who, key)).collect();
    let Some(checked) = checked.and_then(|checked| checked.into_iter().min()) else { return false };
    let was_dark_in_time = asked.at <= dark + settings.stale_encrypt();
    let was_checked = !settings.interval().is_zero()
        && checked <= dark
        && dark - checked < settings.interval()
        && *used >= checked;
    let was_well = !was_troubled_between(world, who, checked, dark);
    let is_idle = settings.idle > 0 && used.elapsed() >= ms(settings.idle);
    let is_good = with_parent(world, key).iter().all(|key| {
        world.table.unusable_since(key, Instant::now()).is_none()
            && world.calls.told_revoked(who, key).is_none()
            && !is_ending(world, who, key)
    });
    was_dark_in_time
        && was_checked
        && was_well
        && is_good
        && !is_idle
        && settings.capacity >= 100
        && settings.wraps >= 1 << 28
        && !has_jumped_since(world, who, before(world, checked, ms(1)))
}

fn was_troubled_between(world: &World, who: usize, from: Instant, to: Instant) -> bool {
    world.calls.first_bad_since(who, &super::ALL, from).is_some_and(|bad| bad < to)
}
