//! What the service shows of itself: Prometheus takes it as it is, and what alarms and the dashboard ask for is
//! there.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use claviger::telemetry::{METRICS, MetricKind};
use serde_json::Value;

use crate::program::Program;
use crate::{Database, TODO};

const ALERTS: &str = include_str!("../../../../docs/observability/alerts.yml");
const ALERT_TESTS: &str = include_str!("../../../../docs/observability/alerts.test.yml");
const DASHBOARD: &str = include_str!("../../../../docs/observability/dashboard.json");
const PAGE: &str = include_str!("../../../../docs/observability.md");

/// What this service never does, so that its scrape has no such series: it warms up nothing but in the probe of its
/// readiness, and its KMS is a file.
const NOT_SHOWN: [&str; 6] = [
    "claviger_rewraps_total",
    "claviger_kms_copy_calls_total",
    "claviger_kms_copy_call_duration_seconds",
    "claviger_kms_copy_failures_total",
    "claviger_kms_copy_breaker_open",
    "claviger_invalidations_malformed_total",
];

/// A scrape of a service that has done a little of everything.
fn scrape() -> String {
    let database = Database::new("observed");
    let service: Program = database.start();
    assert_eq!(service.put(TODO, b"call back on Monday").0, 204);
    for _ in 0..10 {
        assert_eq!(service.get(TODO).0, 200);
    }
    assert_eq!(service.get("/readyz").0, 200);
    crate::program::wait_until("it listens for revocations", || {
        has_sample(&service.get("/metrics").1, "claviger_invalidations_total")
    });
    service.get("/metrics").1
}

fn has_sample(scrape: &str, name: &str) -> bool {
    scrape.lines().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ', '_'])))
}

/// All names of claviger's metrics in a text, as they are written there.
fn names(text: &str) -> BTreeSet<&str> {
    let is_of_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let words = text.split(|character| !is_of_name(character));
    words.filter(|word| word.starts_with("claviger_") && *word != "claviger_").collect()
}

/// The metric that a name of a scrape or a query is of.
fn is_in_table(name: &str) -> bool {
    METRICS.iter().any(|metric| match name.strip_prefix(metric.name) {
        Some("") => true,
        Some("_bucket" | "_sum" | "_count") => metric.kind == MetricKind::Histogram,
        _ => false,
    })
}

#[test]
fn prometheus_takes_the_scrape_as_it_is_and_every_metric_that_the_service_can_show_is_in_it() {
    let scrape = scrape();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(scrape.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}");

    for metric in METRICS {
        let is_shown = has_sample(&scrape, metric.name);
        assert_eq!(is_shown, !NOT_SHOWN.contains(&metric.name), "{}", metric.name);
        let kind = format!("{:?}", metric.kind).to_lowercase();
        let head = format!("# TYPE {} {kind}", metric.name);
        assert!(!is_shown || scrape.lines().any(|line| line == head), "{head}");
    }
    let unknown: Vec<_> = names(&scrape).into_iter().filter(|name| !is_in_table(name)).collect();
    assert_eq!(unknown, [""; 0]);
    assert!(!scrape.contains("alice"), "a partition is in a label");
}

#[test]
fn every_query_of_alarms_and_dashboard_is_one_that_prometheus_reads_of_metrics_that_are_there() {
    let mut queries = queries(&serde_json::from_str(DASHBOARD).unwrap());
    assert!(queries.len() > 30, "{}", queries.len());
    // Grafana puts these in.
    queries.iter_mut().for_each(|query| {
        *query = query.replace("$__rate_interval", "5m").replace("$system_key", ".*");
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    let rules: Vec<_> = (0..)
        .zip(&queries)
        .map(|(number, query)| format!("  - record: q:{number}\n    expr: {}\n", Value::from(query.as_str())))
        .collect();
    let rules = format!("groups:\n- name: dashboard\n  rules:\n{}", rules.concat());
    file.as_file().write_all(rules.as_bytes()).unwrap();
    let check = Command::new("promtool").args(["check", "rules"]).arg(file.path()).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));

    for text in [ALERTS, ALERT_TESTS, DASHBOARD] {
        let unknown: Vec<_> = names(text).into_iter().filter(|name| !is_in_table(name)).collect();
        assert_eq!(unknown, [""; 0]);
    }
    let asked: Vec<_> = METRICS.iter().filter(|metric| DASHBOARD.contains(metric.name)).collect();
    assert!(asked.len() + 5 > METRICS.len(), "the dashboard shows nearly all: {}", asked.len());
}

#[test]
fn every_alarm_is_explained_and_tested() {
    let alarms: Vec<_> = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let explained: Vec<_> =
        PAGE.lines().filter_map(|line| line.strip_prefix("| `Claviger")?.split_once('`')).collect();
    let explained: BTreeSet<_> = explained.iter().map(|(name, _)| format!("Claviger{name}")).collect();
    assert_eq!(explained, alarms.iter().map(|alarm| (*alarm).to_owned()).collect());
    for alarm in alarms {
        let head = format!("alertname: {alarm}\n");
        let mut tests = ALERT_TESTS.split(&head).skip(1);
        let is_raised = |test: &str| test.lines().nth(2).is_some_and(|line| line.contains("exp_labels"));
        assert!(tests.any(is_raised), "{alarm}");
    }
}

/// The queries of a dashboard, wherever they are in it.
fn queries(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => {
            let own = fields.get("expr").and_then(Value::as_str).map(str::to_owned);
            own.into_iter().chain(fields.values().flat_map(queries)).collect()
        }
        Value::Array(values) => values.iter().flat_map(queries).collect(),
        _ => Vec::new(),
    }
}
