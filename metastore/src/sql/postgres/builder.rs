//! How a store is set up, and what a connection string may say.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr as _;
use std::time::Duration;

use claviger::BackendError;
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgPool};

use crate::schema::FindingId;
use crate::sql::pool::Dialect as _;
use crate::sql::postgres::PostgresMetastore;
use crate::sql::postgres::fault::PostgresDialect;
use crate::sql::settings::{Replica, Settings};

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
#[derive(Default)]
#[must_use]
pub struct PostgresBuilder {
    settings: Settings<PostgresDialect>,
}

impl PostgresBuilder {
    /// Starts in spite of this dangerous finding.
    pub fn accept(mut self, finding: FindingId) -> Self {
        self.settings.accepted.push(finding);
        self
    }

    /// Starts without a look at the table: to create it, or to look at it with
    /// [`PostgresMetastore::check_schema`].
    pub fn danger_unchecked(mut self) -> Self {
        self.settings.checks = false;
        self
    }

    /// Lets a replica answer loads of [`Consistency::Eventual`](claviger::Consistency::Eventual). If it
    /// does not answer, the primary does.
    pub fn replica(mut self, pool: PgPool) -> Self {
        self.settings.replica = Some(Replica::Pool(pool));
        self
    }

    /// As [`replica`](Self::replica), with connections of its own.
    pub fn replica_url(mut self, url: impl Into<String>) -> Self {
        self.settings.replica = Some(Replica::Url(url.into()));
        self
    }

    /// Sets how many connections are open at most, to each server; 10 unless set. For pools that this
    /// builder makes.
    pub const fn max_connections(mut self, connections: NonZeroU32) -> Self {
        self.settings.connections_max = connections;
        self
    }

    /// Sets how long a load or an insert may take, the wait for a connection included; 1.5 seconds
    /// unless set. It should be below the store deadline of the factory's policy.
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline;
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
        let connections = self.settings.open(url, connect_options).await?;
        Ok(PostgresMetastore { connections })
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
        let connections = self.settings.pool(pool, connect_options).await?;
        Ok(PostgresMetastore { connections })
    }
}

impl fmt::Debug for PostgresBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("PostgresBuilder");
        self.settings.debug(&mut fields);
        fields.finish()
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
