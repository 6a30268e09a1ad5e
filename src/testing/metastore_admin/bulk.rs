//! The clauses of `replace_many`, of `delete_version` and of `list` by a prefix.

use super::assert_left;
use crate::metastore::{MetastoreAdmin, Replacement};
use crate::record::{EnvelopeKeyRecord, KeyId, KeyMeta};
use crate::testing::call;
use crate::testing::support::{
    LOOKALIKES, Lookalikes, NOW, assert_answer, created, fresh_id, fresh_meta, fresh_pair, insert, keep_pair,
    later, load, ok, random_bytes, record,
};

/// `replace_many` answers for each in the order given, and one that is refused keeps no other from it.
pub async fn replace_many_answers_for_each_in_order(store: &impl MetastoreAdmin) {
    let records: Vec<_> = (0..5).map(|_| record(&fresh_meta())).collect();
    for record in &records {
        insert(store, record).await;
    }
    let new = random_bytes::<60>();
    let is_replaced = [true, false, true, false, true];
    let mut replacements: Vec<_> = records
        .iter()
        .zip(is_replaced)
        .map(|(record, is_right)| {
            let old = if is_right { record.wrapped_key().to_vec() } else { random_bytes::<60>().to_vec() };
            Replacement::new(record.meta().clone(), old, new)
        })
        .collect();
    replacements.push(Replacement::new(fresh_meta(), random_bytes::<60>(), new));
    let answers = ok(store.replace_many(&replacements, &call()).await);
    assert_eq!(answers, [&is_replaced[..], &[false]].concat());
    for (record, is_replaced) in records.iter().zip(is_replaced) {
        let held = load(store, record.meta()).await.map(|record| record.wrapped_key().to_vec());
        assert_eq!(held.as_deref(), Some(if is_replaced { &new[..] } else { record.wrapped_key() }));
    }
    assert_eq!(ok(store.replace_many(&[], &call()).await), [false; 0]);
}

/// `replace_many` of one key twice replaces what the first one put there.
pub async fn replace_many_of_one_key_twice_is_one_after_the_other(store: &impl MetastoreAdmin) {
    let record = record(&fresh_meta());
    insert(store, &record).await;
    let (first, second) = (random_bytes::<60>(), random_bytes::<60>());
    let replacements = [
        Replacement::new(record.meta().clone(), &**record.wrapped_key(), first),
        Replacement::new(record.meta().clone(), first, second),
        Replacement::new(record.meta().clone(), first, first),
    ];
    assert_eq!(ok(store.replace_many(&replacements, &call()).await), [true, true, false]);
    assert_eq!(
        load(store, record.meta()).await.map(|record| record.wrapped_key().to_vec()),
        Some(second.to_vec())
    );
}

/// A replacement that names a parent changes it, and one that names none leaves it.
pub async fn a_replacement_may_name_another_parent(store: &impl MetastoreAdmin) {
    let record = record(&fresh_meta()).revoked(true);
    insert(store, &record).await;
    let new = random_bytes::<60>();
    let parent = KeyMeta::new(KeyId::new("_SK_contract_suite"), created(NOW - 30));
    let replacement =
        Replacement::new(record.meta().clone(), &**record.wrapped_key(), new).parent(parent.clone());
    assert_eq!(ok(store.replace_many(&[replacement], &call()).await), [true]);
    let expected = EnvelopeKeyRecord::new(record.meta().clone(), new, Some(parent)).revoked(true);
    assert_eq!(load(store, record.meta()).await, Some(expected));
}

/// `delete_version` takes that version alone, and says whether it was there.
pub async fn delete_version_takes_that_version_alone(store: &impl MetastoreAdmin) {
    let key = fresh_meta();
    let versions = [record(&key), record(&later(&key, 60)), record(&later(&key, 120))];
    for version in &versions {
        insert(store, version).await;
    }
    let [first, second, third] = &versions;
    assert!(ok(store.delete_version(second.meta(), &call()).await));
    assert!(!ok(store.delete_version(second.meta(), &call()).await));
    assert_eq!(load(store, second.meta()).await, None);
    assert_eq!(load(store, first.meta()).await.as_ref(), Some(first));
    assert_eq!(load(store, third.meta()).await.as_ref(), Some(third));
    insert(store, second).await;
}

/// `delete_version` of a key leaves one that looks like it alone.
pub async fn delete_version_leaves_lookalikes_alone(store: &impl MetastoreAdmin) {
    delete_version_of_lookalikes(store, Lookalikes::Apart).await;
}

/// `delete_version` of a key leaves one that looks like it alone, and finds nothing by the name of one that was
/// refused.
pub async fn delete_version_leaves_lookalikes_alone_or_refuses(store: &impl MetastoreAdmin) {
    delete_version_of_lookalikes(store, Lookalikes::ApartOrRefused).await;
}

async fn delete_version_of_lookalikes(store: &impl MetastoreAdmin, lookalikes: Lookalikes) {
    for tails in LOOKALIKES {
        let pair = fresh_pair(tails);
        let [one, other] = keep_pair(store, &pair, lookalikes).await;
        let [_, second] = &pair;
        assert_answer(store.delete_version(second, &call()).await, &other.is_some(), other.is_none());
        assert_left(store, &pair, [one, None]).await;
    }
}

/// `list` by a prefix gives all rows whose id begins with it and no other, whatever characters it has.
pub async fn list_by_a_prefix_gives_its_rows_alone(store: &impl MetastoreAdmin) {
    let stem = fresh_id("");
    let mut ids: Vec<_> = ["_a", "_a1", "_a_b", "_b", "xa", "%a", "", "\\a"]
        .map(|tail| KeyId::new(format!("{stem}{tail}")))
        .into();
    for id in &ids {
        for seconds in [0, 60] {
            insert(store, &record(&KeyMeta::new(id.clone(), created(NOW + seconds)))).await;
        }
    }
    ids.sort();
    for tail in ["", "_", "_a", "_a_", "%", "%a", "\\", "x", "_a1", "none"] {
        let prefix = format!("{stem}{tail}");
        let begins = ids.iter().filter(|id| id.as_str().starts_with(&prefix));
        let expected: Vec<_> = begins.flat_map(|id| [id.clone(), id.clone()]).collect();
        for limit in [1, 3, 1_000] {
            let mut listed = list_prefix(store, &prefix, limit).await;
            listed.sort();
            assert_eq!(listed, expected, "{tail:?} in pages of {limit}");
        }
    }
}

async fn list_prefix(store: &impl MetastoreAdmin, prefix: &str, limit: usize) -> Vec<KeyId> {
    let (mut after, mut ids) = (None, Vec::new());
    loop {
        let page = ok(store.list(prefix, after.as_ref(), limit, &call()).await);
        assert!(page.records.len() <= limit);
        ids.extend(page.records.iter().map(|record| record.meta().id().clone()));
        match page.next {
            Some(next) => after = Some(next),
            None => return ids,
        }
    }
}
