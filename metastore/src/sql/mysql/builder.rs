//! How a store is set up, what a connection string may say, and what a connection of ours is.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr as _;
use std::time::Duration;

use claviger::BackendError;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlPool};
use sqlx::{ConnectOptions as _, raw_sql};

use crate::schema::FindingId;
use crate::sql::mysql::MysqlMetastore;
use crate::sql::mysql::fault::MysqlDialect;
use crate::sql::pool::Dialect as _;
use crate::sql::settings::{Replica, Settings};

/// Sets up a [`MysqlMetastore`].
///
/// ```no_run
/// use claviger_metastore::MysqlMetastore;
///
/// # async fn example(url: &str) -> Result<(), claviger::BackendError> {
/// // Beside an Asherah on a server whose clock runs in Los Angeles.
/// let metastore = MysqlMetastore::builder().session_time_zone("SYSTEM").open(url).await?;
/// # Ok(()) }
/// ```
#[derive(Default)]
#[must_use]
pub struct MysqlBuilder {
    settings: Settings<MysqlDialect>,
    session_time_zone: Option<String>,
}

impl MysqlBuilder {
    /// Starts in spite of this dangerous finding.
    pub fn accept(mut self, finding: FindingId) -> Self {
        self.settings.accepted.push(finding);
        self
    }

    /// Starts without a look at the table: to create it, or to look at it with
    /// [`MysqlMetastore::check_schema`].
    pub fn danger_unchecked(mut self) -> Self {
        self.settings.checks = false;
        self
    }

    /// Lets a replica answer loads of [`Consistency::Eventual`](claviger::Consistency::Eventual). If it
    /// does not answer, the primary does. Its sessions must be as those of [`pool`](Self::pool).
    pub fn replica(mut self, pool: MySqlPool) -> Self {
        self.settings.replica = Some(Replica::Pool(pool));
        self
    }

    /// As [`replica`](Self::replica), with connections of its own.
    pub fn replica_url(mut self, url: impl Into<String>) -> Self {
        self.settings.replica = Some(Replica::Url(url.into()));
        self
    }

    /// Sets the time zone of the sessions, as the server names it: an offset, a name of its zone tables,
    /// or `SYSTEM`; `+00:00` unless set, here or by `timezone` in the URL.
    ///
    /// It matters where `created` is a `TIMESTAMP`. All programs send it as UTC text, and the server
    /// takes the text for a time in the session's zone: so all that share a table must have the same.
    /// Asherah has the server's own, which is `SYSTEM` unless the server is told otherwise. For pools
    /// that this builder makes.
    pub fn session_time_zone(mut self, zone: impl Into<String>) -> Self {
        self.session_time_zone = Some(zone.into());
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
    /// `mysql://user:password@host:port/database?ssl-mode=VERIFY_IDENTITY&ssl-ca=/etc/ca.pem`.
    ///
    /// The URL's parts are percent-encoded. TLS is used as `ssl-mode` says: `PREFERRED`, the default,
    /// takes what the server offers and proves nothing; `VERIFY_IDENTITY` does. A parameter that is not
    /// known is refused, since one that is misspelled would go without a word.
    ///
    /// # Errors
    /// Permanent when the URL is wrong, the user is not let in, the database or the time zone is not
    /// known, TLS is required and not to be had, or, with
    /// [`DangerousSchema`](crate::DangerousSchema) as its source, when the table is dangerous to use;
    /// transient when the server does not answer. No error holds any part of the URL but the names of
    /// user, host and database, where the server says them.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn open(self, url: &str) -> Result<MysqlMetastore, BackendError> {
        let connections = self.settings.open(url, |url| self.connect_options(url)).await?;
        Ok(MysqlMetastore { connections })
    }

    /// Uses a pool made by the caller, after a look at the table.
    ///
    /// The sessions stay as the caller made them: setting them right would cost each call a round
    /// trip. So they are looked at, on one connection, and all must be the same: strict `sql_mode`,
    /// `autocommit`, `utf8mb4`, and the time zone that rows are written in. The driver's default,
    /// `+00:00`, is right unless Asherah shares a `TIMESTAMP` column on a server in another zone.
    ///
    /// The pool's `acquire_timeout` may be longer than the calls' deadline, which ends the wait. Its
    /// `test_before_acquire` costs a round trip for each call and is not needed.
    ///
    /// # Errors
    /// As [`open`](Self::open) does.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn pool(self, pool: MySqlPool) -> Result<MysqlMetastore, BackendError> {
        let connections = self.settings.pool(pool, |url| self.connect_options(url)).await?;
        Ok(MysqlMetastore { connections })
    }

    /// Reads a URL.
    fn connect_options(&self, url: &str) -> Result<MySqlConnectOptions, BackendError> {
        if !["mysql://", "mariadb://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(BackendError::permanent(UrlFault::OtherScheme));
        }
        let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
        let parameters = parameters.split('#').next().unwrap_or_default().split('&');
        let mut zone = None;
        for parameter in parameters.filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=').unwrap_or((parameter, "")) {
                ("timezone" | "time-zone", value) => zone = Some(decoded_zone(value)),
                (name, _) if PARAMETERS.contains(&name) => {}
                _ => return Err(BackendError::permanent(UrlFault::UnknownParameter)),
            }
        }
        let options = MySqlConnectOptions::from_str(url).map_err(MysqlDialect::backend_error)?;
        let zone = self.session_time_zone.clone().or(zone).unwrap_or_else(|| "+00:00".to_owned());
        // The driver puts it into a statement as it is.
        if zone.is_empty()
            || !zone.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-:/_".contains(&byte))
        {
            return Err(BackendError::permanent(UrlFault::TimeZone));
        }
        Ok(options.timezone(Some(zone)).disable_statement_logging())
    }
}

