//! What is known of a dependency: which subjects get no answer from it, and whether any does.
//!
//! The breaker counts subjects: failures of one key say nothing of the others. Time is an argument, by a
//! clock that never goes back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::retry;
use super::subject::Subject;
use super::trouble::Troubles;
use crate::breaker::BreakerOpen;
use crate::error::BackendError;
use crate::telemetry::way::WayGauges;

#[derive(Debug)]
pub(super) struct Health {
    state: Mutex<State>,
    closed: Notify,
    /// They show the breaker.
    gauges: Arc<WayGauges>,
}

#[derive(Debug)]
struct State {
    troubles: Troubles,
    breaker: Breaker,
    /// How many wait for a probe, none of them in trouble.
    waiting: usize,
    /// When the dependency last did what it was asked for.
    served: Option<Duration>,
}

#[derive(Debug, Default)]
struct Breaker {
    /// When anybody was last answered.
    answered: Duration,
    /// Since then, in a row, of attempts that began later: others were answered meanwhile where one that
    /// began earlier was not.
    failures: u32,
    /// Subjects that failed since then, not all if there are many.
    failed: Vec<Subject>,
    /// Subjects that were answered last, the last of them at the end: if anybody is answered, they are.
    preferred: Vec<Subject>,
    /// Subjects that were asked last, with when, not all if there are many.
    asked: Vec<(Subject, Duration)>,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    /// When the next probe may go.
    next: Duration,
    turn: Turn,
}

/// Which subject may make the next probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Those that are not in trouble first.
    OfTheWell,
    /// Whoever comes: the last one, of a subject not in trouble, came to nobody.
    OfAnybody,
    /// The one that it was taken for before its call, which follows.
    Reserved,
}

/// How a subject stands with the dependency.
#[derive(Clone, Debug)]
pub(super) enum Standing {
    Well,
    /// In trouble, by this.
    Troubled(BackendError),
}

/// What may be done for a subject.
#[derive(Debug)]
pub(super) enum Verdict {
    Go(Standing),
    Refused(BackendError),
    /// The next probe may go so long from now.
    Wait(Duration),
}

const FAILURES_MAX: u32 = 5;
/// How many subjects must have failed, unless fewer were asked lately.
const SUBJECTS_MIN: usize = 3;
const LATELY: Duration = Duration::from_secs(10);
const PROBE_PERIOD: Duration = Duration::from_secs(1);
/// How many of those that were answered last are preferred, and for how long a probe that is due is left to
/// them.
const PREFERRED_MAX: usize = 4;
const PREFERENCE: Duration = Duration::from_millis(250);

impl Health {
    pub(super) fn new(gauges: Arc<WayGauges>) -> Self {
        let state =
            State { troubles: Troubles::new(), breaker: Breaker::default(), waiting: 0, served: None };
        Self { state: Mutex::new(state), closed: Notify::new(), gauges }
    }

    pub(super) fn is_tripped(&self) -> bool {
        self.state().breaker.open.is_some()
    }

    pub(super) fn is_open(&self, now: Duration) -> bool {
        self.state().breaker.open.is_some_and(|open| now < open.next)
    }

    pub(super) fn is_shut_to(&self, subject: &Subject, now: Duration) -> bool {
        !matches!(self.look(Some(subject), now), Verdict::Go(_))
    }

    /// Returns `true` if the next probe is left to this subject, which is not in trouble.
    pub(super) fn prefers(&self, subject: &Subject, now: Duration) -> bool {
        let mut state = self.state();
        state.breaker.open.is_some()
            && state.breaker.preferred.contains(subject)
            && state.troubles.of(subject, now).is_none()
    }

    pub(super) fn has_served_since(&self, moment: Duration) -> bool {
        self.state().served.is_some_and(|served| served >= moment)
    }

    /// Tells what may be done for a subject; without one, for many.
    pub(super) fn look(&self, subject: Option<&Subject>, now: Duration) -> Verdict {
        self.state().verdict(subject, now)
    }

    /// Notes that the subject is asked now, if it may be and stands as expected; else tells what may be
    /// done.
    pub(super) fn admit(
        &self,
        subject: Option<&Subject>,
        in_trouble: bool,
        now: Duration,
    ) -> Result<Standing, Verdict> {
        let mut state = self.state();
        match state.verdict(subject, now) {
            Verdict::Go(standing) if matches!(standing, Standing::Troubled(_)) == in_trouble => {
                state.breaker.probe(now);
                if let Some(subject) = subject {
                    state.breaker.ask(subject, now);
                    state.troubles.ask(subject, now);
                }
                Ok(standing)
            }
            verdict => Err(verdict),
        }
    }

    /// Takes the next probe for a call that follows, while the breaker is open. Else tells how long to
    /// wait for it.
    pub(super) fn reserve_probe(&self, now: Duration) -> Option<Duration> {
        let mut state = self.state();
        let open = state.breaker.open.as_mut()?;
        if now < open.next {
            return Some(open.next - now);
        }
        *open = Open { next: now + PROBE_PERIOD, turn: Turn::Reserved };
        None
    }

    /// Waits for the end of a probe, or until the next may go in `span`.
    ///
    /// # Errors
    /// If that takes too long.
    pub(super) async fn probe(&self, until: Instant, span: Duration) -> Result<(), BackendError> {
        let _waiting = Waiting::new(self);
        let mut closed = std::pin::pin!(self.closed.notified());
        closed.as_mut().enable();
        if self.is_tripped() {
            if Instant::now() >= until {
                return Err(retry::unreachable(BreakerOpen));
            }
            let next = until.min(Instant::now() + span);
            let _probed_or_due = tokio::time::timeout_at(next, closed).await;
        }
        Ok(())
    }

