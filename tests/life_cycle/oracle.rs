//! Every combination of what is cached and what is stored, in key versions, and what the tables T1 and T5
//! say of each: for real factories (`states.rs`) and for the decisions alone.

use std::collections::BTreeSet;

use super::RevokedDecrypt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Absent,
    Valid,
    Expired,
    Revoked,
}

const STATES: [State; 4] = [State::Absent, State::Valid, State::Expired, State::Revoked];

/// One of the 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Combination {
    pub(crate) cached_ik: State,
    pub(crate) cached_sk: State,
    pub(crate) stored_ik: State,
    pub(crate) stored_sk: State,
}

/// All of them can be. A key outlives its row in the cache when the rows are shredded, and a younger one
/// when an older copy of the store is put back. A system key is evicted while what it wraps stays cached, or
/// was never asked for. A key learned to be revoked stays cached until its successor is stored. And another
/// process may have stored whatever is newer.
pub(crate) fn combinations() -> impl Iterator<Item = Combination> {
    (0..256_usize).map(|number| Combination {
        cached_ik: STATES[number / 64],
        cached_sk: STATES[number / 16 % 4],
        stored_ik: STATES[number / 4 % 4],
        stored_sk: STATES[number % 4],
    })
}

/// A day since the start, which names the key version made then.
pub(crate) type Day = i64;

/// When the operation happens: what was made by day 9 is expired.
pub(crate) const TODAY: Day = 100;

/// The system keys there are, each with the days of the intermediate keys under it. Those under the
/// first two expire apart: day 50's is valid when its parent is not.
pub(crate) const KEYS: [(Day, &[Day]); 3] = [(0, &[1, 50, 51]), (60, &[61, 62]), (70, &[71])];

pub(crate) fn parent_of(ik: Day) -> Day {
    KEYS.into_iter().find(|(_, children)| children.contains(&ik)).expect("a known key").0
}

pub(crate) fn is_expired(key: Day) -> bool {
    key + 90 < TODAY
}

/// A key version and whether it is, or is known to be, revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) day: Day,
    pub(crate) revoked: bool,
}

pub(crate) const fn good(day: Day) -> Key {
    Key { day, revoked: false }
}

pub(crate) const fn revoked(day: Day) -> Key {
    Key { day, revoked: true }
}

pub(crate) fn state(key: Option<Key>) -> State {
    match key {
        None => State::Absent,
        Some(key) if key.revoked => State::Revoked,
        Some(key) if is_expired(key.day) => State::Expired,
        Some(_) => State::Valid,
    }
}

/// A combination told in key versions.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) cached_ik: Option<Key>,
    /// The latest one; the parent of `cached_ik` is cached beside it.
    pub(crate) cached_sk: Option<Key>,
    pub(crate) stored_iks: Vec<Key>,
    pub(crate) stored_sks: Vec<Key>,
}

impl View {
    pub(crate) fn of(combination: Combination) -> Self {
        let Combination { cached_ik, cached_sk, stored_ik, stored_sk } = combination;
        let under_the_old_one = cached_sk == State::Expired;
        let cached_ik = match cached_ik {
            State::Absent => None,
            State::Valid => Some(good(if under_the_old_one { 50 } else { 61 })),
            State::Expired => Some(good(1)),
            State::Revoked => Some(revoked(if under_the_old_one { 50 } else { 61 })),
        };
        let cached_sk = match cached_sk {
            State::Absent => None,
            State::Valid => Some(good(60)),
            State::Expired => Some(good(0)),
            State::Revoked => Some(revoked(60)),
        };
        // The system key that the cache knows, if only by what it wraps.
        let known = cached_sk.or(cached_ik.map(|ik| good(parent_of(ik.day))));
        let stored_sks = match (stored_sk, known) {
            (State::Absent, _) => vec![],
            (State::Valid, Some(Key { revoked: true, .. })) => vec![good(0), revoked(60), good(70)],
            (State::Valid, _) => vec![good(0), good(60)],
            // For what was known of day 60: a copy from before it was put back.
            (State::Expired, _) => vec![good(0)],
            (State::Revoked, Some(Key { day: 0, .. })) => vec![revoked(0)],
            (State::Revoked, _) => vec![good(0), revoked(60)],
        };
        // What another process made under what is stored, or was stored before that was shredded.
        let newer = match stored_sks.last() {
            Some(Key { day: 70, .. }) => 71,
            Some(Key { day: 0, .. }) => 51,
            Some(_) | None => 62,
        };
        let stored_iks = match (stored_ik, cached_ik) {
            (State::Absent, _) => vec![],
            (State::Valid, Some(cached)) if state(Some(cached)) == State::Valid => vec![cached],
            (State::Valid, Some(cached)) if cached.day < newer => vec![cached, good(newer)],
            (State::Valid, _) => vec![good(newer)],
            (State::Expired, _) => vec![good(1)],
            (State::Revoked, Some(cached)) => vec![revoked(cached.day)],
            (State::Revoked, None) => vec![revoked(newer)],
        };
        Self { cached_ik, cached_sk, stored_iks, stored_sks }
    }

