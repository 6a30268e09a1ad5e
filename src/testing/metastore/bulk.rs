//! The clauses of `load_many` and `load_latest_many`.

use crate::context::Consistency;
use crate::metastore::Metastore;
use crate::record::{Created, KeyMeta};
use crate::testing::call;
use crate::testing::support::{
    LOOKALIKES, Lookalikes, NOW, assert_answer, created, fresh_id, fresh_meta, fresh_pair, insert, keep_pair,
    later, latest, latest_many, ok, record, try_latest_many,
};

/// `load_many` gives one answer for each version asked for, in that order, misses and repetitions
/// included.
pub async fn load_many_answers_in_the_order_asked(store: &impl Metastore) {
    let [one, two, three] = [(); 3].map(|()| record(&fresh_meta()));
    let newer_one = record(&later(one.meta(), 60));
    for record in [&one, &two, &three, &newer_one] {
        insert(store, record).await;
    }
    let missing = fresh_meta();
    let keys = [three.meta(), &missing, one.meta(), three.meta(), two.meta(), &missing, newer_one.meta()];
    let keys = keys.map(Clone::clone);
    let expected = [Some(three.clone()), None, Some(one), Some(three), Some(two), None, Some(newer_one)];
    for consistency in [Consistency::Strong, Consistency::Eventual] {
        assert_eq!(ok(store.load_many(&keys, &call().consistency(consistency)).await), expected);
    }
}

/// `load_many` of no versions gives no answers.
pub async fn load_many_of_nothing_is_nothing(store: &impl Metastore) {
    assert_eq!(ok(store.load_many(&[], &call()).await), []);
}

/// `load_many` takes more versions than a database takes parameters or items in one request.
pub async fn load_many_takes_hundreds(store: &impl Metastore) {
    let first = fresh_meta();
    let records: Vec<_> = (0..30).map(|seconds| record(&later(&first, seconds * 10))).collect();
    for record in &records {
        insert(store, record).await;
    }
    let keys: Vec<_> = (0..300).map(|seconds| later(&first, seconds)).collect();
    let found = ok(store.load_many(&keys, &call()).await);
    assert_eq!(found.len(), keys.len());
    assert_eq!(found.into_iter().flatten().collect::<Vec<_>>(), records);
}

/// A strong `load_many` sees every insert that ended before it began.
pub async fn load_many_sees_every_insert_that_ended(store: &impl Metastore) {
    let key = fresh_meta();
    for seconds in 0..20 {
        let record = record(&later(&key, seconds));
        insert(store, &record).await;
        let keys = [record.meta().clone(), later(&key, seconds + 1)];
        assert_eq!(ok(store.load_many(&keys, &call()).await), [Some(record), None]);
    }
}

/// Of ids that look alike `load_many` gives each its own record.
pub async fn load_many_tells_lookalikes_apart(store: &impl Metastore) {
    load_many_of_lookalikes(store, Lookalikes::Apart).await;
}

/// Of ids that look alike `load_many` gives each its own record, and none to one that was refused.
pub async fn load_many_tells_lookalikes_apart_or_refuses(store: &impl Metastore) {
    load_many_of_lookalikes(store, Lookalikes::ApartOrRefused).await;
}

async fn load_many_of_lookalikes(store: &impl Metastore, lookalikes: Lookalikes) {
    for tails in LOOKALIKES {
        let pair = fresh_pair(tails);
        let kept = keep_pair(store, &pair, lookalikes).await;
        // What can be looked for alone can be looked for among others.
        let mut can_refuse = false;
        for key in &pair {
            can_refuse |= store.load(key, &call()).await.is_err();
        }
        let answer = store.load_many(&pair, &call()).await;
        assert_answer(answer, &kept.to_vec(), can_refuse);
        for (key, kept) in pair.into_iter().zip(kept) {
            let answer = store.load_many(&[key], &call()).await;
            assert_answer(answer, &vec![kept.clone()], kept.is_none());
        }
    }
}

