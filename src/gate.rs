//! The way out to one dependency: every call goes through permits, a deadline, classified retry and a
//! breaker that counts subjects.
//!
//! What is in trouble itself is asked seldom, and in nobody's way ([`trouble`]); a dependency that answers
//! nobody is left alone but for a probe a second ([`health`]); checks of keys in use have permits of their
//! own ([`permits`]).

mod health;
mod permits;
pub(crate) mod replica;
mod retry;
pub(crate) mod serial;
mod subject;
mod trouble;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::clock::Clock;
use crate::context::CallContext;
use crate::error::BackendError;
use crate::random::SecureRandom;
use crate::telemetry::way::WayGauges;
use health::{Health, Standing, Verdict};
pub(crate) use permits::{Lanes, Width};
use permits::{Permit, Permits};
pub(crate) use retry::{context, in_time, jittered, retried, unreachable};
pub(crate) use subject::{Class, Subject};

#[derive(Debug)]
pub(crate) struct Gate {
    permits: Permits,
    health: Health,
    rules: GateRules,
    clock: Arc<dyn Clock>,
    random: Arc<dyn SecureRandom>,
}

#[derive(Clone, Debug)]
pub(crate) struct GateRules {
    /// How many loads may be under way at once.
    pub(crate) loads_max: usize,
    /// How many checks may be, besides.
    pub(crate) checks_max: usize,
    pub(crate) lanes: Arc<Lanes>,
    /// How long one attempt may take.
    pub(crate) deadline: Duration,
    pub(crate) max_attempts: u32,
    /// After how long a check that has no answer gives way to one that waits.
    pub(crate) slow: Duration,
    /// How long a call waits for a probe to come to its end.
    pub(crate) probe_wait: Duration,
}

/// A call that was begun. If it ends without an answer, however it does, its subject is in trouble.
struct Operation<'a> {
    gate: &'a Gate,
    subject: &'a Subject,
    last: Option<Attempt>,
}

/// The last attempt of a call, as long as that has no answer.
struct Attempt {
    /// When it began, by the clock of troubles and by that of deadlines.
    asked: Duration,
    begun: Instant,
    /// Unless it is under way still.
    failure: Option<BackendError>,
}

impl Gate {
    pub(crate) fn new(
        rules: GateRules,
        gauges: &Arc<WayGauges>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn SecureRandom>,
    ) -> Self {
        let (lanes, of_permits) = (Arc::clone(&rules.lanes), Arc::clone(gauges));
        let permits = Permits::new(rules.loads_max, rules.checks_max, lanes, of_permits);
        Self { permits, health: Health::new(Arc::clone(gauges)), rules, clock, random }
    }

    /// Returns `true` if the dependency is taken to be down, and no probe is due.
    pub(crate) fn is_open(&self) -> bool {
        self.health.is_open(self.now())
    }

    /// Returns `true` if the dependency is taken to be down.
    pub(crate) fn is_tripped(&self) -> bool {
        self.health.is_tripped()
    }

    /// Returns `true` if a call would not be made now.
    pub(crate) fn is_shut_to(&self, subject: &Subject) -> bool {
        self.health.is_shut_to(subject, self.now())
    }

    /// Returns `true` if the next probe is left to this subject.
    pub(crate) fn prefers(&self, subject: &Subject) -> bool {
        self.health.prefers(subject, self.now())
    }

    /// Returns `true` if any call is under way.
    pub(crate) fn is_asked(&self) -> bool {
        self.permits.are_any_out()
    }

    /// Returns `true` if the dependency did for anybody what it was asked for, within `span`.
    pub(crate) fn has_served_within(&self, span: Duration) -> bool {
        self.health.has_served_since(self.now().saturating_sub(span))
    }

    /// Returns `true` if a check would get a permit at once.
    pub(crate) fn has_room_for_check(&self) -> bool {
        self.permits.has_room_for_check()
    }

    /// Makes the call, and again while it fails transiently and attempts are left.
    ///
    /// # Errors
    /// A subject in trouble gets its last failure, but once a second. While the dependency is taken to be
    /// down others wait for a probe, and are refused if none brings an answer.
    ///
    /// # Cancel safety
    /// Permits are guards; the call itself is dropped where it stands.
    pub(crate) async fn call<T, F>(
        &self,
        class: Class,
        subject: &Subject,
        mut attempt: impl FnMut(CallContext) -> F,
    ) -> Result<T, BackendError>
    where
        F: Future<Output = Result<T, BackendError>>,
    {
        let mut operation = Operation { gate: self, subject, last: None };
        let mut attempts = 1;
        loop {
            let (permit, standing) = match self.enter(class, Some(subject)).await {
                Ok(entered) => entered,
                // What it failed by is told, not that it is not tried again.
                Err(refusal) => return Err(operation.failure().unwrap_or(refusal)),
            };
            let asked = self.now();
            operation.last = Some(Attempt { asked, begun: Instant::now(), failure: None });
            let context = context(self.rules.deadline).attempt(attempts);
            let error = match self.attempt(permit, subject, asked, attempt(context)).await {
                Err(error) if error.is_transient() => error,
                answer => {
                    operation.last = None;
                    return answer;
                }
            };
            operation.failed(error.clone());
            let is_last = attempts >= self.rules.max_attempts || matches!(standing, Standing::Troubled(_));
            if is_last || self.is_tripped() {
                return Err(error);
            }
            retry::pause(attempts, &*self.random).await;
            // A probe is left to those that were not asked yet.
            if self.is_tripped() {
                return Err(error);
            }
            attempts += 1;
        }
    }

