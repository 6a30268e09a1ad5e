//! Visits every state of a scope: one process by itself, and two whose clocks differ by a precision window.

use claviger_model::{LifeCycle, Scope};

fn main() -> Result<(), String> {
    let mut total = 0;
    for scope in [
        Scope::new(vec![0]).seconds(3).faults(1).interventions(1),
        Scope::new(vec![0, 2]).faults(1).interventions(1),
        Scope::new(vec![0, 2]).seconds(1).interventions(1),
        Scope::new(vec![0]).seconds(3).faults(2).interventions(2),
    ] {
        let text = format!("{scope:?}");
        let explored = LifeCycle::new(scope, None).explore();
        println!("{text}: {} states, depth {}", explored.states, explored.depth);
        if !explored.violations.is_empty() {
            return Err(format!("{:#?}", explored.violations));
        }
        total += explored.states;
    }
    println!("{total} states in all, no promise broken");
    Ok(())
}
