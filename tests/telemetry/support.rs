//! A factory whose metrics a test reads.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use claviger::telemetry::{METRICS, MetricKind};
use claviger::testing::{Fault, FaultyKms, FaultyMetastore, FixedClock, SeededRandom};
use claviger::{
    CryptoPolicy, FailureClass, InMemoryMetastore, Limits, LockPolicy, SecretKey, Session, SessionFactory,
    SessionFactoryBuilder, StaticKms,
};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_util::registry::{AtomicStorage, Registry};

use crate::runtime::on_this_runtime;

pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
pub(crate) const DOWN: Fault = Fault::Fail(FailureClass::Transient);
pub(crate) const DENIED: Fault = Fault::Fail(FailureClass::Permanent);

pub(crate) const SK: &str = "_SK_checkout_payments";

pub(crate) struct World {
    pub(crate) clock: FixedClock,
    pub(crate) store: FaultyMetastore<InMemoryMetastore>,
    pub(crate) kms: FaultyKms<StaticKms>,
    pub(crate) factory: SessionFactory,
    metrics: Metrics,
}

/// Runs a test in a world of its own, all of it on this thread, whose recorder it is.
pub(crate) fn in_world<F: Future<Output = ()>>(
    options: impl FnOnce(SessionFactoryBuilder) -> SessionFactoryBuilder,
    test: impl FnOnce(World) -> F,
) {
    let metrics = Metrics::new();
    let recorder = metrics.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    metrics::with_local_recorder(&recorder, || {
        runtime.unwrap().block_on(async { test(World::new(options, metrics)).await });
    });
}

impl World {
    fn new(options: impl FnOnce(SessionFactoryBuilder) -> SessionFactoryBuilder, metrics: Metrics) -> Self {
        let random = SeededRandom::new(7);
        let kms = StaticKms::new(&SecretKey::generate(&random).unwrap()).unwrap().random(random.clone());
        let (store, kms) = (FaultyMetastore::new(InMemoryMetastore::new()), FaultyKms::new(kms));
        let clock = FixedClock::new(28_333_334 * 60);
        let builder = SessionFactory::builder(store.clone(), kms.clone())
            .service("checkout")
            .product("payments")
            .policy(CryptoPolicy::production().lock_policy(LockPolicy::Off))
            .limits(Limits::production().max_attempts(1))
            .clock(clock.clone())
            .random(random);
        let factory = options(on_this_runtime(builder)).build().unwrap();
        Self { clock, store, kms, factory, metrics }
    }

    pub(crate) fn session(&self, partition: &str) -> Session {
        self.factory.session(partition).unwrap()
    }

    /// Returns the sum of the series that have these labels: the value of counters and gauges, how many
    /// values of histograms.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let metric = METRICS.iter().find(|metric| metric.name == name).unwrap();
        for (label, _) in labels {
            assert!(metric.labels.contains(label), "{name} has no label {label}");
        }
        // It reports what no event updates.
        drop(self.factory.status());
        self.value_now(name, labels)
    }

    /// Returns the same as it is, without bringing it up to date.
    pub(crate) fn value_now(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |series: &Series| {
            series.name == name
                && labels
                    .iter()
                    .all(|(name, value)| series.labels.contains(&((*name).into(), (*value).into())))
        };
        self.series().iter().filter(|series| fits(series)).map(|series| series.value).sum()
    }

    pub(crate) fn series(&self) -> Vec<Series> {
        self.metrics.series()
    }
}

/// What was recorded under one name and set of labels.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) kind: MetricKind,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: f64,
}

/// A recorder that can be read at any time.
#[derive(Clone)]
struct Metrics(Arc<Registry<Key, AtomicStorage>>);

impl Metrics {
    fn new() -> Self {
        Self(Arc::new(Registry::atomic()))
    }

    fn series(&self) -> Vec<Series> {
        let mut series = Vec::new();
        self.0.visit_counters(|key, counter| {
            let value = u32::try_from(counter.load(Ordering::Relaxed)).unwrap();
            series.push(Series::new(key, MetricKind::Counter, value.into()));
        });
        self.0.visit_gauges(|key, gauge| {
            series.push(Series::new(key, MetricKind::Gauge, f64::from_bits(gauge.load(Ordering::Relaxed))));
        });
        self.0.visit_histograms(|key, histogram| {
            let values = u32::try_from(histogram.data().len()).unwrap();
            series.push(Series::new(key, MetricKind::Histogram, values.into()));
        });
        series
    }
}

impl Series {
    fn new(key: &Key, kind: MetricKind, value: f64) -> Self {
        let labels = key.labels().map(|label| (label.key().to_owned(), label.value().to_owned()));
        Self { name: key.name().to_owned(), kind, labels: labels.collect(), value }
    }
}

impl Recorder for Metrics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.0.get_or_create_counter(key, |counter| Counter::from_arc(Arc::clone(counter)))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.0.get_or_create_gauge(key, |gauge| Gauge::from_arc(Arc::clone(gauge)))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.0.get_or_create_histogram(key, |histogram| Histogram::from_arc(Arc::clone(histogram)))
    }
}
