//! What each process asked its back ends, and what it was told: by this oracles know what it could know.

use std::collections::BTreeMap;
use std::time::Duration;

use claviger::{EnvelopeKeyRecord, KeyMeta};
use tokio::time::Instant;

use crate::plan::Road;

#[derive(Debug)]
pub(crate) struct Calls {
    /// After how long a call of the store counts as answered late, and one of the KMS.
    late: [Duration; 2],
    next: u64,
    open: BTreeMap<u64, Open>,
    /// The calls that failed, were answered late or not at all.
    bad: Vec<Bad>,
    reads: BTreeMap<(usize, KeyMeta), Instant>,
    revoked: BTreeMap<(usize, KeyMeta), Instant>,
    pub(crate) count: u64,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    who: usize,
    road: Road,
    is_of_rows: bool,
    begun: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Bad {
    who: usize,
    road: Road,
    /// It fared so because of the rows that it asked for.
    is_of_rows: bool,
    begun: Instant,
    ended: Instant,
}

impl Calls {
    pub(crate) const fn new(late: [Duration; 2]) -> Self {
        Self {
            late,
            next: 0,
            open: BTreeMap::new(),
            bad: Vec::new(),
            reads: BTreeMap::new(),
            revoked: BTreeMap::new(),
            count: 0,
        }
    }

    /// Notes that a call begins.
    pub(crate) fn begin(&mut self, who: usize, road: Road, is_of_rows: bool) -> u64 {
        self.next += 1;
        self.count += 1;
        self.open.insert(self.next, Open { who, road, is_of_rows, begun: Instant::now() });
        self.next
    }

    /// Notes that it ends, and returns when it began.
    pub(crate) fn end(&mut self, call: u64, is_well: bool) -> Option<Instant> {
        let Open { who, road, is_of_rows, begun } = self.open.remove(&call)?;
        let ended = Instant::now();
        if !is_well || ended - begun > self.late(road) {
            self.bad.push(Bad { who, road, is_of_rows, begun, ended });
        }
        Some(begun)
    }

    const fn late(&self, road: Road) -> Duration {
        let [store, kms] = self.late;
        if matches!(road, Road::Kms) { kms } else { store }
    }

    /// Notes what a call told the process of a row.
    pub(crate) fn learn(&mut self, who: usize, row: &EnvelopeKeyRecord) {
        if row.is_revoked() {
            self.revoked.entry((who, row.meta().clone())).or_insert_with(Instant::now);
        }
    }

    /// Notes that the store itself told what a row is, to a call that began then.
    pub(crate) fn check(&mut self, who: usize, row: &EnvelopeKeyRecord, begun: Instant) {
        let last = self.reads.entry((who, row.meta().clone())).or_insert(begun);
        *last = begun.max(*last);
    }

    /// The process starts anew: it knows nothing.
    pub(crate) fn forget(&mut self, who: usize) {
        self.reads.retain(|(reader, _), _| *reader != who);
        self.revoked.retain(|(reader, _), _| *reader != who);
    }

    /// Returns when the last good read of this row began.
    pub(crate) fn last_read(&self, who: usize, key: &KeyMeta) -> Option<Instant> {
        self.reads.get(&(who, key.clone())).copied()
    }

    /// Returns when the process was first told that the key is revoked.
    pub(crate) fn told_revoked(&self, who: usize, key: &KeyMeta) -> Option<Instant> {
        self.revoked.get(&(who, key.clone())).copied()
    }

    /// Returns `true` if any call by one of these roads was not answered well, at any time since `from`; those for rows
    /// that fare worse than others count only if `with_rows`.
    pub(crate) fn are_bad_since(&self, who: usize, roads: &[Road], from: Instant, with_rows: bool) -> bool {
        let now = Instant::now();
        let is_bad = |bad: &&Bad| {
            bad.who == who && roads.contains(&bad.road) && bad.ended >= from && (with_rows || !bad.is_of_rows)
        };
        let is_late = |open: &&Open| {
            open.who == who
                && roads.contains(&open.road)
                && now - open.begun > self.late(open.road)
                && (with_rows || !open.is_of_rows)
        };
        self.bad.iter().rev().any(|bad| is_bad(&bad)) || self.open.values().any(|open| is_late(&open))
    }

    /// Returns when the first call by one of these roads that was not answered well began, of those that ended
    /// since `from`.
    pub(crate) fn first_bad_since(&self, who: usize, roads: &[Road], from: Instant) -> Option<Instant> {
        let of_it = |bad: &&Bad| bad.who == who && roads.contains(&bad.road) && bad.ended >= from;
        self.bad.iter().filter(of_it).map(|bad| bad.begun).min()
    }
}
