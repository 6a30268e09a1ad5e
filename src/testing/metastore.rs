//! The contract of [`Metastore`], clause by clause.

#![expect(clippy::missing_panics_doc, reason = "a clause that does not hold panics: that is what it is for")]

mod bulk;
mod identity;
mod latest;

use crate::context::Consistency;
use crate::metastore::{Insert, Metastore};
use crate::record::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};
use crate::testing::call;
use crate::testing::support::{
    NOW, abandon, assert_kept, created, fresh_id, fresh_meta, insert, is_refused_unasked, later, latest,
    load, ok, race, random_bytes, record,
};
pub use bulk::*;
pub use identity::*;
pub use latest::*;

/// Makes a test of each clause of [`Metastore`]'s contract:
/// `metastore_contract!(async { MyStore::open().await })`.
#[macro_export]
macro_rules! metastore_contract {
    ($($open:tt)*) => {
        $crate::__metastore_clauses! { $($open)* }
        $crate::__contract_tests! { metastore, $($open)*,
            ids_that_differ_in_case_are_two
            ids_that_differ_in_accents_are_two
            ids_that_differ_in_trailing_blanks_are_two
            ids_beyond_the_basic_plane_are_kept
            the_first_second_is_a_time
            times_around_a_change_of_clocks_are_kept
            load_many_tells_lookalikes_apart
            load_latest_many_tells_lookalikes_apart
        }
    };
}

/// Makes a test of each clause of [`Metastore`]'s contract, for a table made by other Asherahs: ids
/// or times that it cannot tell apart, or not hold, are refused with a permanent error, and neither
/// key is found by the other's name.
#[macro_export]
macro_rules! metastore_legacy_contract {
    ($($open:tt)*) => {
        $crate::__metastore_clauses! { $($open)* }
        $crate::__contract_tests! { metastore, $($open)*,
            ids_that_differ_in_case_are_two_or_refused
            ids_that_differ_in_accents_are_two_or_refused
            ids_that_differ_in_trailing_blanks_are_two_or_refused
            ids_beyond_the_basic_plane_are_kept_or_refused
            the_first_second_is_a_time_or_refused
            times_around_a_change_of_clocks_are_kept_or_refused
            load_many_tells_lookalikes_apart_or_refuses
            load_latest_many_tells_lookalikes_apart_or_refuses
        }
    };
}

/// The clauses that hold of every table.
#[doc(hidden)]
#[macro_export]
macro_rules! __metastore_clauses {
    ($($open:tt)*) => { $crate::__contract_tests! { metastore, $($open)*,
        an_unknown_version_is_none
        an_unknown_id_has_no_latest
        load_returns_exactly_the_version_asked_for
        an_eventual_load_returns_exactly_the_version_asked_for
        latest_is_the_greatest_created_not_the_last_inserted
        latest_sees_every_insert_that_ended
        latest_is_of_that_id_alone
        latest_is_not_over_the_bound
        latest_comes_with_the_one_before_it
        an_intermediate_key_is_returned_whole
        a_system_key_is_returned_whole
        a_revoked_record_is_returned_revoked
        an_insert_of_a_taken_version_changes_nothing
        one_of_many_concurrent_inserts_wins
        concurrent_inserts_of_different_versions_all_win
        a_load_during_an_insert_sees_nothing_or_all
        versions_one_second_apart_are_two
        times_past_2038_are_kept_exactly_or_refused
        the_last_time_is_kept_exactly_or_refused
        ids_with_wildcards_match_nothing_else
        ids_with_quotes_and_backslashes_are_kept
        ids_of_255_characters_are_kept
        ids_of_255_characters_of_four_bytes_are_kept_or_refused
        ids_over_255_characters_are_never_cut
        ids_over_2048_bytes_are_refused
        ids_with_nul_are_never_cut
        an_empty_id_is_kept_or_refused
        reserved_ids_are_never_found
        a_wrapped_key_of_32_kib_is_kept
        a_record_over_64_kib_is_refused
        load_many_answers_in_the_order_asked
        load_many_of_nothing_is_nothing
        load_many_takes_hundreds
        load_many_sees_every_insert_that_ended
        load_latest_many_answers_in_the_order_asked
        load_latest_many_goes_by_created
        load_latest_many_answers_as_load_latest_does
        load_latest_many_of_nothing_is_nothing
        load_latest_many_takes_hundreds
        load_latest_many_sees_every_insert_that_ended
        dropped_calls_leave_the_store_usable
    } };
}

