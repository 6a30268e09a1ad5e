//! The life cycle of keys as a model: creation, revocation and shredding by one or two processes, in every order
//! of their steps, within a [`Scope`].
//!
//! Each call to the store may fail, and the reply to an insert may be lost. Clocks are skewed by a precision window.
//! Waits end early. Processes crash. An operator revokes keys of both levels, and shreds. What is decided on the way is
//! decided by the core's own functions ([`claviger::testing::decisions`]): the tables T1 and T5, and the times of T4.
//! What a load does in between (T2, T3) is written down here a second time, call by call.
//!
//! Scopes end before a key is near its end: that a system key near its own is replaced before what it wraps is not in
//! the model. Left out are the KMS, too, which may be down as the store may be, replicas, exhausted keys, breakers, and
//! inserts that arrive after their caller has gone: the simulation has them. A call reads or writes at the moment of its
//! answer.
//!
//! The states of a scope are all visited: `cargo xtask ci` runs the example `bounded`.

mod state;
mod turn;

use std::time::Duration;

use claviger::testing::decisions::Decisions;
use claviger::{Created, CryptoPolicy};
use stateright::{Checker, HasDiscoveries, Model, Path, Property};

pub use state::{Broken, Call, Held, Load, Parent, Process, Row, Shredded, State, Store, Waiter};
use turn::Turn;

/// The beginning, at which a precision window begins, too.
const BEGINNING: u32 = 86_400;

/// How much of the life cycle is looked at.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Scope {
    /// How far each process's clock is ahead, in seconds.
    pub skews: Vec<u8>,
    /// How many seconds pass.
    pub seconds: u8,
    /// How many calls fail or are answered too late.
    pub faults: u8,
    /// How often an operator does something, or a process crashes.
    pub interventions: u8,
}

impl Scope {
    /// Returns the scope with these processes, with no time, fault or intervention yet.
    #[must_use]
    pub const fn new(skews: Vec<u8>) -> Self {
        Self { skews, seconds: 0, faults: 0, interventions: 0 }
    }

    /// Lets so many seconds pass.
    #[must_use]
    pub const fn seconds(mut self, seconds: u8) -> Self {
        self.seconds = seconds;
        self
    }

    /// Lets so many calls fail.
    #[must_use]
    pub const fn faults(mut self, faults: u8) -> Self {
        self.faults = faults;
        self
    }

    /// Lets operator and crashes intervene so often.
    #[must_use]
    pub const fn interventions(mut self, interventions: u8) -> Self {
        self.interventions = interventions;
        self
    }
}

/// A mistake that the model makes on purpose, to show that a property would tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mutation {
    /// A key that replaces another does not come after it.
    NoBump,
    /// A failed insert is taken for one of a key that is there, and that key is used.
    FailedInsertIsDuplicate,
    /// A key is judged and unwrapped by the latest system key, not by the one that its row names.
    LatestSystemKey,
    /// A key that is known to be revoked goes on while the store is down.
    RevokedWhileDown,
    /// A failed check counts as one that was made.
    FreshOnFailure,
}

/// How long what may be used, by the policy.
#[derive(Debug)]
pub(crate) struct Bounds {
    pub(crate) interval: Duration,
    pub(crate) encrypt_age_max: Duration,
    pub(crate) decrypt_age_max: Duration,
}

/// The model: a scope, the core's decisions, and perhaps a mistake.
#[derive(Debug)]
pub struct LifeCycle {
    scope: Scope,
    mutation: Option<Mutation>,
    decisions: Decisions,
    bounds: Bounds,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no fourth end of a call")]
pub enum Answer {
    /// It was answered.
    Answered,
    /// It failed, and nothing was done.
    Failed,
    /// It was done, and failed for all the caller knows.
    ReplyLost,
}

/// What happens next; processes are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A second passes.
    Tick,
    /// An encrypt begins.
    Encrypt(usize),
    /// A decrypt under the key that is held.
    Decrypt(usize, Answer),
    /// The call of the load under way ends.
    Call(usize, Answer),
    /// An encrypt has waited for long enough.
    GiveUp(usize),
    /// A process loses its memory.
    Crash(usize),
    /// The operator revokes the latest intermediate key.
    Revoke,
    /// The operator revokes the latest system key.
    RevokeSystem,
    /// The operator deletes the partition's keys.
    Shred,
}

