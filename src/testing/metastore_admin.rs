//! The contract of [`MetastoreAdmin`], clause by clause.

#![expect(clippy::missing_panics_doc, reason = "a clause that does not hold panics: that is what it is for")]

use crate::metastore::{Consistency, MetastoreAdmin};
use crate::record::{EnvelopeKeyRecord, KeyId, KeyMeta};
use crate::testing::support::{
    LOOKALIKES, Lookalikes, NOW, abandon, assert_answer, created, fresh_id, fresh_meta, fresh_pair, insert,
    keep, keep_pair, later, load, ok, race, random_bytes, record,
};

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
        delete_takes_all_versions_of_that_id_alone
        a_deleted_version_can_be_inserted_again
        dropped_admin_calls_leave_the_store_usable
    } };
}

/// `list` gives every record once, versions of one key side by side and the oldest first, whatever
/// the size of the pages.
pub async fn list_gives_every_record_once_whatever_the_page(store: &impl MetastoreAdmin) {
    list_pages_of_all_sizes(store, Lookalikes::Apart).await;
}

/// `list` gives every record once that was not refused, versions of one key side by side and the
/// oldest first, whatever the size of the pages.
pub async fn list_gives_every_record_once_whatever_the_page_or_refused(store: &impl MetastoreAdmin) {
    list_pages_of_all_sizes(store, Lookalikes::ApartOrRefused).await;
}

async fn list_pages_of_all_sizes(store: &impl MetastoreAdmin, lookalikes: Lookalikes) {
    let stem = fresh_id("");
    let mut kept = Vec::new();
    for tail in ["", "-B", "-a", "-a ", "-a_b", "-\u{e9}", "-\u{1f600}"] {
        // The oldest is not the first.
        for seconds in [10, 3_600, 9] {
            let id = KeyId::new(format!("{stem}{tail}"));
            kept.extend(keep(store, &record(&KeyMeta::new(id, created(NOW + seconds))), lookalikes).await);
        }
    }
    assert!(kept.len() >= 12, "plain letters fit into every table");
    kept.sort_by(|one, other| one.meta().cmp(other.meta()));
    for limit in [1, 2, 5, 1_000] {
        let listed = list_stem(store, &stem, limit).await;
        let mut keys: Vec<_> = listed.chunk_by(|one, next| one.meta().id() == next.meta().id()).collect();
        assert!(keys.iter().all(|versions| versions.is_sorted_by_key(|version| version.meta().created())));
        // The order of ids is the store's own.
        keys.sort_by_key(|versions| versions.first().map(EnvelopeKeyRecord::meta));
        assert_eq!(keys.concat(), kept, "pages of {limit}");
    }
}

/// `list` gives the record of each id that looks like another, once.
pub async fn list_tells_lookalikes_apart(store: &impl MetastoreAdmin) {
    list_of_lookalikes(store, Lookalikes::Apart).await;
}

/// `list` gives the record of each id that looks like another, once, and none of those refused.
pub async fn list_tells_lookalikes_apart_or_refused(store: &impl MetastoreAdmin) {
    list_of_lookalikes(store, Lookalikes::ApartOrRefused).await;
}

async fn list_of_lookalikes(store: &impl MetastoreAdmin, lookalikes: Lookalikes) {
    for tails in LOOKALIKES {
        let pair = fresh_pair(tails);
        let mut kept: Vec<_> = keep_pair(store, &pair, lookalikes).await.into_iter().flatten().collect();
        for limit in [1, 500] {
            let mut listed = list_pages(store, limit).await;
            listed.retain(|record| pair.contains(record.meta()));
            for records in [&mut listed, &mut kept] {
                records.sort_by(|one, other| one.meta().cmp(other.meta()));
            }
            assert_eq!(listed, kept, "pages of {limit}");
        }
    }
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
        assert_answer(store.revoke(second).await, &other.is_some(), other.is_none());
        assert_left(store, &pair, [one, other.map(|record| record.revoked(true))]).await;
    }
}

/// `replace_wrapped_key` of a key leaves one that looks like it alone.
pub async fn replace_leaves_lookalikes_alone(store: &impl MetastoreAdmin) {
    replace_of_lookalikes(store, Lookalikes::Apart).await;
}

/// `replace_wrapped_key` of a key leaves one that looks like it alone, and finds nothing by the name
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
            let answer = store.replace_wrapped_key(second, held.wrapped_key(), &new).await;
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
        assert_answer(store.delete(second.id()).await, &u64::from(other.is_some()), other.is_none());
        let [first, _] = &pair;
        assert_answer(store.load(first, Consistency::Strong).await, &one, one.is_none());
        assert_answer(store.load(second, Consistency::Strong).await, &None, other.is_none());
    }
}

