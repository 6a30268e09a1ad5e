//! What claviger measures: [`METRICS`] is the table of it.
//!
//! It goes to the recorder of the crate `metrics` that is installed when a factory is built: install an exporter
//! before. With none it costs about nothing. What to watch is in `docs/observability.md`.
//!
//! ```
//! let durations: Vec<_> = claviger::telemetry::METRICS
//!     .iter()
//!     .map(|metric| metric.name)
//!     .filter(|name| name.ends_with("_duration_seconds"))
//!     .collect();
//! assert!(durations.contains(&"claviger_operation_duration_seconds"));
//! ```

pub(crate) mod calls;
pub(crate) mod gauges;
pub(crate) mod keys;
pub(crate) mod loads;
pub(crate) mod operations;
mod outcome;
mod scope;
pub(crate) mod table;
pub(crate) mod way;

use std::sync::Arc;
use std::time::Duration;

use claviger_memory::{ForkSentinel, Stats};
use metrics::{Counter, Gauge};

use self::calls::Calls;
use self::keys::KeyMetrics;
use self::loads::LoadMetrics;
use self::operations::Operations;
use self::scope::Scope;
pub use self::table::{DURATION_BUCKETS, METRICS, Metric, MetricKind, MetricUnit};
pub(crate) use self::way::Way;
use self::way::WayGauges;
use crate::clock::Clock;
use crate::record::KeyId;

/// How often what no event updates is reported.
pub(crate) const REPORT_PERIOD: Duration = Duration::from_secs(5);

/// All that one factory records.
#[derive(Debug)]
pub(crate) struct Telemetry {
    operations: Operations,
    calls: Arc<Calls>,
    keys: Arc<KeyMetrics>,
    loads: LoadMetrics,
    snapshot: SnapshotGauges,
    scope: Scope,
}

/// How a factory is at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) memory: Stats,
    /// As the metric has it.
    pub(crate) health: u8,
    pub(crate) lost_rows: usize,
    pub(crate) incomplete_keys: usize,
}

#[derive(Debug)]
struct SnapshotGauges {
    locked: Gauge,
    unlocked: Gauge,
    health: Gauge,
    lost_rows: Gauge,
    incomplete_keys: Gauge,
}

impl Telemetry {
    pub(crate) fn new(system_key: &KeyId, clock: &Arc<dyn Clock>, sentinel: &Arc<ForkSentinel>) -> Arc<Self> {
        scope::describe();
        let scope = Scope::of_factory(system_key);
        Arc::new(Self {
            operations: Operations::new(&scope, Arc::clone(sentinel)),
            calls: Arc::new(Calls::of_factory(&scope, Arc::clone(clock))),
            keys: Arc::new(KeyMetrics::new(&scope)),
            loads: LoadMetrics::new(&scope),
            snapshot: SnapshotGauges::new(&scope),
            scope,
        })
    }

    #[inline]
    pub(crate) const fn operations(&self) -> &Operations {
        &self.operations
    }

    pub(crate) const fn calls(&self) -> &Arc<Calls> {
        &self.calls
    }

    pub(crate) const fn keys(&self) -> &Arc<KeyMetrics> {
        &self.keys
    }

    pub(crate) const fn loads(&self) -> &LoadMetrics {
        &self.loads
    }

    pub(crate) fn way(&self, way: Way) -> Arc<WayGauges> {
        Arc::new(WayGauges::new(&self.scope, way))
    }

    pub(crate) fn show_waiting_limit(&self, waiting_max: usize) {
        self.loads.show_limit(waiting_max);
    }

    /// What counts an event of this name.
    pub(crate) fn event(&self, name: &'static str) -> Counter {
        self.scope.counter(&table::EVENTS, &[("event", name)])
    }

    /// Shows how many sources there are; returns what shows how many of them are connected.
    pub(crate) fn sources(&self, sources: usize) -> Gauge {
        self.scope.gauge(&table::SOURCES, &[]).set(as_f64(sources));
        self.scope.gauge(&table::SOURCES_CONNECTED, &[])
    }

    pub(crate) fn count_invalidation(&self, message: &'static str) {
        self.scope.counter(&table::INVALIDATIONS, &[("message", message)]).increment(1);
    }

    pub(crate) fn count_warmed_up(&self, result: &'static str, partitions: usize) {
        let counter = self.scope.counter(&table::WARMED_UP, &[("result", result)]);
        counter.increment(u64::try_from(partitions).unwrap_or(u64::MAX));
    }

    /// Reports what no event updates.
    pub(crate) fn report(&self, snapshot: &Snapshot) {
        self.operations.report();
        self.snapshot.show(snapshot);
    }

    /// Reports for the last time: of what is gone nothing is shown.
    pub(crate) fn end(&self) {
        self.report(&Snapshot::default());
    }
}

impl SnapshotGauges {
    fn new(scope: &Scope) -> Self {
        let memory = |state| scope.gauge(&table::MEMORY, &[("state", state)]);
        Self {
            locked: memory("locked"),
            unlocked: memory("unlocked"),
            health: scope.gauge(&table::HEALTH, &[]),
            lost_rows: scope.gauge(&table::LOST_ROWS, &[]),
            incomplete_keys: scope.gauge(&table::INCOMPLETE_KEYS, &[]),
        }
    }

    fn show(&self, snapshot: &Snapshot) {
        let Snapshot {
            memory: Stats { locked_bytes, unlocked_bytes, .. },
            health,
            lost_rows,
            incomplete_keys,
        } = *snapshot;
        self.locked.set(as_f64(locked_bytes));
        self.unlocked.set(as_f64(unlocked_bytes));
        self.health.set(health);
        self.lost_rows.set(as_f64(lost_rows));
        self.incomplete_keys.set(as_f64(incomplete_keys));
    }
}

/// Exact up to 2^53, beyond which no count gets.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(crate) const fn as_f64(count: usize) -> f64 {
    count as f64
}
