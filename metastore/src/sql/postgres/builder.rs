//! How a store is set up, and what a connection string may say.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr as _;
use std::time::Duration;

use claviger::BackendError;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::schema::FindingId;
use crate::sql::pool::{Dialect as _, SqlError, with_live_connection};
use crate::sql::postgres::fault::PostgresDialect;
use crate::sql::postgres::statements::Dialects;
use crate::sql::postgres::{ADMIN_DEADLINE, PostgresMetastore, check};
use crate::task::to_its_end;

/// Sets up a [`PostgresMetastore`].
///
/// ```no_run
/// use claviger_metastore::{FindingId, PostgresMetastore};
///
/// # async fn example(url: &str) -> Result<(), claviger::BackendError> {
/// // A service that only decrypts may work on a read-only standby.
/// let metastore = PostgresMetastore::builder().accept(FindingId::ReadOnly).open(url).await?;
/// # Ok(()) }
/// ```
#[must_use]
pub struct PostgresBuilder {
    accepted: Vec<FindingId>,
    checks: bool,
    replica: Option<Replica>,
    connections_max: NonZeroU32,
    deadline: Duration,
}

enum Replica {
    Pool(PgPool),
    Url(String),
}

/// Below the two seconds that the core gives a store call, so that the caller learns what happened.
const DEADLINE: Duration = Duration::from_millis(1_500);

const CONNECTIONS_MAX: NonZeroU32 = match NonZeroU32::new(10) {
    Some(ten) => ten,
    None => NonZeroU32::MIN,
};

/// A connection is replaced after this time, so that load moves to servers that join a cluster.
const LIFETIME_MAX: Duration = Duration::from_secs(30 * 60);

/// Below the time after which firewalls and load balancers commonly forget a connection.
const IDLE_MAX: Duration = Duration::from_secs(4 * 60);

impl Default for PostgresBuilder {
    fn default() -> Self {
        Self {
            accepted: Vec::new(),
            checks: true,
            replica: None,
            connections_max: CONNECTIONS_MAX,
            deadline: DEADLINE,
        }
    }
}

impl PostgresBuilder {
    /// Starts in spite of this dangerous finding.
    pub fn accept(mut self, finding: FindingId) -> Self {
        self.accepted.push(finding);
        self
    }

    /// Starts without a look at the table: to create it, or to look at it with
    /// [`PostgresMetastore::check_schema`].
    pub fn danger_unchecked(mut self) -> Self {
        self.checks = false;
        self
    }

    /// Lets a replica answer loads of [`Consistency::Eventual`](claviger::Consistency::Eventual). If it
    /// does not answer, the primary does.
    pub fn replica(mut self, pool: PgPool) -> Self {
        self.replica = Some(Replica::Pool(pool));
        self
    }

    /// As [`replica`](Self::replica), with connections of its own.
    pub fn replica_url(mut self, url: impl Into<String>) -> Self {
        self.replica = Some(Replica::Url(url.into()));
        self
    }

    /// Sets how many connections are open at most, to each server; 10 unless set. For pools that this
    /// builder makes.
    pub const fn max_connections(mut self, connections: NonZeroU32) -> Self {
        self.connections_max = connections;
        self
    }

    /// Sets how long a load or an insert may take, the wait for a connection included; 1.5 seconds
    /// unless set. It should be below the store deadline of the factory's policy.
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Connects to the database of a URL and looks at its table:
    /// `postgres://user:password@host:port/database?sslmode=verify-full`.
    ///
    /// The URL's parts are percent-encoded; what it leaves out comes from the environment and the
    /// password file, as for `psql`. TLS is used as `sslmode` says: `disable` and `allow` do without,
    /// `prefer`, the default, takes what the server offers and proves nothing, `require` insists on it
    /// and proves nothing, `verify-full` with `sslrootcert` proves who it is. A parameter that is not
    /// known is refused, since one that is misspelled would go without a word.
    ///
    /// # Errors
    /// Permanent when the URL is wrong, the user is not let in, TLS is required and not to be had, or,
    /// with [`DangerousSchema`](crate::DangerousSchema) as its source, when the table is dangerous to
    /// use; transient when the server does not answer. No error holds any part of the URL but the
    /// names of user, host and database, where the server says them.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn open(self, url: &str) -> Result<PostgresMetastore, BackendError> {
        let options = connect_options(url)?;
        let dialects = Dialects::default();
        // Not by the pool, which tells no reason when a server refuses connections.
        self.look(options.clone(), dialects.clone()).await?;
        let pool = self.make_pool(options);
        self.build(pool, dialects)
    }

    /// Uses a pool made by the caller, after a look at the table.
    ///
    /// The pool's `acquire_timeout` may be longer than the calls' deadline, which ends the wait. Its
    /// `test_before_acquire` costs a round trip for each call and is not needed.
    ///
    /// # Errors
    /// As [`open`](Self::open) does.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn pool(self, pool: PgPool) -> Result<PostgresMetastore, BackendError> {
        let dialects = Dialects::default();
        if self.checks {
            let report = with_live_connection::<PostgresDialect, _>(&pool, ADMIN_DEADLINE, |connection| {
                Box::pin(check::report(connection))
            });
            report.await?.admit(&self.accepted).map_err(BackendError::permanent)?;
        }
        self.build(pool, dialects)
    }

    async fn look(&self, options: PgConnectOptions, dialects: Dialects) -> Result<(), BackendError> {
        let (checks, accepted) = (self.checks, self.accepted.clone());
        let look = async move {
            let mut connection = options.connect().await?;
            let report = if checks { check::report(&mut connection).await? } else { Default::default() };
            dialects.texts(&mut connection).await?;
            // It was good to the last; how it ends is of no consequence.
            connection.close().await.ok();
            Ok(report)
        };
        let report = to_its_end(async move {
            match tokio::time::timeout(ADMIN_DEADLINE, look).await {
                Ok(answer) => answer.map_err(|error: SqlError| error.classified::<PostgresDialect>()),
                Err(_) => Err(PostgresDialect::backend_error(sqlx::Error::PoolTimedOut)),
            }
        });
        report.await?.admit(&accepted).map_err(BackendError::permanent)
    }

    fn make_pool(&self, options: PgConnectOptions) -> PgPool {
        PgPoolOptions::new()
            .max_connections(self.connections_max.get())
            .acquire_timeout(self.deadline)
            // It costs a round trip for each call. Who meets a dead connection closes it.
            .test_before_acquire(false)
            .max_lifetime(LIFETIME_MAX)
            .idle_timeout(IDLE_MAX)
            .connect_lazy_with(options)
    }

    fn build(mut self, pool: PgPool, dialects: Dialects) -> Result<PostgresMetastore, BackendError> {
        let replica = match self.replica.take() {
            None => None,
            Some(Replica::Pool(pool)) => Some(pool),
            Some(Replica::Url(url)) => Some(self.make_pool(connect_options(&url)?)),
        };
        Ok(PostgresMetastore { pool, replica, deadline: self.deadline, dialects })
    }
}

