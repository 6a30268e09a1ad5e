//! A metastore and a KMS that note each call, from when to when, and answer each as they are told.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claviger::testing::Operation;
use claviger::{
    BackendError, CallContext, Created, EnvelopeKeyRecord, FailureClass, Insert, KeyId, KeyManagementService,
    KeyMeta, Latest, Metastore, SecretKey, WrapHealth, WrappedKey,
};
use tokio::time::Instant;

use crate::support::SECOND;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Answer,
    /// The call is answered after so long.
    Late(Duration),
    Fail(FailureClass),
    /// The call fails for now after so long.
    FailLate(Duration),
    /// The back end refuses by itself, for good.
    Refuse,
    /// The call is never answered.
    Hang,
    Panic,
}

/// A dependency that fails for now, at once.
pub(crate) const DOWN: Reply = Reply::Fail(FailureClass::Transient);
/// A dependency that refuses for good.
pub(crate) const DENIED: Reply = Reply::Fail(FailureClass::Permanent);

/// A call that was made. Times are counted from when the desk was opened.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) operation: Operation,
    /// The key's id; of a call for many the ids, with blanks between.
    pub(crate) id: String,
    /// The version that is asked for, if it is one.
    pub(crate) created: Option<i64>,
    pub(crate) at: Duration,
    /// When it came to its end, be it that nobody waited any more.
    pub(crate) until: Option<Duration>,
}

impl Asked {
    /// Tells whether the call is for a key of this partition.
    pub(crate) fn is_for(&self, partition: &str) -> bool {
        self.id == crate::support::ik(partition)
    }

    /// Tells whether it is for a key of a partition of such a name.
    pub(crate) fn is_for_one_of(&self, prefix: &str) -> bool {
        self.id.strip_prefix("_IK_").is_some_and(|id| id.starts_with(prefix))
    }

    pub(crate) fn is_insert(&self) -> bool {
        self.operation == Operation::Insert
    }

    pub(crate) fn is_of_system_key(&self) -> bool {
        self.id == crate::support::SK
    }
}

/// Where the calls of one dependency are noted, and told what becomes of them. Its clones are one.
#[derive(Clone)]
pub(crate) struct Desk(Arc<Shared>);

struct Shared {
    origin: Instant,
    rule: Mutex<Rule>,
    log: Mutex<Vec<Asked>>,
}

#[derive(Clone)]
struct Rule(Arc<dyn Fn(&Asked) -> Reply + Send + Sync>);

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl Desk {
    fn new() -> Self {
        let rule = Mutex::new(Rule(Arc::new(|_| Reply::Answer)));
        Self(Arc::new(Shared { origin: Instant::now(), rule, log: Mutex::default() }))
    }

    /// From now on calls are answered by this rule.
    pub(crate) fn rule(&self, rule: impl Fn(&Asked) -> Reply + Send + Sync + 'static) {
        *lock(&self.0.rule) = Rule(Arc::new(rule));
    }

    pub(crate) fn all(&self, reply: Reply) {
        self.rule(move |_| reply);
    }

    pub(crate) fn heal(&self) {
        self.all(Reply::Answer);
    }

    pub(crate) fn now(&self) -> Duration {
        self.0.origin.elapsed()
    }

    /// Returns the calls so far, in the order in which they began.
    pub(crate) fn log(&self) -> Log {
        Log(lock(&self.0.log).clone())
    }

    async fn serve<T>(
        &self,
        operation: Operation,
        id: String,
        created: Option<i64>,
        work: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let asked = Asked { operation, id, created, at: self.now(), until: None };
        let rule = lock(&self.0.rule).clone();
        let reply = (rule.0)(&asked);
        let _under_way = UnderWay::new(self, asked);
        match reply {
            Reply::Answer => work.await,
            Reply::Late(span) => {
                tokio::time::sleep(span).await;
                work.await
            }
            Reply::Fail(class) => Err(BackendError::new(class, "as told")),
            Reply::FailLate(span) => {
                tokio::time::sleep(span).await;
                Err(BackendError::transient("as told"))
            }
            Reply::Refuse => Err(BackendError::permanent("as told").not_asked()),
            Reply::Hang => std::future::pending().await,
            Reply::Panic => panic!("as told"),
        }
    }
}

/// Notes the end of a call, however it comes.
struct UnderWay<'a> {
    desk: &'a Desk,
    number: usize,
}

impl<'a> UnderWay<'a> {
    fn new(desk: &'a Desk, asked: Asked) -> Self {
        let mut log = lock(&desk.0.log);
        log.push(asked);
        Self { desk, number: log.len() - 1 }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let now = self.desk.now();
        lock(&self.desk.0.log)[self.number].until = Some(now);
    }
}

/// Calls, in the order in which they began.
#[derive(Clone, Debug)]
pub(crate) struct Log(pub(crate) Vec<Asked>);