/// What came of visiting every state.
#[derive(Debug)]
#[non_exhaustive]
pub struct Explored {
    /// How many states there are.
    pub states: usize,
    /// How many events lead to the farthest.
    pub depth: usize,
    /// The properties that do not hold, each with the events that break it, one a line.
    pub violations: Vec<(&'static str, Vec<String>)>,
}

impl LifeCycle {
    /// Returns the model of a scope.
    #[must_use]
    pub fn new(scope: Scope, mutation: Option<Mutation>) -> Self {
        let (interval, stale_encrypt) = (Duration::from_millis(1250), Duration::from_secs(1));
        let stale_decrypt = Duration::from_secs(2);
        let policy = CryptoPolicy::production()
            .expire_after(Duration::from_secs(4))
            .creation_precision(Duration::from_secs(2))
            .revoke_check_interval(interval)
            .max_stale_encrypt(stale_encrypt)
            .max_stale_decrypt(stale_decrypt);
        let bounds = Bounds {
            interval,
            encrypt_age_max: interval + stale_encrypt,
            decrypt_age_max: interval + stale_decrypt,
        };
        Self { scope, mutation, decisions: Decisions::new(&policy), bounds }
    }

    /// Visits every state, the nearest first, or those up to the nearest violation.
    #[must_use]
    pub fn explore(self) -> Explored {
        let checker = self.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let events =
            |path: Path<State, Event>| path.into_actions().iter().map(|event| format!("{event:?}")).collect();
        let violations = checker.discoveries().into_iter().map(|(name, path)| (name, events(path))).collect();
        Explored { states: checker.unique_state_count(), depth: checker.max_depth(), violations }
    }

    /// Lets one process do something.
    fn turn(&self, state: &mut State, process: usize, act: impl FnOnce(&mut Turn<'_>)) -> Option<u8> {
        let unused_bytes = state.unused_bytes();
        let State { now, store, processes, broken, .. } = state;
        let mut turn = Turn {
            decisions: &self.decisions,
            bounds: &self.bounds,
            mutation: self.mutation,
            now: *now,
            store,
            process: processes.get_mut(process)?,
            broken,
            unused_bytes,
            used: None,
        };
        act(&mut turn);
        turn.used
    }

    /// Returns `true` if from here on, with no more trouble, all processes come to encrypt under one key: once each
    /// has asked the store again, and then once more. A load that is under way is the past by then.
    fn settles(&self, state: &State) -> bool {
        let mut state = state.clone();
        let mut last = Vec::new();
        for _round in 0..2 {
            last.clear();
            for process in 0..state.processes.len() {
                let Some(own) = state.processes.get_mut(process) else { return false };
                (own.held, own.load, own.is_in_trouble) = (None, None, false);
                let Some(used) = self.encrypt_in_good_weather(&mut state, process) else { return false };
                last.push(used);
            }
        }
        let latest = state.store.keys.last().map(|row| row.created);
        last.iter().all(|used| Some(*used) == latest)
    }

    fn encrypt_in_good_weather(&self, state: &mut State, process: usize) -> Option<u8> {
        let mut used = self.turn(state, process, |turn| turn.encrypt());
        while state.processes.get(process).is_some_and(|process| process.load.is_some()) {
            used = self.turn(state, process, |turn| turn.call(Answer::Answered)).or(used);
        }
        used
    }

    fn events_of(state: &State, (number, process): (usize, &Process), events: &mut Vec<Event>) {
        events.push(Event::Encrypt(number));
        let may_fail = state.faults > 0;
        if process.held.is_some() {
            events.push(Event::Decrypt(number, Answer::Answered));
            if may_fail {
                events.push(Event::Decrypt(number, Answer::Failed));
            }
        }
        if let Some(load) = &process.load {
            events.push(Event::Call(number, Answer::Answered));
            if may_fail {
                events.push(Event::Call(number, Answer::Failed));
                if matches!(load.call, Call::InsertSystem { .. } | Call::InsertKey { .. }) {
                    events.push(Event::Call(number, Answer::ReplyLost));
                }
                if matches!(load.waiter, Waiter::WithKey(_)) {
                    events.push(Event::GiveUp(number));
                }
            }
        }
        if state.interventions > 0 {
            events.push(Event::Crash(number));
        }
    }
}

impl Model for LifeCycle {
    type State = State;
    type Action = Event;

