//! The contract of [`Metastore`], clause by clause.

#![expect(clippy::missing_panics_doc, reason = "a clause that does not hold panics: that is what it is for")]

use crate::metastore::{Consistency, Insert, Metastore};
use crate::record::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};
use crate::testing::support::{
    LOOKALIKES, Lookalikes, NOW, abandon, assert_answer, assert_kept, assert_kept_or_refused,
    assert_tails_told_apart, assert_told_apart, created, fresh_id, fresh_meta, fresh_pair, insert, keep,
    keep_pair, later, load, ok, race, random_bytes, record,
};

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
        ids_with_nul_are_never_cut
        an_empty_id_is_kept_or_refused
        reserved_ids_are_never_found
        a_wrapped_key_of_32_kib_is_kept
        load_many_answers_in_the_order_asked
        load_many_of_nothing_is_nothing
        load_many_takes_hundreds
        load_many_sees_every_insert_that_ended
        load_latest_many_answers_in_the_order_asked
        load_latest_many_goes_by_created
        load_latest_many_of_nothing_is_nothing
        load_latest_many_takes_hundreds
        load_latest_many_sees_every_insert_that_ended
        dropped_calls_leave_the_store_usable
    } };
}

/// `load` of a version that there is not returns `None`, also when the id has other versions.
pub async fn an_unknown_version_is_none(store: &impl Metastore) {
    let key = fresh_meta();
    assert_eq!(ok(store.load(&key, Consistency::Strong).await), None);
    assert_eq!(ok(store.load(&key, Consistency::Eventual).await), None);
    insert(store, &record(&later(&key, 1))).await;
    assert_eq!(ok(store.load(&key, Consistency::Strong).await), None);
}

/// `load_latest` of an id without a record returns `None`.
pub async fn an_unknown_id_has_no_latest(store: &impl Metastore) {
    assert_eq!(ok(store.load_latest(&fresh_id("")).await), None);
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
    assert_eq!(ok(store.load(one.meta(), Consistency::Eventual).await), Some(one));
}

/// `load_latest` goes by `created`, not by the order of inserts.
pub async fn latest_is_the_greatest_created_not_the_last_inserted(store: &impl Metastore) {
    let key = fresh_meta();
    // 9 s and 10 s sort the wrong way round as text without leading zeros.
    let records = [9, 86_400, 10, 0].map(|seconds| record(&later(&key, seconds)));
    for record in &records {
        insert(store, record).await;
    }
    assert_eq!(ok(store.load_latest(key.id()).await).as_ref(), records.get(1));
}

/// `load_latest` sees every insert that ended before it began.
pub async fn latest_sees_every_insert_that_ended(store: &impl Metastore) {
    let key = fresh_meta();
    for seconds in 0..20 {
        let record = record(&later(&key, seconds));
        insert(store, &record).await;
        assert_eq!(ok(store.load_latest(key.id()).await), Some(record));
    }
}

