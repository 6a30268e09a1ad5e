//! What one process does in one step: the transitions. What is decided is decided by the core.

use std::time::Duration;

use claviger::testing::decisions::{Awaited, Decisions, HeldKey, Next, Step, Waited};

use crate::state::{
    Broken, Call, Held, Inserted, Load, Parent, Process, Row, Store, Waiter, bit, find, insert,
};
use crate::{Answer, Mutation, created, time};

/// How many creation races a load loses before it fails.
const RACES_MAX: u8 = 2;

pub(crate) struct Turn<'a> {
    pub(crate) decisions: &'a Decisions,
    pub(crate) bounds: &'a crate::Bounds,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) now: u8,
    pub(crate) store: &'a mut Store,
    pub(crate) process: &'a mut Process,
    pub(crate) broken: &'a mut Broken,
    /// What a key that is made now is made of.
    pub(crate) unused_bytes: u8,
    /// The key that was used in this step.
    pub(crate) used: Option<u8>,
}

impl Turn<'_> {
    /// An encrypt begins. Beside a load that is under way only those go on that wait for nothing.
    pub(crate) fn encrypt(&mut self) {
        let facts = self.process.held.as_ref().map(|held| HeldKey {
            created: created(held.created),
            parent_created: created(held.named),
            age: self.age(self.process.checked(held)),
            is_unusable: self.process.is_unusable(held),
        });
        let step = self.decisions.encrypt(facts, self.wall());
        if self.process.load.is_some() {
            if matches!(step, Step::Use | Step::UseAndRefresh | Step::UseAndReplace) {
                self.use_held(self.now, false);
            }
            return;
        }
        match step {
            Step::Use => self.use_held(self.now, false),
            Step::UseAndRefresh | Step::UseAndReplace => {
                self.use_held(self.now, false);
                let held = self.process.held.as_ref().map(|held| held.created);
                self.start(Waiter::Nobody, held.filter(|_| step == Step::UseAndReplace));
            }
            Step::Wait(awaited) if Decisions::is_worth_waiting(awaited, self.process.is_in_trouble) => {
                self.start(Waiter::WithKey(awaited), None);
            }
            Step::Wait(awaited) => match self.after_wait(awaited, Waited::NotAtAll) {
                Next::UseHeld => self.use_held(self.now, true),
                Next::Load => self.start(Waiter::WithoutKey, None),
                Next::UseAnswer | Next::Fail => {}
            },
            Step::Load => self.start(Waiter::WithoutKey, None),
            Step::Fail => {}
        }
    }

    /// A decrypt under the key that is held, with the check that it may wait for, in one step.
    pub(crate) fn decrypt(&mut self, answer: Answer) {
        let Some(held) = self.process.held.clone().filter(|held| !held.is_gone) else { return };
        let is_revoked = self.process.knows_revoked(&held);
        if !self.decisions.admits(is_revoked) {
            return;
        }
        let age = self.age(self.process.checked(&held));
        let waited = match self.decisions.decrypt(Some(age), is_revoked) {
            Step::Fail => return,
            Step::Use | Step::UseAndRefresh | Step::UseAndReplace => return self.decrypt_by(&held),
            Step::Wait(_) | Step::Load if answer != Answer::Answered => Waited::Failed,
            Step::Wait(_) | Step::Load if find(&self.store.keys, held.created).is_none() => {
                self.lose(held.created);
                Waited::Gone
            }
            Step::Wait(_) | Step::Load => Waited::Answered,
        };
        let is_waiting = matches!(self.decisions.decrypt(Some(age), is_revoked), Step::Wait(_));
        if is_waiting && Decisions::after_wait_to_decrypt(waited) == Next::UseHeld {
            self.decrypt_by(&held);
        }
    }

    /// An encrypt has waited for `refresh_wait`; its load goes on.
    pub(crate) fn give_up(&mut self) {
        let Some(load) = &self.process.load else { return };
        let (Waiter::WithKey(awaited), started) = (load.waiter, load.started) else { return };
        self.process.is_in_trouble = true;
        let waiter = match self.after_wait(awaited, Waited::NoAnswer) {
            Next::UseHeld => {
                self.use_held(started, true);
                Waiter::Nobody
            }
            Next::Load => Waiter::WithoutKey,
            Next::UseAnswer | Next::Fail => Waiter::Nobody,
        };
        if let Some(load) = &mut self.process.load {
            load.waiter = waiter;
        }
    }

    /// The load's call ends.
    pub(crate) fn call(&mut self, answer: Answer) {
        let Some(load) = self.process.load.clone() else { return };
        match (&load.call, answer) {
            (_, Answer::Answered) => self.answered(&load),
            (Call::InsertSystem { row, .. }, Answer::ReplyLost) => {
                insert(&mut self.store.system, row);
                self.fail(&load);
            }
            (Call::InsertKey { row }, Answer::ReplyLost) => {
                insert(&mut self.store.keys, row);
                self.fail(&load);
            }
            (Call::InsertKey { .. }, Answer::Failed)
                if self.mutation == Some(Mutation::FailedInsertIsDuplicate) =>
            {
                self.adopt_latest(&load);
            }
            (_, Answer::Failed | Answer::ReplyLost) => self.fail(&load),
        }
    }

    fn answered(&mut self, load: &Load) {
        match &load.call {
            Call::ReadLatest => self.judge(load),
            Call::ReadParent { row, begun } => {
                let parent =
                    self.parent_to_read(row).and_then(|parent| find(&self.store.system, parent).cloned());
                let Some(parent) = parent else { return self.make(load, Some(row.created)) };
                self.process.learn_system(&parent, self.now);
                self.judge_parent(load, row, *begun, parent.created);
            }
            Call::ReadLatestSystem { above } => {
                let Some(row) = self.store.system.last().cloned() else {
                    return self.make_system(load, *above, None);
                };
                self.process.learn_system(&row, self.now);
                if self.is_usable_system(row.created) {
                    self.make_under(load, *above, Parent { created: row.created, bytes: row.bytes });
                } else {
                    self.make_system(load, *above, Some(row.created));
                }
            }
            Call::InsertSystem { above, row } => match insert(&mut self.store.system, row) {
                Inserted::Inserted => {
                    self.process.learn_system(row, self.now);
                    self.make_under(load, *above, Parent { created: row.created, bytes: row.bytes });
                }
                Inserted::AlreadyExists => self.again(load, Call::ReadLatestSystem { above: *above }),
            },
            Call::InsertKey { row } => match insert(&mut self.store.keys, row) {
                Inserted::Inserted => {
                    let parent = row.parent.map_or(0, |parent| parent.created);
                    self.hold(row, self.now, parent);
                    if self.is_usable_system(parent) {
                        self.succeed(load);
                    } else {
                        self.again(load, Call::ReadLatest);
                    }
                }
                Inserted::AlreadyExists => self.again(load, Call::ReadLatest),
            },
        }
    }

    /// T2: what is to be done about the latest row.
    fn judge(&mut self, load: &Load) {
        for row in self.store.keys.iter().rev().take(2) {
            self.process.learn(row);
        }
        let latest = self.store.keys.last().cloned();
        if let Some(held) = self.process.held.clone()
            && latest.as_ref().is_none_or(|latest| latest.created < held.created)
        {
            self.lose(held.created);
        }
        let Some(row) = latest else { return self.make(load, None) };
        let is_known = self.process.revoked & bit(row.created) != 0;
        let is_to_be_replaced = load.replace.is_some_and(|up_to| row.created <= up_to);
        if is_known || is_to_be_replaced || self.is_expired(row.created) {
            return self.make(load, Some(row.created));
        }
        let Some(parent) = self.parent_to_read(&row) else { return self.fail(load) };
        let is_due = |system: &Held| self.decisions.is_due(self.age(system.checked));
        if self.process.system.iter().any(|system| system.created == parent && !is_due(system)) {
            self.judge_parent(load, &row, self.now, parent);
        } else {
            self.next(load, Call::ReadParent { row, begun: self.now });
        }
    }

    /// Returns the system key that the row's key is judged and unwrapped by.
    fn parent_to_read(&self, row: &Row) -> Option<u8> {
        match self.mutation {
            Some(Mutation::LatestSystemKey) => self.store.system.last().map(|system| system.created),
            _ => row.parent.map(|parent| parent.created),
        }
    }

    fn judge_parent(&mut self, load: &Load, row: &Row, begun: u8, parent: u8) {
        let is_revoked = self.process.revoked & bit(row.created) != 0;
        if is_revoked || self.is_expired(row.created) || !self.is_usable_system(parent) {
            return self.make(load, Some(row.created));
        }
        self.hold(row, begun, parent);
        self.succeed(load);
    }

    /// Makes a key that comes after `above`; first what it is wrapped under is to be had.
    fn make(&mut self, load: &Load, above: Option<u8>) {
        let system = self.process.system.last().filter(|system| {
            self.is_usable_system(system.created) && !self.decisions.is_due(self.age(system.checked))
        });
        match system.map(|system| Parent { created: system.created, bytes: system.bytes }) {
            Some(parent) => self.make_under(load, above, parent),
            None => self.next(load, Call::ReadLatestSystem { above }),
        }
    }

    fn make_system(&mut self, load: &Load, above: Option<u8>, above_system: Option<u8>) {
        let Some(created) = self.next_created(above_system, self.process.revoked_system) else {
            return self.fail(load);
        };
        let row = Row { created, bytes: self.unused_bytes, parent: None, revoked_at: None };
        self.next(load, Call::InsertSystem { above, row });
    }

    fn make_under(&mut self, load: &Load, above: Option<u8>, parent: Parent) {
        let Some(created) = self.next_created(above.max(self.process.lost), self.process.revoked) else {
            return self.fail(load);
        };
        let row = Row { created, bytes: self.unused_bytes, parent: Some(parent), revoked_at: None };
        self.next(load, Call::InsertKey { row });
    }

    /// T4, and past what is known to be revoked.
    fn next_created(&self, above: Option<u8>, revoked: u32) -> Option<u8> {
        let above = above.filter(|_| self.mutation != Some(Mutation::NoBump)).map(created);
        let next = crate::offset(self.decisions.next_created(self.wall(), above)?);
        let is_revoked = |created: &u8| revoked & bit(*created) != 0;
        if self.mutation == Some(Mutation::NoBump) {
            return Some(next);
        }
        (next..u8::MAX).find(|created| !is_revoked(created))
    }

    /// The mutant's way: what is there is used, whatever it is.
    fn adopt_latest(&mut self, load: &Load) {
        let Some(row) = self.store.keys.last().cloned() else { return self.fail(load) };
        self.process.learn(&row);
        self.hold(&row, self.now, row.parent.map_or(0, |parent| parent.created));
        self.succeed(load);
    }

    fn hold(&mut self, row: &Row, checked: u8, parent: u8) {
        let named = row.parent.map_or(parent, |parent| parent.created);
        let (created, bytes) = (row.created, row.bytes);
        self.process.held = Some(Held { created, bytes, checked, parent, named, is_gone: false });
    }

    /// Notes that the row of the key that is held is gone.
    fn lose(&mut self, created: u8) {
        self.process.lost = self.process.lost.max(Some(created));
        if let Some(held) = &mut self.process.held {
            held.is_gone = true;
        }
    }

    fn start(&mut self, waiter: Waiter, replace: Option<u8>) {
        self.process.load =
            Some(Load { started: self.now, waiter, replace, races: 0, call: Call::ReadLatest });
    }

    fn next(&mut self, load: &Load, call: Call) {
        self.process.load = Some(Load { call, ..load.clone() });
    }

    /// A race was lost.
    fn again(&mut self, load: &Load, call: Call) {
        if load.races == RACES_MAX {
            return self.fail(load);
        }
        self.process.load = Some(Load { call, races: load.races + 1, ..load.clone() });
    }

    fn succeed(&mut self, load: &Load) {
        self.process.load = None;
        if load.waiter != Waiter::Nobody {
            self.use_held(load.started, false);
        }
    }

    fn fail(&mut self, load: &Load) {
        self.process.load = None;
        self.process.is_in_trouble = true;
        if self.mutation == Some(Mutation::FreshOnFailure) {
            let keys = self.process.held.iter_mut().chain(&mut self.process.system);
            keys.for_each(|key| key.checked = self.now);
        }
        if let Waiter::WithKey(awaited) = load.waiter
            && self.after_wait(awaited, Waited::Failed) == Next::UseHeld
        {
            self.use_held(load.started, true);
        }
    }

    fn after_wait(&self, awaited: Awaited, waited: Waited) -> Next {
        let is_unusable = self.process.held.as_ref().is_some_and(|held| self.process.is_unusable(held));
        let is_unusable = is_unusable && self.mutation != Some(Mutation::RevokedWhileDown);
        Decisions::after_wait_to_encrypt(awaited, waited, is_unusable)
    }

    /// An operation that began then encrypts under the key that is held: here the promises are looked at.
    fn use_held(&mut self, started: u8, is_bad_weather: bool) {
        let Some(held) = &self.process.held else { return };
        self.used = Some(held.created);
        let withdrawn =
            self.store.withdrawn_at(held).map(|at| Duration::from_secs(started.saturating_sub(at).into()));
        let is_beyond = |bound| withdrawn.is_some_and(|since| since > bound);
        self.broken.known_revocation |= self.process.knows_revoked(held);
        self.broken.revocation_bound |= !is_bad_weather && is_beyond(self.bounds.interval);
        self.broken.revocation_bound_in_any_weather |= is_beyond(self.bounds.encrypt_age_max);
        self.broken.named_parent |= held.parent != held.named;
        let is_shredded = self.store.shredded_at(held.bytes).is_some();
        self.broken.nothing_lost |= !is_shredded && !self.store.can_unwrap(held.created, held.bytes);
    }

    fn decrypt_by(&mut self, held: &Held) {
        let since = self.store.shredded_at(held.bytes).map(|at| self.age(at));
        self.broken.shredding_bound |= since.is_some_and(|since| since > self.bounds.decrypt_age_max);
    }

    fn is_expired(&self, key: u8) -> bool {
        self.decisions.is_expired(created(key), self.wall())
    }

    fn is_usable_system(&self, key: u8) -> bool {
        self.process.revoked_system & bit(key) == 0 && !self.is_expired(key)
    }

    fn age(&self, checked: u8) -> Duration {
        Duration::from_secs(self.now.saturating_sub(checked).into())
    }

    fn wall(&self) -> Duration {
        time(self.now.saturating_add(self.process.skew))
    }
}
