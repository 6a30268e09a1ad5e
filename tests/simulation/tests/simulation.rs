//! Whole fleets in virtual time. `cargo xtask simulate` runs many more seeds.

use std::path::Path;

use claviger_simulation::{Plan, Report, flood, run};

fn must_be_well(name: &str, report: &Report) {
    let told: Vec<_> =
        report.violations.iter().map(|broken| format!("{}: {}", broken.rule, broken.what)).collect();
    assert!(told.is_empty(), "{name}: {told:#?}\n{}", report.history.join("\n"));
}

#[test]
fn t6_no_seed_breaks_a_promise() {
    let (mut sealed, mut calls) = (0, 0);
    for seed in 0..30 {
        let report = run(&Plan::of_seed(seed));
        must_be_well(&format!("seed {seed}"), &report);
        sealed += report.sealed;
        calls += report.calls;
    }
    assert!(sealed > 2_000 && calls > 2_000, "{sealed} records, {calls} calls: hardly anything happened");
}

#[test]
fn the_same_seed_has_the_same_history() {
    for seed in 100..110 {
        let [first, second] = [(); 2].map(|()| run(&Plan::of_seed(seed)));
        assert_eq!(first.history, second.history, "seed {seed}");
    }
}

#[test]
fn s3_2_a_flood_of_partitions_is_bounded_at_every_instant_and_crowds_out_none_in_use() {
    let report = flood(20_000);
    must_be_well("flood", &report);
    assert!(report.sealed > 20_000, "{}", report.sealed);
}

#[test]
fn plans_that_once_failed_are_well() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kept");
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    names.sort();
    for path in names {
        let plan = Plan::from_json(&std::fs::read_to_string(&path).unwrap()).unwrap();
        must_be_well(&path.display().to_string(), &run(&plan));
    }
}

#[test]
fn a_plan_is_what_its_json_says() {
    for seed in 0..50 {
        let plan = Plan::of_seed(seed);
        assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan);
    }
}