    /// Makes a call for many subjects, once. Its failure speaks against none of them, nor against the
    /// dependency: the caller asks for fewer next.
    ///
    /// # Cancel safety
    /// As of [`call`](Self::call).
    pub(crate) async fn call_in_bulk<T>(
        &self,
        class: Class,
        call: impl AsyncFnOnce(CallContext) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let (_permit, _well) = self.enter(class, None).await?;
        let answer = in_time(self.rules.deadline, call(context(self.rules.deadline))).await;
        if !answer.as_ref().is_err_and(|error| error.is_transient() || !error.was_asked()) {
            self.health.answered(None, answer.is_ok(), self.now());
        }
        answer
    }

    /// Waits until a call may be made, before work is done that is in vain without it. While the
    /// dependency is taken to be down, the one that comes through is to make the next probe.
    ///
    /// # Errors
    /// The dependency is taken to be down, and no probe brought an answer in time.
    ///
    /// # Cancel safety
    /// Leaving early holds up the next probe for a second at most.
    pub(crate) async fn clearance(&self) -> Result<(), BackendError> {
        let until = self.patience();
        while let Some(span) = self.health.reserve_probe(self.now()) {
            self.health.probe(until, span).await?;
        }
        Ok(())
    }

    /// Takes a permit, at a moment when the call may be made.
    async fn enter(
        &self,
        class: Class,
        subject: Option<&Subject>,
    ) -> Result<(Permit<'_>, Standing), BackendError> {
        let mut until = None;
        let mut verdict = self.health.look(subject, self.now());
        loop {
            let standing = match verdict {
                Verdict::Go(standing) => standing,
                Verdict::Refused(error) => return Err(error),
                Verdict::Wait(span) => {
                    let until = *until.get_or_insert_with(|| self.patience());
                    self.health.probe(until, span).await?;
                    verdict = self.health.look(subject, self.now());
                    continue;
                }
            };
            let permit = match standing {
                Standing::Well => self.permits.acquire(class, subject).await,
                Standing::Troubled(last_failure) => {
                    self.permits.try_acquire_in_trouble(subject).ok_or(last_failure)?
                }
            };
            // Others may have fared badly while this one waited.
            verdict = match self.health.admit(subject, permit.is_of_trouble(), self.now()) {
                Ok(standing) => return Ok((permit, standing)),
                Err(verdict) => verdict,
            };
        }
    }

    fn patience(&self) -> Instant {
        Instant::now() + self.rules.probe_wait
    }

    async fn attempt<T>(
        &self,
        permit: Permit<'_>,
        subject: &Subject,
        asked: Duration,
        call: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        // On the heap: to pass a future on is to keep two of it in the caller's.
        let call = Box::pin(self.giving_way(permit, call));
        let answer = match timeout(self.rules.deadline, call).await {
            Ok(Some(answer)) => answer,
            // So little time says nothing of the dependency.
            Ok(None) => return Err(retry::no_answer(self.rules.slow)),
            Err(_elapsed) => Err(retry::no_answer(self.rules.deadline)),
        };
        match &answer {
            Err(error) if error.is_transient() => self.health.failed(subject, asked, self.now()),
            // The back end refused by itself: that says nothing of what is behind it.
            Err(error) if !error.was_asked() => self.health.not_asked(subject, self.now()),
            // Any other permanent refusal is an answer: the dependency is up.
            Ok(_) | Err(_) => self.health.answered(Some(subject), answer.is_ok(), self.now()),
        }
        answer
    }

    /// Makes the call. A check that takes long while others wait goes on among those in trouble, if there
    /// is room, and else is given up: however many hang, those that do not are checked in time.
    async fn giving_way<T>(
        &self,
        mut permit: Permit<'_>,
        call: impl Future<Output = Result<T, BackendError>>,
    ) -> Option<Result<T, BackendError>> {
        let mut call = pin!(call);
        while permit.is_of_check() {
            if let Ok(answer) = timeout(self.rules.slow, call.as_mut()).await {
                return Some(answer);
            }
            if self.permits.are_checks_waiting() && !self.permits.move_aside(&mut permit) {
                return None;
            }
        }
        Some(call.await)
    }

    fn now(&self) -> Duration {
        self.clock.monotonic()
    }
}

impl Operation<'_> {
    fn failed(&mut self, error: BackendError) {
        if let Some(last) = &mut self.last {
            last.failure = Some(error);
        }
    }

    fn failure(&self) -> Option<BackendError> {
        self.last.as_ref().and_then(|last| last.failure.clone())
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        let Some(Attempt { asked, begun, failure }) = self.last.take() else { return };
        // Without a failure it was cut off: the operation as a whole took too long, or its runtime or the
        // factory went away.
        let is_slow = begun.elapsed() >= self.gate.rules.slow;
        if let Some(failure) = failure.or_else(|| is_slow.then(|| unreachable(retry::CutOff))) {
            self.gate.health.note_trouble(self.subject, failure, asked, self.gate.now());
        }
    }
}
