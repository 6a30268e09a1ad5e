//! Several copies of one wrapped key: which holder to ask for them, when to ask the next, and what became of
//! each.

mod holder;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use claviger::{BackendError, CallContext, ErrorChain, FailureClass, FailureKind};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;

pub(crate) use self::holder::CopyHolder;

/// Returns what the first attempt to succeed brought. The next one is started when one fails, or
/// has not answered after `hedge_after`; when one succeeds, the others are dropped. Those that have not begun
/// have equal shares of the time that is left.
///
/// What failed is told to the operator here, also when another attempt succeeded.
///
/// # Cancel safety
/// All attempts are dropped where they stand.
#[cfg(any(test, feature = "any-of", feature = "aws"))]
pub(crate) async fn first_of<T, A, F>(
    context: &CallContext,
    attempts: Vec<(Arc<str>, A)>,
    hedge_after: Duration,
) -> Result<T, CopyFailures>
where
    A: FnOnce(CallContext) -> F,
    F: Future<Output = Result<T, BackendError>>,
{
    race(context, attempts, hedge_after, CopyFailures::add).await
}

/// As [`first_of`], of holders that are asked for what may be another's. That they do not know it is
/// no news if another does, so failures are told to the operator only when all have failed.
///
/// # Cancel safety
/// As of [`first_of`].
#[cfg(any(feature = "any-of", feature = "k-of-n"))]
pub(crate) async fn first_of_unlabelled<T, A, F>(
    context: &CallContext,
    attempts: Vec<(Arc<str>, A)>,
    hedge_after: Duration,
) -> Result<T, CopyFailures>
where
    A: FnOnce(CallContext) -> F,
    F: Future<Output = Result<T, BackendError>>,
{
    race(context, attempts, hedge_after, CopyFailures::note).await.inspect_err(CopyFailures::tell)
}

#[cfg(any(test, feature = "any-of", feature = "aws", feature = "k-of-n"))]
async fn race<T, A, F>(
    context: &CallContext,
    attempts: Vec<(Arc<str>, A)>,
    hedge_after: Duration,
    fail: impl Fn(&mut CopyFailures, &str, BackendError),
) -> Result<T, CopyFailures>
where
    A: FnOnce(CallContext) -> F,
    F: Future<Output = Result<T, BackendError>>,
{
    // What begins at once ends with the whole.
    let shares = if hedge_after.is_zero() { 1 } else { attempts.len() };
    let mut waiting = (1..=shares).rev().chain(std::iter::repeat(1)).zip(attempts).peekable();
    let mut running = FuturesUnordered::new();
    let mut failures = CopyFailures::default();
    loop {
        running.extend(waiting.next().map(|(shares, (name, attempt))| {
            let attempt = attempt(context.share(shares));
            async { (name, attempt.await) }
        }));
        let answer = if waiting.peek().is_some() {
            let Ok(answer) = tokio::time::timeout(hedge_after, running.next()).await else { continue };
            answer
        } else {
            running.next().await
        };
        match answer {
            Some((_, Ok(value))) => return Ok(value),
            Some((name, Err(error))) => fail(&mut failures, &name, error),
            None => return Err(failures),
        }
    }
}

/// Makes all attempts at once, and returns what came of each, in their order. Failures are told to
/// the operator here.
///
/// # Cancel safety
/// As of [`first_of`].
pub(crate) async fn all_of<T, F>(
    attempts: impl IntoIterator<Item = (Arc<str>, F)>,
) -> (Vec<(Arc<str>, T)>, CopyFailures)
where
    F: Future<Output = Result<T, BackendError>>,
{
    let attempts = attempts.into_iter().map(|(name, attempt)| async { (name, attempt.await) });
    let mut made = Vec::new();
    let mut failures = CopyFailures::default();
    for (name, answer) in join_all(attempts).await {
        match answer {
            Ok(value) => made.push((name, value)),
            Err(error) => failures.add(&name, error),
        }
    }
    (made, failures)
}

/// What went wrong with each copy that was tried, none of which served.
///
/// It is the source of a [`BackendError`] whose class follows from theirs: transient if one may
/// serve later, else damaged if one was found to be damaged or forged, else permanent.
#[derive(Debug, Default)]
pub struct CopyFailures(Vec<CopyFailure>);

/// What went wrong with one copy.
#[derive(Debug)]
#[non_exhaustive]
pub struct CopyFailure {
    /// The service's name for the copy: a region, a member.
    pub name: String,
    /// Why it did not serve.
    pub error: BackendError,
}