/// `load_latest_many` gives one answer for each id asked for, in that order, misses and repetitions
/// included.
pub async fn load_latest_many_answers_in_the_order_asked(store: &impl Metastore) {
    let [one, two, three] = [(); 3].map(|()| record(&fresh_meta()));
    let newer_one = record(&later(one.meta(), 60));
    for record in [&newer_one, &one, &two, &three] {
        insert(store, record).await;
    }
    let missing = fresh_id("");
    let ids = [three.meta().id(), &missing, one.meta().id(), three.meta().id(), two.meta().id(), &missing];
    let ids = ids.map(Clone::clone);
    let expected = [Some(three.clone()), None, Some(newer_one), Some(three), Some(two), None];
    assert_eq!(latest_many(store, &ids).await, expected);
}

/// `load_latest_many` goes by `created`, as `load_latest` does.
pub async fn load_latest_many_goes_by_created(store: &impl Metastore) {
    let keys = [(); 3].map(|()| fresh_meta());
    for key in &keys {
        for seconds in [9, 86_400, 10, 0] {
            insert(store, &record(&later(key, seconds))).await;
        }
    }
    let ids = keys.map(|key| key.id().clone());
    let found = latest_many(store, &ids).await;
    let times = found.iter().flatten().map(|record| record.meta().created().unix_seconds());
    assert_eq!(times.collect::<Vec<_>>(), [NOW + 86_400; 3]);
    for (id, found) in ids.iter().zip(found) {
        assert_eq!(latest(store, id).await, found);
    }
}

/// `load_latest_many` of no ids gives no answers.
pub async fn load_latest_many_of_nothing_is_nothing(store: &impl Metastore) {
    assert_eq!(latest_many(store, &[]).await, []);
}

/// `load_latest_many` takes more ids than a database takes parameters or items in one request.
pub async fn load_latest_many_takes_hundreds(store: &impl Metastore) {
    let ids: Vec<_> = (0..300).map(|_| fresh_id("")).collect();
    let records: Vec<_> =
        ids.iter().step_by(10).map(|id| record(&KeyMeta::new(id.clone(), created(NOW)))).collect();
    for record in &records {
        insert(store, record).await;
    }
    let found = latest_many(store, &ids).await;
    assert_eq!(found.len(), ids.len());
    assert_eq!(found.into_iter().flatten().collect::<Vec<_>>(), records);
}

/// `load_latest_many` sees every insert that ended before it began.
pub async fn load_latest_many_sees_every_insert_that_ended(store: &impl Metastore) {
    let key = fresh_meta();
    for seconds in 0..20 {
        let record = record(&later(&key, seconds));
        insert(store, &record).await;
        assert_eq!(latest_many(store, &[key.id().clone()]).await, [Some(record)]);
    }
}

/// Of ids that look alike `load_latest_many` gives each its own record.
pub async fn load_latest_many_tells_lookalikes_apart(store: &impl Metastore) {
    load_latest_many_of_lookalikes(store, Lookalikes::Apart).await;
}

/// Of ids that look alike `load_latest_many` gives each its own record, and none to one that was
/// refused.
pub async fn load_latest_many_tells_lookalikes_apart_or_refuses(store: &impl Metastore) {
    load_latest_many_of_lookalikes(store, Lookalikes::ApartOrRefused).await;
}

async fn load_latest_many_of_lookalikes(store: &impl Metastore, lookalikes: Lookalikes) {
    for tails in LOOKALIKES {
        let pair = fresh_pair(tails);
        let kept = keep_pair(store, &pair, lookalikes).await;
        let ids = pair.map(|key| key.id().clone());
        let mut can_refuse = false;
        for id in &ids {
            can_refuse |= store.load_latest(id, Created::MAX, &call()).await.is_err();
        }
        assert_answer(try_latest_many(store, &ids).await, &kept.to_vec(), can_refuse);
        for (id, kept) in ids.into_iter().zip(kept) {
            assert_answer(try_latest_many(store, &[id]).await, &vec![kept.clone()], kept.is_none());
        }
    }
}
