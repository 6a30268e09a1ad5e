//! All metrics there are, in one table. `docs/observability.md` says of each what to make of it.

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How often which values were seen.
    Histogram,
}

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MetricUnit {
    /// Things, one by one.
    Count,
    /// Seconds. Of a `_timestamp_seconds`, since the Unix epoch.
    Seconds,
    /// Bytes.
    Bytes,
    /// 1 for yes, 0 for no, or what its help says.
    State,
}

/// A metric that claviger records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name, as Prometheus shows it.
    pub name: &'static str,
    /// What kind it is.
    pub kind: MetricKind,
    /// What it counts.
    pub unit: MetricUnit,
    /// The names of its labels. A series may lack the first, `system_key`: what a tool does is no factory's.
    pub labels: &'static [&'static str],
    /// What it says, in a sentence.
    pub help: &'static str,
}

macro_rules! table {
    ($($const:ident: $kind:ident of $unit:ident, $name:literal, [$($label:literal),*], $help:literal;)+) => {
        $(
            #[doc = $help]
            pub(crate) const $const: Metric = Metric {
                name: $name,
                kind: MetricKind::$kind,
                unit: MetricUnit::$unit,
                labels: &[$($label),*],
                help: $help,
            };
        )+

        /// All metrics that claviger records: the core's, and those of `claviger-kms` and `claviger-metastore`.
        pub const METRICS: &[Metric] = &[$($const),+];
    };
}

table! {
    OPERATIONS: Counter of Count, "claviger_operations_total", ["system_key", "operation", "outcome"],
        "Encrypts and decrypts that ended, by how.";
    OPERATION_DURATION: Histogram of Seconds, "claviger_operation_duration_seconds",
        ["system_key", "operation", "path", "outcome"],
        "How long encrypts and decrypts took: of the warm ones, whose key was ready, one in 1024; of the others all.";
    LOOKUPS: Counter of Count, "claviger_cache_lookups_total", ["system_key", "operation", "result"],
        "Encrypts and decrypts by what the cache had for them: hit, stale (a check is awaited) or miss.";
    CACHED_KEYS: Gauge of Count, "claviger_cached_keys", ["system_key", "level"],
        "Key versions in the cache.";
    LIVE_KEYS: Gauge of Count, "claviger_live_keys", ["system_key", "level"],
        "Key versions in memory: those that are cached, those in use besides, and those that are being loaded.";
    ORPHANED_KEYS: Gauge of Count, "claviger_orphaned_keys", ["system_key"],
        "Key versions that left the cache and are still in use.";
    EVICTIONS: Counter of Count, "claviger_cache_evictions_total", ["system_key", "cause"],
        "Key versions that left the cache, by why.";
    MEMORY: Gauge of Bytes, "claviger_memory_bytes", ["system_key", "state"],
        "Protected memory that keys lie in, locked in RAM or not.";
    LOADS: Counter of Count, "claviger_loads_total", ["system_key", "level", "outcome"],
        "Key loads that ended, by how.";
    LOAD_DURATION: Histogram of Seconds, "claviger_load_duration_seconds", ["system_key", "level", "outcome"],
        "How long key loads took.";
    LOADS_UNDER_WAY: Gauge of Count, "claviger_loads", ["system_key", "level"],
        "Key loads under way.";
    WAITING: Gauge of Count, "claviger_waiting_operations", ["system_key"],
        "Operations that wait for a key which is not cached.";
    WAITING_LIMIT: Gauge of Count, "claviger_waiting_operations_limit", ["system_key"],
        "How many operations may wait so; more are refused as overload.";
    CALLS: Counter of Count, "claviger_calls_total", ["system_key", "dependency", "operation", "outcome"],
        "Calls of back ends that ended, each attempt counted, by how.";
    CALL_DURATION: Histogram of Seconds, "claviger_call_duration_seconds",
        ["system_key", "dependency", "operation", "outcome"],
        "How long calls of back ends took, each attempt by itself.";
    RETRIES: Counter of Count, "claviger_call_retries_total", ["system_key", "dependency"],
        "Calls of back ends that were second or later attempts.";
    PERMITS: Gauge of Count, "claviger_permits", ["system_key", "dependency", "class"],
        "Permits to call a back end that are in use.";
    PERMITS_LIMIT: Gauge of Count, "claviger_permits_limit", ["system_key", "dependency", "class"],
        "How many permits there are.";
    QUEUED_CALLS: Gauge of Count, "claviger_queued_calls", ["system_key", "dependency", "class"],
        "Calls of back ends that wait for a permit.";
    BREAKER_OPEN: Gauge of State, "claviger_breaker_open", ["system_key", "dependency"],
        "1 while a back end is taken to be down, and is asked once a second.";
    LAST_ANSWER: Gauge of Seconds, "claviger_last_good_answer_timestamp_seconds", ["system_key", "dependency"],
        "When a back end last did what it was asked for; 0 if it never did.";
    KEY_CHANGES: Counter of Count, "claviger_key_changes_total", ["system_key", "level", "change"],
        "Keys created where there was none, rotated at their end, replaced before it, and found revoked.";
    EVENTS: Counter of Count, "claviger_events_total", ["system_key", "event"],
        "What operators should hear of; docs/runbook.md says what to do.";
    SOURCES: Gauge of Count, "claviger_invalidation_sources", ["system_key"],
        "Invalidation sources that the factory was given.";
    SOURCES_CONNECTED: Gauge of Count, "claviger_invalidation_sources_connected", ["system_key"],
        "Invalidation sources whose last answer was a good one.";
    INVALIDATIONS: Counter of Count, "claviger_invalidations_total", ["system_key", "message"],
        "Messages of invalidation sources, by what they were about.";
    WARMED_UP: Counter of Count, "claviger_warmed_up_partitions_total", ["system_key", "result"],
        "Partitions of warm-ups, by what became of each.";
    HEALTH: Gauge of State, "claviger_health", ["system_key"],
        "0 if the factory is well, 1 if it is degraded, 2 if keys that are not cached cannot be had.";
    LOST_ROWS: Gauge of Count, "claviger_lost_rows", ["system_key"],
        "Rows of keys that were found gone, and can be put back still.";
    INCOMPLETE_KEYS: Gauge of Count, "claviger_incomplete_keys", ["system_key"],
        "System keys that lack copies.";
    REWRAPS: Counter of Count, "claviger_rewraps_total", ["result"],
        "System keys that a rewrap or a repair looked at, by what became of each.";
    COPY_CALLS: Counter of Count, "claviger_kms_copy_calls_total", ["copy", "operation", "outcome"],
        "Calls of one region or member of a KMS that has several.";
    COPY_CALL_DURATION: Histogram of Seconds, "claviger_kms_copy_call_duration_seconds",
        ["copy", "operation", "outcome"],
        "How long calls of one region or member took.";
    COPY_FAILURES: Counter of Count, "claviger_kms_copy_failures_total", ["copy", "class"],
        "Failures of one region or member that an operator is told of.";
    COPY_BREAKER_OPEN: Gauge of State, "claviger_kms_copy_breaker_open", ["copy"],
        "1 while a region or member is taken to be down.";
    MALFORMED_INVALIDATIONS: Counter of Count, "claviger_invalidations_malformed_total", [],
        "Notifications of PostgreSQL that are no key id, and stand for all keys.";
}