impl CopyFailures {
    /// Returns them in the order in which they failed.
    #[must_use]
    pub fn failures(&self) -> &[CopyFailure] {
        &self.0
    }

    /// Adds a failure, and tells the operator of it.
    pub(crate) fn add(&mut self, name: &str, error: BackendError) {
        let failure = CopyFailure { name: name.to_owned(), error };
        failure.tell();
        self.0.push(failure);
    }

    /// Adds a failure that is no news yet.
    #[cfg(any(feature = "any-of", feature = "k-of-n"))]
    pub(crate) fn note(&mut self, name: &str, error: BackendError) {
        self.0.push(CopyFailure { name: name.to_owned(), error });
    }

    /// Tells the operator of all of them.
    #[cfg(any(feature = "any-of", feature = "k-of-n"))]
    pub(crate) fn tell(&self) {
        self.0.iter().for_each(CopyFailure::tell);
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.0.iter().map(|failure| failure.name.clone()).collect()
    }

    /// Returns what all of them are about; `None` if they differ.
    pub(crate) fn kind(&self) -> Option<FailureKind> {
        let kind = self.0.first()?.error.kind();
        kind.filter(|_| self.0.iter().all(|failure| failure.error.kind() == kind))
    }

    /// Returns how many are of this class.
    pub(crate) fn count(&self, class: FailureClass) -> usize {
        self.0.iter().filter(|failure| failure.error.class() == class).count()
    }
}

impl CopyFailure {
    fn tell(&self) {
        let class = match self.error.class() {
            FailureClass::Transient => "transient",
            FailureClass::Damaged => "damaged",
            _ => "permanent",
        };
        let labels = [("copy", self.name.clone()), ("class", class.to_owned())];
        metrics::counter!("claviger_kms_copy_failures_total", &labels).increment(1);
        tracing::warn!(copy = self.name, class, cause = %self, "a copy of a wrapped key failed");
    }
}

impl CopyFailures {
    /// Returns `true` if anybody was asked, of those that failed.
    pub(crate) fn was_asked(&self) -> bool {
        self.0.iter().any(|failure| failure.error.was_asked())
    }

    /// The error of a call in which others were asked, too, and answered.
    pub(crate) fn beside_answers(self) -> BackendError {
        let class = if self.count(FailureClass::Transient) > 0 {
            FailureClass::Transient
        } else if self.count(FailureClass::Damaged) > 0 {
            FailureClass::Damaged
        } else {
            FailureClass::Permanent
        };
        let kind = self.kind();
        BackendError::new(class, self).with_kind(kind)
    }
}

impl From<CopyFailures> for BackendError {
    fn from(failures: CopyFailures) -> Self {
        let was_asked = failures.was_asked();
        let error = failures.beside_answers();
        if was_asked { error } else { error.not_asked() }
    }
}

impl fmt::Display for CopyFailures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "there is no copy to try" } else { "no copy served" })?;
        self.0.iter().try_for_each(|failure| write!(f, "; {failure}"))
    }
}

impl std::error::Error for CopyFailures {}

