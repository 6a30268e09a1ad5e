//! Keys in an Amazon DynamoDB table.

mod admin;
mod bulk;
mod check;
pub(crate) mod client;
mod create;
mod fault;
mod item;
mod requests;

use std::fmt;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use claviger::{
    BackendError, CallContext, Created, EnvelopeKeyRecord, Insert, KeyId, KeyMeta, Latest, Metastore,
};

pub use crate::dynamodb::fault::{DynamoDbError, DynamoDbFault};

use crate::dynamodb::fault::CONDITION_FAILED;
use crate::dynamodb::item::{Item, check_id};

/// Keeps key records in an Amazon DynamoDB table, as Asherah does, so that both can work on it.
///
/// The table's hash key is `Id` (text) and its range key `Created` (a number, in Unix seconds); the
/// rest of a record is the map `KeyRecord`. These are the requests:
///
/// | call | request |
/// |---|---|
/// | `load` | `GetItem`, with `ConsistentRead` unless a replica may answer |
/// | `load_latest` | `Query` `Id = :id AND Created <= :up_to`, backwards, `Limit` 2, `ConsistentRead` |
/// | `load_many` | `BatchGetItem` of 100 keys, 8 at once; what is left undone is asked for again |
/// | `load_latest_many` | the `Query` of `load_latest`, 8 at once |
/// | `insert` | `PutItem` if `attribute_not_exists(Id)` |
/// | `list`, `count` | `Scan`, `ConsistentRead`; `count` with `Select` `COUNT` |
/// | `revoke` | `UpdateItem` `SET KeyRecord.Revoked = :true` if `attribute_exists(Id)` |
/// | `replace_wrapped_key` | `UpdateItem` `SET KeyRecord.Key = :new` if `KeyRecord.Key = :old` |
/// | `delete` | the `Query`, then `DeleteItem` for each version |
///
/// A service needs `dynamodb:GetItem`, `Query`, `PutItem` and `BatchGetItem`; `DescribeTable`,
/// `DescribeTimeToLive` and `DescribeContinuousBackups` for the start-up check; operators also `Scan`,
/// `UpdateItem` and `DeleteItem`.
///
/// Key ids have 1 to 2 048 bytes and no NUL, wrapped keys at most 64 KiB of base64; others are refused with a
/// permanent error before DynamoDB is asked. An item with a longer one is damaged.
///
/// # Global tables
/// A consistent read sees what was written in its own region, and the condition of an insert is
/// decided there. Of two regions that create the same key at the same time both succeed, and later
/// one's record is overwritten by the other's: what was encrypted under it is lost. So each region
/// writes ids of its own. Set `region_suffix` of the `SessionFactory` to the region's name, as all
/// Asherahs do: ids then end in it, and every region still reads the keys of all others. A
/// table with strong consistency across regions does not need it.
///
/// # Retries and time
/// The core retries, so the SDK does not: a client made by the caller is copied with its retries
/// switched off. Each call is answered within 1.8 seconds, or is a transient error; throttling is
/// one. A call that is dropped closes its connection: a write that was on its way has happened or not.
///
/// HTTPS is rustls with ring and the system's certificates. A proxy, or credentials by SSO, need a
/// client made by the caller.
///
/// ```no_run
/// use claviger_metastore::DynamoDbMetastore;
///
/// # async fn example() -> Result<(), claviger::BackendError> {
/// let metastore = DynamoDbMetastore::builder().table("EncryptionKey").region("eu-central-1").open().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct DynamoDbMetastore {
    client: Client,
    table: Arc<str>,
}

impl DynamoDbMetastore {
    /// Uses the table with region and credentials from where every AWS program has them, after a look
    /// at it.
    ///
    /// # Errors
    /// As [`DynamoDbBuilder::open`](crate::DynamoDbBuilder::open).
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn open(table: impl Into<String>) -> Result<Self, BackendError> {
        Self::builder().table(table).open().await
    }

