//! The sessions of a store with its server, and how a call uses one: to its end, for a bounded time,
//! and never half.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claviger::{BackendError, CallContext, FailureKind};
use deadpool::managed::{
    Manager, Metrics, Object, Pool, PoolConfig, PoolError, QueueMode, RecycleError, RecycleResult, Timeouts,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task_local;
use tokio::time::{Instant, timeout_at};

use crate::schema::SchemaReport;
use crate::sql::abandoned::Abandoned;
use crate::sql::dialect::{Dialect, Setup};
use crate::sql::driver::Doing;
use crate::sql::error::{SqlError, SqlFuture};
use crate::sql::hosts::Hosts;
use crate::sql::look::{Start, look};
use crate::sql::{DriverFault, SqlFault};
use crate::task::to_its_end;

/// A session is replaced after this time, so that load moves to servers that join a cluster.
const LIFETIME_MAX: Duration = Duration::from_secs(30 * 60);

/// Below the time after which firewalls and load balancers commonly forget a connection.
const IDLE_MAX: Duration = Duration::from_secs(4 * 60);

/// The sessions of a store and its clones with one server, or with one of several.
pub(crate) struct Sessions<D: Dialect>(Arc<Shared<D>>);

impl<D: Dialect> Clone for Sessions<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Shared<D: Dialect> {
    pool: Pool<Maker<D>>,
    /// What writes hold besides a session: those that hang leave the other half to reads.
    writes: Arc<Semaphore>,
    abandoned: Abandoned<D>,
    /// How many answers in a row were not to what was asked.
    crossings: AtomicU32,
}

/// Makes sessions, and knows which are still of use.
pub(crate) struct Maker<D: Dialect> {
    hosts: Arc<Hosts<D>>,
    setup: Setup,
    /// The server that the last new session led to.
    server: Mutex<Option<Arc<str>>>,
    failovers: AtomicU64,
}

/// How much sooner than the call connecting ends, so that the caller learns why there is no session, and not only
/// that there was no answer.
const TO_TELL: Duration = Duration::from_millis(10);

/// A session of the pool.
pub(crate) struct Pooled<D: Dialect> {
    session: D::Session,
    backend: Option<D::Backend>,
    server: Option<Arc<str>>,
}

impl<D: Dialect> Manager for Maker<D> {
    type Type = Pooled<D>;
    type Error = BackendError;

    async fn create(&self) -> Result<Pooled<D>, BackendError> {
        let left = CALL_ENDS.try_with(|ends| ends.saturating_duration_since(Instant::now()));
        let patience = left.unwrap_or_default().saturating_sub(TO_TELL);
        let connected = self.hosts.connect(&self.setup, patience).await?;
        let server = connected.server.map(|server| self.came_to(&server));
        Ok(Pooled { session: connected.session, backend: connected.backend, server })
    }

    async fn recycle(&self, pooled: &mut Pooled<D>, metrics: &Metrics) -> RecycleResult<BackendError> {
        let is_elsewhere = pooled.server.is_some() && pooled.server != *self.server();
        if is_elsewhere || metrics.age() >= LIFETIME_MAX || metrics.last_used() >= IDLE_MAX {
            return Err(RecycleError::message("the session is no longer of use"));
        }
        Ok(())
    }
}

impl<D: Dialect> Maker<D> {
    /// Notes where a new session led to.
    fn came_to(&self, name: &str) -> Arc<str> {
        let mut server = self.server();
        if let Some(known) = server.as_ref().filter(|known| ***known == *name) {
            return Arc::clone(known);
        }
        if server.is_some() {
            self.failovers.fetch_add(1, Ordering::Relaxed);
        }
        let name: Arc<str> = name.into();
        *server = Some(Arc::clone(&name));
        name
    }

    fn server(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Dialect> Sessions<D> {
    /// Makes none yet.
    pub(crate) fn new(
        hosts: Arc<Hosts<D>>,
        setup: Setup,
        sessions_max: NonZeroU32,
    ) -> Result<Self, BackendError> {
        let max = usize::try_from(sessions_max.get()).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let maker = Maker {
            hosts: Arc::clone(&hosts),
            setup: setup.clone(),
            server: Mutex::default(),
            failovers: AtomicU64::new(0),
        };
        // The latest used first, so that those beyond what the load needs grow old.
        let config = PoolConfig { max_size: max, timeouts: Timeouts::new(), queue_mode: QueueMode::Lifo };
        let pool = Pool::builder(maker).config(config).build().map_err(BackendError::permanent)?;
        Ok(Self(Arc::new(Shared {
            pool,
            writes: Arc::new(Semaphore::new((max / 2).max(1))),
            abandoned: Abandoned::new(hosts, setup),
            crossings: AtomicU32::new(0),
        })))
    }

    /// Returns how its servers are reached.
    #[cfg(feature = "postgres")]
    pub(crate) fn hosts(&self) -> &[D::Options] {
        self.0.pool.manager().hosts.all()
    }

    /// Returns how often a new session led to another server than the one before.
    pub(crate) fn failovers(&self) -> u64 {
        self.0.pool.manager().failovers.load(Ordering::Relaxed)
    }

    /// Notes that a session which is not of the pool led to this server.
    pub(crate) fn came_to(&self, server: Option<&str>) {
        if let Some(server) = server {
            self.0.pool.manager().came_to(server);
        }
    }

    /// Runs `work`, to its end also when its caller goes away. The context's deadline ends it all, the
    /// wait for a session too.
    ///
    /// The session goes back to the pool only after a whole answer. One that is not at its end at the
    /// deadline is [abandoned](crate::sql::abandoned).
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        context: CallContext,
        work: impl FnOnce(&mut D::Session) -> SqlFuture<'_, T> + Send + 'static,
    ) -> Result<T, BackendError> {
        let this = self.clone();
        to_its_end(async move {
            let span = Span::new(context);
            let writes = Arc::clone(&this.0.writes);
            // The semaphore is never closed.
            let permit = timeout_at(span.until, writes.acquire_owned()).await;
            let permit = permit.map_err(|_elapsed| span.no_answer())?.ok();
            this.attempt(span, permit, work).await.map_err(Failure::into_error)
        })
        .await
    }

    /// Runs `work`, which only reads, as [`write`](Self::write) does, and once more for each session
    /// that turns out to be dead: after the server was restarted every pooled one is.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        context: CallContext,
        work: impl Fn(&mut D::Session) -> SqlFuture<'_, T> + Send + Sync + 'static,
    ) -> Result<T, BackendError> {
        let (this, work) = (self.clone(), Arc::new(work));
        to_its_end(async move {
            let span = Span::new(context);
            let mut left = this.0.pool.status().max_size;
            loop {
                let work = Arc::clone(&work);
                match this.attempt(span, None, move |session| work(session)).await {
                    // At last, none of those that were pooled is left, and the session was new.
                    Err(Failure::SessionLost(_)) if left > 0 => left -= 1,
                    answer => return answer.map_err(Failure::into_error),
                }
            }
        })
        .await
    }

    async fn attempt<T: Send + 'static>(
        &self,
        span: Span,
        permit: Option<OwnedSemaphorePermit>,
        work: impl FnOnce(&mut D::Session) -> SqlFuture<'_, T> + Send + 'static,
    ) -> Result<T, Failure> {
        let session = CALL_ENDS.scope(span.until, self.0.pool.get());
        let pooled = match timeout_at(span.until, session).await {
            Ok(pooled) => pooled.map_err(|error| Failure::Other(no_session(error)))?,
            Err(_elapsed) => return Err(Failure::Other(span.no_answer())),
        };
        let backend = pooled.backend.clone();
        let mut lease = Lease { pooled: Some(pooled), _permit: permit };
        let mut call = Box::pin(async move {
            let answer = lease.run(span.left(), work).await;
            (answer, lease)
        });
        match timeout_at(span.until, &mut call).await {
            Ok((answer, lease)) => self.settle(answer, lease),
            Err(_elapsed) => {
                let rest = async move { drop(call.await) };
                self.0.abandoned.add(backend, Box::pin(rest));
                Err(Failure::Other(span.no_answer()))
            }
        }
    }

    /// Gives the session back after a whole answer, else closes it.
    fn settle<T>(&self, answer: Result<T, SqlError>, lease: Lease<D>) -> Result<T, Failure> {
        let error = match answer {
            Ok(answer) => {
                self.0.crossings.store(0, Ordering::Relaxed);
                lease.give_back();
                return Ok(answer);
            }
            Err(error) => error,
        };
        match error {
            SqlError::Crossed => Err(Failure::SessionLost(self.crossed(SqlFault::Crossed))),
            SqlError::Driver(error) if D::is_crossed(&error) => Err(Failure::SessionLost(
                self.crossed(SqlFault::CrossedBy(DriverFault::new(error, Doing::Asking, None))),
            )),
            SqlError::Driver(error) if !D::leaves_session_good(&error) => {
                Err(Failure::SessionLost(D::backend_error(error, Doing::Asking)))
            }
            error => {
                lease.give_back();
                Err(Failure::Other(error.classified::<D>()))
            }
        }
    }

    /// A pooler that was restarted, or changed, brings one such answer. One that goes on so is not
    /// to be used.
    fn crossed(&self, fault: SqlFault) -> BackendError {
        if self.0.crossings.fetch_add(1, Ordering::Relaxed) == 0 {
            BackendError::transient(fault)
        } else {
            BackendError::permanent(fault)
        }
    }

    /// Looks at the server for what is wrong, on connections of its own.
    pub(crate) async fn look(&self, time: Duration) -> Result<SchemaReport, BackendError> {
        let maker = self.0.pool.manager();
        Ok(look(&maker.hosts, maker.setup.clone(), Start::CHECKED, time).await?.report)
    }

    /// Refuses calls from now on, and waits until those under way have ended. What was abandoned is
    /// let go of.
    pub(crate) async fn close(&self) {
        self.0.pool.close();
        self.0.abandoned.close().await;
        while self.0.pool.status().size > 0 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Returns how many sessions there are, and how many of them nobody uses.
    pub(crate) fn count(&self) -> (usize, usize) {
        let status = self.0.pool.status();
        (status.size, status.available)
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(2);

task_local! {
    /// When the call ends that a session is made for.
    static CALL_ENDS: Instant;
}

/// How long a call may take, and until when.
#[derive(Clone, Copy)]
struct Span {
    length: Duration,
    until: Instant,
}

impl Span {
    fn new(context: CallContext) -> Self {
        Self { length: context.remaining(), until: context.deadline }
    }

    fn left(self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    fn no_answer(self) -> BackendError {
        BackendError::transient(NoAnswer(self.length)).with_kind(FailureKind::Unreachable)
    }
}

enum Failure {
    SessionLost(BackendError),
    Other(BackendError),
}

impl Failure {
    fn into_error(self) -> BackendError {
        match self {
            Self::SessionLost(error) | Self::Other(error) => error,
        }
    }
}

fn no_session(error: PoolError<BackendError>) -> BackendError {
    match error {
        PoolError::Backend(error) => error,
        PoolError::Closed => {
            BackendError::permanent(DriverFault::new(sqlx::Error::PoolClosed, Doing::Asking, None))
        }
        PoolError::Timeout(_) | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
            BackendError::transient(DriverFault::new(sqlx::Error::PoolTimedOut, Doing::Asking, None))
        }
    }
}

/// A session that is closed when dropped, unless it was given back.
struct Lease<D: Dialect> {
    pooled: Option<Object<Maker<D>>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<D: Dialect> Lease<D> {
    /// Runs `work`, whose statements the server is not to be at much longer than `time`.
    async fn run<T>(
        &mut self,
        time: Duration,
        work: impl FnOnce(&mut D::Session) -> SqlFuture<'_, T>,
    ) -> Result<T, SqlError> {
        // The lease is full until it is given back.
        let Some(pooled) = self.pooled.as_mut() else { return Err(sqlx::Error::PoolClosed.into()) };
        D::limit(&mut pooled.session, time).await?;
        work(&mut pooled.session).await
    }

    fn give_back(mut self) {
        drop(self.pooled.take());
    }
}

impl<D: Dialect> Drop for Lease<D> {
    fn drop(&mut self) {
        if let Some(pooled) = self.pooled.take() {
            // Taken out of the pool and dropped: the socket is closed at once, with no farewell
            // that a dead server would keep waiting for.
            drop(Object::take(pooled));
        }
    }
}

/// The database did not answer in time.
#[derive(Debug)]
struct NoAnswer(Duration);

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer from the database within {:?}", self.0)
    }
}

impl std::error::Error for NoAnswer {}
