//! The clauses of what comes with a latest record, and of its bound.

use crate::metastore::{Latest, Metastore};
use crate::record::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};
use crate::testing::call;
use crate::testing::support::{created, fresh_meta, insert, later, ok, record};

/// Versions of one key, the oldest first: in one minute, an hour, a day and ten years apart.
async fn versions(store: &impl Metastore) -> Vec<EnvelopeKeyRecord> {
    let key = fresh_meta();
    let records = [0, 1, 60, 3_600, 86_400, 315_360_000].map(|seconds| record(&later(&key, seconds)));
    // In some other order.
    for place in [3, 0, 5, 1, 4, 2] {
        if let Some(record) = records.get(place) {
            insert(store, record).await;
        }
    }
    records.to_vec()
}

/// Moments around each version, and what is the latest by then.
fn bounds(versions: &[EnvelopeKeyRecord]) -> Vec<(Created, Option<Latest>)> {
    let mut bounds = vec![(Created::MIN, None), (Created::MAX, up_to(versions, Created::MAX))];
    for version in versions {
        for offset in [-1, 0, 1] {
            let bound = created(version.meta().created().unix_seconds() + offset);
            bounds.push((bound, up_to(versions, bound)));
        }
    }
    bounds
}

fn up_to(versions: &[EnvelopeKeyRecord], bound: Created) -> Option<Latest> {
    let mut earlier = versions.iter().rev().filter(|version| version.meta().created() <= bound).cloned();
    Some(Latest::new(earlier.next()?, earlier.next()))
}

/// `load_latest` leaves out what was created later than its bound, however much there is of it.
pub async fn latest_is_not_over_the_bound(store: &impl Metastore) {
    let versions = versions(store).await;
    for (bound, latest) in bounds(&versions) {
        let found = match versions.first() {
            Some(first) => ok(store.load_latest(first.meta().id(), bound, &call()).await),
            None => None,
        };
        assert_eq!(found, latest, "up to {bound}");
    }
}

/// The record before the latest comes with it, as it is, and none of another id.
pub async fn latest_comes_with_the_one_before_it(store: &impl Metastore) {
    let key = fresh_meta();
    let neighbour = KeyMeta::new(KeyId::new(format!("{}-", key.id())), key.created());
    insert(store, &record(&neighbour)).await;
    let first = record(&key);
    insert(store, &first).await;
    let found = ok(store.load_latest(key.id(), Created::MAX, &call()).await);
    assert_eq!(found, Some(Latest::new(first.clone(), None)));
    let revoked = record(&later(&key, 60)).revoked(true);
    insert(store, &revoked).await;
    let found = ok(store.load_latest(key.id(), Created::MAX, &call()).await);
    assert_eq!(found, Some(Latest::new(revoked.clone(), Some(first))));
    let last = record(&later(&key, 120));
    insert(store, &last).await;
    let found = ok(store.load_latest(key.id(), Created::MAX, &call()).await);
    assert_eq!(found, Some(Latest::new(last, Some(revoked))));
}

/// `load_latest_many` gives of each id what `load_latest` gives, up to each bound.
pub async fn load_latest_many_answers_as_load_latest_does(store: &impl Metastore) {
    let (one, other) = (versions(store).await, versions(store).await);
    let ids: Vec<_> =
        [&other, &one].into_iter().flatten().map(|version| version.meta().id().clone()).collect();
    for (bound, _) in bounds(&one) {
        let mut each = Vec::new();
        for id in &ids {
            each.push(ok(store.load_latest(id, bound, &call()).await));
        }
        assert_eq!(ok(store.load_latest_many(&ids, bound, &call()).await), each, "up to {bound}");
    }
}
