//! The contract of [`MetastoreAdmin`], clause by clause.

#![expect(clippy::missing_panics_doc, reason = "a clause that does not hold panics: that is what it is for")]

mod bulk;
mod list;

use crate::metastore::{Insert, MetastoreAdmin};
use crate::record::{EnvelopeKeyRecord, KeyId, KeyMeta};
use crate::testing::support::{
    LOOKALIKES, Lookalikes, abandon, assert_answer, fresh_meta, fresh_pair, insert, keep_pair, later, latest,
    latest_many, load, ok, race, random_bytes, record,
};
use crate::testing::{ReplaceOne as _, call};
pub use bulk::*;
pub use list::*;

/// Makes a test of each clause of [`MetastoreAdmin`]'s contract, which is on top of
/// [`metastore_contract`](crate::testing::metastore_contract).
#[macro_export]
macro_rules! metastore_admin_contract {
    ($($open:tt)*) => {
        $crate::__metastore_admin_clauses! { $($open)* }
        $crate::__contract_tests! { metastore_admin, $($open)*,
            list_gives_every_record_once_whatever_the_page
            list_tells_lookalikes_apart
            revoke_leaves_lookalikes_alone
            replace_leaves_lookalikes_alone
            delete_leaves_lookalikes_alone
            delete_version_leaves_lookalikes_alone
        }
    };
}

/// Makes a test of each clause of [`MetastoreAdmin`]'s contract, for a table made by other Asherahs,
/// as [`metastore_legacy_contract`](crate::testing::metastore_legacy_contract) does: nothing is
/// listed, revoked, replaced or deleted by the name of a key that was refused.
#[macro_export]
macro_rules! metastore_admin_legacy_contract {
    ($($open:tt)*) => {
        $crate::__metastore_admin_clauses! { $($open)* }
        $crate::__contract_tests! { metastore_admin, $($open)*,
            list_gives_every_record_once_whatever_the_page_or_refused
            list_tells_lookalikes_apart_or_refused
            revoke_leaves_lookalikes_alone_or_refuses
            replace_leaves_lookalikes_alone_or_refuses
            delete_leaves_lookalikes_alone_or_refuses
            delete_version_leaves_lookalikes_alone_or_refuses
        }
    };
}

/// The clauses that hold of every table.
#[doc(hidden)]
#[macro_export]
macro_rules! __metastore_admin_clauses {
    ($($open:tt)*) => { $crate::__contract_tests! { metastore_admin, $($open)*,
        list_gives_no_more_than_the_limit
        list_from_the_start_gives_every_record
        list_gives_records_whole
        list_goes_on_after_a_version_that_is_gone
        list_sees_what_is_there_all_the_time
        count_agrees_with_list
        revoke_marks_that_version_alone
        revoke_of_an_unknown_version_is_false_and_makes_nothing
        revoke_of_a_revoked_version_changes_nothing
        latest_sees_every_revocation_that_ended
        concurrent_revokes_all_find_the_record
        replace_changes_the_wrapped_key_alone
        replace_needs_the_old_wrapped_key
        one_of_many_concurrent_replaces_wins
        a_replace_never_undoes_a_revocation
        replace_many_answers_for_each_in_order
        replace_many_of_one_key_twice_is_one_after_the_other
        a_replacement_may_name_another_parent
        delete_version_takes_that_version_alone
        list_by_a_prefix_gives_its_rows_alone
        delete_takes_all_versions_of_that_id_alone
        a_deleted_version_can_be_inserted_again
        inserts_beside_deletions_are_told_the_truth
        dropped_admin_calls_leave_the_store_usable
    } };
}

/// `revoke` of a key leaves one that looks like it alone.
pub async fn revoke_leaves_lookalikes_alone(store: &impl MetastoreAdmin) {
    revoke_of_lookalikes(store, Lookalikes::Apart).await;
}

/// `revoke` of a key leaves one that looks like it alone, and finds nothing by the name of one that
/// was refused.
pub async fn revoke_leaves_lookalikes_alone_or_refuses(store: &impl MetastoreAdmin) {
    revoke_of_lookalikes(store, Lookalikes::ApartOrRefused).await;
}

