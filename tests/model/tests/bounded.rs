//! Small scopes: all of their states are visited, and each mistake is found.

use claviger_model::{LifeCycle, Mutation, Scope};

#[test]
fn no_order_of_steps_breaks_a_promise_within_a_small_scope() {
    for scope in [Scope::new(vec![0]).seconds(3).faults(1).interventions(1), Scope::new(vec![0, 2]).faults(1)]
    {
        let text = format!("{scope:?}");
        let explored = LifeCycle::new(scope, None).explore();
        println!("{text}: {} states, depth {}", explored.states, explored.depth);
        assert!(explored.violations.is_empty(), "{text}: {:#?}", explored.violations);
        assert!(explored.states > 500, "{text}: {}", explored.states);
    }
}

/// Fails unless the mistake breaks one of these promises.
fn is_found(mutation: Mutation, scope: Scope, properties: &[&str]) {
    let explored = LifeCycle::new(scope, Some(mutation)).explore();
    let found = explored.violations.iter().find(|(name, _)| properties.contains(name));
    assert!(found.is_some(), "{mutation:?} is not found: {explored:#?}");
    let Some((name, events)) = found else { return };
    println!("{mutation:?} breaks «{name}» after {} events: {}", events.len(), events.join(", "));
}

#[test]
fn new_key_that_does_not_come_after_the_one_it_replaces_is_found() {
    let scope = Scope::new(vec![0]).seconds(1).interventions(1);
    is_found(Mutation::NoBump, scope, &["all come to use one key"]);
}

#[test]
fn failed_insert_that_is_taken_for_a_duplicate_is_found() {
    let scope = Scope::new(vec![0]).seconds(2).faults(1).interventions(1);
    is_found(Mutation::FailedInsertIsDuplicate, scope, &["no key is used that is known to be revoked"]);
}

#[test]
fn latest_system_key_in_place_of_the_named_one_is_found() {
    let scope = Scope::new(vec![0]).seconds(2).interventions(2);
    is_found(Mutation::LatestSystemKey, scope, &["no parent but the one that is named"]);
}

#[test]
fn revoked_key_that_is_used_while_the_store_is_down_is_found() {
    let scope = Scope::new(vec![0]).seconds(2).faults(1).interventions(1);
    is_found(Mutation::RevokedWhileDown, scope, &["no key is used that is known to be revoked"]);
}

#[test]
fn failed_check_that_counts_as_made_is_found() {
    let scope = Scope::new(vec![0]).seconds(4).faults(2).interventions(1);
    is_found(Mutation::FreshOnFailure, scope, &["revocation bound", "revocation bound in any weather"]);
}