    /// Makes the table if it is not there, as [`DynamoDbBuilder::migrate`](crate::DynamoDbBuilder::migrate) does, and opens the store as
    /// [`open`](Self::open) does: for installing.
    ///
    /// ```no_run
    /// use claviger_metastore::DynamoDbMetastore;
    ///
    /// # async fn example() -> Result<(), claviger::BackendError> {
    /// // Once, with the right to make tables; again it does no harm.
    /// DynamoDbMetastore::migrate("EncryptionKey").await?;
    /// // From then on.
    /// let metastore = DynamoDbMetastore::open("EncryptionKey").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`DynamoDbBuilder::open`](crate::DynamoDbBuilder::open); permanent when the table may not be made, transient when it was not
    /// ready within a minute.
    ///
    /// # Cancel safety
    /// Making the table goes on to its end.
    pub async fn migrate(table: impl Into<String>) -> Result<Self, BackendError> {
        Self::builder().table(table).migrate().open().await
    }

    /// Uses the table with a client made by the caller, after a look at it.
    ///
    /// # Errors
    /// As [`DynamoDbBuilder::open_with`](crate::DynamoDbBuilder::open_with).
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn new(client: Client, table: impl Into<String>) -> Result<Self, BackendError> {
        Self::builder().table(table).open_with(client).await
    }

    async fn latest(
        &self,
        context: CallContext,
        id: &KeyId,
        up_to: Created,
    ) -> Result<Option<Latest>, BackendError> {
        let items = self.query_latest(context, id, up_to).await??;
        let is_asked = |record: &EnvelopeKeyRecord| record.meta().id() == id;
        let [latest, earlier] = [items.first(), items.get(1)].map(|item| item.map(item::read));
        match latest.transpose()? {
            Some(record) if is_asked(&record) => {
                let earlier = earlier.and_then(Result::ok).filter(is_asked);
                Ok(Some(Latest::new(record, earlier)))
            }
            Some(record) => Err(DynamoDbFault::OtherItem(record.meta().clone()).into()),
            None => Ok(None),
        }
    }
}

impl fmt::Debug for DynamoDbMetastore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDbMetastore").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Metastore for DynamoDbMetastore {
    async fn load(
        &self,
        key: &KeyMeta,
        context: &CallContext,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        check_id(key.id())?;
        let item = self.get(*context, key).await??;
        let record = item.as_ref().map(item::read).transpose()?;
        match record {
            Some(record) if record.meta() != key => {
                Err(DynamoDbFault::OtherItem(record.meta().clone()).into())
            }
            record => Ok(record),
        }
    }

    async fn load_latest(
        &self,
        id: &KeyId,
        up_to: Created,
        context: &CallContext,
    ) -> Result<Option<Latest>, BackendError> {
        check_id(id)?;
        self.latest(*context, id, up_to).await
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        context: &CallContext,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        keys.iter().try_for_each(|key| check_id(key.id()))?;
        let records = self.load_batches(*context, keys).await?;
        Ok(keys.iter().map(|key| records.get(key).cloned()).collect())
    }

    async fn load_latest_many(
        &self,
        ids: &[KeyId],
        up_to: Created,
        context: &CallContext,
    ) -> Result<Vec<Option<Latest>>, BackendError> {
        ids.iter().try_for_each(check_id)?;
        let found = self.load_latest_each(*context, ids, up_to).await?;
        Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
    }

    async fn insert(
        &self,
        record: &EnvelopeKeyRecord,
        context: &CallContext,
    ) -> Result<Insert, BackendError> {
        let new: Item = item::write(record)?;
        match self.put_new(*context, new).await? {
            Ok(()) => Ok(Insert::Inserted),
            Err(error) if error.is(CONDITION_FAILED) => Ok(Insert::AlreadyExists),
            Err(error) => Err(error.into()),
        }
    }

    fn failovers(&self) -> u64 {
        0
    }
}