    pub(crate) fn combination(&self) -> Combination {
        Combination {
            cached_ik: state(self.cached_ik),
            cached_sk: state(self.cached_sk),
            stored_ik: state(self.stored_iks.last().copied()),
            stored_sk: state(self.stored_sks.last().copied()),
        }
    }

    /// The system keys of which something is known that is not older than the check interval.
    fn known_sks(&self) -> BTreeSet<Key> {
        // An evicted one is not asked, though its child is at hand.
        let Some(cached_sk) = self.cached_sk else { return BTreeSet::new() };
        let parent = self.cached_ik.map(|ik| parent_of(ik.day)).filter(|day| *day != cached_sk.day);
        parent.map(good).into_iter().chain([cached_sk]).collect()
    }

    pub(crate) fn knows_to_be_revoked(&self, sk: Day) -> bool {
        self.known_sks().contains(&revoked(sk))
    }
}

/// How long ago the store was asked: just now, or longer than the check interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    Fresh,
    Stale,
}

/// What the tables say.
pub(crate) struct Oracle<'a> {
    pub(crate) view: &'a View,
    pub(crate) age: Age,
}

/// The key that encrypts and its parent; `None` for one made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) ik: Option<Day>,
    pub(crate) sk: Option<Day>,
    pub(crate) missing_parent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    Plaintext,
    NotFound,
    Revoked,
}

impl Oracle<'_> {
    /// T1.
    pub(crate) fn encrypt(&self) -> Sealed {
        match self.encrypts_at_once() {
            Some(key) => Sealed { ik: Some(key.day), sk: Some(parent_of(key.day)), missing_parent: false },
            None => self.latest(),
        }
    }

    /// The cached key, if it is used with nothing else to do.
    pub(crate) fn encrypts_at_once(&self) -> Option<Key> {
        let key = self.view.cached_ik?;
        let is_revoked = key.revoked || self.view.knows_to_be_revoked(parent_of(key.day));
        let is_ended = is_expired(key.day) || is_expired(parent_of(key.day));
        (!is_revoked && !is_ended && self.age == Age::Fresh).then_some(key)
    }

    /// T2, the store being well.
    fn latest(&self) -> Sealed {
        let created = |missing_parent| Sealed { ik: None, sk: self.sk_to_wrap(), missing_parent };
        let Some(row) = self.view.stored_iks.last() else { return created(false) };
        let is_known_revoked = self.view.cached_ik == Some(revoked(row.day));
        if row.revoked || is_expired(row.day) || is_known_revoked {
            return created(false);
        }
        let parent = parent_of(row.day);
        match self.read_sk(parent) {
            None => created(true),
            Some(key) if key.revoked || is_expired(parent) => created(false),
            Some(_) => Sealed { ik: Some(row.day), sk: Some(parent), missing_parent: false },
        }
    }

    /// T3, step 1.
    fn sk_to_wrap(&self) -> Option<Day> {
        let is_valid =
            |key: &Key| !key.revoked && !is_expired(key.day) && !self.view.knows_to_be_revoked(key.day);
        let cached = self.view.cached_sk.filter(|key| self.age == Age::Fresh && is_valid(key));
        cached.or(self.view.stored_sks.last().copied().filter(is_valid)).map(|key| key.day)
    }

    /// What is known of a system key: what was read within the interval, else what the store says.
    fn read_sk(&self, day: Day) -> Option<Key> {
        let known = self.view.known_sks().into_iter().find(|key| key.day == day);
        if self.age == Age::Fresh && known.is_some() {
            return known;
        }
        let stored = self.view.stored_sks.iter().find(|key| key.day == day)?;
        Some(Key { day, revoked: stored.revoked || self.view.knows_to_be_revoked(day) })
    }

    /// T5.
    pub(crate) fn decrypt(&self, version: Day, policy: RevokedDecrypt) -> Opened {
        let denies = policy == RevokedDecrypt::Deny;
        if let Some(opened) = self.decrypts_at_once(version, policy) {
            return opened;
        }
        let Some(row) = self.view.stored_iks.iter().find(|key| key.day == version) else {
            return Opened::NotFound;
        };
        let Some(parent) = self.read_sk(parent_of(version)) else { return Opened::NotFound };
        let cached = self.view.cached_ik.filter(|key| key.day == version);
        let is_known_revoked = cached.is_some_and(|key| key.revoked);
        if denies && (row.revoked || is_known_revoked || parent.revoked) {
            return Opened::Revoked;
        }
        Opened::Plaintext
    }

    /// What the cached key gives, with nothing else to do.
    pub(crate) fn decrypts_at_once(&self, version: Day, policy: RevokedDecrypt) -> Option<Opened> {
        let key = self.view.cached_ik.filter(|key| key.day == version)?;
        let is_revoked = key.revoked || self.view.knows_to_be_revoked(parent_of(version));
        if policy == RevokedDecrypt::Deny && is_revoked {
            return Some(Opened::Revoked);
        }
        (self.age == Age::Fresh).then_some(Opened::Plaintext)
    }
}