impl fmt::Display for CopyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, ErrorChain::new(&self.error))
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use claviger::testing::call;

    use super::*;

    type Answer = std::pin::Pin<Box<dyn Future<Output = Result<u32, BackendError>>>>;
    type Attempt = Box<dyn FnOnce(CallContext) -> Answer>;

    const HEDGE: Duration = Duration::from_millis(50);

    fn attempt(
        name: &str,
        answer: impl Future<Output = Result<u32, BackendError>> + 'static,
    ) -> (Arc<str>, Attempt) {
        (Arc::from(name), Box::new(|_context| Box::pin(answer)))
    }

    /// The answer of an attempt to which its share of the time does not matter.
    fn answer((name, attempt): (Arc<str>, Attempt)) -> (Arc<str>, Answer) {
        (name, attempt(call()))
    }

    async fn after(time: Duration, answer: Result<u32, BackendError>) -> Result<u32, BackendError> {
        tokio::time::sleep(time).await;
        answer
    }

    fn transient() -> BackendError {
        BackendError::transient("down")
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_attempt_that_answers_in_time_is_the_only_one() {
        let never = attempt("b", async { panic!("was started") });
        let answer = first_of(&call(), vec![attempt("a", after(HEDGE / 2, Ok(1))), never], HEDGE).await;
        assert_eq!(answer.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_is_started_at_once_when_one_fails() {
        let begun = tokio::time::Instant::now();
        let attempts = vec![attempt("a", ready(Err(transient()))), attempt("b", ready(Ok(2)))];
        assert_eq!(first_of(&call(), attempts, HEDGE).await.unwrap(), 2);
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn each_next_is_started_when_the_hedge_is_over_and_the_losers_are_dropped() {
        let (sender, dropped) = tokio::sync::oneshot::channel::<()>();
        let loser = attempt("a", async move {
            let _sender = sender;
            pending().await
        });
        let begun = tokio::time::Instant::now();
        let attempts = vec![loser, attempt("b", pending()), attempt("c", after(HEDGE / 2, Ok(3)))];
        assert_eq!(first_of(&call(), attempts, HEDGE).await.unwrap(), 3);
        assert_eq!(begun.elapsed(), HEDGE * 2 + HEDGE / 2);
        assert!(dropped.await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_first_may_still_win() {
        let attempts = vec![attempt("a", after(HEDGE * 2, Ok(1))), attempt("b", pending())];
        assert_eq!(first_of(&call(), attempts, HEDGE).await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_have_not_begun_share_the_time_that_is_left() {
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let hanging = |name: &str| -> (Arc<str>, Attempt) {
            let told = Arc::clone(&told);
            let attempt = move |context: CallContext| -> Answer {
                told.lock().unwrap().push(context.remaining());
                Box::pin(async move {
                    tokio::time::sleep_until(context.deadline).await;
                    Err(transient())
                })
            };
            (Arc::from(name), Box::new(attempt))
        };
        let begun = tokio::time::Instant::now();
        let context = CallContext::within(HEDGE * 12);
        let attempts = vec![hanging("a"), hanging("b"), hanging("c")];
        assert_eq!(first_of(&context, attempts, HEDGE * 2).await.unwrap_err().names(), ["a", "b", "c"]);
        assert_eq!(*told.lock().unwrap(), [HEDGE * 4, HEDGE * 5, HEDGE * 8]);
        assert_eq!(begun.elapsed(), HEDGE * 12);
    }

    #[tokio::test(start_paused = true)]
    async fn every_cause_is_kept_and_the_class_follows_from_them() {
        let fail = async |errors: Vec<BackendError>| {
            let attempts = errors.into_iter().map(|error| attempt("a", ready(Err(error)))).collect();
            BackendError::from(first_of(&call(), attempts, HEDGE).await.unwrap_err())
        };
        let (damaged, permanent) = (|| BackendError::damaged("forged"), || BackendError::permanent("denied"));
        let all = fail(vec![permanent(), damaged(), transient()]).await;
        assert_eq!(all.class(), FailureClass::Transient);
        let shown = std::error::Error::source(&all).unwrap().to_string();
        for cause in ["denied", "forged", "down"] {
            assert!(shown.contains(cause), "{shown}");
        }
        assert_eq!(fail(vec![damaged(), permanent()]).await.class(), FailureClass::Damaged);
        assert_eq!(fail(vec![permanent()]).await.class(), FailureClass::Permanent);
        assert_eq!(fail(vec![]).await.class(), FailureClass::Permanent);
    }

    #[tokio::test(start_paused = true)]
    async fn all_of_runs_them_at_once_and_keeps_their_order() {
        let begun = tokio::time::Instant::now();
        let slow = attempt("slow", after(HEDGE, Ok(1)));
        let bad = attempt("bad", ready(Err(transient())));
        let quick = attempt("quick", after(HEDGE / 2, Ok(2)));
        let (made, failures) = all_of([slow, bad, quick].map(answer)).await;
        assert_eq!(begun.elapsed(), HEDGE);
        assert_eq!(
            made.iter().map(|(name, value)| (&**name, *value)).collect::<Vec<_>>(),
            [("slow", 1), ("quick", 2)]
        );
        assert_eq!(failures.names(), ["bad"]);
    }

    #[tokio::test(start_paused = true)]
    async fn somebody_was_asked_if_one_was() {
        let asked = || BackendError::permanent("denied");
        let refused = || BackendError::damaged("malformed").not_asked();
        for (errors, was_asked) in [
            (vec![], false),
            (vec![refused()], false),
            (vec![refused(), refused()], false),
            (vec![refused(), asked()], true),
            (vec![asked(), refused()], true),
        ] {
            let attempts = errors.into_iter().map(|error| attempt("a", ready(Err(error)))).collect();
            let failures = first_of(&call(), attempts, HEDGE).await.unwrap_err();
            assert_eq!(BackendError::from(failures).was_asked(), was_asked);
        }
    }
}