    /// Notes an answer, be it a refusal: the dependency is up.
    pub(super) fn answered(&self, subject: Option<&Subject>, is_served: bool, now: Duration) {
        let mut state = self.state();
        if let Some(subject) = subject {
            state.troubles.end(subject);
        }
        if is_served {
            state.served = Some(now);
            if let Some(subject) = subject {
                state.breaker.prefer(subject);
            }
        }
        if state.breaker.close(now) {
            state.troubles.returned();
            // As long as the state is locked, so that it shows what came last.
            self.gauges.breaker().set(false);
            drop(state);
            self.closed.notify_waiters();
        }
    }

    /// Notes that the call for a subject came to nobody: the probe that it was to be is still to be made.
    pub(super) fn not_asked(&self, subject: &Subject, now: Duration) {
        self.state().breaker.take_back(subject, now);
    }

    /// Notes that an attempt that began at `asked` brought no answer.
    pub(super) fn failed(&self, subject: &Subject, asked: Duration, now: Duration) {
        let mut state = self.state();
        state.breaker.fail(subject, asked, now);
        self.gauges.breaker().set(state.breaker.open.is_some());
    }

    /// Notes that a call as a whole, whose last attempt began at `asked`, brought no answer.
    pub(super) fn note_trouble(
        &self,
        subject: &Subject,
        failure: BackendError,
        asked: Duration,
        now: Duration,
    ) {
        self.state().troubles.note(subject.clone(), failure, asked, now);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each use is one step on whole values: a panic in between leaves nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn verdict(&mut self, subject: Option<&Subject>, now: Duration) -> Verdict {
        let due = self.breaker.open.map(|open| (open, self.due(open, subject, now)));
        let trouble = subject.and_then(|subject| self.troubles.of(subject, now));
        match (due, trouble) {
            (None, None) => Verdict::Go(Standing::Well),
            (Some((_, due)), None) if due <= now => Verdict::Go(Standing::Well),
            (Some((_, due)), None) => Verdict::Wait(due - now),
            (due, Some((failure, may_ask))) => {
                let may_ask = match due {
                    None => may_ask,
                    // Those that are in trouble have the probe only if nobody else wants it.
                    Some((Open { turn: Turn::Reserved, .. }, _)) => true,
                    Some((open, _)) => {
                        let is_left = self.waiting == 0 || open.turn == Turn::OfAnybody;
                        now >= open.next && may_ask && is_left
                    }
                };
                let failure = failure.clone();
                if may_ask { Verdict::Go(Standing::Troubled(failure)) } else { Verdict::Refused(failure) }
            }
        }
    }

    /// Returns when a subject that is not in trouble may make the next probe.
    fn due(&mut self, open: Open, subject: Option<&Subject>, now: Duration) -> Duration {
        if open.turn == Turn::Reserved {
            return now;
        }
        let Self { breaker, troubles, .. } = self;
        breaker.preferred.retain(|preferred| troubles.of(preferred, now).is_none());
        let is_preferred = subject.is_some_and(|subject| breaker.preferred.contains(subject));
        if breaker.preferred.is_empty() || is_preferred { open.next } else { open.next + PREFERENCE }
    }
}

impl Breaker {
    /// Notes that a subject was answered well.
    fn prefer(&mut self, subject: &Subject) {
        self.preferred.retain(|preferred| preferred != subject);
        self.preferred.push(subject.clone());
        if self.preferred.len() > PREFERRED_MAX {
            self.preferred.remove(0);
        }
    }

    fn ask(&mut self, subject: &Subject, now: Duration) {
        self.asked.retain(|(asked, at)| asked != subject && now.saturating_sub(*at) < LATELY);
        self.asked.push((subject.clone(), now));
        if self.asked.len() > SUBJECTS_MIN {
            self.asked.remove(0);
        }
    }

    /// Notes that a call that was to be made was not.
    fn take_back(&mut self, subject: &Subject, now: Duration) {
        self.asked.retain(|(asked, _)| asked != subject);
        if let Some(open) = &mut self.open {
            *open = Open { next: open.next.min(now), turn: Turn::OfAnybody };
        }
    }

    /// Notes that a call is made, which is a probe while this is open.
    fn probe(&mut self, now: Duration) {
        if let Some(open) = &mut self.open {
            if open.turn != Turn::Reserved {
                open.next = now.saturating_add(PROBE_PERIOD);
            }
            open.turn = Turn::OfTheWell;
        }
    }

    fn fail(&mut self, subject: &Subject, asked: Duration, now: Duration) {
        if asked < self.answered {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failed.len() < SUBJECTS_MIN && !self.failed.contains(subject) {
            self.failed.push(subject.clone());
        }
        let asked = self.asked.iter().filter(|(_, at)| now.saturating_sub(*at) < LATELY).count();
        if self.open.is_none() && self.failures >= FAILURES_MAX && self.failed.len() >= asked {
            self.open = Some(Open { next: now + PROBE_PERIOD, turn: Turn::OfTheWell });
        }
    }

    /// `true` if it was open.
    fn close(&mut self, now: Duration) -> bool {
        self.answered = now;
        self.failures = 0;
        self.failed.clear();
        self.open.take().is_some()
    }
}

/// One that waits for a probe.
struct Waiting<'a>(&'a Health);

impl<'a> Waiting<'a> {
    fn new(health: &'a Health) -> Self {
        health.state().waiting += 1;
        Self(health)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

#[cfg(test)]
mod tests;