    fn init_states(&self) -> Vec<State> {
        let process = |skew: &u8| Process { skew: *skew, ..Process::default() };
        vec![State {
            now: 0,
            store: Store::default(),
            processes: self.scope.skews.iter().map(process).collect(),
            faults: self.scope.faults,
            interventions: self.scope.interventions,
            broken: Broken::default(),
        }]
    }

    fn actions(&self, state: &State, events: &mut Vec<Event>) {
        if state.now < self.scope.seconds {
            events.push(Event::Tick);
        }
        for process in state.processes.iter().enumerate() {
            Self::events_of(state, process, events);
        }
        if state.interventions > 0 {
            events.extend([Event::Revoke, Event::RevokeSystem, Event::Shred]);
        }
    }

    fn next_state(&self, state: &State, event: Event) -> Option<State> {
        let mut next = state.clone();
        let now = next.now;
        match event {
            Event::Tick => {
                next.now += 1;
                next.processes.iter_mut().for_each(|process| process.is_in_trouble = false);
            }
            Event::Encrypt(process) => {
                self.turn(&mut next, process, |turn| turn.encrypt());
            }
            Event::Decrypt(process, answer) => {
                self.turn(&mut next, process, |turn| turn.decrypt(answer));
                next.faults -= u8::from(answer != Answer::Answered);
            }
            Event::Call(process, answer) => {
                self.turn(&mut next, process, |turn| turn.call(answer));
                next.faults -= u8::from(answer != Answer::Answered);
            }
            Event::GiveUp(process) => {
                self.turn(&mut next, process, |turn| turn.give_up());
                next.faults -= 1;
            }
            Event::Crash(process) => {
                let process = next.processes.get_mut(process)?;
                *process = Process { skew: process.skew, ..Process::default() };
                next.interventions -= 1;
            }
            Event::Revoke | Event::RevokeSystem => {
                let rows = if event == Event::Revoke { &mut next.store.keys } else { &mut next.store.system };
                rows.last_mut().filter(|row| row.revoked_at.is_none())?.revoked_at = Some(now);
                next.interventions -= 1;
            }
            Event::Shred => {
                if next.store.keys.is_empty() {
                    return None;
                }
                let shredded = next.store.keys.drain(..).map(|row| Shredded { bytes: row.bytes, at: now });
                next.store.shredded.extend(shredded);
                next.interventions -= 1;
            }
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing lost", |_, state: &State| !state.broken.nothing_lost),
            Property::always("no key is used that is known to be revoked", |_, state: &State| {
                !state.broken.known_revocation
            }),
            Property::always("revocation bound", |_, state: &State| !state.broken.revocation_bound),
            Property::always("revocation bound in any weather", |_, state: &State| {
                !state.broken.revocation_bound_in_any_weather
            }),
            Property::always("no decrypt after a shredding's bound", |_, state: &State| {
                !state.broken.shredding_bound
            }),
            Property::always("no parent but the one that is named", |_, state: &State| {
                !state.broken.named_parent
            }),
            Property::always("one row for each id and time", |_, state: &State| {
                [&state.store.system, &state.store.keys].into_iter().all(|rows| {
                    rows.iter().zip(rows.iter().skip(1)).all(|(row, next)| row.created < next.created)
                })
            }),
            Property::always("all come to use one key", Self::settles),
        ]
    }
}

/// Returns the time that is so many seconds after the beginning.
pub(crate) const fn time(seconds: u8) -> Duration {
    Duration::from_secs(BEGINNING as u64 + seconds as u64)
}

/// Returns it as a key's.
pub(crate) fn created(seconds: u8) -> Created {
    Created::new(i64::from(BEGINNING) + i64::from(seconds)).unwrap_or(Created::MIN)
}

/// Returns how many seconds after the beginning it is.
pub(crate) fn offset(created: Created) -> u8 {
    u8::try_from(created.unix_seconds() - i64::from(BEGINNING)).unwrap_or(u8::MAX)
}
