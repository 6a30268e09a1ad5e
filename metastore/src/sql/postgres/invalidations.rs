//! Word of revocations, by LISTEN.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use claviger::{BackendError, CallContext, FailureKind, Invalidation, InvalidationSource, KeyId};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _, raw_sql};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::sql::check_id;
use crate::sql::driver::Doing;
use crate::sql::postgres::PostgresMetastore;
use crate::sql::postgres::builder::read_url;
use crate::sql::postgres::fault::backend_error;
use crate::sql::postgres::pooler::share_connections;
use crate::sql::postgres::session::Value;

/// Hears which keys' records were revoked, rewrapped or deleted, by whatever program, as PostgreSQL
/// tells it: a factory that has one stops using a revoked key at once, not only at its next check.
///
/// The table that [`PostgresMetastore::migrate`](crate::PostgresMetastore::migrate) makes tells by
/// itself. On another one a trigger does, or an operator's program by
/// `SELECT pg_notify('claviger_invalidations', key_id)`; without a key id all keys are meant, and with
/// `claviger.deleted ` before it, that its records are not to come back:
///
#[doc = concat!("```sql\n", include_str!("../../../migrations/postgres/0002_notify.sql"), "```")]
///
/// It has one connection of its own, which must lead to the primary and not through a pooler in
/// transaction mode: there it would hear nothing. So it counts as connected only once it has heard
/// what it told itself on a second connection. It asks the server for a sign of life from time to
/// time, and so finds out that a connection is dead which nobody closed.
///
/// **Any role of the database may notify**: PostgreSQL has no right for it. A factory bounds what that costs, see
/// [`InvalidationSource`]. What is told and can be no key id stands for all keys; it is counted
/// (`claviger_invalidations_malformed_total`) and logged once. A role that is to be kept from telling at all must not
/// know the channel's name: see [`channel`](Self::channel).
pub struct PostgresInvalidations {
    /// The servers that are asked in turn.
    hosts: Vec<PgConnectOptions>,
    channel: Box<str>,
    heartbeat: Duration,
    listening: Option<Listening>,
    /// That something was no key id is logged once.
    has_warned: bool,
}

/// What fits into a name of PostgreSQL's.
const CHANNEL_BYTES_MAX: usize = 63;

/// The name is none of a channel.
#[derive(Debug, thiserror::Error)]
#[error("the channel's name must have 1 to 63 bytes and no NUL")]
struct InvalidChannel;

const HEARTBEAT: Duration = Duration::from_secs(10);

impl PostgresMetastore {
    /// Returns a source of what is told on the channel `claviger_invalidations`, on a connection of its
    /// own to the same servers.
    #[must_use]
    pub fn invalidations(&self) -> PostgresInvalidations {
        PostgresInvalidations::of_hosts(self.0.0.primary.hosts().to_vec())
    }
}

impl PostgresInvalidations {
    /// Will connect to the server of a URL, which is read as
    /// [`PostgresBuilder::open`](crate::PostgresBuilder::open) does.
    ///
    /// # Errors
    /// Permanent when the URL is wrong.
    pub fn from_url(url: &str) -> Result<Self, BackendError> {
        read_url(url).map(|target| Self::of_hosts(target.hosts))
    }

    /// Will connect with these options.
    #[must_use]
    pub fn new(options: PgConnectOptions) -> Self {
        Self::of_hosts(vec![options])
    }

    pub(super) fn of_hosts(hosts: Vec<PgConnectOptions>) -> Self {
        let channel = "claviger_invalidations".into();
        Self { hosts, channel, heartbeat: HEARTBEAT, listening: None, has_warned: false }
    }

