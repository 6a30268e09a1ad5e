use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::record::{Created, KeyId, KeyMeta};

fn version(id: &str, created: i64) -> Subject {
    Subject::version(&KeyMeta::new(KeyId::new(id), Created::new(created).unwrap()))
}

fn permits(loads_max: usize, checks_max: usize) -> Permits {
    Permits::new(loads_max, checks_max, Lanes::new(Width::Key), Arc::default())
}

/// Takes the permit if it can be had at once.
fn take<'a>(permits: &'a Permits, class: Class, subject: Option<&Subject>) -> Option<Permit<'a>> {
    match pin!(permits.acquire(class, subject)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(permit) => Some(permit),
        Poll::Pending => None,
    }
}

/// Loads of one key that all wait.
fn queue_of_loads<'a>(permits: &'a Permits, key: &'a Subject) -> Vec<impl Future<Output = Permit<'a>>> {
    let mut context = Context::from_waker(Waker::noop());
    let mut queued: Vec<_> = (0..64).map(|_| Box::pin(permits.acquire(Class::Load, Some(key)))).collect();
    assert!(queued.iter_mut().all(|load| load.as_mut().poll(&mut context).is_pending()));
    queued
}

#[test]
fn each_class_has_its_permits_and_those_in_trouble_share_an_eighth() {
    for (loads, checks, troubled) in [(1, 1, 1), (3, 1, 1), (15, 7, 1), (16, 8, 2), (64, 32, 8)] {
        let permits = permits(loads, checks);
        let subject = |number: usize| version(&number.to_string(), 1);
        let taken = |class| -> Vec<_> {
            (0..100).map_while(|number| take(&permits, class, Some(&subject(number)))).collect()
        };
        let (held_loads, held_checks) = (taken(Class::Load), taken(Class::Check));
        let held_troubled: Vec<_> = (0..100)
            .map_while(|number| permits.try_acquire_in_trouble(Some(&subject(100 + number))))
            .collect();
        assert_eq!(
            (held_loads.len(), held_checks.len(), held_troubled.len()),
            (loads, checks, troubled),
            "none takes another's"
        );
        assert!(permits.are_any_out() && !permits.has_room_for_check());
        drop((held_loads, held_checks, held_troubled));
        assert!(!permits.are_any_out() && permits.has_room_for_check());
        assert!(permits.lanes.lock().is_empty(), "no lane is left");
    }
}

#[test]
fn lane_has_room_for_two_calls_of_all_versions_of_a_key() {
    let permits = permits(64, 32);
    let _held = [1, 2].map(|created| take(&permits, Class::Load, Some(&version("a", created))).unwrap());
    assert!(take(&permits, Class::Load, Some(&version("a", 3))).is_none());
    assert!(take(&permits, Class::Check, Some(&version("a", 3))).is_none());
    assert!(permits.try_acquire_in_trouble(Some(&version("a", 3))).is_none());
    assert!(take(&permits, Class::Load, Some(&version("b", 3))).is_some());
    assert!(take(&permits, Class::Load, None).is_some(), "a call for many has no lane");
}

#[test]
fn lane_may_be_of_each_version() {
    let permits = Permits::new(64, 32, Lanes::new(Width::Version), Arc::default());
    let _held =
        [1, 1, 2, 2].map(|created| take(&permits, Class::Load, Some(&version("a", created))).unwrap());
    assert!(take(&permits, Class::Load, Some(&version("a", 1))).is_none());
    assert!(take(&permits, Class::Load, Some(&version("a", 3))).is_some());
}

#[test]
fn those_that_wait_in_a_lane_hold_no_permit() {
    let permits = permits(3, 1);
    let first = version("a", 1);
    let _held = [1, 2].map(|created| take(&permits, Class::Load, Some(&version("a", created))).unwrap());
    let _waiting = queue_of_loads(&permits, &first);
    assert!(take(&permits, Class::Load, Some(&version("b", 1))).is_some());
}

#[test]
fn check_waits_behind_no_queue_of_loads_of_its_key() {
    let permits = permits(1, 1);
    let _other = take(&permits, Class::Load, Some(&version("other", 1))).unwrap();
    let first = version("a", 1);
    let _queued = queue_of_loads(&permits, &first);
    assert!(take(&permits, Class::Check, Some(&version("a", 2))).is_some());
}

#[test]
fn check_that_moves_aside_leaves_its_permit_to_the_next() {
    let permits = permits(1, 1);
    let mut slow = take(&permits, Class::Check, Some(&version("a", 1))).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let next = version("b", 1);
    let mut next = pin!(permits.acquire(Class::Check, Some(&next)));
    assert!(next.as_mut().poll(&mut context).is_pending() && permits.are_checks_waiting());
    assert!(permits.move_aside(&mut slow) && !slow.is_of_check());
    let Poll::Ready(mut next) = next.poll(&mut context) else { panic!("the permit is free") };
    assert!(!permits.are_checks_waiting());
    assert!(!permits.move_aside(&mut next), "there is room for one");
}
