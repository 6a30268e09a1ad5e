//! The clauses of keys that are told apart: by their times, and by their ids.

use crate::metastore::Metastore;
use crate::record::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};
use crate::testing::call;
use crate::testing::support::{
    Lookalikes, NOW, assert_kept, assert_kept_or_refused, assert_tails_told_apart, assert_told_apart,
    created, fresh_id, fresh_meta, insert, is_refused_unasked, keep, later, load, random_bytes, record,
};

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
    let ends = [end, end + 1, i64::from(u32::MAX) + 1, 253_402_300_798];
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

/// An id of more than 2 048 bytes, which is more than any server takes, is refused for good, and none is
/// asked: what works on one store is not to fail on the next for its length.
pub async fn ids_over_2048_bytes_are_refused(store: &impl Metastore) {
    for filler in ["x", "\u{1f600}"] {
        let id = fresh_id(&filler.repeat(2_048));
        let key = KeyMeta::new(id.clone(), created(NOW));
        let refused = store.insert(&record(&key), &call()).await;
        assert!(is_refused_unasked(&refused), "an id of {} bytes", id.as_str().len());
        assert!(matches!(store.load(&key, &call()).await, Ok(None) | Err(_)));
        assert!(matches!(store.load_latest(&id, Created::MAX, &call()).await, Ok(None) | Err(_)));
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

/// Rows that are no keys are never returned, and never made: their ids are refused for good, and no server
/// is asked.
pub async fn reserved_ids_are_never_found(store: &impl Metastore) {
    let id = KeyId::new(format!("__asherah_internal_contract{}", fresh_id("")));
    let key = KeyMeta::new(id.clone(), created(NOW));
    let refused = store.insert(&record(&key), &call()).await;
    assert!(is_refused_unasked(&refused));
    assert!(matches!(store.load(&key, &call()).await, Ok(None) | Err(_)));
    assert!(matches!(store.load_latest(&id, Created::MAX, &call()).await, Ok(None) | Err(_)));
}
