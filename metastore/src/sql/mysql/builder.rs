//! How a store is set up, and what a connection string may say.

use std::fmt;
use std::str::FromStr as _;

use claviger::{BackendError, FailureKind};
use sqlx::ConnectOptions as _;
use sqlx::mysql::MySqlConnectOptions;

use crate::sql::driver::Doing;
use crate::sql::mysql::MysqlMetastore;
use crate::sql::mysql::fault::backend_error;
use crate::sql::mysql::statements::MysqlDialect;
use crate::sql::settings::{Replica, Settings, Target, server_settings};
use crate::sql::store::SqlMetastore;
use crate::sql::url::ServerUrl;

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

impl MysqlMetastore {
    /// Returns a builder for a store with settings of its own.
    pub fn builder() -> MysqlBuilder {
        MysqlBuilder::default()
    }
}

impl MysqlBuilder {
    /// Lets a replica answer loads of [`Consistency::Eventual`](claviger::Consistency::Eventual), on
    /// connections of its own. Such a load fails if the replica does: a factory asks the primary then.
    pub fn replica(mut self, options: MySqlConnectOptions) -> Self {
        self.settings.replica = Some(Replica::Options(options.disable_statement_logging()));
        self
    }

    /// Sets the time zone of the sessions, as the server names it: an offset, a name of its zone tables,
    /// or `SYSTEM`; `+00:00` unless set, here or by `timezone` in the URL.
    ///
    /// It matters where `created` is a `TIMESTAMP`. All programs send it as UTC text, and the server
    /// takes the text for a time in the session's zone: so all that share a table must have the same.
    /// Asherah has the server's own, which is `SYSTEM` unless the server is told otherwise. For URLs;
    /// options have a zone of their own.
    pub fn session_time_zone(mut self, zone: impl Into<String>) -> Self {
        self.session_time_zone = Some(zone.into());
        self
    }

    /// Has the server give up a wait for a lock after a second (`innodb_lock_wait_timeout`,
    /// `lock_wait_timeout`); on unless set. Without it the server's own settings hold.
    pub const fn server_timeouts(mut self, on: bool) -> Self {
        self.settings.server_timeouts = on;
        self
    }

    /// Connects to the database of a URL and looks at its table:
    /// `mysql://user:password@host:port/database?ssl-mode=VERIFY_IDENTITY&ssl-ca=/etc/ca.pem`.
    ///
    /// The URL's parts are percent-encoded. TLS is used as `ssl-mode` says: `PREFERRED`, the default,
    /// takes what the server offers and proves nothing; `VERIFY_IDENTITY` does. A parameter that is not
    /// known is refused, since one that is misspelled would go without a word.
    ///
    /// Several hosts stand in a row, `host1:3306,host2:3306`: the first that takes writes is used.
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
        let connections = self.settings.open(self.read_url(url)?, |url| self.read_url(url)).await?;
        Ok(MysqlMetastore(SqlMetastore(connections)))
    }

    /// Connects with these options of [`sqlx`](crate::sqlx), which can say what a URL cannot, and looks at the table. Their time
    /// zone is the session's; the driver's default, `+00:00`, is right unless Asherah shares a
    /// `TIMESTAMP` column on a server in another zone.
    ///
    /// # Errors
    /// As [`open`](Self::open) does.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn open_with(self, options: MySqlConnectOptions) -> Result<MysqlMetastore, BackendError> {
        let target = Target::one(options.disable_statement_logging());
        let connections = self.settings.open(target, |url| self.read_url(url)).await?;
        Ok(MysqlMetastore(SqlMetastore(connections)))
    }

    /// Reads a URL.
    fn read_url(&self, url: &str) -> Result<Target<MysqlDialect>, BackendError> {
        let mut url = ServerUrl::parse(url, &["mysql://", "mariadb://"]).ok_or(UrlFault::OtherScheme)?;
        let zone = url.take(&["timezone", "time-zone"]).map(decoded_zone);
        if !url.parameters.iter().all(|(name, _)| PARAMETERS.contains(name)) {
            return Err(UrlFault::UnknownParameter.into());
        }
        let zone = self.session_time_zone.clone().or(zone).unwrap_or_else(|| "+00:00".to_owned());
        // The driver puts it into a statement as it is.
        if zone.is_empty()
            || !zone.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-:/_".contains(&byte))
        {
            return Err(UrlFault::TimeZone.into());
        }
        let of_host = |url: String| {
            let options = MySqlConnectOptions::from_str(&url).map_err(unreadable)?;
            Ok(options.timezone(Some(zone.clone())).disable_statement_logging())
        };
        let hosts = url.of_each_host().map(of_host).collect::<Result<_, BackendError>>()?;
        Ok(Target { hosts, role: None, named_statements: true })
    }
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

server_settings!(MysqlBuilder, MysqlMetastore);

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
        let error = MysqlBuilder::default().read_url(url).err().unwrap();
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
            MysqlBuilder::default().read_url(&url).unwrap();
            MysqlBuilder::default().session_time_zone(zone).read_url("mysql://a@h/keys").unwrap();
        }
        let error = MysqlBuilder::default().session_time_zone("a' OR '1").read_url("mysql://a@h/keys");
        assert!(!error.err().unwrap().is_transient());
    }

    #[test]
    fn debug_shows_no_url() {
        let builder = MysqlMetastore::builder().replica_url("mysql://a:s3cret@db.internal/keys");
        let text = format!("{builder:?}");
        assert!(text.contains("replica: true") && !text.contains("s3cret") && !text.contains("db.internal"));
    }
}
