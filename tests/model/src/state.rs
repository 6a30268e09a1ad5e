//! What there is: rows, processes, and what went wrong.
//!
//! Times are seconds since the beginning. A key's bytes are a number: equal numbers are equal bytes.

/// A row of the store: an intermediate key, or a system key, which has no parent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    pub(crate) created: u8,
    pub(crate) bytes: u8,
    pub(crate) parent: Option<Parent>,
    pub(crate) revoked_at: Option<u8>,
}

/// The system key that a row names, and the bytes that its key was wrapped under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parent {
    pub(crate) created: u8,
    pub(crate) bytes: u8,
}

/// What a process holds of one key: of the latest intermediate key, or of a system key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    pub(crate) created: u8,
    pub(crate) bytes: u8,
    /// When its row was last read.
    pub(crate) checked: u8,
    /// The system key that it was unwrapped under.
    pub(crate) parent: u8,
    /// The system key that its row names.
    pub(crate) named: u8,
    /// Its row is gone.
    pub(crate) is_gone: bool,
}

/// A call to the store, and what is known by then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// The latest intermediate key and its predecessor.
    ReadLatest,
    /// The system key that this row is judged by.
    ReadParent {
        /// The latest row.
        row: Row,
        /// When it was read.
        begun: u8,
    },
    /// The system key to wrap a new key under, which comes after `above`.
    ReadLatestSystem {
        /// The latest intermediate key.
        above: Option<u8>,
    },
    /// A new system key.
    InsertSystem {
        /// The latest intermediate key.
        above: Option<u8>,
        /// The new system key.
        row: Row,
    },
    /// A new intermediate key.
    InsertKey {
        /// The new key.
        row: Row,
    },
}

/// Who waits for a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Waiter {
    /// Nobody: it runs in the background.
    Nobody,
    /// An encrypt with a key at hand, for a while.
    WithKey(claviger::testing::decisions::Awaited),
    /// An encrypt without.
    WithoutKey,
}

/// A load of the latest key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Load {
    /// When the operation began that waits.
    pub(crate) started: u8,
    pub(crate) waiter: Waiter,
    /// The key that is to be replaced before its end.
    pub(crate) replace: Option<u8>,
    /// How many creation races it lost.
    pub(crate) races: u8,
    pub(crate) call: Call,
}

/// A process: its memory and its clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Process {
    /// How far its clock is ahead.
    pub(crate) skew: u8,
    pub(crate) held: Option<Held>,
    pub(crate) system: Vec<Held>,
    /// The intermediate keys that it knows to be revoked, a bit for each `created`.
    pub(crate) revoked: u32,
    /// The system keys that it knows to be revoked.
    pub(crate) revoked_system: u32,
    /// The latest of the keys that it held and whose rows are gone.
    pub(crate) lost: Option<u8>,
    pub(crate) load: Option<Load>,
    /// A load failed, or took too long, within this second.
    pub(crate) is_in_trouble: bool,
}

/// A key whose row was deleted on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shredded {
    pub(crate) bytes: u8,
    pub(crate) at: u8,
}

/// What all share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Store {
    /// In the order of `created`.
    pub(crate) system: Vec<Row>,
    /// In the order of `created`.
    pub(crate) keys: Vec<Row>,
    pub(crate) shredded: Vec<Shredded>,
}

/// The promises that were broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each is a property of its own")]
pub struct Broken {
    pub(crate) nothing_lost: bool,
    pub(crate) known_revocation: bool,
    pub(crate) revocation_bound: bool,
    pub(crate) revocation_bound_in_any_weather: bool,
    pub(crate) shredding_bound: bool,
    pub(crate) named_parent: bool,
}

/// All of it, and what may still happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub(crate) now: u8,
    pub(crate) store: Store,
    pub(crate) processes: Vec<Process>,
    /// How many calls may still fail.
    pub(crate) faults: u8,
    /// What the operator may still do, and how many processes may crash.
    pub(crate) interventions: u8,
    pub(crate) broken: Broken,
}

/// What became of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    Inserted,
    AlreadyExists,
}

