//! What is known of rows that are gone: which keys they held, and which are not to come back.

use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::aging::Aging;
use crate::clock::Moment;
use crate::record::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};
use crate::status::LostRow;

/// The rows that checks found gone, as they were, and the ids whose records were deleted for good.
/// A row holds no secret: its key is wrapped.
#[derive(Debug)]
pub(crate) struct Lost {
    /// For how long each is remembered, in nanoseconds.
    span: u64,
    lists: Mutex<Lists>,
}

#[derive(Debug)]
struct Lists {
    rows: Aging<KeyMeta, Row>,
    /// With the greatest version that was lost of each.
    shredded: Aging<KeyId, Option<Created>>,
}

#[derive(Debug)]
struct Row {
    record: EnvelopeKeyRecord,
    /// It was told that another key is in its place.
    is_change_told: bool,
}

/// What a row that was read is to one that is remembered as gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Return {
    /// No news.
    Nothing,
    /// Another key has its id and time; told once.
    Changed,
}

/// How many rows, and how many ids, are remembered; the oldest go first.
const ENTRIES_MAX: usize = 10_000;

impl Lost {
    pub(crate) fn new(span: u64) -> Self {
        let lists = Lists { rows: Aging::new(ENTRIES_MAX), shredded: Aging::new(ENTRIES_MAX) };
        Self { span, lists: Mutex::new(lists) }
    }

    /// Notes that a row is gone. `true` if that is news, and was not meant.
    pub(crate) fn note(&self, record: EnvelopeKeyRecord, now: Moment) -> bool {
        let mut lists = self.lists(now);
        let key = record.meta().clone();
        if let Some(greatest) = lists.shredded.get_mut(key.id()) {
            *greatest = (*greatest).max(Some(key.created()));
            return false;
        }
        let is_news = lists.rows.get(&key).is_none();
        if is_news {
            lists.rows.insert(key, Row { record, is_change_told: false }, now.monotonic);
        }
        is_news
    }

    /// Notes that the records of this id were deleted for good.
    pub(crate) fn shred(&self, id: &KeyId, now: Moment) {
        let mut lists = self.lists(now);
        let mut greatest = lists.shredded.remove(id).flatten();
        for created in lists.versions(id, None) {
            lists.rows.remove(&KeyMeta::new(id.clone(), created));
            greatest = greatest.max(Some(created));
        }
        lists.shredded.insert(id.clone(), greatest, now.monotonic);
    }

    pub(crate) fn is_shredded(&self, id: &KeyId, now: Moment) -> bool {
        self.lists(now).shredded.get(id).is_some()
    }

    /// Returns the row as it was, if it is remembered.
    pub(crate) fn row(&self, key: &KeyMeta, now: Moment) -> Option<EnvelopeKeyRecord> {
        self.lists(now).rows.get(key).map(|row| row.record.clone())
    }

    /// Notes that the row is back.
    pub(crate) fn forget(&self, key: &KeyMeta, now: Moment) {
        self.lists(now).rows.remove(key);
    }

    /// Compares a row that was read, by a read that began at `begun`, with what was lost. A read that
    /// began before the loss was noted says nothing of it.
    pub(crate) fn compare(&self, record: &EnvelopeKeyRecord, begun: Moment, now: Moment) -> Return {
        let mut lists = self.lists(now);
        let Some(noted) = lists.rows.since(record.meta()) else { return Return::Nothing };
        let Some(row) = lists.rows.get_mut(record.meta()) else { return Return::Nothing };
        if row.record.wrapped_key() != record.wrapped_key() {
            let is_told = std::mem::replace(&mut row.is_change_told, true);
            return if is_told { Return::Nothing } else { Return::Changed };
        }
        if begun.monotonic > noted {
            lists.rows.remove(record.meta());
        }
        Return::Nothing
    }

    /// Notes that another key was found in a row's place. `true` the first time.
    pub(crate) fn note_change(&self, key: &KeyMeta, now: Moment) -> bool {
        let mut lists = self.lists(now);
        lists.rows.get_mut(key).is_some_and(|row| !std::mem::replace(&mut row.is_change_told, true))
    }

    /// Returns the versions of a key whose rows are gone, later ones than `above`, ascending.
    pub(crate) fn versions(&self, id: &KeyId, above: Option<Created>, now: Moment) -> Vec<Created> {
        self.lists(now).versions(id, above)
    }

    /// Returns the greatest version of a key that was lost, at most `up_to`.
    pub(crate) fn greatest(&self, id: &KeyId, up_to: Created, now: Moment) -> Option<Created> {
        let lists = self.lists(now);
        let shredded = lists.shredded.get(id).copied().flatten();
        let lost = lists.versions(id, None).into_iter().chain(shredded);
        lost.filter(|created| *created <= up_to).max()
    }

