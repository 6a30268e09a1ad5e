//! How a status is serialised: operators' programs rely on it.

use std::time::Duration;

use claviger_memory::Stats;
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::{Health, IncompleteKey, LostRow, Status, WayStatus};
use crate::events::Event;
use crate::keyring::orphans::Orphan;
use crate::record::KeyMeta;

#[derive(serde::Serialize)]
struct Shape<'a> {
    health: Health,
    intermediate_keys: usize,
    system_keys: usize,
    orphans: Vec<OrphanShape<'a>>,
    loads: usize,
    memory: MemoryShape,
    events: Events<'a>,
    incomplete_keys: Vec<IncompleteKeyShape<'a>>,
    metastore_down: bool,
    metastore_read_only: bool,
    replica_down: bool,
    kms_down: bool,
    lost_rows: Vec<LostRowShape<'a>>,
    dependencies: Vec<DependencyShape>,
    sources_connected: &'a [bool],
    sources_lost: usize,
    closed: bool,
}

#[derive(serde::Serialize)]
struct KeyShape<'a> {
    id: &'a str,
    created: i64,
}

#[derive(serde::Serialize)]
struct OrphanShape<'a> {
    key: KeyShape<'a>,
    age_seconds: f64,
    cause: &'static str,
}

#[derive(serde::Serialize)]
struct MemoryShape {
    slots: usize,
    regions: usize,
    mapped_bytes: usize,
    locked_bytes: usize,
    unlocked_bytes: usize,
    lock_refused: bool,
    dump_exclusion_refused: bool,
    fork_wipe_refused: bool,
}

#[derive(serde::Serialize)]
struct IncompleteKeyShape<'a> {
    key: KeyShape<'a>,
    missing: &'a [String],
}

#[derive(serde::Serialize)]
struct LostRowShape<'a> {
    key: KeyShape<'a>,
    age_seconds: f64,
}

#[derive(serde::Serialize)]
struct DependencyShape {
    dependency: &'static str,
    down: bool,
    failures: u64,
    since_good_answer_seconds: Option<f64>,
}

/// All events there are, with how often each was raised.
struct Events<'a>(&'a [(Event, u64)]);

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let shape = Shape {
            health: self.health(),
            intermediate_keys: self.intermediate_keys,
            system_keys: self.system_keys,
            orphans: self.orphans.iter().map(OrphanShape::of).collect(),
            loads: self.loads,
            memory: MemoryShape::of(&self.memory),
            events: Events(&self.events),
            incomplete_keys: self.incomplete_keys.iter().map(IncompleteKeyShape::of).collect(),
            metastore_down: self.metastore_down,
            metastore_read_only: self.metastore_read_only,
            replica_down: self.replica_down,
            kms_down: self.kms_down,
            lost_rows: self.lost_rows.iter().map(LostRowShape::of).collect(),
            dependencies: self.dependencies.iter().map(DependencyShape::of).collect(),
            sources_connected: &self.sources_connected,
            sources_lost: self.sources_lost,
            closed: self.closed,
        };
        shape.serialize(serializer)
    }
}

impl Serialize for Events<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Event::ALL.len()))?;
        for event in Event::ALL {
            let count = self.0.iter().find(|(raised, _)| raised == event).map_or(0, |(_, count)| *count);
            map.serialize_entry(event.name(), &count)?;
        }
        map.end()
    }
}

impl Serialize for crate::telemetry::Way {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'a> KeyShape<'a> {
    fn of(key: &'a KeyMeta) -> Self {
        Self { id: key.id().as_str(), created: key.created().unix_seconds() }
    }
}

impl<'a> OrphanShape<'a> {
    fn of(orphan: &'a Orphan) -> Self {
        let Orphan { key, age, cause } = orphan;
        Self { key: KeyShape::of(key), age_seconds: age.as_secs_f64(), cause: cause.name() }
    }
}

impl MemoryShape {
    const fn of(stats: &Stats) -> Self {
        Self {
            slots: stats.slots,
            regions: stats.regions,
            mapped_bytes: stats.mapped_bytes,
            locked_bytes: stats.locked_bytes,
            unlocked_bytes: stats.unlocked_bytes,
            lock_refused: stats.lock_refused,
            dump_exclusion_refused: stats.dump_exclusion_refused,
            fork_wipe_refused: stats.fork_wipe_refused,
        }
    }
}

impl<'a> IncompleteKeyShape<'a> {
    fn of(key: &'a IncompleteKey) -> Self {
        let IncompleteKey { key, missing } = key;
        Self { key: KeyShape::of(key), missing }
    }
}

impl<'a> LostRowShape<'a> {
    fn of(row: &'a LostRow) -> Self {
        Self { key: KeyShape::of(&row.key), age_seconds: row.age.as_secs_f64() }
    }
}

impl DependencyShape {
    fn of(status: &WayStatus) -> Self {
        let WayStatus { way, down, failures, since_good_answer } = status;
        Self {
            dependency: way.name(),
            down: *down,
            failures: *failures,
            since_good_answer_seconds: since_good_answer.as_ref().map(Duration::as_secs_f64),
        }
    }
}