/// Asserts what is there of two keys that look alike; of one that was refused there is nothing.
async fn assert_left(store: &impl MetastoreAdmin, pair: &[KeyMeta; 2], left: [Option<EnvelopeKeyRecord>; 2]) {
    for (key, left) in pair.iter().zip(left) {
        assert_answer(store.load(key, Consistency::Strong).await, &left, left.is_none());
    }
}

/// `list` gives at most `limit` records.
pub async fn list_gives_no_more_than_the_limit(store: &impl MetastoreAdmin) {
    for _ in 0..3 {
        insert(store, &record(&fresh_meta())).await;
    }
    for limit in 0..=3 {
        assert!(ok(store.list(None, limit).await).records.len() <= limit);
    }
}

/// `list` begins with the first record when it is told none.
pub async fn list_from_the_start_gives_every_record(store: &impl MetastoreAdmin) {
    let records = [(); 3].map(|()| record(&fresh_meta()));
    for record in &records {
        insert(store, record).await;
    }
    let listed = list_all(store).await;
    assert!(records.iter().all(|record| listed.contains(record)));
}

/// `list` gives records as `load` does: wrapped key, parent, flag.
pub async fn list_gives_records_whole(store: &impl MetastoreAdmin) {
    let stem = fresh_id("");
    let key = |seconds| KeyMeta::new(stem.clone(), created(NOW + seconds));
    let records = [
        record(&key(0)),
        record(&key(1)).revoked(true),
        EnvelopeKeyRecord::new(key(2), random_bytes::<100>(), None),
    ];
    for record in &records {
        insert(store, record).await;
    }
    assert_eq!(list_stem(store, &stem, 10).await, records);
}

/// `list` goes on from a version that was deleted as it does from one that is there.
pub async fn list_goes_on_after_a_version_that_is_gone(store: &impl MetastoreAdmin) {
    let stem = fresh_id("");
    let version =
        |tail: usize, seconds| KeyMeta::new(KeyId::new(format!("{stem}-{tail}")), created(NOW + seconds));
    for tail in 0..5 {
        for seconds in 0..3 {
            insert(store, &record(&version(tail, seconds))).await;
        }
    }
    let listed: Vec<_> =
        list_stem(store, &stem, 500).await.iter().map(|record| record.meta().clone()).collect();
    // The ids' order is the store's own: of the middle one all but the last version go.
    let (before, of_it_and_after) = listed.split_at(6);
    let (of_it, after) = of_it_and_after.split_at(3);
    for key in of_it.iter().take(1) {
        assert_eq!(ok(store.delete(key.id()).await), 3);
    }
    for key in of_it.iter().skip(2) {
        insert(store, &record(key)).await;
    }
    let rest = |from: Vec<EnvelopeKeyRecord>| Vec::from_iter(from.iter().map(|record| record.meta().clone()));
    for gone in of_it.iter().take(2) {
        let expected: Vec<_> = of_it.iter().skip(2).chain(after).cloned().collect();
        assert_eq!(rest(list_stem_after(store, &stem, Some(gone), 2).await), expected);
    }
    for last in of_it.iter().skip(2) {
        assert_eq!(ok(store.delete(last.id()).await), 1);
        assert_eq!(rest(list_stem_after(store, &stem, Some(last), 2).await), after);
    }
    let expected: Vec<_> = before.iter().chain(after).cloned().collect();
    assert_eq!(rest(list_stem(store, &stem, 2).await), expected);
}

/// Who goes on from page to page sees every record once that was there all the time, whatever comes
/// and goes meanwhile.
pub async fn list_sees_what_is_there_all_the_time(store: &impl MetastoreAdmin) {
    let stays = fresh_id("");
    let mut records = Vec::new();
    for tail in 0..12 {
        records.push(record(&KeyMeta::new(KeyId::new(format!("{stays}-{tail:02}")), created(NOW))));
    }
    for record in &records {
        insert(store, record).await;
    }
    let (mut seen, mut after, mut round) = (Vec::new(), None, 0);
    loop {
        let passing = record(&KeyMeta::new(KeyId::new(format!("{stays}-{round:02}-x")), created(NOW)));
        insert(store, &passing).await;
        let page = ok(store.list(after.as_ref(), 3).await);
        assert!(ok(store.delete(passing.meta().id()).await) == 1);
        seen.extend(page.records);
        after = page.next;
        round = (round + 1) % 12;
        if after.is_none() {
            break;
        }
    }
    seen.retain(|record| records.contains(record));
    seen.sort_by(|one, other| one.meta().cmp(other.meta()));
    assert_eq!(seen, records);
}

