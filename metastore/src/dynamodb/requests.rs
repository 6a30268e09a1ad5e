//! The requests, one function each, and how they are sent.

use std::error::Error;
use std::pin::Pin;
use std::time::Duration;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, ReturnValue, Select};
use claviger::{BackendError, CallContext, Consistency, Created, KeyId, KeyMeta};
use tokio::task::JoinSet;

use crate::dynamodb::DynamoDbMetastore;
use crate::dynamodb::fault::{DynamoDbError, DynamoDbFault};
use crate::dynamodb::item::{self, CREATED, Item, KEY_RECORD, PARENT, REVOKED, WRAPPED_KEY};
use crate::task::runtime;

/// The answer of DynamoDB, or its refusal; no answer is an error of its own.
pub(super) type Answer<T> = Result<Result<T, DynamoDbError>, BackendError>;

/// When a request is given up for which nobody waits any more. Longer than credentials may take to come.
const REQUEST_MAX: Duration = Duration::from_secs(12);

/// Sends a request and waits for its answer until the deadline.
///
/// A caller that goes away takes the request along. One whose time is up leaves it to its end:
/// the credentials that it may be waiting for then arrive for later calls.
pub(super) fn send<T, E>(
    context: CallContext,
    request: impl Future<Output = Result<T, SdkError<E>>> + Send + 'static,
) -> impl Future<Output = Answer<T>> + Send
where
    T: Send + 'static,
    E: ProvideErrorMetadata + Error + Send + 'static,
{
    // The SDK's futures nest so deeply that a few around them exceed the compiler's limit.
    let request: Pin<Box<dyn Future<Output = Result<T, SdkError<E>>> + Send>> = Box::pin(request);
    async move {
        let runtime = runtime()?;
        let mut task = JoinSet::new();
        let request_max = REQUEST_MAX.max(context.remaining());
        task.spawn_on(tokio::time::timeout(request_max, request), &runtime);
        let within = context.remaining();
        let Ok(Some(answer)) = tokio::time::timeout_at(context.deadline, task.join_next()).await else {
            task.detach_all();
            return Err(DynamoDbFault::NoAnswer(within).into());
        };
        // Transient: the task ends early only when its runtime shuts down, or by a panic of the SDK.
        let answer = answer.map_err(BackendError::transient)?;
        let answer = answer.map_err(|_elapsed| BackendError::from(DynamoDbFault::NoAnswer(request_max)))?;
        Ok(answer.map_err(|error| DynamoDbError::new(&error)))
    }
}

/// A page of a query or a scan, and where the next one begins.
pub(super) struct Items {
    pub(super) items: Vec<Item>,
    pub(super) next: Option<Item>,
}

impl DynamoDbMetastore {
    /// GetItem.
    pub(super) async fn get(&self, context: CallContext, key: &KeyMeta) -> Answer<Option<Item>> {
        let request = self.client.get_item().table_name(&*self.table).set_key(Some(item::key(key)));
        let request = request.consistent_read(is_strong(context.consistency));
        Ok(send(context, request.send()).await?.map(|answer| answer.item))
    }

    /// Query, the newest version up to a time and the one before it.
    pub(super) async fn query_latest(
        &self,
        context: CallContext,
        id: &KeyId,
        up_to: Created,
    ) -> Answer<Vec<Item>> {
        let request = self.client.query().table_name(&*self.table).consistent_read(true);
        let request =
            request.expression_attribute_values(":id", item::text(id)).scan_index_forward(false).limit(2);
        let request = if up_to == Created::MAX {
            request.key_condition_expression("Id = :id")
        } else {
            request
                .key_condition_expression("Id = :id AND Created <= :up_to")
                .expression_attribute_values(":up_to", item::number(up_to))
        };
        let answer = send(context, request.send()).await?;
        Ok(answer.map(|answer| answer.items.unwrap_or_default()))
    }

    /// Query, the primary keys of all versions, the oldest first.
    pub(super) async fn query_versions(
        &self,
        context: CallContext,
        id: &KeyId,
        from: Option<Item>,
    ) -> Answer<Items> {
        let request = self.client.query().table_name(&*self.table).consistent_read(true);
        let request = request
            .key_condition_expression("Id = :id")
            .expression_attribute_values(":id", item::text(id))
            .projection_expression("Id, Created")
            .set_exclusive_start_key(from);
        let answer = send(context, request.send()).await?;
        Ok(answer
            .map(|answer| Items { items: answer.items.unwrap_or_default(), next: answer.last_evaluated_key }))
    }

    /// BatchGetItem of at most [`BATCH_MAX`] keys: what was found, and the keys it did not get to.
    pub(super) async fn batch_get(
        &self,
        context: CallContext,
        keys: Vec<Item>,
    ) -> Answer<(Vec<Item>, Vec<Item>)> {
        let keys =
            KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(is_strong(context.consistency));
        let keys = keys.build().map_err(BackendError::permanent)?;
        let request = self.client.batch_get_item().request_items(&*self.table, keys);
        Ok(send(context, request.send()).await?.map(|answer| {
            let found = answer.responses.unwrap_or_default().into_values().flatten().collect();
            let left = answer.unprocessed_keys.unwrap_or_default().into_values();
            (found, left.flat_map(|keys| keys.keys).collect())
        }))
    }