async fn revoke_of_lookalikes(store: &impl MetastoreAdmin, lookalikes: Lookalikes) {
    for tails in LOOKALIKES {
        let pair = fresh_pair(tails);
        let [one, other] = keep_pair(store, &pair, lookalikes).await;
        let [_, second] = &pair;
        assert_answer(store.revoke(second, &call()).await, &other.is_some(), other.is_none());
        assert_left(store, &pair, [one, other.map(|record| record.revoked(true))]).await;
    }
}

/// `replace_many` of a key leaves one that looks like it alone.
pub async fn replace_leaves_lookalikes_alone(store: &impl MetastoreAdmin) {
    replace_of_lookalikes(store, Lookalikes::Apart).await;
}

/// `replace_many` of a key leaves one that looks like it alone, and finds nothing by the name
/// of one that was refused.
pub async fn replace_leaves_lookalikes_alone_or_refuses(store: &impl MetastoreAdmin) {
    replace_of_lookalikes(store, Lookalikes::ApartOrRefused).await;
}

async fn replace_of_lookalikes(store: &impl MetastoreAdmin, lookalikes: Lookalikes) {
    for tails in LOOKALIKES {
        let pair = fresh_pair(tails);
        let kept = keep_pair(store, &pair, lookalikes).await;
        let new = random_bytes::<60>();
        let [_, second] = &pair;
        // By the other's wrapped key: what finds the other's row would replace it.
        for held in kept.iter().flatten().filter(|record| record.meta() != second) {
            let answer = store.replace_one(second, held.wrapped_key(), &new, &call()).await;
            assert_answer(answer, &false, kept.iter().any(Option::is_none));
        }
        assert_left(store, &pair, kept).await;
    }
}

/// `delete` of a key leaves one that looks like it alone.
pub async fn delete_leaves_lookalikes_alone(store: &impl MetastoreAdmin) {
    delete_of_lookalikes(store, Lookalikes::Apart).await;
}

/// `delete` of a key leaves one that looks like it alone, and finds nothing by the name of one that
/// was refused.
pub async fn delete_leaves_lookalikes_alone_or_refuses(store: &impl MetastoreAdmin) {
    delete_of_lookalikes(store, Lookalikes::ApartOrRefused).await;
}

async fn delete_of_lookalikes(store: &impl MetastoreAdmin, lookalikes: Lookalikes) {
    for tails in LOOKALIKES {
        let pair = fresh_pair(tails);
        let [one, other] = keep_pair(store, &pair, lookalikes).await;
        let [_, second] = &pair;
        assert_answer(store.delete(second.id(), &call()).await, &u64::from(other.is_some()), other.is_none());
        let [first, _] = &pair;
        assert_answer(store.load(first, &call()).await, &one, one.is_none());
        assert_answer(store.load(second, &call()).await, &None, other.is_none());
    }
}

/// Asserts what is there of two keys that look alike; of one that was refused there is nothing.
async fn assert_left(store: &impl MetastoreAdmin, pair: &[KeyMeta; 2], left: [Option<EnvelopeKeyRecord>; 2]) {
    for (key, left) in pair.iter().zip(left) {
        assert_answer(store.load(key, &call()).await, &left, left.is_none());
    }
}

/// `revoke` sets the flag of that version; all else stays as it is.
pub async fn revoke_marks_that_version_alone(store: &impl MetastoreAdmin) {
    let key = fresh_meta();
    let records = [-1, 0, 1].map(|seconds| record(&later(&key, seconds)));
    for record in &records {
        insert(store, record).await;
    }
    assert!(ok(store.revoke(&key, &call()).await));
    let [before, revoked, after] = records;
    for expected in [before, revoked.revoked(true), after] {
        assert_eq!(load(store, expected.meta()).await, Some(expected));
    }
}

/// `revoke` of a version that there is not answers `false`.
pub async fn revoke_of_an_unknown_version_is_false_and_makes_nothing(store: &impl MetastoreAdmin) {
    let key = fresh_meta();
    assert!(!ok(store.revoke(&key, &call()).await));
    assert_eq!(load(store, &key).await, None);
    let record = record(&later(&key, 1));
    insert(store, &record).await;
    assert!(!ok(store.revoke(&key, &call()).await));
    assert_eq!(load(store, record.meta()).await, Some(record));
}