/// Bounds of buckets, in seconds, that fit all of claviger's histograms: a warm operation takes microseconds, and
/// one that waits for a key as long as its deadline.
pub const DURATION_BUCKETS: &[f64] = &[
    0.000_001,
    0.000_002_5,
    0.000_005,
    0.000_01,
    0.000_025,
    0.000_05,
    0.000_1,
    0.000_5,
    0.001,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_say_kind_and_unit_and_no_label_is_a_partition() {
        for metric in METRICS {
            let Metric { name, kind, unit, .. } = metric;
            assert!(name.starts_with("claviger_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == MetricKind::Counter, "{name}");
            assert_eq!(name.ends_with("_seconds"), *unit == MetricUnit::Seconds, "{name}");
            assert_eq!(name.ends_with("_bytes"), *unit == MetricUnit::Bytes, "{name}");
            assert!(metric.help.ends_with('.'), "{name}");
            for label in metric.labels {
                assert!(!["partition", "key", "id"].contains(label), "{name}: {label}");
            }
        }
        let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
    }

    #[test]
    fn the_page_on_observability_names_exactly_the_metrics_there_are() {
        let page = include_str!("../../docs/observability.md");
        let named = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let named: Vec<_> =
            named.map(|(name, _)| name).filter(|name| name.starts_with("claviger_")).collect();
        let names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(named, names);
        for metric in METRICS {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", metric.name))).unwrap();
            let unit = match metric.unit {
                MetricUnit::Count => "count",
                MetricUnit::Seconds => "seconds",
                MetricUnit::Bytes => "bytes",
                MetricUnit::State => "state",
            };
            let kind = format!("{:?}", metric.kind).to_lowercase();
            assert!(row.contains(&format!("| {kind} | {unit} |")), "{row}");
            for label in metric.labels.iter().filter(|label| **label != "system_key") {
                assert!(row.contains(&format!("`{label}`")), "{row}: {label}");
            }
        }
    }
}