/// `load_latest` of an id that begins another id does not return the other's record.
pub async fn latest_is_of_that_id_alone(store: &impl Metastore) {
    let short = fresh_meta();
    let long = KeyMeta::new(KeyId::new(format!("{}_x", short.id())), created(NOW + 60));
    let (short, long) = (record(&short), record(&long));
    insert(store, &long).await;
    assert_eq!(ok(store.load_latest(short.meta().id()).await), None);
    insert(store, &short).await;
    assert_eq!(ok(store.load_latest(short.meta().id()).await), Some(short));
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
        assert_eq!(ok(store.insert(&again).await), Insert::AlreadyExists);
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
                (ok(store.insert(&record).await) == Insert::Inserted).then_some(record)
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
    assert_eq!(ok(store.load_latest(key.id()).await).as_ref(), records.last());
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

/// `created` is kept to the second.
pub async fn versions_one_second_apart_are_two(store: &impl Metastore) {
    let key = fresh_meta();
    let next = later(&key, 1);
    assert_told_apart(store, &[key, next], Lookalikes::Apart).await;
}

/// 1970-01-01 00:00:01 is a time like any other.
pub async fn the_first_second_is_a_time(store: &impl Metastore) {
    assert_kept(store, &record(&KeyMeta::new(fresh_id(""), Created::MIN))).await;
}

/// 1970-01-01 00:00:01 is kept exactly, or refused for good.
pub async fn the_first_second_is_a_time_or_refused(store: &impl Metastore) {
    assert_kept_or_refused(store, &KeyMeta::new(fresh_id(""), Created::MIN)).await;
}

/// A time is kept to the second whatever the clocks on the server's wall do at it.
pub async fn times_around_a_change_of_clocks_are_kept(store: &impl Metastore) {
    clock_changes(store, Lookalikes::Apart).await;
}

/// A time that a clock on the server's wall skips or shows twice is kept to the second, or refused
/// for good.
pub async fn times_around_a_change_of_clocks_are_kept_or_refused(store: &impl Metastore) {
    clock_changes(store, Lookalikes::ApartOrRefused).await;
}

async fn clock_changes(store: &impl Metastore, lookalikes: Lookalikes) {
    let mut kept = Vec::new();
    for key in around_changes_of_clocks() {
        kept.extend(keep(store, &record(&key), lookalikes).await);
    }
    for record in kept {
        assert_eq!(load(store, record.meta()).await, Some(record));
    }
}

/// Every half hour, of one key, around the hour that is skipped and the hour that comes twice in Los
/// Angeles and in Berlin: as times of the world, and as what the clock there shows then.
fn around_changes_of_clocks() -> Vec<KeyMeta> {
    const HALF_HOUR: i64 = 1_800;
    // 2023-03-12 10:00 and 2023-11-05 09:00, 2023-03-26 01:00 and 2023-10-29 01:00, all in UTC.
    let changes = [1_678_615_200, 1_699_174_800, 1_679_792_400, 1_698_541_200];
    // From what Los Angeles shows to what Berlin shows.
    let around = (-20..=6).map(|step| step * HALF_HOUR);
    let id = fresh_id("");
    let times = changes.into_iter().flat_map(|change| around.clone().map(move |offset| change + offset));
    times.map(|time| KeyMeta::new(id.clone(), created(time))).collect()
}

/// A time past the end of 32-bit timestamps is kept to the second, or refused for good.
pub async fn times_past_2038_are_kept_exactly_or_refused(store: &impl Metastore) {
    let end = i64::from(i32::MAX);
    let ends = [end, end + 1, i64::from(u32::MAX) + 1, 253_402_300_799, 253_402_300_800];
    for unix_seconds in ends {
        assert_kept_or_refused(store, &KeyMeta::new(fresh_id(""), created(unix_seconds))).await;
    }
}

/// The last time there is, is kept to the second, or refused for good.
pub async fn the_last_time_is_kept_exactly_or_refused(store: &impl Metastore) {
    assert_kept_or_refused(store, &KeyMeta::new(fresh_id(""), Created::MAX)).await;
}

/// Ids that differ in case only name different keys.
pub async fn ids_that_differ_in_case_are_two(store: &impl Metastore) {
    case(store, Lookalikes::Apart).await;
}

/// Of ids that differ in case only the second is kept apart, or refused for good.
pub async fn ids_that_differ_in_case_are_two_or_refused(store: &impl Metastore) {
    case(store, Lookalikes::ApartOrRefused).await;
}

async fn case(store: &impl Metastore, lookalikes: Lookalikes) {
    assert_tails_told_apart(store, ["alice", "ALICE"], lookalikes).await;
    assert_tails_told_apart(store, ["stra\u{df}e", "strasse"], lookalikes).await;
    let tail = fresh_id("");
    let pair = ["_IK_a", "_IK_A"].map(|head| KeyMeta::new(KeyId::new(format!("{head}{tail}")), created(NOW)));
    assert_told_apart(store, &pair, lookalikes).await;
}

/// Ids that differ in accents only, or in how an accent is composed, name different keys.
pub async fn ids_that_differ_in_accents_are_two(store: &impl Metastore) {
    accents(store, Lookalikes::Apart).await;
}

/// Of ids that differ in accents only the second is kept apart, or refused for good.
pub async fn ids_that_differ_in_accents_are_two_or_refused(store: &impl Metastore) {
    accents(store, Lookalikes::ApartOrRefused).await;
}

async fn accents(store: &impl Metastore, lookalikes: Lookalikes) {
    assert_tails_told_apart(store, ["\u{e9}", "e"], lookalikes).await;
    assert_tails_told_apart(store, ["andre", "andr\u{e9}"], lookalikes).await;
    assert_tails_told_apart(store, ["andr\u{e9}", "andre\u{301}"], lookalikes).await;
}

/// Ids that differ in trailing white space only name different keys.
pub async fn ids_that_differ_in_trailing_blanks_are_two(store: &impl Metastore) {
    trailing_blanks(store, Lookalikes::Apart).await;
}

/// Of ids that differ in trailing white space only the second is kept apart, or refused for good.
pub async fn ids_that_differ_in_trailing_blanks_are_two_or_refused(store: &impl Metastore) {
    trailing_blanks(store, Lookalikes::ApartOrRefused).await;
}

async fn trailing_blanks(store: &impl Metastore, lookalikes: Lookalikes) {
    assert_tails_told_apart(store, ["x", "x "], lookalikes).await;
    assert_tails_told_apart(store, ["y ", "y  "], lookalikes).await;
    assert_tails_told_apart(store, ["z", "z\t"], lookalikes).await;
}

/// What is a wildcard to a database is a character in an id.
pub async fn ids_with_wildcards_match_nothing_else(store: &impl Metastore) {
    let pairs = [["a_c", "abc"], ["a%c", "abbc"], ["a*c", "abc"], ["a?c", "abc"], ["[a]c", "ac"]];
    for pair in pairs {
        assert_tails_told_apart(store, pair, Lookalikes::Apart).await;
    }
}

/// Quotes, backslashes and control characters are kept, in the id and in the parent's.
pub async fn ids_with_quotes_and_backslashes_are_kept(store: &impl Metastore) {
    for tail in [
        "o'brien",
        "\"quoted\"",
        "back\\slash",
        "'; DROP TABLE encryption_key; --",
        "tab\tline\nend",
        "\\'",
        "{}",
        "$1 ?1 :a",
    ] {
        let key = KeyMeta::new(fresh_id(tail), created(NOW));
        let parent = KeyMeta::new(fresh_id(tail), created(NOW));
        assert_kept(store, &EnvelopeKeyRecord::new(key, random_bytes::<60>(), Some(parent))).await;
    }
}

/// Characters of four bytes are kept, and told apart.
pub async fn ids_beyond_the_basic_plane_are_kept(store: &impl Metastore) {
    beyond_the_basic_plane(store, Lookalikes::Apart).await;
}

/// Characters of four bytes are kept and told apart, or refused for good.
pub async fn ids_beyond_the_basic_plane_are_kept_or_refused(store: &impl Metastore) {
    beyond_the_basic_plane(store, Lookalikes::ApartOrRefused).await;
}

async fn beyond_the_basic_plane(store: &impl Metastore, lookalikes: Lookalikes) {
    assert_tails_told_apart(store, ["\u{1f600}", "\u{1f601}"], lookalikes).await;
    assert_tails_told_apart(store, ["\u{1f600}", "?"], lookalikes).await;
}

/// Ids of 255 characters are kept, and told apart by their last one.
pub async fn ids_of_255_characters_are_kept(store: &impl Metastore) {
    assert_told_apart(store, &pair_of_255_characters("x", ["a", "b"]), Lookalikes::Apart).await;
}

/// Ids of 255 characters of four bytes are kept and told apart by their last one, or refused for
/// good.
pub async fn ids_of_255_characters_of_four_bytes_are_kept_or_refused(store: &impl Metastore) {
    let pair = pair_of_255_characters("\u{1f600}", ["\u{1f600}", "\u{1f601}"]);
    assert_told_apart(store, &pair, Lookalikes::ApartOrRefused).await;
}

/// Two keys whose ids are as long as they may be and differ in the last character.
fn pair_of_255_characters(filler: &str, last: [&str; 2]) -> [KeyMeta; 2] {
    let stem = fresh_id("").as_str().to_owned();
    let filler = filler.repeat(254 - stem.len());
    last.map(|last| KeyMeta::new(KeyId::new(format!("{stem}{filler}{last}")), created(NOW)))
}

/// An id that does not fit is refused for good, never cut.
pub async fn ids_over_255_characters_are_never_cut(store: &impl Metastore) {
    let stem = fresh_id(&"x".repeat(300)).as_str().to_owned();
    for last in ["a", "b", "a "] {
        assert_kept_or_refused(store, &KeyMeta::new(KeyId::new(format!("{stem}{last}")), created(NOW))).await;
    }
}

/// An id with NUL is refused for good, or kept; it never ends there.
pub async fn ids_with_nul_are_never_cut(store: &impl Metastore) {
    let stem = fresh_id("");
    insert(store, &record(&KeyMeta::new(stem.clone(), created(NOW)))).await;
    for tail in ["\0", "\0a", "\0b"] {
        assert_kept_or_refused(store, &KeyMeta::new(KeyId::new(format!("{stem}{tail}")), created(NOW))).await;
    }
}

/// An id of no characters is kept like another, or refused for good.
pub async fn an_empty_id_is_kept_or_refused(store: &impl Metastore) {
    // It cannot be a fresh one, so its time is.
    let [a, b, c] = random_bytes::<3>();
    let time = NOW + i64::from(u32::from_be_bytes([0, a, b, c]));
    assert_kept_or_refused(store, &KeyMeta::new(KeyId::new(""), created(time))).await;
}

/// Rows that are no keys are never returned, and never made: their ids are refused for good.
pub async fn reserved_ids_are_never_found(store: &impl Metastore) {
    let id = KeyId::new(format!("__asherah_internal_contract{}", fresh_id("")));
    let key = KeyMeta::new(id.clone(), created(NOW));
    let refused = store.insert(&record(&key)).await;
    assert!(refused.is_err_and(|error| !error.is_transient()));
    assert!(matches!(store.load(&key, Consistency::Strong).await, Ok(None) | Err(_)));
    assert!(matches!(store.load_latest(&id).await, Ok(None) | Err(_)));
}

/// A wrapped key of 32 KiB, such as a KMS with many regions makes, is kept.
pub async fn a_wrapped_key_of_32_kib_is_kept(store: &impl Metastore) {
    let wrapped = random_bytes::<32>().repeat(1_024);
    assert_kept(store, &EnvelopeKeyRecord::new(fresh_meta(), wrapped, None)).await;
}

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
        assert_eq!(ok(store.load_many(&keys, consistency).await), expected);
    }
}

