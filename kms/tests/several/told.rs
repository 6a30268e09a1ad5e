//! What the operator is told of copies that fail while others serve: a counter, and a line in the log.

#![expect(clippy::unwrap_used, reason = "a helper fails its test by panicking")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use claviger::FailureClass;
use claviger::testing::Fault;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use crate::support::{Member, any_of, assert_same, fresh_key, k_of_n, members, unwrap, wrap};

/// Notes the copies that were counted as failed, each with its class.
#[derive(Clone, Debug, Default)]
struct Told(Arc<Mutex<Vec<[String; 2]>>>);

impl Recorder for Told {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let label = |name| {
            let mut labels = key.labels();
            labels.find(|label| label.key() == name).unwrap().value().to_owned()
        };
        if key.name() == "claviger_kms_copy_failures_total" {
            self.0.lock().unwrap().push([label("copy"), label("class")]);
        }
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// Runs the work, and returns what the operator was told, sorted.
fn told(work: impl Future<Output = ()>) -> Vec<[String; 2]> {
    let told = Told::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    metrics::with_local_recorder(&told, || runtime.unwrap().block_on(work));
    let mut told = std::mem::take(&mut *told.0.lock().unwrap());
    told.sort();
    told
}

/// Lets members answer one after the other.
fn in_order<'a>(members: impl IntoIterator<Item = &'a Member>) {
    for (milliseconds, member) in (1..).zip(members) {
        member.faults().always(Fault::Delay(Duration::from_millis(milliseconds)));
    }
}

#[test]
fn of_shares_that_do_not_fit_those_who_brought_them_are_named() {
    let shown = told(async {
        let members = members::<5>();
        let kms = k_of_n(3, &members).build().unwrap();
        let key = fresh_key();
        let wrapped = wrap(&kms, &key).await;
        in_order(&members);
        members[0].lie();
        members[3].lie();
        assert_same(unwrap(&kms, &wrapped).await, &key);
    });
    assert_eq!(shown, [["a", "damaged"], ["d", "damaged"]]);
}

#[test]
fn of_shares_that_fit_nobody_is_named() {
    let shown = told(async {
        let members = members::<5>();
        let kms = k_of_n(3, &members).build().unwrap();
        let key = fresh_key();
        let wrapped = wrap(&kms, &key).await;
        assert_same(unwrap(&kms, &wrapped).await, &key);
    });
    assert_eq!(shown, [[""; 2]; 0]);
}

#[test]
fn a_member_that_fails_while_others_serve_is_named() {
    let shown = told(async {
        let members = members::<3>();
        let key = fresh_key();
        let kms = k_of_n(2, &members).build().unwrap();
        let wrapped = wrap(&kms, &key).await;
        in_order([&members[1], &members[2]]);
        members[0].faults().always(Fault::Fail(FailureClass::Permanent));
        assert_same(unwrap(&kms, &wrapped).await, &key);
        let kms = any_of(&members).asherah_compatible(false).build().unwrap();
        wrap(&kms, &key).await;
    });
    assert_eq!(shown, [["a", "permanent"], ["a", "permanent"]]);
}

#[test]
fn members_that_do_not_know_a_bare_envelope_are_named_only_if_nobody_does() {
    let shown = told(async {
        let members = members::<3>();
        let kms = any_of(&members).build().unwrap();
        let key = fresh_key();
        assert_same(unwrap(&kms, &members[2].wrap(&key).await).await, &key);
    });
    assert_eq!(shown, [[""; 2]; 0]);
    let shown = told(async {
        let kms = any_of(&members::<2>()).build().unwrap();
        assert!(unwrap(&kms, &Member::new().wrap(&fresh_key()).await).await.is_err());
    });
    assert_eq!(shown, [["a", "damaged"], ["b", "damaged"]]);
}