/// `count` counts what `list` lists.
pub async fn count_agrees_with_list(store: &impl MetastoreAdmin) {
    insert(store, &record(&fresh_meta())).await;
    // Others may be writing to the same store, so a quiet moment is waited for.
    for _ in 0..1_000 {
        let before = ok(store.count().await);
        let listed = list_all(store).await.len() as u64;
        if before == listed && listed == ok(store.count().await) {
            return;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(list_all(store).await.len() as u64, ok(store.count().await), "no quiet moment was found");
}

/// `revoke` sets the flag of that version; all else stays as it is.
pub async fn revoke_marks_that_version_alone(store: &impl MetastoreAdmin) {
    let key = fresh_meta();
    let records = [-1, 0, 1].map(|seconds| record(&later(&key, seconds)));
    for record in &records {
        insert(store, record).await;
    }
    assert!(ok(store.revoke(&key).await));
    let [before, revoked, after] = records;
    for expected in [before, revoked.revoked(true), after] {
        assert_eq!(load(store, expected.meta()).await, Some(expected));
    }
}

/// `revoke` of a version that there is not answers `false`.
pub async fn revoke_of_an_unknown_version_is_false_and_makes_nothing(store: &impl MetastoreAdmin) {
    let key = fresh_meta();
    assert!(!ok(store.revoke(&key).await));
    assert_eq!(load(store, &key).await, None);
    let record = record(&later(&key, 1));
    insert(store, &record).await;
    assert!(!ok(store.revoke(&key).await));
    assert_eq!(load(store, record.meta()).await, Some(record));
}

/// `revoke` of a version that is revoked answers `true` and leaves it as it is.
pub async fn revoke_of_a_revoked_version_changes_nothing(store: &impl MetastoreAdmin) {
    let record = record(&fresh_meta());
    insert(store, &record).await;
    for _ in 0..3 {
        assert!(ok(store.revoke(record.meta()).await));
        assert_eq!(load(store, record.meta()).await, Some(record.clone().revoked(true)));
    }
}

/// `load_latest` sees every revocation that ended before it began.
pub async fn latest_sees_every_revocation_that_ended(store: &impl MetastoreAdmin) {
    for _ in 0..10 {
        let record = record(&fresh_meta());
        insert(store, &record).await;
        assert!(ok(store.revoke(record.meta()).await));
        let revoked = record.revoked(true);
        assert_eq!(ok(store.load_latest(revoked.meta().id()).await).as_ref(), Some(&revoked));
        assert_eq!(ok(store.load_latest_many(&[revoked.meta().id().clone()]).await), [Some(revoked)]);
    }
}

/// Any number of revokes of one version at once find it.
pub async fn concurrent_revokes_all_find_the_record(store: &impl MetastoreAdmin) {
    let record = record(&fresh_meta());
    insert(store, &record).await;
    let found = race(8, |_| async { ok(store.revoke(record.meta()).await) });
    assert_eq!(found, [true; 8]);
    assert_eq!(load(store, record.meta()).await, Some(record.revoked(true)));
}

/// `replace_wrapped_key` puts the new wrapped key in place; parent and flag stay.
pub async fn replace_changes_the_wrapped_key_alone(store: &impl MetastoreAdmin) {
    for revoked in [false, true] {
        let record = record(&fresh_meta()).revoked(revoked);
        insert(store, &record).await;
        let new = random_bytes::<80>();
        assert!(ok(store.replace_wrapped_key(record.meta(), record.wrapped_key(), &new).await));
        assert_eq!(load(store, record.meta()).await, Some(with_wrapped_key(&record, &new)));
    }
}

/// `replace_wrapped_key` answers `false` and changes nothing when the record holds another wrapped
/// key, or when there is none.
pub async fn replace_needs_the_old_wrapped_key(store: &impl MetastoreAdmin) {
    let record = record(&fresh_meta());
    let [old, new] = [(); 2].map(|()| random_bytes::<60>());
    assert!(!ok(store.replace_wrapped_key(record.meta(), &old, &new).await));
    assert_eq!(load(store, record.meta()).await, None);
    insert(store, &record).await;
    assert!(!ok(store.replace_wrapped_key(record.meta(), &old, &new).await));
    assert!(!ok(store.replace_wrapped_key(record.meta(), &[], &new).await));
    assert_eq!(load(store, record.meta()).await, Some(record));
}

/// Of any number of replacements of one wrapped key at once exactly one wins.
pub async fn one_of_many_concurrent_replaces_wins(store: &impl MetastoreAdmin) {
    let record = record(&fresh_meta());
    insert(store, &record).await;
    let winners = race(10, |_| async {
        let new = random_bytes::<60>();
        ok(store.replace_wrapped_key(record.meta(), record.wrapped_key(), &new).await).then_some(new)
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
                    0 => store.revoke(record.meta()).await,
                    _ => store.replace_wrapped_key(record.meta(), record.wrapped_key(), new).await,
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
    assert_eq!(ok(store.delete(key.id()).await), 0);
    for seconds in 0..3 {
        insert(store, &record(&later(&key, seconds))).await;
    }
    assert_eq!(ok(store.delete(key.id()).await), 3);
    assert_eq!(ok(store.load_latest(key.id()).await), None);
    assert_eq!(load(store, &key).await, None);
    assert_eq!(ok(store.delete(key.id()).await), 0);
    assert_eq!(load(store, bystander.meta()).await, Some(bystander));
}

/// A version that was deleted is free.
pub async fn a_deleted_version_can_be_inserted_again(store: &impl MetastoreAdmin) {
    let key = fresh_meta();
    insert(store, &record(&key)).await;
    assert_eq!(ok(store.delete(key.id()).await), 1);
    let again = record(&key);
    insert(store, &again).await;
    assert_eq!(load(store, &key).await, Some(again));
}

/// A future dropped at any await leaves the store usable; what it was to do is done whole or not
/// at all.
pub async fn dropped_admin_calls_leave_the_store_usable(store: &impl MetastoreAdmin) {
    for round in 0..100 {
        let polls = round % 10 + 1;
        let record = record(&fresh_meta());
        insert(store, &record).await;
        let new = random_bytes::<60>();
        abandon(store.replace_wrapped_key(record.meta(), record.wrapped_key(), &new), polls).await;
        abandon(store.list(Some(record.meta()), 5), polls).await;
        abandon(store.count(), polls).await;
        abandon(store.revoke(record.meta()), polls).await;
        assert!(ok(store.revoke(record.meta()).await));
        let replaced = with_wrapped_key(&record, &new).revoked(true);
        let left = load(store, record.meta()).await;
        assert!(left == Some(replaced) || left == Some(record.clone().revoked(true)));
        abandon(store.delete(record.meta().id()), polls).await;
        let deleted = ok(store.delete(record.meta().id()).await);
        assert!(deleted <= 1);
        assert_eq!(load(store, record.meta()).await, None);
    }
}

fn with_wrapped_key(record: &EnvelopeKeyRecord, wrapped: &[u8]) -> EnvelopeKeyRecord {
    let parent = record.parent().cloned();
    EnvelopeKeyRecord::new(record.meta().clone(), wrapped, parent).revoked(record.is_revoked())
}

/// Lists the records whose ids begin with `stem`, in pages of `limit` of all there are.
async fn list_stem(store: &impl MetastoreAdmin, stem: &KeyId, limit: usize) -> Vec<EnvelopeKeyRecord> {
    list_stem_after(store, stem, None, limit).await
}

async fn list_stem_after(
    store: &impl MetastoreAdmin,
    stem: &KeyId,
    after: Option<&KeyMeta>,
    limit: usize,
) -> Vec<EnvelopeKeyRecord> {
    let is_ours = |record: &EnvelopeKeyRecord| record.meta().id().as_str().starts_with(stem.as_str());
    list_after(store, after, limit).await.into_iter().filter(is_ours).collect()
}

async fn list_all(store: &impl MetastoreAdmin) -> Vec<EnvelopeKeyRecord> {
    list_pages(store, 500).await
}

async fn list_pages(store: &impl MetastoreAdmin, limit: usize) -> Vec<EnvelopeKeyRecord> {
    list_after(store, None, limit).await
}

async fn list_after(
    store: &impl MetastoreAdmin,
    after: Option<&KeyMeta>,
    limit: usize,
) -> Vec<EnvelopeKeyRecord> {
    let (mut records, mut after) = (Vec::new(), after.cloned());
    loop {
        let page = ok(store.list(after.as_ref(), limit).await);
        assert!(page.records.len() + page.damaged.len() <= limit);
        records.extend(page.records);
        after = page.next;
        if after.is_none() {
            return records;
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_macro_names_every_clause() {
        crate::testing::support::assert_macro_names_every_clause(include_str!("metastore_admin.rs"));
    }
}