    /// Listens on another channel than `claviger_invalidations`. The trigger must tell on the same one.
    ///
    /// A name of random characters, in a trigger whose function only its owner can read, is the one way to keep
    /// other roles from telling: any role that knows the name may. `pg_proc` shows functions to everybody, so the
    /// function should take it from a table or a setting that other roles may not read.
    ///
    /// # Errors
    /// Permanent when the name is none that `pg_notify` takes: 1 to 63 bytes without NUL.
    pub fn channel(mut self, name: &str) -> Result<Self, BackendError> {
        if !(1..=CHANNEL_BYTES_MAX).contains(&name.len()) || name.contains('\0') {
            return Err(BackendError::permanent(InvalidChannel).with_kind(FailureKind::Settings).not_asked());
        }
        self.channel = name.into();
        Ok(self)
    }

    /// Sets after how long a silence the server is asked for a sign of life, 10 seconds unless set.
    #[must_use]
    pub const fn heartbeat(mut self, silence: Duration) -> Self {
        self.heartbeat = silence;
        self
    }

    /// The role that told it is not known, and the text may be anything: neither is logged.
    fn note_malformed(&mut self) {
        metrics::counter!("claviger_invalidations_malformed_total").increment(1);
        if !std::mem::replace(&mut self.has_warned, true) {
            tracing::warn!(
                channel = &*self.channel,
                "somebody notifies what is no key id: it stands for all keys, and is only counted from now on"
            );
        }
    }

    /// Connects to the first server on which it hears what is told, and listens.
    async fn listen(&self, context: &CallContext) -> Result<Listening, BackendError> {
        let mut failure = Failure::Closed;
        for (tried, options) in self.hosts.iter().enumerate() {
            let time = context.share(self.hosts.len() - tried).remaining();
            match timeout(time, self.listen_to(options, time)).await.unwrap_or(Err(Failure::Silence)) {
                Ok(listening) => return Ok(listening),
                Err(error) => failure = error,
            }
        }
        Err(failure.into_error())
    }

    async fn listen_to(&self, options: &PgConnectOptions, time: Duration) -> Result<Listening, Failure> {
        // A pool for this connection alone: the driver has no other way to one that listens.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(time)
            .max_lifetime(None)
            .idle_timeout(None)
            .test_before_acquire(false);
        let listener = PgListener::connect_with(&pool.connect_lazy_with(options.clone())).await?;
        let mut listening = Listening { listener: Some(listener), runtime: Handle::current() };
        if let Some(listener) = &mut listening.listener {
            listener.eager_reconnect(false);
            let mut second = options.connect().await?;
            // Before it listens: else whoever gets the server connection next is told what it is not
            // made for.
            if share_connections(listener, &mut second).await? {
                return Err(Failure::Deaf);
            }
            listener.listen(&self.channel).await?;
            let encoding = raw_sql("SELECT current_setting('server_encoding')").fetch_one(&mut *listener);
            if encoding.await?.try_get::<String, _>(0)? == "SQL_ASCII" {
                return Err(Failure::NoEncoding);
            }
            let probe = format!("{PROBE}{:016x}", RandomState::new().hash_one(()));
            self.tell(second, &probe).await?;
            // What others tell meanwhile is told again, by the word that anything may have changed.
            match timeout(time / 2, heard(listener, &probe)).await {
                Ok(answer) => answer?,
                Err(_silence) => return Err(Failure::Deaf),
            }
        }
        Ok(listening)
    }

    /// Tells on another connection. Told on the one that listens, it would be heard even where a
    /// pooler lends that to others the next moment.
    async fn tell(&self, mut connection: PgConnection, payload: &str) -> Result<(), Failure> {
        let (channel, payload) = (Value::Text(&self.channel).sql(), Value::Text(payload).sql());
        let tell = format!("SELECT pg_notify({channel}, {payload})");
        raw_sql(AssertSqlSafe(tell)).execute(&mut connection).await?;
        // It was told; how the connection ends is of no consequence.
        connection.close().await.ok();
        Ok(())
    }
}

