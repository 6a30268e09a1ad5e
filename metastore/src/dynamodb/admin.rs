//! What operators do.

use claviger::{BackendError, Consistency, DamagedRow, KeyId, KeyMeta, MetastoreAdmin, Page, is_reserved_id};

use crate::dynamodb::DynamoDbMetastore;
use crate::dynamodb::fault::CONDITION_FAILED;
use crate::dynamodb::item::{self, check_id, encode_key};
use crate::dynamodb::requests::{Answer, Items, start_after};
use crate::task::to_its_end;

impl MetastoreAdmin for DynamoDbMetastore {
    /// Scans the table, consistently, on from the key version: pages cost what they hold. Ids come in
    /// the order of DynamoDB's hash.
    async fn list(&self, after: Option<&KeyMeta>, limit: usize) -> Result<Page, BackendError> {
        let mut page = Page::default();
        let mut from = after.map(start_after);
        loop {
            let room = limit - page.records.len() - page.damaged.len();
            if room == 0 {
                page.next = from.as_ref().filter(|_| limit > 0).map(resume_at);
                return Ok(page);
            }
            let scan_max = i32::try_from(room).unwrap_or(i32::MAX);
            let Items { items, next } = self.scan(from, scan_max, Consistency::Strong).await??;
            for item in items.iter().filter(|item| !is_reserved_id(item::read_id(item).as_str())) {
                match item::read(item) {
                    Ok(record) => page.records.push(record),
                    Err(fault) => {
                        let created = item::read_meta(item).ok().map(|meta| meta.created());
                        page.damaged.push(DamagedRow::new(item::read_id(item), created, fault.into()));
                    }
                }
            }
            if next.is_none() {
                return Ok(page);
            }
            from = next;
        }
    }

    async fn revoke(&self, key: &KeyMeta) -> Result<bool, BackendError> {
        check_id(key.id())?;
        unless_condition_failed(self.set_revoked(key).await)
    }

    async fn replace_wrapped_key(&self, key: &KeyMeta, old: &[u8], new: &[u8]) -> Result<bool, BackendError> {
        check_id(key.id())?;
        let new = encode_key(new)?;
        let old = base64_simd::STANDARD.encode_to_string(old);
        unless_condition_failed(self.set_wrapped_key(key, old, new).await)
    }

    /// Deletes one version after the other, the oldest first. Each is deleted whole or not at all; all
    /// of them together are not one transaction. A caller that goes away leaves the work to its end; a
    /// process that dies leaves the newer versions, and the call can be made again.
    async fn delete(&self, id: &KeyId) -> Result<u64, BackendError> {
        check_id(id)?;
        let (store, id) = (self.clone(), id.clone());
        to_its_end(async move {
            let (mut deleted, mut from) = (0, None);
            loop {
                let Items { items, next } = store.query_versions(&id, from).await??;
                for key in items {
                    deleted += u64::from(store.delete_item(key).await??);
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
    async fn count(&self) -> Result<u64, BackendError> {
        let (mut count, mut from) = (0, None);
        loop {
            let (counted, next) = self.scan_count(from).await??;
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