impl Log {
    pub(crate) fn that(&self, is_it: impl Fn(&Asked) -> bool) -> Self {
        Self(self.0.iter().filter(|asked| is_it(asked)).cloned().collect())
    }

    pub(crate) fn since(&self, moment: Duration) -> Self {
        self.that(|asked| asked.at >= moment)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns how many calls were under way at once, at the most.
    pub(crate) fn at_once(&self) -> usize {
        let ends = self.0.iter().filter_map(|asked| Some((asked.until?, -1)));
        let mut steps: Vec<(Duration, isize)> =
            self.0.iter().map(|asked| (asked.at, 1)).chain(ends).collect();
        // A call may begin at the moment at which one before it ends.
        steps.sort_unstable();
        let (mut now, mut most) = (0_isize, 0);
        for (_, step) in steps {
            now += step;
            most = most.max(now);
        }
        most.unsigned_abs()
    }

    /// The same of the calls that share a key, for the key that has most.
    pub(crate) fn at_once_of_one<K: Eq + Hash>(&self, key: impl Fn(&Asked) -> K) -> usize {
        let mut groups: HashMap<K, Vec<Asked>> = HashMap::new();
        for asked in &self.0 {
            groups.entry(key(asked)).or_default().push(asked.clone());
        }
        groups.into_values().map(|group| Self(group).at_once()).max().unwrap_or(0)
    }

    /// Returns how many calls began within one second, at the most.
    pub(crate) fn most_in_a_second(&self) -> usize {
        let begun: Vec<Duration> = self.0.iter().map(|asked| asked.at).collect();
        let within =
            |first: &Duration| begun.iter().filter(|at| *at >= first && **at < *first + SECOND).count();
        begun.iter().map(within).max().unwrap_or(0)
    }

    /// Returns how long it took at the most from the begin of one call to that of the next.
    pub(crate) fn longest_gap(&self) -> Duration {
        let gaps = self.0.windows(2).map(|pair| pair[1].at - pair[0].at);
        gaps.max().unwrap_or_default()
    }
}

/// A back end behind a desk. Its clones are one.
#[derive(Debug)]
pub(crate) struct Watched<B> {
    inner: Arc<B>,
    desk: Desk,
}

impl<B> Watched<B> {
    pub(crate) fn new(inner: Arc<B>) -> Self {
        Self { inner, desk: Desk::new() }
    }

    pub(crate) fn inner(&self) -> &Arc<B> {
        &self.inner
    }
}

impl<B> std::ops::Deref for Watched<B> {
    type Target = Desk;

    fn deref(&self) -> &Desk {
        &self.desk
    }
}

impl<B> Clone for Watched<B> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), desk: self.desk.clone() }
    }
}

impl<M: Metastore> Metastore for Watched<M> {
    async fn load(
        &self,
        key: &KeyMeta,
        context: &CallContext,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        let (id, created) = of(key);
        self.serve(Operation::Load, id, created, self.inner.load(key, context)).await
    }

    async fn load_latest(
        &self,
        id: &KeyId,
        up_to: Created,
        context: &CallContext,
    ) -> Result<Option<Latest>, BackendError> {
        let name = id.as_str().to_owned();
        self.serve(Operation::LoadLatest, name, None, self.inner.load_latest(id, up_to, context)).await
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        context: &CallContext,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        let names: Vec<&str> = keys.iter().map(|key| key.id().as_str()).collect();
        let work = self.inner.load_many(keys, context);
        self.serve(Operation::LoadMany, names.join(" "), None, work).await
    }

    async fn load_latest_many(
        &self,
        ids: &[KeyId],
        up_to: Created,
        context: &CallContext,
    ) -> Result<Vec<Option<Latest>>, BackendError> {
        let names: Vec<&str> = ids.iter().map(KeyId::as_str).collect();
        let work = self.inner.load_latest_many(ids, up_to, context);
        self.serve(Operation::LoadLatestMany, names.join(" "), None, work).await
    }

    async fn insert(
        &self,
        record: &EnvelopeKeyRecord,
        context: &CallContext,
    ) -> Result<Insert, BackendError> {
        let (id, created) = of(record.meta());
        self.serve(Operation::Insert, id, created, self.inner.insert(record, context)).await
    }

    fn failovers(&self) -> u64 {
        self.inner.failovers()
    }
}

impl<K: KeyManagementService> KeyManagementService for Watched<K> {
    async fn wrap_key(
        &self,
        key: &SecretKey,
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        let (id, created) = of(meta);
        self.serve(Operation::WrapKey, id, created, self.inner.wrap_key(key, meta, context)).await
    }

    async fn unwrap_key(
        &self,
        wrapped: &[u8],
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        let (id, created) = of(meta);
        self.serve(Operation::UnwrapKey, id, created, self.inner.unwrap_key(wrapped, meta, context)).await
    }

    fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        self.inner.inspect(wrapped)
    }
}

fn of(key: &KeyMeta) -> (String, Option<i64>) {
    (key.id().as_str().to_owned(), Some(key.created().unix_seconds()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
