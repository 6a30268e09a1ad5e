//! Keys in MySQL and MariaDB.

mod builder;
mod check;
mod dialect;
mod fault;
mod layout;
mod statements;
mod texts;
mod utc;

use std::fmt;
use std::sync::Arc;

use claviger::{
    BackendError, Consistency, Created, EnvelopeKeyRecord, Insert, KeyId, KeyMeta, Latest, Metastore,
    MetastoreAdmin, Page,
};

pub use self::builder::MysqlBuilder;

use self::dialect::MysqlDialect;
use self::texts::{
    count_sql, delete_sql, holder_sql, insert_sql, list_sql, load_latest_many_sql, load_latest_sql,
    load_many_sql, load_sql, no_reserved_id, of_id, row, up_to, update_sql,
};
use crate::schema::SchemaReport;
use crate::sql::connections::{ADMIN_DEADLINE, COUNT_DEADLINE, Connections};
use crate::sql::driver::Doing;
use crate::sql::rewrite::{Rewritten, replace_wrapped_key, revoke};
use crate::sql::{check_id, checked_json};

/// Keeps key records in a MySQL or MariaDB table that any number of processes share, those of other
/// Asherah implementations included.
///
/// Clones share one pool of connections. What the table cannot hold is refused with a permanent error
/// before the server is asked, and never cut: key ids have 1 to 255 bytes in our own table and 1 to
/// 255 characters in Asherah's, and no NUL, records at most 64 KiB of JSON; creation times end in 2038 in a
/// `TIMESTAMP` column. A row with a longer record is damaged, and the server does not send it.
///
/// ```no_run
/// use claviger_metastore::MysqlMetastore;
///
/// # async fn example(url: &str) -> Result<(), claviger::BackendError> {
/// // mysql://checkout:…@db.internal/keys?ssl-mode=VERIFY_IDENTITY&ssl-ca=/etc/ca.pem
/// let metastore = MysqlMetastore::open(url).await?;
/// # Ok(()) }
/// ```
///
/// # The table
/// [`migrate`](Self::migrate) makes `encryption_key` if there is none. One that is there is used as it
/// is, and programs may go on while an `ALTER TABLE` turns Asherah's into ours.
/// [`check_schema`](Self::check_schema) says what is wrong with it, and no store starts on a table
/// that would lose keys.
///
#[doc = concat!("```sql\n", include_str!("../../migrations/mysql/0001_encryption_key.sql"), "```")]
///
/// The columns of Asherah's own table take ids for one another that differ by case, accents or
/// trailing blanks. Here they stay apart: rows are compared byte by byte, and an insert whose place is
/// taken by another id is refused with [`SqlFault::Indistinct`](crate::SqlFault::Indistinct). Asherah
/// seals for one id under another's row, and names an id that has none: such a load fails with
/// [`SqlFault::FoldedId`](crate::SqlFault::FoldedId), or is answered for decrypting
/// ([`MysqlBuilder::folded_ids`]).
///
/// All programs send `created` as UTC text. In a `DATETIME` that is what is kept, whoever writes; in
/// Asherah's `TIMESTAMP` the server takes it for a time in the session's zone, so that all who share
/// the table must have one zone ([`MysqlBuilder::session_time_zone`]). Where that zone's clocks are
/// put forward, the hour they skip cannot be stored: an insert in it is refused with
/// [`SqlFault::CreatedNotHeld`](crate::SqlFault::CreatedNotHeld).
///
/// # Connections
/// Every call has a deadline. A call that is given up keeps its place among the connections until the
/// server has let go of it, and the server is told to end it (`KILL`); so there are never more
/// connections than are allowed, whatever hangs. A read that meets a dead connection is made again on
/// another one; a write is not, since it may have happened, and is a transient error: the factory tries
/// again. A server that was demoted and takes no more writes is such an error too, and its connection
/// is closed, so that the next leads to its successor, by another host of the URL, the host name or the
/// proxy.
///
/// A new connection that leads to another server, or another cluster, is a fail-over: the others are
/// closed, and a factory reads again what it holds. On a Galera node (`wsrep_on`) reads wait for what
/// other nodes have committed (`wsrep_sync_wait`).
///
/// Statements are prepared. Passwords of the kind `caching_sha2_password` need TLS.
///
/// # The statements
/// One key version, and on a table that folds ids what it takes for one that has no row:
#[doc = concat!("```sql\n", load_sql!(), ";\n\n", holder_sql!(), "\n```")]
/// The latest version up to a time, and the one before it. Where `created` is a `TIMESTAMP` it is compared as
/// `CAST(created AS DATETIME)`:
#[doc = concat!("```sql\n", load_latest_sql!(unzoned), "\n```")]
/// Several key versions, up to 512 by statement:
#[doc = concat!("```sql\n", load_many_sql!("?, ?, …", "?, ?, …"), "\n```")]
/// The latest versions of several keys, likewise:
#[doc = concat!("```sql\n", load_latest_many_sql!("?, ?, …", unzoned), "\n```")]
/// A new key. That it is taken is known by the violation of the primary key and a look at who holds
/// it, and by nothing else:
#[doc = concat!("```sql\n", insert_sql!(), ";\n\n", holder_sql!(), "\n```")]
/// A revocation or a replaced wrapped key, after a read of the row; begun anew if it finds no row:
#[doc = concat!("```sql\n", update_sql!(), "\n```")]
/// Operators' calls:
#[doc = concat!(
    "```sql\n", list_sql!("id >= ? AND (id > ? OR created > ?) AND "), ";\n\n", delete_sql!(), ";\n\n",
    count_sql!(), "\n```"
)]
#[derive(Clone)]
pub struct MysqlMetastore {
    connections: Connections<MysqlDialect>,
}