/// `load_many` of no versions gives no answers.
pub async fn load_many_of_nothing_is_nothing(store: &impl Metastore) {
    assert_eq!(ok(store.load_many(&[], Consistency::Strong).await), []);
}

/// `load_many` takes more versions than a database takes parameters or items in one request.
pub async fn load_many_takes_hundreds(store: &impl Metastore) {
    let first = fresh_meta();
    let records: Vec<_> = (0..30).map(|seconds| record(&later(&first, seconds * 10))).collect();
    for record in &records {
        insert(store, record).await;
    }
    let keys: Vec<_> = (0..300).map(|seconds| later(&first, seconds)).collect();
    let found = ok(store.load_many(&keys, Consistency::Strong).await);
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
        assert_eq!(ok(store.load_many(&keys, Consistency::Strong).await), [Some(record), None]);
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
            can_refuse |= store.load(key, Consistency::Strong).await.is_err();
        }
        let answer = store.load_many(&pair, Consistency::Strong).await;
        assert_answer(answer, &kept.to_vec(), can_refuse);
        for (key, kept) in pair.into_iter().zip(kept) {
            let answer = store.load_many(&[key], Consistency::Strong).await;
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
    assert_eq!(ok(store.load_latest_many(&ids).await), expected);
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
    let found = ok(store.load_latest_many(&ids).await);
    let times = found.iter().flatten().map(|record| record.meta().created().unix_seconds());
    assert_eq!(times.collect::<Vec<_>>(), [NOW + 86_400; 3]);
    for (id, found) in ids.iter().zip(found) {
        assert_eq!(ok(store.load_latest(id).await), found);
    }
}