/// Waits until this was heard.
async fn heard(listener: &mut PgListener, payload: &str) -> Result<(), Failure> {
    loop {
        match listener.try_recv().await? {
            Some(told) if told.payload() == payload => return Ok(()),
            Some(_) => {}
            None => return Err(Failure::Closed),
        }
    }
}

// No key id begins so.
/// What a source tells itself.
const PROBE: &str = "claviger.probe ";
/// Before an id whose records were deleted.
const DELETED: &str = "claviger.deleted ";

/// What is told by a payload; `None` if it names no key that the table can hold.
fn invalidation(payload: &str) -> Option<Invalidation> {
    let key = |id: &str| Some(KeyId::new(id)).filter(|id| check_id(id).is_ok());
    match payload.strip_prefix(DELETED) {
        Some(id) => key(id).map(Invalidation::Shredded),
        None if payload.is_empty() => Some(Invalidation::Everything),
        None => key(payload).map(Invalidation::Key),
    }
}

impl InvalidationSource for PostgresInvalidations {
    async fn next(&mut self, context: &CallContext) -> Result<Invalidation, BackendError> {
        let time = context.remaining();
        loop {
            let Some(listener) = self.listening.as_mut().and_then(|listening| listening.listener.as_mut())
            else {
                self.listening = Some(self.listen(context).await?);
                return Ok(Invalidation::Everything);
            };
            match timeout(self.heartbeat, listener.try_recv()).await {
                Ok(Ok(Some(told))) if told.payload().starts_with(PROBE) => {}
                Ok(Ok(Some(told))) => {
                    let told = invalidation(told.payload());
                    if told.is_none() {
                        self.note_malformed();
                    }
                    return Ok(told.unwrap_or(Invalidation::Everything));
                }
                Ok(lost) => {
                    self.listening = None;
                    return Err(lost.map_or_else(listening_error, |_| Failure::Closed.into_error()));
                }
                Err(_silence) => {
                    // Taken, so that one which is dropped half-way through its question is not used
                    // again. What is told meanwhile waits in it.
                    if let Some(mut listening) = self.listening.take() {
                        listening.ask(time).await?;
                        self.listening = Some(listening);
                    }
                }
            }
        }
    }
}

impl fmt::Debug for PostgresInvalidations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresInvalidations")
            .field("channel", &self.channel)
            .field("heartbeat", &self.heartbeat)
            .field("connected", &self.listening.is_some())
            .finish_non_exhaustive()
    }
}

/// A connection that listens.
struct Listening {
    listener: Option<PgListener>,
    runtime: Handle,
}

impl Listening {
    /// Asks the server for a sign of life.
    async fn ask(&mut self, time: Duration) -> Result<(), BackendError> {
        let Some(listener) = &mut self.listener else { return Ok(()) };
        match timeout(time, raw_sql("SELECT 1").execute(listener)).await {
            Ok(answer) => answer.map(drop).map_err(listening_error),
            Err(_) => Err(Failure::Silence.into_error()),
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // The driver says goodbye in a task, and panics where there is nothing to run it on.
        let _runtime = self.runtime.enter();
        drop(self.listener.take());
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the driver failed")]
    Driver(#[from] sqlx::Error),
    #[error("the connection that listened was closed")]
    Closed,
    #[error("the database does not answer")]
    Silence,
    #[error("a pooler in transaction mode is between, which passes no notifications on")]
    Deaf,
    #[error("the database has no encoding (SQL_ASCII), so that key ids cannot be told")]
    NoEncoding,
}

impl Failure {
    fn into_error(self) -> BackendError {
        match self {
            Self::Driver(error) => listening_error(error),
            Self::Closed | Self::Silence | Self::Deaf => BackendError::transient(self),
            Self::NoEncoding => BackendError::permanent(self),
        }
    }
}

/// No statement of a listener holds a key id.
fn listening_error(error: sqlx::Error) -> BackendError {
    backend_error(error, Doing::Connecting)
}