impl MysqlMetastore {
    /// Connects to the database and looks at its table. What else can be set is in
    /// [`builder`](Self::builder).
    ///
    /// # Errors
    /// As [`MysqlBuilder::open`] does.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn open(url: &str) -> Result<Self, BackendError> {
        Self::builder().open(url).await
    }

    /// Makes our own table if there is none, and opens the store as
    /// [`open`](Self::open) does: for installing, on an empty database. One that is there is left as it is.
    ///
    /// ```no_run
    /// use claviger_metastore::MysqlMetastore;
    ///
    /// # async fn example(keeper: &str, service: &str) -> Result<(), claviger::BackendError> {
    /// // Once, as a user who may make tables; again it does no harm.
    /// MysqlMetastore::migrate(keeper).await?.close().await;
    /// // From then on, as one who may only load and insert.
    /// let metastore = MysqlMetastore::open(service).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`MysqlBuilder::open`] does, and permanent, with
    /// [`SqlFault::TableNotMade`](crate::SqlFault::TableNotMade) as its source, when there is no table and
    /// the user may not make one.
    ///
    /// # Cancel safety
    /// The table was made or was not.
    pub async fn migrate(url: &str) -> Result<Self, BackendError> {
        Self::builder().migrate().open(url).await
    }

    /// Returns a builder for a store with settings of its own.
    pub fn builder() -> MysqlBuilder {
        MysqlBuilder::default()
    }

    /// The SQL that [`migrate`](Self::migrate) runs, for who keeps schemas by other means.
    pub const SCHEMA: &str = include_str!("../../migrations/mysql/0001_encryption_key.sql");

    /// Looks for what is wrong with the table, with the settings of the server and the session, with
    /// the user's rights, and at a sample of the rows. It changes nothing.
    ///
    /// # Errors
    /// As the database's failures are.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn check_schema(&self) -> Result<SchemaReport, BackendError> {
        self.connections.report().await
    }

    /// Classifies a failure of the driver, as the store does its own: for a
    /// [`Persistence`](claviger::Persistence) over a caller's own tables.
    ///
    /// Transient is what may pass by itself: a connection that broke or could not be had in time, a
    /// server that starts, stops, was demoted or is full, a lock, a conflict with another transaction.
    /// The source is a [`DriverFault`](crate::DriverFault), which lacks the row that a constraint refused.
    ///
    /// ```
    /// use claviger_metastore::{MysqlMetastore, sqlx};
    ///
    /// assert!(MysqlMetastore::classify(sqlx::Error::PoolTimedOut).is_transient());
    /// assert!(!MysqlMetastore::classify(sqlx::Error::RowNotFound).is_transient());
    /// ```
    #[must_use]
    pub fn classify(error: sqlx::Error) -> BackendError {
        fault::backend_error(error, Doing::Asking)
    }

    /// Closes the connections, once calls under way have ended. Calls made later are refused.
    ///
    /// # Cancel safety
    /// Closing goes on.
    pub async fn close(&self) {
        self.connections.close().await;
    }

    async fn rewrite(
        &self,
        key: &KeyMeta,
        change: impl Fn(&EnvelopeKeyRecord) -> Option<EnvelopeKeyRecord> + Send + Sync + 'static,
    ) -> Result<Rewritten, BackendError> {
        check_id(key.id())?;
        let key = key.clone();
        let rewrite = self.connections.write(ADMIN_DEADLINE, move |session, layout| {
            Box::pin(async move {
                layout.check_id(key.id())?;
                let change = |record: &EnvelopeKeyRecord| {
                    change(record).map(|changed| layout.checked_json(&changed)).transpose()
                };
                statements::rewrite(session, &key, change).await
            })
        });
        rewrite.await
    }
}

