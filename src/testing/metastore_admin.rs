//! The contract of [`MetastoreAdmin`], clause by clause.

#![expect(clippy::missing_panics_doc, reason = "a clause that does not hold panics: that is what it is for")]

use crate::metastore::MetastoreAdmin;
use crate::record::{EnvelopeKeyRecord, KeyId, KeyMeta};
use crate::testing::support::{
    NOW, abandon, created, fresh_id, fresh_meta, insert, later, load, ok, race, random_bytes, record,
};

/// Makes a test of each clause of [`MetastoreAdmin`]'s contract, which is on top of
/// [`metastore_contract`](crate::testing::metastore_contract).
#[macro_export]
macro_rules! metastore_admin_contract {
    ($($open:tt)*) => { $crate::__contract_tests! { metastore_admin, $($open)*,
        list_gives_every_record_once_whatever_the_page
        list_gives_no_more_than_the_limit
        list_from_the_start_gives_every_record
        list_gives_records_whole
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
    let stem = fresh_id("");
    let mut records = Vec::new();
    for tail in ["", "-B", "-a", "-a ", "-a_b", "-\u{e9}", "-\u{1f600}"] {
        for seconds in [9, 10, 3_600] {
            let id = KeyId::new(format!("{stem}{tail}"));
            records.push(record(&KeyMeta::new(id, created(NOW + seconds))));
        }
    }
    for record in records.iter().rev() {
        insert(store, record).await;
    }
    for limit in [1, 2, 5, 1_000] {
        let listed = list_stem(store, &stem, limit).await;
        let mut keys: Vec<_> = listed.chunk_by(|one, next| one.meta().id() == next.meta().id()).collect();
        assert!(keys.iter().all(|versions| versions.is_sorted_by_key(|version| version.meta().created())));
        // The order of ids is the store's own.
        keys.sort_by_key(|versions| versions.first().map(EnvelopeKeyRecord::meta));
        assert_eq!(keys.concat(), records, "pages of {limit}");
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

/// `count` counts what `list` lists.
pub async fn count_agrees_with_list(store: &impl MetastoreAdmin) {
    insert(store, &record(&fresh_meta())).await;
    // Others may be writing to the same store, so a quiet moment is waited for.
    for _ in 0..1_000 {
        let before = ok(store.count().await);
        let listed = list_all(store).await.len() as u64;
        if before == ok(store.count().await) {
            assert_eq!(listed, before);
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
        assert_eq!(ok(store.load_latest(record.meta().id()).await), Some(record.revoked(true)));
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
    let is_ours = |record: &EnvelopeKeyRecord| record.meta().id().as_str().starts_with(stem.as_str());
    list_pages(store, limit).await.into_iter().filter(is_ours).collect()
}

async fn list_all(store: &impl MetastoreAdmin) -> Vec<EnvelopeKeyRecord> {
    list_pages(store, 500).await
}

async fn list_pages(store: &impl MetastoreAdmin, limit: usize) -> Vec<EnvelopeKeyRecord> {
    let (mut records, mut after) = (Vec::new(), None);
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