/// `load` of a version that there is not returns `None`, also when the id has other versions.
pub async fn an_unknown_version_is_none(store: &impl Metastore) {
    let key = fresh_meta();
    assert_eq!(ok(store.load(&key, &call()).await), None);
    assert_eq!(ok(store.load(&key, &call().consistency(Consistency::Eventual)).await), None);
    insert(store, &record(&later(&key, 1))).await;
    assert_eq!(ok(store.load(&key, &call()).await), None);
}

/// `load_latest` of an id without a record returns `None`.
pub async fn an_unknown_id_has_no_latest(store: &impl Metastore) {
    assert_eq!(latest(store, &fresh_id("")).await, None);
}

/// `load` returns the version asked for and no other of its id.
pub async fn load_returns_exactly_the_version_asked_for(store: &impl Metastore) {
    let key = fresh_meta();
    let records = [0, 60, 7_200].map(|seconds| record(&later(&key, seconds)));
    for record in &records {
        insert(store, record).await;
    }
    for record in &records {
        assert_eq!(load(store, record.meta()).await.as_ref(), Some(record));
    }
}

/// Once all replicas know it, an eventually consistent `load` returns the same.
pub async fn an_eventual_load_returns_exactly_the_version_asked_for(store: &impl Metastore) {
    let (one, other) = (record(&fresh_meta()), record(&fresh_meta()));
    insert(store, &one).await;
    insert(store, &other).await;
    assert_eq!(ok(store.load(one.meta(), &call().consistency(Consistency::Eventual)).await), Some(one));
}

/// `load_latest` goes by `created`, not by the order of inserts.
pub async fn latest_is_the_greatest_created_not_the_last_inserted(store: &impl Metastore) {
    let key = fresh_meta();
    // 9 s and 10 s sort the wrong way round as text without leading zeros.
    let records = [9, 86_400, 10, 0].map(|seconds| record(&later(&key, seconds)));
    for record in &records {
        insert(store, record).await;
    }
    assert_eq!(latest(store, key.id()).await.as_ref(), records.get(1));
}

/// `load_latest` sees every insert that ended before it began.
pub async fn latest_sees_every_insert_that_ended(store: &impl Metastore) {
    let key = fresh_meta();
    for seconds in 0..20 {
        let record = record(&later(&key, seconds));
        insert(store, &record).await;
        assert_eq!(latest(store, key.id()).await, Some(record));
    }
}

/// `load_latest` of an id that begins another id does not return the other's record.
pub async fn latest_is_of_that_id_alone(store: &impl Metastore) {
    let short = fresh_meta();
    let long = KeyMeta::new(KeyId::new(format!("{}_x", short.id())), created(NOW + 60));
    let (short, long) = (record(&short), record(&long));
    insert(store, &long).await;
    assert_eq!(latest(store, short.meta().id()).await, None);
    insert(store, &short).await;
    assert_eq!(latest(store, short.meta().id()).await, Some(short));
}

/// Wrapped key, parent and flag of an intermediate key come back as they were.
pub async fn an_intermediate_key_is_returned_whole(store: &impl Metastore) {
    assert_kept(store, &record(&fresh_meta())).await;
}

/// A system key's record, which has no parent, comes back without one.
pub async fn a_system_key_is_returned_whole(store: &impl Metastore) {
    assert_kept(store, &EnvelopeKeyRecord::new(fresh_meta(), random_bytes::<200>(), None)).await;
}

/// A record that was inserted as revoked comes back as revoked.
pub async fn a_revoked_record_is_returned_revoked(store: &impl Metastore) {
    assert_kept(store, &record(&fresh_meta()).revoked(true)).await;
}

/// An insert of a `(id, created)` that is taken answers `AlreadyExists` and changes nothing.
pub async fn an_insert_of_a_taken_version_changes_nothing(store: &impl Metastore) {
    let key = fresh_meta();
    let first = record(&key);
    insert(store, &first).await;
    for again in [record(&key), record(&key).revoked(true), first.clone()] {
        assert_eq!(ok(store.insert(&again, &call()).await), Insert::AlreadyExists);
        assert_eq!(load(store, &key).await.as_ref(), Some(&first));
    }
}

