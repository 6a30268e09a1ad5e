//! What a decrypt may say, and when it may fail.

use claviger::Error;
use tokio::time::Instant;

use super::{AFTER_TROUBLE, Asked, before, in_time, is_calm, is_closed, store_is_well, with_parent};
use crate::settings::{OnRevoked, ms};
use crate::world::{Sealed, World};

/// A decrypt returned a plaintext.
pub(crate) fn returned(world: &mut World, asked: &Asked, sealed: &Sealed, plaintext: &[u8]) {
    in_time(world, asked);
    let key = &sealed.key;
    if plaintext != sealed.plaintext {
        world.violate("what_is_decrypted_was_encrypted", crate::short(key));
    }
    bounds(world, asked, sealed);
    let seen = world.machines.get_mut(asked.who).filter(|seen| seen.life == asked.life);
    if let Some(seen) = seen {
        seen.served.insert(key.clone(), Instant::now());
    }
}

/// T6.1: decrypts know of a shredded or revoked key within the bounds.
fn bounds(world: &mut World, asked: &Asked, sealed: &Sealed) {
    let (interval, operation) = (world.settings.interval(), world.settings.operation_deadline());
    let lag = ms(world.settings.replica_lag.unwrap_or_default());
    let most = (interval + world.settings.stale_decrypt()).max(operation) + lag;
    let denies = world.settings.revoked == OnRevoked::Deny;
    let is_well = store_is_well(world, asked);
    for of in with_parent(world, &sealed.key) {
        let now = Instant::now();
        let gone = world.table.gone_since(&of, now);
        let revoked = world.table.revoked_since(&of, now).filter(|_| denies);
        let Some(since) = gone.or(revoked).filter(|since| *since <= asked.at) else { continue };
        let late = asked.at - since;
        let what = format!("{} opened under {} {late:?} after", asked.who, crate::short(&of));
        if late > most {
            world.violate("decrypts_know_of_it_in_any_weather", what);
        } else if is_well && late > interval + operation + lag {
            world.violate("decrypts_know_of_it", what);
        }
    }
}

/// A decrypt returned an error.
pub(crate) fn failed(world: &mut World, asked: &Asked, sealed: &Sealed, error: &Error) {
    in_time(world, asked);
    if is_closed(world, asked) && matches!(error, Error::Closed | Error::Interrupted { .. }) {
        return;
    }
    let keys = with_parent(world, &sealed.key);
    let (now, who) = (Instant::now(), asked.who);
    let what = format!("{who} cannot open under {}: {error}", crate::short(&sealed.key));
    let was_gone = keys.iter().any(|key| world.table.was_ever_gone(key));
    match error {
        // Its row holds another key by now, or nobody has it any more.
        Error::Authentication if !was_gone && !world.has_damage => world.violate("nothing_is_lost", what),
        Error::KeyNotFound(_) => {
            let since = keys.iter().filter_map(|key| world.table.there_since(key, now)).max();
            // That it was not there is remembered for a second, and told by replicas that lag.
            let settled = before(world, asked.at, ms(1_100));
            let is_there = keys.iter().all(|key| world.table.there_since(key, now).is_some());
            if is_there && since.is_some_and(|since| since < settled) {
                world.violate("nothing_is_lost", what);
            }
        }
        Error::KeyRevoked(_) => {
            let is_revoked = keys.iter().any(|key| world.table.was_ever_revoked(key));
            // One that was made anew after its row was lost may have another parent.
            if world.settings.revoked != OnRevoked::Deny || !(is_revoked || was_gone) {
                world.violate("only_revoked_keys_are_denied", what);
            }
        }
        Error::Authentication | Error::Overloaded { .. } => {}
        _ if is_calm(world, asked) => world.violate("nothing_fails_in_calm_weather", what),
        _ if is_owed(world, asked, sealed) => world.violate("availability_bound", what),
        _ => {}
    }
}

/// T6.2: a total outage began when the key was cached and lately checked.
fn is_owed(world: &World, asked: &Asked, sealed: &Sealed) -> bool {
    let (settings, who, key) = (&world.settings, asked.who, &sealed.key);
    let Some(seen) = world.machines.get(who) else { return false };
    let Some(dark) = seen.dark_since.filter(|dark| *dark <= asked.at) else { return false };
    let Some(served) = seen.served.get(key) else { return false };
    let checked: Option<Vec<_>> =
        with_parent(world, key).iter().map(|key| world.calls.last_read(who, key)).collect();
    let Some(checked) = checked.and_then(|checked| checked.into_iter().min()) else { return false };
    let was_checked = !settings.interval().is_zero()
        && checked <= dark
        && dark - checked < settings.interval()
        && *served >= checked;
    let first_bad = world.calls.first_bad_since(who, &super::ALL, before(world, checked, AFTER_TROUBLE));
    let is_idle = settings.idle > 0 && served.elapsed() >= ms(settings.idle);
    let is_there = with_parent(world, key).iter().all(|key| !world.table.was_ever_gone(key));
    asked.at <= dark + settings.stale_decrypt()
        && was_checked
        && first_bad.is_none_or(|bad| bad >= dark)
        && is_there
        && !is_idle
        && settings.capacity >= 100
        && !super::has_jumped_since(world, who, before(world, checked, ms(1)))
}
