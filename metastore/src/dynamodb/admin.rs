//! What operators do.

use claviger::backend::{DamagedRow, is_reserved_id};
use claviger::{BackendError, CallContext, KeyId, KeyMeta, MetastoreAdmin, Page, Replacement};
use tokio::time::Instant;

use crate::dynamodb::DynamoDbMetastore;
use crate::dynamodb::fault::CONDITION_FAILED;
use crate::dynamodb::item::{self, check_id, encode_key};
use crate::dynamodb::requests::{Answer, Items, start_after};
use crate::task::to_its_end;

impl MetastoreAdmin for DynamoDbMetastore {
    /// Scans the table, consistently, on from the key version: pages cost what they hold. Ids come in
    /// the order of DynamoDB's hash, so that a prefix is looked for in all of the table: a page of it ends when half
    /// of the time is over, with however little it has.
    async fn list(
        &self,
        prefix: &str,
        after: Option<&KeyMeta>,
        limit: usize,
        context: &CallContext,
    ) -> Result<Page, BackendError> {
        let half = context.share(2).deadline;
        let mut page = Page::default();
        let mut from = after.map(start_after);
        loop {
            let room = limit - page.records.len() - page.damaged.len();
            if room == 0 || !prefix.is_empty() && Instant::now() >= half {
                page.next = from.as_ref().filter(|_| limit > 0).map(resume_at);
                return Ok(page);
            }
            let scan_max = i32::try_from(room).unwrap_or(i32::MAX);
            let Items { items, next } = self.scan(*context, prefix, from, scan_max).await??;
            let is_key = |item: &&item::Item| !is_reserved_id(item::read_id(item).as_str());
            let mut last = None;
            for item in items.iter().filter(is_key).take(room) {
                last = Some(item);
                match item::read(item) {
                    Ok(record) => page.records.push(record),
                    Err(fault) => {
                        let created = item::read_meta(item).ok().map(|meta| meta.created());
                        page.damaged.push(DamagedRow::new(item::read_id(item), created, fault.into()));
                    }
                }
            }
            // With a prefix there may have been more than there was room for.
            let is_cut = items.iter().filter(is_key).count() > room;
            if is_cut {
                page.next = last.map(resume_at);
                return Ok(page);
            }
            if next.is_none() {
                return Ok(page);
            }
            from = next;
        }
    }

    async fn revoke(&self, key: &KeyMeta, context: &CallContext) -> Result<bool, BackendError> {
        check_id(key.id())?;
        unless_condition_failed(self.set_revoked(*context, key).await)
    }

    async fn replace_many(
        &self,
        replacements: &[Replacement],
        context: &CallContext,
    ) -> Result<Vec<bool>, BackendError> {
        replacements.iter().try_for_each(|replacement| check_id(replacement.key.id()))?;
        let mut replaced = Vec::with_capacity(replacements.len());
        for Replacement { key, old, new, parent, .. } in replacements {
            let texts = [base64_simd::STANDARD.encode_to_string(old), encode_key(new)?];
            let answer = self.set_wrapped_key(*context, key, texts, parent.as_ref()).await;
            replaced.push(unless_condition_failed(answer)?);
        }
        Ok(replaced)
    }

    async fn delete_version(&self, key: &KeyMeta, context: &CallContext) -> Result<bool, BackendError> {
        check_id(key.id())?;
        Ok(self.delete_item(*context, item::key(key)).await??)
    }

    /// Deletes one version after the other, the oldest first. Each is deleted whole or not at all; all
    /// of them together are not one transaction. A caller that goes away leaves the work to its end; a
    /// process that dies leaves the newer versions, and the call can be made again.
    async fn delete(&self, id: &KeyId, context: &CallContext) -> Result<u64, BackendError> {
        check_id(id)?;
        let (store, id, context) = (self.clone(), id.clone(), *context);
        to_its_end(async move {
            let (mut deleted, mut from) = (0, None);
            loop {
                let Items { items, next } = store.query_versions(context, &id, from).await??;
                for key in items {
                    deleted += u64::from(store.delete_item(context, key).await??);
                }
                if next.is_none() {
                    return Ok(deleted);
                }
                from = next;
            }
        })
        .await
    }

    /// Scans the whole table: it reads, and is billed for, every item, at one read unit per 4 KiB.
    /// DynamoDB's own count of items is six hours old and not used.
    async fn count(&self, context: &CallContext) -> Result<u64, BackendError> {
        let (mut count, mut from) = (0, None);
        loop {
            let (counted, next) = self.scan_count(*context, from).await??;
            count += counted;
            if next.is_none() {
                return Ok(count);
            }
            from = next;
        }
    }
}

/// Returns `true` if a conditional write took place.
fn unless_condition_failed(answer: Answer<()>) -> Result<bool, BackendError> {
    match answer? {
        Ok(()) => Ok(true),
        Err(error) if error.is(CONDITION_FAILED) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Names the key version after which a scan goes on. One whose creation time is none is taken up to
/// the next time there is: stepping back would list it again for ever.
fn resume_at(last: &item::Item) -> KeyMeta {
    item::read_meta(last).unwrap_or_else(|_| KeyMeta::new(item::read_id(last), item::ceil_created(last)))
}
