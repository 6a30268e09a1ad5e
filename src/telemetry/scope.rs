//! Handles of metrics: whose they are, and when they are made.

use std::sync::{Arc, OnceLock};

use metrics::{Counter, Gauge, Histogram, Label, SharedString, Unit};

use super::table::{METRICS, Metric, MetricKind, MetricUnit};
use crate::record::KeyId;

/// Whose metrics they are: a factory's, by its system key, or a tool's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    system_key: Option<Arc<str>>,
}

pub(super) type Labels<'a> = &'a [(&'static str, &'static str)];

impl Scope {
    pub(crate) fn of_factory(system_key: &KeyId) -> Self {
        Self { system_key: Some(system_key.as_str().into()) }
    }

    pub(crate) fn counter(&self, metric: &Metric, labels: Labels<'_>) -> Counter {
        metrics::counter!(metric.name, self.labels(labels))
    }

    pub(crate) fn gauge(&self, metric: &Metric, labels: Labels<'_>) -> Gauge {
        metrics::gauge!(metric.name, self.labels(labels))
    }

    pub(crate) fn histogram(&self, metric: &Metric, labels: Labels<'_>) -> Histogram {
        metrics::histogram!(metric.name, self.labels(labels))
    }

    fn labels(&self, labels: Labels<'_>) -> Vec<Label> {
        let own = self.system_key.as_ref();
        let own = own.map(|id| Label::new("system_key", SharedString::from(Arc::clone(id))));
        own.into_iter()
            .chain(labels.iter().map(|(name, value)| Label::from_static_parts(name, value)))
            .collect()
    }
}

/// Handles that are made when they are first used: what never happened has no series.
#[derive(Debug)]
pub(super) struct Lazy<T>(Box<[OnceLock<T>]>);

impl<T> Lazy<T> {
    pub(super) fn new(len: usize) -> Self {
        Self(std::iter::repeat_with(OnceLock::new).take(len).collect())
    }

    /// Returns the handle that has this place.
    pub(super) fn get(&self, place: usize, make: impl FnOnce() -> T) -> Option<&T> {
        self.0.get(place).map(|handle| handle.get_or_init(make))
    }
}

/// Tells the recorder what each metric says.
pub(super) fn describe() {
    for &Metric { name, kind, unit, help, .. } in METRICS {
        let unit = match unit {
            MetricUnit::Count | MetricUnit::State => Unit::Count,
            MetricUnit::Seconds => Unit::Seconds,
            MetricUnit::Bytes => Unit::Bytes,
        };
        match kind {
            MetricKind::Counter => metrics::describe_counter!(name, unit, help),
            MetricKind::Gauge => metrics::describe_gauge!(name, unit, help),
            MetricKind::Histogram => metrics::describe_histogram!(name, unit, help),
        }
    }
}
