//! The clauses of `list` and `count`.

use crate::metastore::MetastoreAdmin;
use crate::record::{EnvelopeKeyRecord, KeyId, KeyMeta};
use crate::testing::call;
use crate::testing::support::{
    LOOKALIKES, Lookalikes, NOW, created, fresh_id, fresh_meta, fresh_pair, insert, keep, keep_pair, ok,
    random_bytes, record,
};

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

/// `list` gives at most `limit` records.
pub async fn list_gives_no_more_than_the_limit(store: &impl MetastoreAdmin) {
    for _ in 0..3 {
        insert(store, &record(&fresh_meta())).await;
    }
    for limit in 0..=3 {
        assert!(ok(store.list("", None, limit, &call()).await).records.len() <= limit);
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
        assert_eq!(ok(store.delete(key.id(), &call()).await), 3);
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
        assert_eq!(ok(store.delete(last.id(), &call()).await), 1);
        assert_eq!(rest(list_stem_after(store, &stem, Some(last), 2).await), after);
    }
    let expected: Vec<_> = before.iter().chain(after).cloned().collect();
    assert_eq!(rest(list_stem(store, &stem, 2).await), expected);
}

/// A caller that goes on from page to page sees every record once that was there all the time, whatever comes
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
        let page = ok(store.list("", after.as_ref(), 3, &call()).await);
        assert!(ok(store.delete(passing.meta().id(), &call()).await) == 1);
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
        let before = ok(store.count(&call()).await);
        let listed = list_all(store).await.len() as u64;
        if before == listed && listed == ok(store.count(&call()).await) {
            return;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(
        list_all(store).await.len() as u64,
        ok(store.count(&call()).await),
        "no quiet moment was found"
    );
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
        let page = ok(store.list("", after.as_ref(), limit, &call()).await);
        assert!(page.records.len() + page.damaged.len() <= limit);
        records.extend(page.records);
        after = page.next;
        if after.is_none() {
            return records;
        }
    }
}