impl fmt::Debug for MysqlMetastore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.connections.debug("MysqlMetastore", f)
    }
}

impl Metastore for MysqlMetastore {
    async fn load(
        &self,
        key: &KeyMeta,
        consistency: Consistency,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        check_id(key.id())?;
        let (key, folded_ids) = (key.clone(), self.connections.folded_ids);
        let load = self.connections.read_at(consistency, move |session, layout| {
            let key = key.clone();
            Box::pin(async move {
                layout.check_id(key.id())?;
                match statements::load(session, &key).await? {
                    None if layout.folds => statements::load_folded(session, &key, folded_ids).await,
                    found => Ok(found),
                }
            })
        });
        load.await
    }

    async fn load_latest(&self, id: &KeyId, up_to: Created) -> Result<Option<Latest>, BackendError> {
        check_id(id)?;
        let id = id.clone();
        let load = self.connections.read_at(Consistency::Strong, move |session, layout| {
            let id = id.clone();
            Box::pin(async move {
                layout.check_id(&id)?;
                statements::load_latest(session, &id, up_to, layout.is_zoned).await
            })
        });
        load.await
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        consistency: Consistency,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        keys.iter().try_for_each(|key| check_id(key.id()))?;
        let (keys, folded_ids): (Arc<[KeyMeta]>, _) = (keys.into(), self.connections.folded_ids);
        let load = self.connections.read_at(consistency, move |session, layout| {
            let keys = Arc::clone(&keys);
            Box::pin(async move {
                keys.iter().try_for_each(|key| layout.check_id(key.id()))?;
                let folded_ids = layout.folds.then_some(folded_ids);
                statements::load_many(session, &keys, folded_ids).await
            })
        });
        load.await
    }

    async fn load_latest_many(
        &self,
        ids: &[KeyId],
        up_to: Created,
    ) -> Result<Vec<Option<Latest>>, BackendError> {
        ids.iter().try_for_each(check_id)?;
        let ids: Arc<[KeyId]> = ids.into();
        let load = self.connections.read_at(Consistency::Strong, move |session, layout| {
            let ids = Arc::clone(&ids);
            Box::pin(async move {
                ids.iter().try_for_each(|id| layout.check_id(id))?;
                statements::load_latest_many(session, &ids, up_to, layout.is_zoned).await
            })
        });
        load.await
    }

    async fn insert(&self, record: &EnvelopeKeyRecord) -> Result<Insert, BackendError> {
        check_id(record.meta().id())?;
        checked_json(record)?;
        let record = record.clone();
        let insert = self.connections.write(self.connections.deadline, move |session, layout| {
            Box::pin(async move {
                layout.check_id(record.meta().id())?;
                let json = layout.checked_json(&record)?;
                if layout.is_strict {
                    statements::insert(session, record.meta(), &json).await
                } else {
                    statements::insert_looked_at(session, record.meta(), &json).await
                }
            })
        });
        insert.await
    }

    fn failovers(&self) -> u64 {
        self.connections.primary.failovers()
    }
}

impl MetastoreAdmin for MysqlMetastore {
    async fn list(&self, after: Option<&KeyMeta>, limit: usize) -> Result<Page, BackendError> {
        let after = after.cloned();
        let list = self.connections.read(ADMIN_DEADLINE, move |session, layout| {
            let after = after.clone();
            Box::pin(async move {
                after.iter().try_for_each(|after| layout.check_characters(after.id()))?;
                statements::list(session, after.as_ref(), limit).await
            })
        });
        list.await
    }

    async fn revoke(&self, key: &KeyMeta) -> Result<bool, BackendError> {
        Ok(self.rewrite(key, revoke).await? != Rewritten::NotFound)
    }

    async fn replace_wrapped_key(&self, key: &KeyMeta, old: &[u8], new: &[u8]) -> Result<bool, BackendError> {
        Ok(self.rewrite(key, replace_wrapped_key(old, new)).await? == Rewritten::Changed)
    }

    async fn delete(&self, id: &KeyId) -> Result<u64, BackendError> {
        check_id(id)?;
        let id = id.clone();
        let delete = self.connections.write(ADMIN_DEADLINE, move |session, layout| {
            Box::pin(async move {
                layout.check_id(&id)?;
                statements::delete(session, &id).await
            })
        });
        delete.await
    }

    async fn count(&self) -> Result<u64, BackendError> {
        self.connections.read(COUNT_DEADLINE, |session, _| Box::pin(statements::count(session))).await
    }
}