    /// PutItem, unless the primary key is taken: the condition looks at that item alone.
    pub(super) async fn put_new(&self, context: CallContext, new: Item) -> Answer<()> {
        self.put_if(context, new, "attribute_not_exists(Id)").await
    }

    /// PutItem on a condition.
    pub(super) async fn put_if(&self, context: CallContext, new: Item, condition: &str) -> Answer<()> {
        let request = self.client.put_item().table_name(&*self.table).set_item(Some(new));
        let request = request.condition_expression(condition);
        Ok(send(context, request.send()).await?.map(|_answer| ()))
    }

    /// UpdateItem: sets the revoked flag of an item that is there.
    pub(super) async fn set_revoked(&self, context: CallContext, key: &KeyMeta) -> Answer<()> {
        let request = self.client.update_item().table_name(&*self.table).set_key(Some(item::key(key)));
        let request = request
            .update_expression("SET #record.#revoked = :true")
            .condition_expression("attribute_exists(Id)")
            .expression_attribute_names("#record", KEY_RECORD)
            .expression_attribute_names("#revoked", REVOKED)
            .expression_attribute_values(":true", AttributeValue::Bool(true));
        Ok(send(context, request.send()).await?.map(|_answer| ()))
    }

    /// UpdateItem: replaces the text of the wrapped key if it is still the old one, and its parent if one is given.
    pub(super) async fn set_wrapped_key(
        &self,
        context: CallContext,
        key: &KeyMeta,
        [old, new]: [String; 2],
        parent: Option<&KeyMeta>,
    ) -> Answer<()> {
        let request = self.client.update_item().table_name(&*self.table).set_key(Some(item::key(key)));
        let request = request
            .condition_expression("#record.#key = :old")
            .expression_attribute_names("#record", KEY_RECORD)
            .expression_attribute_names("#key", WRAPPED_KEY)
            .expression_attribute_values(":old", AttributeValue::S(old))
            .expression_attribute_values(":new", AttributeValue::S(new));
        let request = match parent {
            None => request.update_expression("SET #record.#key = :new"),
            Some(parent) => request
                .update_expression("SET #record.#key = :new, #record.#parent = :parent")
                .expression_attribute_names("#parent", PARENT)
                .expression_attribute_values(":parent", item::parent(parent)),
        };
        Ok(send(context, request.send()).await?.map(|_answer| ()))
    }

    /// DeleteItem; tells whether there was one.
    pub(super) async fn delete_item(&self, context: CallContext, key: Item) -> Answer<bool> {
        let request = self.client.delete_item().table_name(&*self.table).set_key(Some(key));
        let request = request.return_values(ReturnValue::AllOld);
        Ok(send(context, request.send()).await?.map(|answer| answer.attributes.is_some()))
    }

    /// Scan of at most `limit` items, on from an exclusive start; with a prefix, of a mebibyte of items, those left
    /// out whose id does not begin with it.
    pub(super) async fn scan(
        &self,
        context: CallContext,
        prefix: &str,
        from: Option<Item>,
        limit: i32,
    ) -> Answer<Items> {
        let request = self.client.scan().table_name(&*self.table);
        let request = request.consistent_read(is_strong(context.consistency)).set_exclusive_start_key(from);
        let request = if prefix.is_empty() {
            request.limit(limit)
        } else {
            request
                .filter_expression("begins_with(Id, :prefix)")
                .expression_attribute_values(":prefix", AttributeValue::S(prefix.to_owned()))
        };
        let answer = send(context, request.send()).await?;
        Ok(answer
            .map(|answer| Items { items: answer.items.unwrap_or_default(), next: answer.last_evaluated_key }))
    }

    /// Scan that counts a mebibyte of items, those that are no keys left out.
    pub(super) async fn scan_count(
        &self,
        context: CallContext,
        from: Option<Item>,
    ) -> Answer<(u64, Option<Item>)> {
        let request = self.client.scan().table_name(&*self.table).consistent_read(true);
        let request = request
            .select(Select::Count)
            .filter_expression("NOT begins_with(Id, :reserved)")
            .expression_attribute_values(":reserved", AttributeValue::S(RESERVED.to_owned()))
            .set_exclusive_start_key(from);
        let answer = send(context, request.send()).await?;
        Ok(answer.map(|answer| (u64::try_from(answer.count).unwrap_or_default(), answer.last_evaluated_key)))
    }
}

/// How many keys one BatchGetItem takes.
pub(super) const BATCH_MAX: usize = 100;

/// What ids begin with that are no keys' ([`claviger::backend::is_reserved_id`]).
pub(super) const RESERVED: &str = "__asherah_internal_";

const fn is_strong(consistency: Consistency) -> bool {
    matches!(consistency, Consistency::Strong)
}

/// Where a scan goes on after a key version. A creation time past the last one there is may stand in a
/// damaged item: those are stepped over together, or the scan would never pass them.
pub(super) fn start_after(key: &KeyMeta) -> Item {
    let mut start = item::key(key);
    if key.created() == Created::MAX {
        start.insert(CREATED.to_owned(), AttributeValue::N(NUMBER_MAX.to_owned()));
    }
    start
}

/// The greatest number that DynamoDB knows.
const NUMBER_MAX: &str = "9.9999999999999999999999999999999999999E+125";