/// Makes a session in which nothing is cut, every statement commits, and nobody waits for a lock
/// longer than for an answer.
pub(super) async fn set_up(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    raw_sql(
        "SET SESSION autocommit = 1, innodb_lock_wait_timeout = 1, \
         sql_mode = CONCAT(@@SESSION.sql_mode, ',STRICT_ALL_TABLES')",
    )
    .execute(connection)
    .await
    .map(drop)
}

/// What the driver knows, but for the character set: ours is UTF-8.
const PARAMETERS: [&str; 10] = [
    "ssl-mode",
    "sslmode",
    "ssl-ca",
    "sslca",
    "ssl-cert",
    "sslcert",
    "ssl-key",
    "sslkey",
    "statement-cache-capacity",
    "socket",
];

/// Decodes what may be encoded in the name of a zone. A plus sign is one: the driver would read it as
/// a blank.
fn decoded_zone(value: &str) -> String {
    [("%2B", "+"), ("%2b", "+"), ("%2F", "/"), ("%2f", "/"), ("%3A", ":"), ("%3a", ":")]
        .iter()
        .fold(value.to_owned(), |zone, (encoded, plain)| zone.replace(encoded, plain))
}

impl fmt::Debug for MysqlBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("MysqlBuilder");
        self.settings.debug(&mut fields);
        fields.field("session_time_zone", &self.session_time_zone).finish()
    }
}

/// What is wrong with a URL. What stands in it is not said: the part in question may be that of a
/// password which was not encoded.
#[derive(Debug, thiserror::Error)]
enum UrlFault {
    #[error("the URL does not begin with mysql://")]
    OtherScheme,
    #[error(
        "the URL has an unknown parameter; known are ssl-mode, ssl-ca, ssl-cert, ssl-key, socket, timezone \
         and statement-cache-capacity, and a `?` or `&` in a password must be percent-encoded"
    )]
    UnknownParameter,
    #[error("the session's time zone is no offset and no name of a zone")]
    TimeZone,
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    fn refusal(url: &str) -> String {
        let error = MysqlBuilder::default().connect_options(url).unwrap_err();
        assert!(!error.is_transient());
        let text = format!("{error} {:?} {}", error, error.source().unwrap());
        assert!(!text.contains("s3cret") && !text.contains("db.internal"), "{text}");
        text
    }

    #[test]
    fn a_url_that_is_wrong_is_refused_without_a_word_of_it() {
        assert!(refusal("postgres://a:s3cret@db.internal/keys").contains("begin with"));
        assert!(refusal("s3cret").contains("begin with"));
        assert!(refusal("mysql://a:s3cret@db.internal:x/keys").contains("configuration"));
        assert!(refusal("mysql://a:b@db.internal/keys?ssl-mode=s3cret").contains("configuration"));
        assert!(refusal("mysql://a:b@db.internal/keys?sslmod=REQUIRED").contains("unknown parameter"));
        assert!(refusal("mysql://a:b@db.internal/keys?charset=latin1").contains("unknown parameter"));
        assert!(refusal("mysql://a:b?s3cret@db.internal/keys").contains("unknown parameter"));
        assert!(refusal("mysql://a:b@db.internal/keys?timezone=s3cret'").contains("time zone"));
        assert!(refusal("mysql://a:b@db.internal/keys?timezone=s3cret%27").contains("time zone"));
        assert!(refusal("mysql://a:b@db.internal/keys?timezone=").contains("time zone"));
    }

    #[test]
    fn zones_are_taken_by_all_their_names() {
        for (written, zone) in [
            ("+08:00", "+08:00"),
            ("%2B08:00", "+08:00"),
            ("-08:00", "-08:00"),
            ("SYSTEM", "SYSTEM"),
            ("America/Los_Angeles", "America/Los_Angeles"),
            ("America%2FLos_Angeles", "America/Los_Angeles"),
            ("Etc/GMT+8", "Etc/GMT+8"),
        ] {
            assert_eq!(decoded_zone(written), zone);
            let url = format!("mysql://a@h/keys?ssl-mode=REQUIRED&timezone={written}");
            MysqlBuilder::default().connect_options(&url).unwrap();
            MysqlBuilder::default().session_time_zone(zone).connect_options("mysql://a@h/keys").unwrap();
        }
        let error = MysqlBuilder::default().session_time_zone("a' OR '1").connect_options("mysql://a@h/keys");
        assert!(!error.unwrap_err().is_transient());
    }

    #[test]
    fn debug_shows_no_url() {
        let builder = MysqlMetastore::builder().replica_url("mysql://a:s3cret@db.internal/keys");
        let text = format!("{builder:?}");
        assert!(text.contains("replica: true") && !text.contains("s3cret") && !text.contains("db.internal"));
    }
}
