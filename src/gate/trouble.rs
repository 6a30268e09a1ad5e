//! Subjects in trouble: those whose last call brought no answer.

use std::time::Duration;

use super::subject::Subject;
use crate::aging::Aging;
use crate::clock::nanos;
use crate::error::BackendError;

#[derive(Debug)]
pub(super) struct Troubles {
    subjects: Aging<Subject, Trouble>,
    /// How often the dependency came back.
    returns: u64,
}

#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) last_failure: BackendError,
    /// When it may be asked again, unless the dependency came back since.
    next: Duration,
    returns: u64,
}

/// How many are remembered; those whose trouble is oldest are forgotten first.
const SUBJECTS_MAX: usize = 10_000;

/// How long one is in trouble after its last failure.
const SPAN: Duration = Duration::from_secs(60);

/// How often one is asked.
const PERIOD: Duration = Duration::from_secs(1);

impl Troubles {
    pub(super) const fn new() -> Self {
        Self { subjects: Aging::new(SUBJECTS_MAX), returns: 0 }
    }

    /// Notes that a call that began at `asked` brought no answer.
    pub(super) fn note(
        &mut self,
        subject: Subject,
        last_failure: BackendError,
        asked: Duration,
        now: Duration,
    ) {
        let trouble = Trouble { last_failure, next: asked + PERIOD, returns: self.returns };
        self.subjects.insert(subject, trouble, nanos(now));
    }

    /// Returns what the subject's trouble is, and whether it may be asked.
    pub(super) fn of(&mut self, subject: &Subject, now: Duration) -> Option<(&BackendError, bool)> {
        self.subjects.forget_before(nanos(now.saturating_sub(SPAN)));
        let trouble = self.subjects.get(subject)?;
        Some((&trouble.last_failure, now >= trouble.next || trouble.returns != self.returns))
    }

    /// Notes that the subject is asked.
    pub(super) fn ask(&mut self, subject: &Subject, now: Duration) {
        if let Some(trouble) = self.subjects.get_mut(subject) {
            trouble.next = now + PERIOD;
            trouble.returns = self.returns;
        }
    }

    pub(super) fn end(&mut self, subject: &Subject) {
        self.subjects.remove(subject);
    }

    /// Lets each be asked again at once: the dependency came back.
    pub(super) const fn returned(&mut self) {
        self.returns += 1;
    }
}
