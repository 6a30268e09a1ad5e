//! How a store is set up, and what a connection string may say.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use claviger::{BackendError, FailureKind};
use sqlx::ConnectOptions as _;
use sqlx::mysql::MySqlConnectOptions;

use crate::schema::FindingId;
use crate::sql::driver::Doing;
use crate::sql::mysql::MysqlMetastore;
use crate::sql::mysql::dialect::MysqlDialect;
use crate::sql::mysql::fault::backend_error;
use crate::sql::settings::{Replica, Settings, Target};
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

impl MysqlBuilder {
    /// Starts in spite of this dangerous finding.
    pub fn accept(mut self, finding: FindingId) -> Self {
        self.settings.admission.accepted.push(finding);
        self
    }

    /// Opens the store for loading alone, as decrypting does: that the user may not insert, or that the
    /// server takes no writes, keeps it from nothing then. Off unless set. Inserts are tried all the
    /// same, and answered by the server.
    pub const fn read_only(mut self, on: bool) -> Self {
        self.settings.admission.read_only = on;
        self
    }

    /// Makes our own table, if there is none, before the store is opened; one that is there is left as it
    /// is. The user needs the right to make tables only where there is none, else it is
    /// [`SqlFault::TableNotMade`](crate::SqlFault::TableNotMade).
    ///
    /// It is for installing; a service does without. Any number of programs may do it at once.
    pub fn migrate(mut self) -> Self {
        self.settings.start.makes_table = true;
        self
    }

    /// Starts without a look at what is wrong with the table: to find it out with
    /// [`MysqlMetastore::check_schema`], or to mend it.
    pub fn danger_unchecked(mut self) -> Self {
        self.settings.start.checks = false;
        self
    }

    /// Reads keys that the table keeps under another id, which its collation takes for the one asked
    /// for: where an Asherah shares the table it seals for `Alice` under the row of `alice`, and names
    /// a key that has no row of its own. Off unless set: such a load fails with
    /// [`SqlFault::FoldedId`](crate::SqlFault::FoldedId).
    ///
    /// What is read so decrypts, and never encrypts. It is for as long as it takes to give each id rows
    /// of its own, as the finding
    /// [`CollationFolds`](FindingId::CollationFolds) says.
    pub fn folded_ids(mut self, are_read: bool) -> Self {
        self.settings.folded_ids = are_read.into();
        self
    }

    /// Lets a replica answer loads of [`Consistency::Eventual`](claviger::Consistency::Eventual), on
    /// connections of its own. Such a load fails if the replica does: a factory asks the primary then.
    pub fn replica(mut self, options: MySqlConnectOptions) -> Self {
        self.settings.replica = Some(Replica::Options(options.disable_statement_logging()));
        self
    }

    /// As [`replica`](Self::replica), by a URL as [`open`](Self::open) takes it.
    pub fn replica_url(mut self, url: impl Into<String>) -> Self {
        self.settings.replica = Some(Replica::Url(url.into()));
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

    /// Sets how many connections are open at most, to the primary and to the replica; 10 unless set.
    ///
    /// Writes have half of them. One more is opened while the server is asked to end what was given up,
    /// and while the table is looked at.
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

    /// Has the server give up a wait for a lock after a second (`innodb_lock_wait_timeout`,
    /// `lock_wait_timeout`); on unless set. Without it the server's own settings hold.
    pub const fn server_timeouts(mut self, on: bool) -> Self {
        self.settings.server_timeouts = on;
        self
    }

    /// Has each new connection run this SQL, `SET ROLE checkout` say. It is sent as it is.
    ///
    /// Behind a pooler that shares connections it would be run for others, too.
    pub fn on_connect(mut self, sql: impl Into<Arc<str>>) -> Self {
        self.settings.on_connect = Some(sql.into());
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
    pub async fn connect(self, options: MySqlConnectOptions) -> Result<MysqlMetastore, BackendError> {
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
