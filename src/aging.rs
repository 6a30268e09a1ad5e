//! A bounded memory of what happened lately.

use std::collections::BTreeMap;
use std::ops::Bound;

/// A bounded map whose entries go by age. When an entry was made is in monotonic nanoseconds.
#[derive(Debug)]
pub(crate) struct Aging<K, V> {
    entries: BTreeMap<K, Entry<V>>,
    /// By their numbers, the oldest first.
    order: BTreeMap<u64, K>,
    made: u64,
    entries_max: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    number: u64,
    since: u64,
}

impl<K: Ord + Clone, V> Aging<K, V> {
    /// Holds so many entries; the oldest go first.
    pub(crate) const fn new(entries_max: usize) -> Self {
        Self { entries: BTreeMap::new(), order: BTreeMap::new(), made: 0, entries_max }
    }

    pub(crate) fn insert(&mut self, key: K, value: V, now: u64) {
        self.remove(&key);
        while self.entries.len() >= self.entries_max && self.remove_oldest() {}
        self.made += 1;
        self.order.insert(self.made, key.clone());
        self.entries.insert(key, Entry { value, number: self.made, since: now });
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.number);
        Some(entry.value)
    }

    fn remove_oldest(&mut self) -> bool {
        self.order.pop_first().is_some_and(|(_, key)| self.entries.remove(&key).is_some())
    }

    pub(crate) fn forget_before(&mut self, oldest: u64) {
        while self.in_order().next().is_some_and(|(_, since)| since < oldest) {
            self.remove_oldest();
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    pub(crate) fn since(&self, key: &K) -> Option<u64> {
        self.entries.get(key).map(|entry| entry.since)
    }

    pub(crate) fn keys(&self, from: Bound<K>, to: Bound<K>) -> impl Iterator<Item = &K> {
        self.entries.range((from, to)).map(|(key, _)| key)
    }

    /// Returns the keys with when each was noted, the oldest first.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = (&K, u64)> {
        self.order.values().filter_map(|key| self.entries.get(key).map(|entry| (key, entry.since)))
    }
}