/// Of any number of inserts of one version at once exactly one wins, and its record stays.
pub async fn one_of_many_concurrent_inserts_wins(store: &impl Metastore) {
    for _ in 0..5 {
        let key = fresh_meta();
        let records: Vec<_> = (0..20).map(|_| record(&key)).collect();
        let tries = race(records.len(), |runner| {
            let record = records.get(runner).cloned();
            async move {
                let record = record?;
                (ok(store.insert(&record, &call()).await) == Insert::Inserted).then_some(record)
            }
        });
        let winners: Vec<_> = tries.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1);
        assert_eq!(load(store, &key).await, winners.into_iter().next());
    }
}

/// Inserts of different versions do not stand in each other's way.
pub async fn concurrent_inserts_of_different_versions_all_win(store: &impl Metastore) {
    let key = fresh_meta();
    let records: Vec<_> = (0..20).map(|seconds| record(&later(&key, seconds))).collect();
    race(records.len(), |runner| {
        let record = records.get(runner);
        async move {
            if let Some(record) = record {
                insert(store, record).await;
            }
        }
    });
    for record in &records {
        assert_eq!(load(store, record.meta()).await.as_ref(), Some(record));
    }
    assert_eq!(latest(store, key.id()).await.as_ref(), records.last());
}

/// A record is seen whole or not at all while it is inserted.
pub async fn a_load_during_an_insert_sees_nothing_or_all(store: &impl Metastore) {
    for _ in 0..10 {
        let record = record(&fresh_meta());
        race(4, |runner| {
            let record = &record;
            async move {
                if runner == 0 {
                    insert(store, record).await;
                } else if let Some(seen) = load(store, record.meta()).await {
                    assert_eq!(seen, *record);
                }
            }
        });
        assert_eq!(load(store, record.meta()).await, Some(record));
    }
}

/// A wrapped key of 32 KiB, such as a KMS with many regions makes, is kept.
pub async fn a_wrapped_key_of_32_kib_is_kept(store: &impl Metastore) {
    let wrapped = random_bytes::<32>().repeat(1_024);
    assert_kept(store, &EnvelopeKeyRecord::new(fresh_meta(), wrapped, None)).await;
}

/// A record of more than [`EnvelopeKeyRecord::MAX_JSON_BYTES`] is refused for good, and no server is asked:
/// it would not be read again.
pub async fn a_record_over_64_kib_is_refused(store: &impl Metastore) {
    for wrapped_bytes in [EnvelopeKeyRecord::MAX_JSON_BYTES * 3 / 4 + 1, 1_000_000] {
        let record = EnvelopeKeyRecord::new(fresh_meta(), vec![7; wrapped_bytes], None);
        assert!(is_refused_unasked(&store.insert(&record, &call()).await), "{wrapped_bytes} bytes");
        assert_eq!(load(store, record.meta()).await, None);
    }
}

/// A future dropped at any await leaves the store usable, and an insert that was dropped has
/// happened whole or not at all.
pub async fn dropped_calls_leave_the_store_usable(store: &impl Metastore) {
    let mut records = Vec::new();
    for round in 0..200 {
        let polls = round % 10 + 1;
        let record = record(&fresh_meta());
        abandon(store.insert(&record, &call()), polls).await;
        abandon(store.load_latest(record.meta().id(), Created::MAX, &call()), polls).await;
        abandon(store.load_many(&[record.meta().clone()], &call()), polls).await;
        abandon(store.load_latest_many(&[record.meta().id().clone()], Created::MAX, &call()), polls).await;
        abandon(store.load(record.meta(), &call()), polls).await;
        records.push(record);
    }
    for record in records {
        // `AlreadyExists` is as good: the dropped insert has happened, or still does.
        let _either = ok(store.insert(&record, &call()).await);
        assert_eq!(load(store, record.meta()).await, Some(record));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_macro_names_every_clause() {
        crate::testing::support::assert_macro_names_every_clause(&[
            include_str!("metastore.rs"),
            include_str!("metastore/bulk.rs"),
            include_str!("metastore/identity.rs"),
            include_str!("metastore/latest.rs"),
        ]);
    }
}