    /// Lists the rows that are gone, the oldest loss first.
    pub(crate) fn list(&self, now: Moment) -> Vec<LostRow> {
        let lists = self.lists(now);
        let row = |(key, since): (&KeyMeta, u64)| LostRow {
            key: key.clone(),
            age: Duration::from_nanos(now.monotonic.saturating_sub(since)),
        };
        lists.rows.in_order().map(row).collect()
    }

    /// Returns what is remembered, without what is too old.
    fn lists(&self, now: Moment) -> MutexGuard<'_, Lists> {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = now.monotonic.saturating_sub(self.span);
        lists.rows.forget_before(oldest);
        lists.shredded.forget_before(oldest);
        lists
    }
}

impl Lists {
    fn versions(&self, id: &KeyId, above: Option<Created>) -> Vec<Created> {
        let at = |created| KeyMeta::new(id.clone(), created);
        let from = above.map_or(Bound::Included(at(Created::MIN)), |above| Bound::Excluded(at(above)));
        self.rows.keys(from, Bound::Included(at(Created::MAX))).map(KeyMeta::created).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment { wall: 0, monotonic: seconds * crate::clock::NANOS_PER_SECOND }
    }

    fn lost() -> Lost {
        Lost::new(at(100).monotonic)
    }

    fn row(id: &str, created: i64, wrapped: &[u8]) -> EnvelopeKeyRecord {
        EnvelopeKeyRecord::new(KeyMeta::new(KeyId::new(id), Created::new(created).unwrap()), wrapped, None)
    }

    #[test]
    fn lost_rows_are_bounded_and_the_oldest_go_first() {
        let lost = lost();
        for number in 0..i64::try_from(ENTRIES_MAX).unwrap() + 3 {
            assert!(lost.note(row("id", number + 1, b"key"), at(1)));
        }
        let list = lost.list(at(1));
        assert_eq!(list.len(), ENTRIES_MAX);
        assert_eq!(list[0].key.created().unix_seconds(), 4);
    }

    #[test]
    fn lost_rows_are_kept_for_their_span_and_told_once() {
        let lost = lost();
        assert!(lost.note(row("id", 1, b"key"), at(10)));
        assert!(!lost.note(row("id", 1, b"key"), at(20)), "it is known");
        assert_eq!(
            lost.list(at(110)),
            [LostRow { key: row("id", 1, b"").meta().clone(), age: Duration::from_secs(100) }]
        );
        assert_eq!(lost.list(at(111)), []);
        assert!(lost.note(row("id", 1, b"key"), at(111)));
    }

    #[test]
    fn lost_row_that_is_read_again_is_back_if_the_read_began_after_the_loss() {
        let lost = lost();
        lost.note(row("id", 1, b"key"), at(10));
        for (begun, rows) in [(9, 1), (10, 1), (11, 0)] {
            assert_eq!(lost.compare(&row("id", 1, b"key"), at(begun), at(12)), Return::Nothing);
            assert_eq!(lost.list(at(12)).len(), rows, "{begun}");
        }
    }

    #[test]
    fn lost_row_in_whose_place_another_key_is_stays_and_is_told_once() {
        let lost = lost();
        lost.note(row("id", 1, b"key"), at(10));
        assert_eq!(lost.compare(&row("id", 1, b"other"), at(11), at(12)), Return::Changed);
        assert_eq!(lost.compare(&row("id", 1, b"other"), at(11), at(12)), Return::Nothing);
        assert_eq!(lost.compare(&row("id", 2, b"other"), at(11), at(12)), Return::Nothing);
        assert_eq!(lost.list(at(12)).len(), 1);
    }

    #[test]
    fn lost_versions_are_those_of_one_id() {
        let lost = lost();
        for (id, created) in [("id", 1), ("id", 5), ("id", 9), ("ie", 12), ("i", 7)] {
            lost.note(row(id, created, b"key"), at(10));
        }
        let (id, time) = (KeyId::new("id"), |seconds| Created::new(seconds).unwrap());
        assert_eq!(lost.versions(&id, None, at(10)), [time(1), time(5), time(9)]);
        assert_eq!(lost.versions(&id, Some(time(1)), at(10)), [time(5), time(9)]);
        assert_eq!(lost.greatest(&id, time(8), at(10)), Some(time(5)));
    }

    #[test]
    fn shredded_rows_are_forgotten_and_not_noted_again() {
        let lost = lost();
        lost.note(row("id", 7, b"key"), at(10));
        lost.note(row("other", 7, b"key"), at(10));
        lost.shred(&KeyId::new("id"), at(11));
        assert_eq!(lost.list(at(11)).len(), 1);
        assert!(!lost.note(row("id", 8, b"key"), at(111)));
        assert!(lost.is_shredded(&KeyId::new("id"), at(111)));
        let greatest = |now| lost.greatest(&KeyId::new("id"), Created::MAX, at(now));
        assert_eq!(greatest(111), Created::new(8), "new keys come after it still");
        assert!(!lost.is_shredded(&KeyId::new("id"), at(112)));
        assert!(lost.note(row("id", 8, b"key"), at(112)));
    }
}
