//! The simulated store's rows, with all that they ever were: replicas lag behind, and oracles look back.

use std::collections::BTreeMap;
use std::ops::Bound;

use claviger::{Created, EnvelopeKeyRecord, Insert, KeyId, KeyMeta, Latest, Page, Replacement};
use tokio::time::Instant;

#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: BTreeMap<KeyMeta, Vec<Entry>>,
}

/// What a row is from a moment on.
#[derive(Debug)]
struct Entry {
    at: Instant,
    row: Option<EnvelopeKeyRecord>,
}

impl Table {
    /// Returns the row as it was at that moment.
    pub(crate) fn row(&self, key: &KeyMeta, at: Instant) -> Option<&EnvelopeKeyRecord> {
        as_of(self.rows.get(key)?, at)
    }

    /// Returns the latest row of an id, and the one before it.
    pub(crate) fn latest(&self, id: &KeyId, up_to: Created, at: Instant) -> Option<Latest> {
        let bound = |created| Bound::Included(KeyMeta::new(id.clone(), created));
        let versions = self.rows.range((bound(Created::MIN), bound(up_to))).rev();
        let mut rows = versions.filter_map(|(_, entries)| as_of(entries, at));
        Some(Latest::new(rows.next()?.clone(), rows.next().cloned()))
    }

    /// Returns the rows that are there, in the order of their keys.
    pub(crate) fn all(&self, at: Instant) -> impl Iterator<Item = &EnvelopeKeyRecord> {
        self.rows.values().filter_map(move |entries| as_of(entries, at))
    }

    pub(crate) fn insert(&mut self, record: &EnvelopeKeyRecord, now: Instant) -> Insert {
        if self.row(record.meta(), now).is_some() {
            return Insert::AlreadyExists;
        }
        self.put(record.meta(), Some(record.clone()), now);
        Insert::Inserted
    }

    /// Marks a row revoked; `true` if it is there and was not.
    pub(crate) fn revoke(&mut self, key: &KeyMeta, now: Instant) -> bool {
        match self.row(key, now) {
            Some(row) if !row.is_revoked() => {
                let revoked = row.clone().revoked(true);
                self.put(key, Some(revoked), now);
                true
            }
            Some(_) | None => false,
        }
    }

    pub(crate) fn replace(&mut self, replacement: &Replacement, now: Instant) -> bool {
        match self.row(&replacement.key, now).and_then(|row| replacement.applied_to(row)) {
            Some(replaced) => {
                self.put(&replacement.key, Some(replaced), now);
                true
            }
            None => false,
        }
    }

    /// Deletes a row; `true` if it was there.
    pub(crate) fn delete(&mut self, key: &KeyMeta, now: Instant) -> bool {
        let was_there = self.row(key, now).is_some();
        if was_there {
            self.put(key, None, now);
        }
        was_there
    }

    pub(crate) fn page(&self, prefix: &str, after: Option<&KeyMeta>, limit: usize, now: Instant) -> Page {
        let is_asked_for = |row: &&EnvelopeKeyRecord| {
            row.meta().id().as_str().starts_with(prefix) && after.is_none_or(|after| row.meta() > after)
        };
        let mut rest = self.all(now).filter(is_asked_for).cloned();
        let records: Vec<_> = rest.by_ref().take(limit).collect();
        let next = rest.next().and_then(|_| records.last().map(|last| last.meta().clone()));
        Page::new(records, Vec::new(), next)
    }

    /// Returns since when the row has been revoked or gone, as seen at that moment; `None` if it is good then.
    pub(crate) fn unusable_since(&self, key: &KeyMeta, at: Instant) -> Option<Instant> {
        let is_usable = |entry: &Entry| entry.row.as_ref().is_some_and(|row| !row.is_revoked());
        self.since(key, at, |entry| !is_usable(entry))
    }

    /// Returns since when the row has been gone.
    pub(crate) fn gone_since(&self, key: &KeyMeta, at: Instant) -> Option<Instant> {
        self.since(key, at, |entry| entry.row.is_none())
    }

    /// Returns since when the row has been revoked, and there.
    pub(crate) fn revoked_since(&self, key: &KeyMeta, at: Instant) -> Option<Instant> {
        self.since(key, at, |entry| entry.row.as_ref().is_some_and(EnvelopeKeyRecord::is_revoked))
    }

    fn since(&self, key: &KeyMeta, at: Instant, holds: impl Fn(&Entry) -> bool) -> Option<Instant> {
        let entries = self.rows.get(key)?.iter().rev().skip_while(|entry| entry.at > at);
        entries.take_while(|entry| holds(entry)).last().map(|entry| entry.at)
    }

    /// Returns since when the row has been there, whatever it held.
    pub(crate) fn there_since(&self, key: &KeyMeta, at: Instant) -> Option<Instant> {
        self.since(key, at, |entry| entry.row.is_some())
    }

    /// Returns `true` if the row was ever revoked.
    pub(crate) fn was_ever_revoked(&self, key: &KeyMeta) -> bool {
        let is_revoked = |entry: &Entry| entry.row.as_ref().is_some_and(EnvelopeKeyRecord::is_revoked);
        self.rows.get(key).is_some_and(|entries| entries.iter().any(is_revoked))
    }

    /// Returns `true` if the row was ever gone.
    pub(crate) fn was_ever_gone(&self, key: &KeyMeta) -> bool {
        self.rows.get(key).is_some_and(|entries| entries.iter().any(|entry| entry.row.is_none()))
    }

    /// Returns `true` if there ever was such a row.
    pub(crate) fn was_ever_there(&self, key: &KeyMeta) -> bool {
        self.rows.contains_key(key)
    }

    /// Returns the version of an id that was made last, by its name, whether or not it is there.
    pub(crate) fn newest_ever(&self, id: &KeyId) -> Option<&KeyMeta> {
        let bound = |created| Bound::Included(KeyMeta::new(id.clone(), created));
        self.rows.range((bound(Created::MIN), bound(Created::MAX))).next_back().map(|(key, _)| key)
    }

    /// Returns `true` if any row was ever gone.
    pub(crate) fn was_any_gone(&self) -> bool {
        self.rows.keys().any(|key| self.was_ever_gone(key))
    }

    /// Returns under which key this one was ever wrapped.
    pub(crate) fn parent(&self, key: &KeyMeta) -> Option<&KeyMeta> {
        self.rows.get(key)?.iter().rev().find_map(|entry| entry.row.as_ref()?.parent())
    }

    fn put(&mut self, key: &KeyMeta, row: Option<EnvelopeKeyRecord>, now: Instant) {
        self.rows.entry(key.clone()).or_default().push(Entry { at: now, row });
    }
}

fn as_of(entries: &[Entry], at: Instant) -> Option<&EnvelopeKeyRecord> {
    entries.iter().rev().find(|entry| entry.at <= at)?.row.as_ref()
}