/// Inserts a row, unless there is one for its (id, created).
pub(crate) fn insert(rows: &mut Vec<Row>, row: &Row) -> Inserted {
    if rows.iter().any(|there| there.created == row.created) {
        return Inserted::AlreadyExists;
    }
    rows.push(row.clone());
    rows.sort_unstable_by_key(|row| row.created);
    Inserted::Inserted
}

pub(crate) fn find(rows: &[Row], created: u8) -> Option<&Row> {
    rows.iter().find(|row| row.created == created)
}

pub(crate) const fn bit(created: u8) -> u32 {
    1_u32.wrapping_shl(created as u32)
}

impl Store {
    /// Returns `true` if a fresh process could unwrap this key by its rows.
    pub(crate) fn can_unwrap(&self, created: u8, bytes: u8) -> bool {
        find(&self.keys, created).is_some_and(|row| {
            row.bytes == bytes
                && row.parent.is_some_and(|parent| {
                    find(&self.system, parent.created).is_some_and(|system| system.bytes == parent.bytes)
                })
        })
    }

    pub(crate) fn shredded_at(&self, bytes: u8) -> Option<u8> {
        self.shredded.iter().find(|key| key.bytes == bytes).map(|key| key.at)
    }

    /// Returns since when the key should not be used: it or its parent is revoked, or it was shredded.
    pub(crate) fn withdrawn_at(&self, held: &Held) -> Option<u8> {
        let own = find(&self.keys, held.created).filter(|row| row.bytes == held.bytes);
        let revoked = [own, find(&self.system, held.named)].into_iter().flatten();
        revoked.filter_map(|row| row.revoked_at).chain(self.shredded_at(held.bytes)).min()
    }
}

impl State {
    /// Returns the least number that is no key's bytes: which it is makes no difference.
    pub(crate) fn unused_bytes(&self) -> u8 {
        let rows = self.store.system.iter().chain(&self.store.keys).map(|row| row.bytes);
        let held = self.processes.iter().flat_map(|process| process.held.iter().chain(&process.system));
        let calls = self.processes.iter().filter_map(|process| match &process.load.as_ref()?.call {
            Call::ReadParent { row, .. } | Call::InsertSystem { row, .. } | Call::InsertKey { row } => {
                Some(row.bytes)
            }
            Call::ReadLatest | Call::ReadLatestSystem { .. } => None,
        });
        let shredded = self.store.shredded.iter().map(|key| key.bytes);
        let used: Vec<u8> = rows.chain(held.map(|key| key.bytes)).chain(calls).chain(shredded).collect();
        (0..=u8::MAX).find(|bytes| !used.contains(bytes)).unwrap_or(u8::MAX)
    }
}

impl Process {
    /// Returns `true` if the key that is held must not encrypt, by all that the process knows.
    pub(crate) const fn is_unusable(&self, held: &Held) -> bool {
        held.is_gone || self.knows_revoked(held)
    }

    pub(crate) const fn knows_revoked(&self, held: &Held) -> bool {
        self.revoked & bit(held.created) != 0 || self.revoked_system & bit(held.named) != 0
    }

    /// Returns when the key's row was last read, or its parent's, whichever is longer ago.
    pub(crate) fn checked(&self, held: &Held) -> u8 {
        let parent = self.system.iter().find(|system| system.created == held.parent);
        parent.map_or(held.checked, |parent| parent.checked.min(held.checked))
    }

    /// Notes what the row of an intermediate key says.
    pub(crate) fn learn(&mut self, row: &Row) {
        if row.revoked_at.is_some() {
            self.revoked |= bit(row.created);
        }
    }

    /// Notes what the row of a system key says, and holds the key.
    pub(crate) fn learn_system(&mut self, row: &Row, now: u8) {
        if row.revoked_at.is_some() {
            self.revoked_system |= bit(row.created);
        }
        self.system.retain(|held| held.created != row.created);
        let (created, bytes) = (row.created, row.bytes);
        self.system.push(Held {
            created,
            bytes,
            checked: now,
            parent: created,
            named: created,
            is_gone: false,
        });
        self.system.sort_unstable_by_key(|held| held.created);
    }
}
