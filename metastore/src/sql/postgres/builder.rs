//! How a store is set up, and what a connection string may say.

use std::fmt;
use std::str::FromStr as _;

use claviger::{BackendError, FailureKind};
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;

use crate::sql::dialect::Role;
use crate::sql::driver::Doing;
use crate::sql::postgres::PostgresMetastore;
use crate::sql::postgres::fault::backend_error;
use crate::sql::postgres::statements::PostgresDialect;
use crate::sql::settings::{Replica, Settings, Target, server_settings};
use crate::sql::store::SqlMetastore;
use crate::sql::url::ServerUrl;

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

impl PostgresMetastore {
    /// Returns a builder for a store with settings of its own.
    pub fn builder() -> PostgresBuilder {
        PostgresBuilder::default()
    }
}

impl PostgresBuilder {
    /// Lets a replica answer loads of [`Consistency::Eventual`](claviger::Consistency::Eventual), on
    /// connections of its own. Such a load fails if the replica does: a factory asks the primary then.
    pub fn replica(mut self, options: PgConnectOptions) -> Self {
        self.settings.replica = Some(Replica::Options(own(options)));
        self
    }

    /// Has the server give up when the caller does: `statement_timeout` is the calls' deadline, and
    /// `lock_timeout` one second at most; on unless set. Without it the role's own settings hold.
    ///
    /// Behind a pooler that shares connections nothing can be set for a session: there it is done with
    /// `prepared-statements=off` only.
    pub const fn server_timeouts(mut self, on: bool) -> Self {
        self.settings.server_timeouts = on;
        self
    }

    /// Connects to the database of a URL and looks at its table:
    /// `postgres://user:password@host:port/database?sslmode=verify-full`.
    ///
    /// The URL's parts are percent-encoded; what it leaves out comes from the environment and the
    /// password file, as for `psql`. TLS is used as `sslmode` says: `disable` and `allow` do without,
    /// `prefer`, the default, takes what the server offers and proves nothing, `require` insists on it
    /// and proves nothing, `verify-full` with `sslrootcert` proves which server it is. A parameter that is not
    /// known is refused, since one that is misspelled would go without a word.
    ///
    /// Several hosts stand in a row, `host1:5432,host2:5432`, and are asked in turn. Of them
    /// `target_session_attrs` chooses: `any`, `primary`, `standby`, `read-write`, which is the default
    /// of several, and `read-only`.
    ///
    /// With `prepared-statements=off` statements have no names on the server: each is one message with
    /// its values, and a transaction of its own. It works behind any pooler; the server parses and
    /// plans each statement anew, and calls that are given up cannot be ended by us.
    ///
    /// # Errors
    /// Permanent when the URL is wrong, the user is not let in, TLS is required and not to be had, or,
    /// with [`DangerousSchema`](crate::DangerousSchema) as its source, when the table, or a pooler
    /// between, is dangerous to use; transient when the server does not answer. No error holds any part
    /// of the URL but the names of user, host and database, where the server says them.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn open(self, url: &str) -> Result<PostgresMetastore, BackendError> {
        let connections = self.settings.open(read_url(url)?, read_url).await?;
        Ok(PostgresMetastore(SqlMetastore(connections)))
    }

    /// Connects with these options of [`sqlx`](crate::sqlx), which can say what a URL cannot, and looks at the table.
    ///
    /// # Errors
    /// As [`open`](Self::open) does.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn open_with(self, options: PgConnectOptions) -> Result<PostgresMetastore, BackendError> {
        let connections = self.settings.open(Target::one(own(options)), read_url).await?;
        Ok(PostgresMetastore(SqlMetastore(connections)))
    }
}

server_settings!(PostgresBuilder, PostgresMetastore);

impl fmt::Debug for PostgresBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("PostgresBuilder");
        self.settings.debug(&mut fields);
        fields.finish()
    }
}