/// `load_latest_many` of no ids gives no answers.
pub async fn load_latest_many_of_nothing_is_nothing(store: &impl Metastore) {
    assert_eq!(ok(store.load_latest_many(&[]).await), []);
}

/// `load_latest_many` takes more ids than a database takes parameters or items in one request.
pub async fn load_latest_many_takes_hundreds(store: &impl Metastore) {
    let ids: Vec<_> = (0..300).map(|_| fresh_id("")).collect();
    let records: Vec<_> =
        ids.iter().step_by(10).map(|id| record(&KeyMeta::new(id.clone(), created(NOW)))).collect();
    for record in &records {
        insert(store, record).await;
    }
    let found = ok(store.load_latest_many(&ids).await);
    assert_eq!(found.len(), ids.len());
    assert_eq!(found.into_iter().flatten().collect::<Vec<_>>(), records);
}

/// `load_latest_many` sees every insert that ended before it began.
pub async fn load_latest_many_sees_every_insert_that_ended(store: &impl Metastore) {
    let key = fresh_meta();
    for seconds in 0..20 {
        let record = record(&later(&key, seconds));
        insert(store, &record).await;
        assert_eq!(ok(store.load_latest_many(&[key.id().clone()]).await), [Some(record)]);
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
            can_refuse |= store.load_latest(id).await.is_err();
        }
        assert_answer(store.load_latest_many(&ids).await, &kept.to_vec(), can_refuse);
        for (id, kept) in ids.into_iter().zip(kept) {
            assert_answer(store.load_latest_many(&[id]).await, &vec![kept.clone()], kept.is_none());
        }
    }
}

/// A future dropped at any await leaves the store usable, and an insert that was dropped has
/// happened whole or not at all.
pub async fn dropped_calls_leave_the_store_usable(store: &impl Metastore) {
    let mut records = Vec::new();
    for round in 0..200 {
        let polls = round % 10 + 1;
        let record = record(&fresh_meta());
        abandon(store.insert(&record), polls).await;
        abandon(store.load_latest(record.meta().id()), polls).await;
        abandon(store.load_many(&[record.meta().clone()], Consistency::Strong), polls).await;
        abandon(store.load_latest_many(&[record.meta().id().clone()]), polls).await;
        abandon(store.load(record.meta(), Consistency::Strong), polls).await;
        records.push(record);
    }
    for record in records {
        // `AlreadyExists` is as good: the dropped insert has happened, or still does.
        let _either = ok(store.insert(&record).await);
        assert_eq!(load(store, record.meta()).await, Some(record));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_macro_names_every_clause() {
        crate::testing::support::assert_macro_names_every_clause(include_str!("metastore.rs"));
    }
}
