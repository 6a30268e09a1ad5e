//! Makes a failing plan small: what can be left out without the failure going away is.

use crate::plan::Plan;
use crate::run::run;

/// Returns the smallest plan found that breaks the same rule as this one, by at most so many runs.
#[must_use]
pub fn shrink(plan: &Plan, rule: &str, runs_max: usize) -> Plan {
    let mut best = plan.clone();
    let mut left = runs_max;
    let mut breaks = |plan: &Plan| {
        left = left.saturating_sub(1);
        run(plan).violations.first().is_some_and(|violation| violation.rule == rule)
    };
    let mut chunk = best.steps.len().div_ceil(2);
    let mut runs = 0;
    while chunk > 0 && runs < runs_max {
        let mut from = 0;
        let mut has_shrunk = false;
        while from < best.steps.len() && runs < runs_max {
            let mut tried = best.clone();
            tried.steps.drain(from..(from + chunk).min(best.steps.len()));
            runs += 1;
            if breaks(&tried) {
                best = tried;
                has_shrunk = true;
            } else {
                from += chunk;
            }
        }
        if !has_shrunk || chunk > 1 {
            chunk /= 2;
        }
    }
    simplified(best, breaks)
}

/// Takes away what is special about the plan, one thing after the other.
fn simplified(plan: Plan, mut breaks: impl FnMut(&Plan) -> bool) -> Plan {
    let mut best = plan;
    let changes: [fn(&mut Plan); 9] = [
        |plan| plan.settings.has_push = false,
        |plan| plan.settings.replica_lag = None,
        |plan| plan.settings.restores_lost = false,
        |plan| plan.settings.keeps_sessions = false,
        |plan| plan.settings.idle = 0,
        |plan| plan.settings.capacity = 100,
        |plan| plan.settings.wraps = 1 << 28,
        |plan| plan.settings.skews.iter_mut().for_each(|skew| *skew = 0),
        |plan| {
            plan.settings.store_latency = 1;
            plan.settings.kms_latency = 1;
        },
    ];
    for change in changes {
        let mut tried = best.clone();
        change(&mut tried);
        if tried != best && breaks(&tried) {
            best = tried;
        }
    }
    best
}