/// `revoke` of a version that is revoked answers `true` and leaves it as it is.
pub async fn revoke_of_a_revoked_version_changes_nothing(store: &impl MetastoreAdmin) {
    let record = record(&fresh_meta());
    insert(store, &record).await;
    for _ in 0..3 {
        assert!(ok(store.revoke(record.meta(), &call()).await));
        assert_eq!(load(store, record.meta()).await, Some(record.clone().revoked(true)));
    }
}

/// `load_latest` sees every revocation that ended before it began.
pub async fn latest_sees_every_revocation_that_ended(store: &impl MetastoreAdmin) {
    for _ in 0..10 {
        let record = record(&fresh_meta());
        insert(store, &record).await;
        assert!(ok(store.revoke(record.meta(), &call()).await));
        let revoked = record.revoked(true);
        assert_eq!(latest(store, revoked.meta().id()).await.as_ref(), Some(&revoked));
        assert_eq!(latest_many(store, &[revoked.meta().id().clone()]).await, [Some(revoked)]);
    }
}

/// Any number of revokes of one version at once find it.
pub async fn concurrent_revokes_all_find_the_record(store: &impl MetastoreAdmin) {
    let record = record(&fresh_meta());
    insert(store, &record).await;
    let found = race(8, |_| async { ok(store.revoke(record.meta(), &call()).await) });
    assert_eq!(found, [true; 8]);
    assert_eq!(load(store, record.meta()).await, Some(record.revoked(true)));
}

/// `replace_many` puts the new wrapped key in place; parent and flag stay.
pub async fn replace_changes_the_wrapped_key_alone(store: &impl MetastoreAdmin) {
    for revoked in [false, true] {
        let record = record(&fresh_meta()).revoked(revoked);
        insert(store, &record).await;
        let new = random_bytes::<80>();
        assert!(ok(store.replace_one(record.meta(), record.wrapped_key(), &new, &call()).await));
        assert_eq!(load(store, record.meta()).await, Some(with_wrapped_key(&record, &new)));
    }
}

/// `replace_many` answers `false` and changes nothing when the record holds another wrapped
/// key, or when there is none.
pub async fn replace_needs_the_old_wrapped_key(store: &impl MetastoreAdmin) {
    let record = record(&fresh_meta());
    let [old, new] = [(); 2].map(|()| random_bytes::<60>());
    assert!(!ok(store.replace_one(record.meta(), &old, &new, &call()).await));
    assert_eq!(load(store, record.meta()).await, None);
    insert(store, &record).await;
    assert!(!ok(store.replace_one(record.meta(), &old, &new, &call()).await));
    assert!(!ok(store.replace_one(record.meta(), &[], &new, &call()).await));
    assert_eq!(load(store, record.meta()).await, Some(record));
}

/// Of any number of replacements of one wrapped key at once exactly one wins.
pub async fn one_of_many_concurrent_replaces_wins(store: &impl MetastoreAdmin) {
    let record = record(&fresh_meta());
    insert(store, &record).await;
    let winners = race(10, |_| async {
        let new = random_bytes::<60>();
        ok(store.replace_one(record.meta(), record.wrapped_key(), &new, &call()).await).then_some(new)
    });
    let winners: Vec<_> = winners.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1);
    for winner in winners {
        assert_eq!(load(store, record.meta()).await, Some(with_wrapped_key(&record, &winner)));
    }
}

/// A revocation is for good, also when the wrapped key is replaced at the same time.
pub async fn a_replace_never_undoes_a_revocation(store: &impl MetastoreAdmin) {
    for _ in 0..20 {
        let record = record(&fresh_meta());
        insert(store, &record).await;
        let new = random_bytes::<60>();
        let done = race(2, |runner| {
            let (record, new) = (&record, &new);
            async move {
                ok(match runner {
                    0 => store.revoke(record.meta(), &call()).await,
                    _ => store.replace_one(record.meta(), record.wrapped_key(), new, &call()).await,
                })
            }
        });
        assert_eq!(done, [true, true]);
        let expected = with_wrapped_key(&record, &new).revoked(true);
        assert_eq!(load(store, record.meta()).await, Some(expected));
    }
}

