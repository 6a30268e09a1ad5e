//! What an operator does to the store, and who hears of it.

use claviger::{Invalidation, KeyId, KeyMeta, RewrapOptions, rewrap_system_keys};
use tokio::time::Instant;

use crate::machine::{Machine, Yard};
use crate::plan::{Mood, Road};
use crate::settings::Settings;
use crate::world::World;
use crate::{PRODUCT, SERVICE};

/// Returns the key of this number in the table; `None` if that is empty.
pub(crate) fn row(world: &World, number: usize) -> Option<KeyMeta> {
    let now = Instant::now();
    let count = world.table.all(now).count();
    let place = number.checked_rem(count)?;
    world.table.all(now).nth(place).map(|row| row.meta().clone())
}

pub(crate) fn intermediate_key(partition: usize) -> KeyId {
    key_of(&Settings::partition(partition))
}

/// Returns the id of a partition's key.
pub(crate) fn key_of(partition: &str) -> KeyId {
    KeyId::new(format!("_IK_{partition}_{SERVICE}_{PRODUCT}"))
}

/// Marks a row revoked, and says so.
pub(crate) fn revoke(yard: &Yard, machines: &[Option<Machine>], number: usize) {
    let mut world = yard.world.lock();
    let Some(key) = row(&world, number) else { return };
    if world.table.revoke(&key, Instant::now()) {
        world.tell(&format!("operator revokes {}", crate::short(&key)));
        drop(world);
        push(yard, machines, &Invalidation::Key(key.id().clone()));
    }
}

/// A row is gone, and nobody says so.
pub(crate) fn lose(yard: &Yard, number: usize) {
    let mut world = yard.world.lock();
    let Some(key) = row(&world, number) else { return };
    world.table.delete(&key, Instant::now());
    world.tell(&format!("the store loses {}", crate::short(&key)));
}

/// Deletes a partition's keys for good, after all were told.
pub(crate) fn shred(yard: &Yard, machines: &[Option<Machine>], partition: usize) {
    let id = intermediate_key(partition);
    for machine in machines.iter().flatten() {
        // One that closes has no keys to forget.
        drop(machine.factory.shredded(&id));
    }
    let mut world = yard.world.lock();
    let now = Instant::now();
    let keys: Vec<_> =
        world.table.all(now).map(|row| row.meta().clone()).filter(|key| *key.id() == id).collect();
    for key in &keys {
        world.table.delete(key, now);
    }
    world.tell(&format!("operator shreds {id}"));
}

/// Wraps the system keys anew by this master key, which new ones are wrapped by from then on.
pub(crate) async fn rewrap(yard: &Yard, machines: &[Option<Machine>], master: usize) {
    yard.world.lock().master = master;
    let operator = yard.link(yard.settings.processes);
    let from = operator.with_master(1 - master.min(1));
    let options = RewrapOptions::new();
    let said = match rewrap_system_keys(&operator, &from, &operator.with_master(master), &options).await {
        Ok(report) => format!("operator rewrapped by {master}: {report:?}"),
        Err(error) => format!("operator cannot rewrap: {error}"),
    };
    yard.world.tell(said);
    push(yard, machines, &Invalidation::Everything);
}

/// Sends a message to all whom it reaches.
fn push(yard: &Yard, machines: &[Option<Machine>], message: &Invalidation) {
    for machine in machines.iter().flatten() {
        if yard.world.lock().mood(machine.who, Road::Push) == Mood::Calm {
            // One without a source reads none.
            drop(machine.push.send(message.clone()));
        }
    }
}