impl fmt::Debug for PostgresBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBuilder")
            .field("accepted", &self.accepted)
            .field("checks", &self.checks)
            .field("replica", &self.replica.is_some())
            .field("connections_max", &self.connections_max)
            .field("deadline", &self.deadline)
            .finish()
    }
}

/// Reads a URL.
pub(super) fn connect_options(url: &str) -> Result<PgConnectOptions, BackendError> {
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(BackendError::permanent(UrlFault::OtherScheme));
    }
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    let parameters = parameters.split('#').next().unwrap_or_default();
    let is_known = |parameter: &str| {
        let name = parameter.split('=').next().unwrap_or_default();
        PARAMETERS.contains(&name) || (name.starts_with("options[") && name.ends_with(']'))
    };
    if !parameters.split('&').filter(|parameter| !parameter.is_empty()).all(is_known) {
        return Err(BackendError::permanent(UrlFault::UnknownParameter));
    }
    let options = PgConnectOptions::from_str(url).map_err(PostgresDialect::backend_error)?;
    let options = match options.get_application_name() {
        Some(_) => options,
        None => options.application_name("claviger"),
    };
    // PgBouncer refuses the setting unless it is told to ignore it, and no statement reads a float.
    Ok(options.extra_float_digits(None).disable_statement_logging())
}

/// What the driver knows.
const PARAMETERS: [&str; 19] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "",
];

/// What is wrong with a URL. What stands in it is not said: the part in question may be that of a
/// password which was not encoded.
#[derive(Debug, thiserror::Error)]
enum UrlFault {
    #[error("the URL does not begin with postgres://")]
    OtherScheme,
    #[error(
        "the URL has an unknown parameter; known are sslmode, sslrootcert, sslcert, sslkey, host, hostaddr, \
         port, dbname, user, password, application_name, options and statement-cache-capacity, and a `?` or \
         `&` in a password must be percent-encoded"
    )]
    UnknownParameter,
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    fn refusal(url: &str) -> String {
        let error = connect_options(url).unwrap_err();
        assert!(!error.is_transient());
        let text = format!("{error} {:?} {}", error, error.source().unwrap());
        assert!(!text.contains("s3cret") && !text.contains("db.internal"), "{text}");
        text
    }

    #[test]
    fn a_url_that_is_wrong_is_refused_without_a_word_of_it() {
        assert!(refusal("mysql://a:s3cret@db.internal/keys").contains("begin with"));
        assert!(refusal("s3cret").contains("begin with"));
        assert!(refusal("postgres://a:s3cret@db.internal:x/keys").contains("configuration"));
        assert!(refusal("postgres://a:b@db.internal/keys?sslmode=s3cret").contains("configuration"));
        assert!(refusal("postgres://a:b@db.internal/keys?port=s3cret").contains("configuration"));
        assert!(refusal("postgres://a:b@db.internal/keys?sslmod=require").contains("unknown parameter"));
        assert!(refusal("postgres://a:b?s3cret@db.internal/keys").contains("unknown parameter"));
        assert!(refusal("postgres://a:b@db.internal/keys?x=s3cret#y").contains("unknown parameter"));
    }

    #[test]
    fn every_known_parameter_is_taken() {
        let url = "postgres://a:p%3Fw@db.internal:5433/keys?sslmode=verify-full&sslrootcert=/ca.pem\
                   &sslcert=/c.pem&sslkey=/k.pem&application_name=checkout&statement-cache-capacity=10\
                   &options=-c%20search_path%3Dkeys&options[lock_timeout]=100#x";
        let options = connect_options(url).unwrap();
        assert_eq!((options.get_host(), options.get_port()), ("db.internal", 5433));
        assert_eq!(options.get_application_name(), Some("checkout"));
        assert!(options.get_options().unwrap().contains("search_path=keys"));
        let plain = connect_options("postgresql://a@h/keys").unwrap();
        assert_eq!(plain.get_database(), Some("keys"));
    }

    #[test]
    fn debug_shows_no_url() {
        let builder = PostgresMetastore::builder().replica_url("postgres://a:s3cret@db.internal/keys");
        let text = format!("{builder:?}");
        assert!(text.contains("replica: true") && !text.contains("s3cret") && !text.contains("db.internal"));
    }
}