/// `delete` takes all versions of the id, says how many they were, and leaves other ids alone.
pub async fn delete_takes_all_versions_of_that_id_alone(store: &impl MetastoreAdmin) {
    let key = fresh_meta();
    let bystander = record(&KeyMeta::new(KeyId::new(format!("{}-x", key.id())), key.created()));
    insert(store, &bystander).await;
    assert_eq!(ok(store.delete(key.id(), &call()).await), 0);
    for seconds in 0..3 {
        insert(store, &record(&later(&key, seconds))).await;
    }
    assert_eq!(ok(store.delete(key.id(), &call()).await), 3);
    assert_eq!(latest(store, key.id()).await, None);
    assert_eq!(load(store, &key).await, None);
    assert_eq!(ok(store.delete(key.id(), &call()).await), 0);
    assert_eq!(load(store, bystander.meta()).await, Some(bystander));
}

/// A version that was deleted is free.
pub async fn a_deleted_version_can_be_inserted_again(store: &impl MetastoreAdmin) {
    let key = fresh_meta();
    insert(store, &record(&key)).await;
    assert_eq!(ok(store.delete(key.id(), &call()).await), 1);
    let again = record(&key);
    insert(store, &again).await;
    assert_eq!(load(store, &key).await, Some(again));
}

/// An insert beside deletions of its version is told the truth, also when the row in its way is gone by the
/// time it is looked at: what was inserted was deleted or is there. A conflict of the two is transient.
pub async fn inserts_beside_deletions_are_told_the_truth(store: &impl MetastoreAdmin) {
    let record = record(&fresh_meta());
    let done = race(2, |runner| {
        let record = &record;
        async move {
            let mut rows = 0;
            for _ in 0..100 {
                let done = match runner {
                    0 => store
                        .insert(record, &call())
                        .await
                        .map(|answer| u64::from(answer == Insert::Inserted)),
                    _ => store.delete(record.meta().id(), &call()).await,
                };
                match done {
                    Ok(reached) => rows += reached,
                    Err(error) => assert!(error.is_transient(), "{error:?}"),
                }
            }
            rows
        }
    });
    let left = ok(store.delete(record.meta().id(), &call()).await);
    assert_eq!(done.first().copied(), done.get(1).map(|deleted| deleted + left));
}

/// A future dropped at any await leaves the store usable; what it was to do is done whole or not
/// at all.
pub async fn dropped_admin_calls_leave_the_store_usable(store: &impl MetastoreAdmin) {
    for round in 0..100 {
        let polls = round % 10 + 1;
        let record = record(&fresh_meta());
        insert(store, &record).await;
        let new = random_bytes::<60>();
        abandon(store.replace_one(record.meta(), record.wrapped_key(), &new, &call()), polls).await;
        abandon(store.list("", Some(record.meta()), 5, &call()), polls).await;
        abandon(store.count(&call()), polls).await;
        abandon(store.revoke(record.meta(), &call()), polls).await;
        assert!(ok(store.revoke(record.meta(), &call()).await));
        let replaced = with_wrapped_key(&record, &new).revoked(true);
        let left = load(store, record.meta()).await;
        assert!(left == Some(replaced) || left == Some(record.clone().revoked(true)));
        abandon(store.delete(record.meta().id(), &call()), polls).await;
        let deleted = ok(store.delete(record.meta().id(), &call()).await);
        assert!(deleted <= 1);
        assert_eq!(load(store, record.meta()).await, None);
    }
}

fn with_wrapped_key(record: &EnvelopeKeyRecord, wrapped: &[u8]) -> EnvelopeKeyRecord {
    let parent = record.parent().cloned();
    EnvelopeKeyRecord::new(record.meta().clone(), wrapped, parent).revoked(record.is_revoked())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_macro_names_every_clause() {
        crate::testing::support::assert_macro_names_every_clause(&[
            include_str!("metastore_admin.rs"),
            include_str!("metastore_admin/bulk.rs"),
            include_str!("metastore_admin/list.rs"),
        ]);
    }
}