/// Reads a URL.
pub(super) fn read_url(url: &str) -> Result<Target<PostgresDialect>, BackendError> {
    let mut url = ServerUrl::parse(url, &["postgres://", "postgresql://"]).ok_or(UrlFault::OtherScheme)?;
    let named_statements = match url.take(&["prepared-statements"]) {
        None | Some("on") => true,
        Some("off") => false,
        Some(_) => return Err(UrlFault::PreparedStatements.into()),
    };
    let role = match url.take(&["target_session_attrs", "target-session-attrs"]) {
        None => None,
        Some("any") => Some(Role::Any),
        Some("primary") => Some(Role::Primary),
        Some("standby") => Some(Role::Standby),
        Some("read-write") => Some(Role::ReadWrite),
        Some("read-only") => Some(Role::ReadOnly),
        Some(_) => return Err(UrlFault::Role.into()),
    };
    let is_known =
        |name: &str| PARAMETERS.contains(&name) || (name.starts_with("options[") && name.ends_with(']'));
    if !url.parameters.iter().all(|(name, _)| is_known(name)) {
        return Err(UrlFault::UnknownParameter.into());
    }
    let hosts = url.of_each_host().map(|url| PgConnectOptions::from_str(&url).map(own).map_err(unreadable));
    Ok(Target { hosts: hosts.collect::<Result<_, _>>()?, role, named_statements })
}

/// Adds to options what every connection of ours has.
fn own(options: PgConnectOptions) -> PgConnectOptions {
    let options = match options.get_application_name() {
        Some(_) => options,
        None => options.application_name("claviger"),
    };
    // PgBouncer refuses the setting unless it is told to ignore it, and no statement reads a float.
    options.extra_float_digits(None).disable_statement_logging()
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
    #[error("prepared-statements is neither on nor off")]
    PreparedStatements,
    #[error("target_session_attrs is none of any, primary, standby, read-write and read-only")]
    Role,
    #[error(
        "the URL has an unknown parameter; known are sslmode, sslrootcert, sslcert, sslkey, host, hostaddr, \
         port, dbname, user, password, application_name, options, statement-cache-capacity, \
         target_session_attrs and prepared-statements, and a `?` or `&` in a password must be \
         percent-encoded"
    )]
    UnknownParameter,
}

impl From<UrlFault> for BackendError {
    fn from(fault: UrlFault) -> Self {
        Self::permanent(fault).with_kind(FailureKind::Settings)
    }
}

/// What the driver cannot read of a URL.
fn unreadable(error: sqlx::Error) -> BackendError {
    backend_error(error, Doing::Connecting).with_kind(FailureKind::Settings)
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    fn refusal(url: &str) -> String {
        let error = read_url(url).err().unwrap();
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
        let target = read_url(url).unwrap();
        let [options] = &target.hosts[..] else { panic!("one host is named") };
        assert_eq!((target.role, target.named_statements), (None, true));
        assert_eq!((options.get_host(), options.get_port()), ("db.internal", 5433));
        assert_eq!(options.get_application_name(), Some("checkout"));
        assert!(options.get_options().unwrap().contains("search_path=keys"));
        let plain = read_url("postgresql://a@h/keys").unwrap();
        assert_eq!(plain.hosts[0].get_database(), Some("keys"));
    }

    #[test]
    fn several_hosts_and_what_they_are_to_be_are_taken() {
        let url = "postgres://a:b@h1:1,h2:2/keys?target_session_attrs=standby&prepared-statements=off";
        let target = read_url(url).unwrap();
        let hosts: Vec<_> = target.hosts.iter().map(|host| (host.get_host(), host.get_port())).collect();
        assert_eq!(hosts, [("h1", 1), ("h2", 2)]);
        assert_eq!((target.role, target.named_statements), (Some(Role::Standby), false));
        assert!(refusal("postgres://a:b@db.internal/k?target_session_attrs=s3cret").contains("none of any"));
        assert!(refusal("postgres://a:b@db.internal/k?prepared-statements=s3cret").contains("on nor off"));
    }

    #[test]
    fn debug_shows_no_url() {
        let builder = PostgresMetastore::builder().replica_url("postgres://a:s3cret@db.internal/keys");
        let text = format!("{builder:?}");
        assert!(text.contains("replica: true") && !text.contains("s3cret") && !text.contains("db.internal"));
    }
}
