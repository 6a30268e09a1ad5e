//! A metastore and a KMS that fail on command.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use claviger_memory::LockPolicy;
use tokio::sync::watch;

use crate::context::CallContext;
use crate::error::{BackendError, FailureClass, FailureKind};
use crate::kms::{KeyManagementService, WrapHealth, WrappedKey};
use crate::metastore::{DamagedRow, Insert, Latest, Metastore, MetastoreAdmin, Page, Replacement};
use crate::record::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};
use crate::secret::SecretKey;
use crate::testing::fakes::lock;
use crate::testing::kms::{Outage, Trouble};

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The call fails and nothing is done.
    Fail(FailureClass),
    /// The call is refused for good, as this kind of failure, and nothing is done.
    Refuse(FailureKind),
    /// The work is done, then the call fails: the reply was lost.
    LoseReply(FailureClass),
    /// The call waits until [`Faults::release`], then goes on.
    Hang,
    /// The work is done, then the reply waits until [`Faults::release`].
    HangReply,
    /// The call waits this long by tokio's clock, then goes on.
    Delay(Duration),
}

/// A method of a metastore or a KMS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is named after its method")]
pub enum Operation {
    Load,
    LoadLatest,
    LoadMany,
    LoadLatestMany,
    Insert,
    List,
    Revoke,
    ReplaceMany,
    DeleteVersion,
    Delete,
    Count,
    WrapKey,
    UnwrapKey,
    Inspect,
}

/// One call that was made, whatever became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// The method that was called.
    pub operation: Operation,
    /// The key id or version it was called for, as text; empty if it was for none.
    pub key: String,
}

/// The script of a [`FaultyMetastore`] or [`FaultyKms`], and the log of what it was asked.
///
/// Its clones are one script, so a test keeps one. Of the rules that fit a call the first here
/// counts: its number ([`at`](Self::at)), its method's queue ([`next`](Self::next)), what holds
/// for the method or for all ([`always_for`](Self::always_for), [`always`](Self::always)).
#[derive(Clone, Default)]
pub struct Faults(Arc<Shared>);

#[derive(Default)]
struct Shared {
    script: Mutex<Script>,
    /// Counts the releases; a hanging call waits for the next one.
    released: watch::Sender<u64>,
    hanging: watch::Sender<usize>,
    failovers: AtomicU64,
}

#[derive(Debug, Default)]
struct Script {
    log: Vec<Call>,
    at: Vec<(u64, Fault)>,
    queue: VecDeque<(Operation, Fault)>,
    always_for: Vec<(Operation, Fault)>,
    always: Option<Fault>,
}

impl Faults {
    /// A script in which nothing goes wrong.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes call number `n` go wrong, counted over all methods from 1 since the last
    /// [`reset`](Self::reset).
    pub fn at(&self, n: u64, fault: Fault) {
        lock(&self.0.script).at.push((n, fault));
    }

    /// Makes the next call of `operation` go wrong; said twice, the next two.
    pub fn next(&self, operation: Operation, fault: Fault) {
        lock(&self.0.script).queue.push_back((operation, fault));
    }

    /// Makes every call of `operation` go wrong from now on.
    pub fn always_for(&self, operation: Operation, fault: Fault) {
        lock(&self.0.script).always_for.insert(0, (operation, fault));
    }

    /// Makes every call go wrong from now on: an outage.
    pub fn always(&self, fault: Fault) {
        lock(&self.0.script).always = Some(fault);
    }

    /// Lets the calls that hang go on.
    pub fn release(&self) {
        self.0.released.send_modify(|releases| *releases += 1);
    }

    /// Ends all faults, and lets the calls that hang go on. The log stays.
    pub fn heal(&self) {
        let mut script = lock(&self.0.script);
        *script = Script { log: std::mem::take(&mut script.log), ..Script::default() };
        drop(script);
        self.release();
    }

    /// Heals, and counts calls from 1 again.
    pub fn reset(&self) {
        self.heal();
        lock(&self.0.script).log.clear();
    }

    /// Makes a metastore say, from its next call on, that it came to another server. What is missing there
    /// the test deletes.
    pub fn fail_over(&self) {
        self.0.failovers.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until at least `calls` calls hang.
    pub async fn until_hanging(&self, calls: usize) {
        let mut hanging = self.0.hanging.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        drop(hanging.wait_for(|now| *now >= calls).await);
    }

    /// Returns how many calls hang now.
    #[must_use]
    pub fn hanging(&self) -> usize {
        *self.0.hanging.borrow()
    }

    /// Returns how many calls were made since the last reset.
    #[must_use]
    pub fn calls(&self) -> usize {
        lock(&self.0.script).log.len()
    }

    /// Returns how many calls of `operation` were made since the last reset.
    #[must_use]
    pub fn calls_of(&self, operation: Operation) -> usize {
        lock(&self.0.script).log.iter().filter(|call| call.operation == operation).count()
    }

    /// Returns the calls made since the last reset, in order.
    #[must_use]
    pub fn log(&self) -> Vec<Call> {
        lock(&self.0.script).log.clone()
    }

    /// Makes the call `work`, with what goes wrong around it.
    async fn run<T>(
        &self,
        operation: Operation,
        key: &(impl fmt::Display + ?Sized),
        work: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let fault = lock(&self.0.script).record(Call { operation, key: key.to_string() });
        match fault {
            None => work.await,
            Some(Fault::Fail(class)) => Err(injected(class)),
            Some(Fault::Refuse(kind)) => Err(injected(FailureClass::Permanent).with_kind(kind)),
            Some(Fault::LoseReply(class)) => match work.await {
                Ok(_) => Err(injected(class)),
                Err(error) => Err(error),
            },
            Some(Fault::Hang) => {
                self.hang().await;
                work.await
            }
            Some(Fault::HangReply) => {
                let reply = work.await;
                self.hang().await;
                reply
            }
            Some(Fault::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                work.await
            }
        }
    }

    /// Makes a call that asks nobody: it fails or not, and cannot hang.
    fn run_now<T>(
        &self,
        operation: Operation,
        work: impl FnOnce() -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let fault = lock(&self.0.script).record(Call { operation, key: String::new() });
        match fault {
            Some(Fault::Fail(class) | Fault::LoseReply(class)) => Err(injected(class)),
            Some(Fault::Refuse(kind)) => Err(injected(FailureClass::Permanent).with_kind(kind)),
            None | Some(Fault::Hang | Fault::HangReply | Fault::Delay(_)) => work(),
        }
    }

    async fn hang(&self) {
        // Subscribed before it is counted: a release that follows `until_hanging` is never missed.
        let mut released = self.0.released.subscribe();
        let _hanging = Hanging::new(&self.0.hanging);
        drop(released.changed().await);
    }
}

impl Outage for Faults {
    async fn begin(&self, trouble: Trouble) {
        self.always(match trouble {
            Trouble::OutOfReach => Fault::Fail(FailureClass::Transient),
            Trouble::Hanging => Fault::Hang,
            Trouble::Slow => Fault::Delay(Duration::from_millis(20)),
        });
    }

    async fn end(&self) {
        self.heal();
    }
}

impl Script {
    fn record(&mut self, call: Call) -> Option<Fault> {
        let operation = call.operation;
        self.log.push(call);
        let number = self.log.len() as u64;
        if let Some((_, fault)) = self.at.iter().find(|(n, _)| *n == number) {
            return Some(*fault);
        }
        if let Some(place) = self.queue.iter().position(|(queued, _)| *queued == operation) {
            return self.queue.remove(place).map(|(_, fault)| fault);
        }
        let for_operation = self.always_for.iter().find(|(faulty, _)| *faulty == operation);
        for_operation.map(|(_, fault)| *fault).or(self.always)
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("calls", &self.calls()).finish_non_exhaustive()
    }
}

/// Counts a call that hangs, also when it is dropped.
struct Hanging<'a>(&'a watch::Sender<usize>);

impl<'a> Hanging<'a> {
    fn new(counter: &'a watch::Sender<usize>) -> Self {
        counter.send_modify(|hanging| *hanging += 1);
        Self(counter)
    }
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|hanging| *hanging -= 1);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("injected fault")]
struct InjectedFault;

fn injected(class: FailureClass) -> BackendError {
    match class {
        FailureClass::Transient => BackendError::transient(InjectedFault),
        FailureClass::Permanent => BackendError::permanent(InjectedFault),
        FailureClass::Damaged => BackendError::damaged(InjectedFault),
        FailureClass::Folded => BackendError::folded(InjectedFault),
    }
}

/// A metastore that fails on command. Its clones share the store and the script.
#[derive(Debug)]
pub struct FaultyMetastore<M> {
    inner: Arc<M>,
    faults: Faults,
    damaged: Arc<Mutex<Vec<DamagedRow>>>,
}

impl<M> FaultyMetastore<M> {
    /// Wraps `inner`; nothing goes wrong until [`faults`](Self::faults) is told so.
    pub fn new(inner: M) -> Self {
        Self { inner: Arc::new(inner), faults: Faults::new(), damaged: Arc::default() }
    }

    /// Returns the script.
    #[must_use]
    pub const fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Lists this row, too, on every page from now on.
    pub fn show_damaged(&self, row: DamagedRow) {
        lock(&self.damaged).push(row);
    }

    /// Returns the store behind, which never fails on command.
    #[must_use]
    pub fn inner(&self) -> &M {
        &self.inner
    }
}

impl<M> Clone for FaultyMetastore<M> {
    fn clone(&self) -> Self {
        let damaged = Arc::clone(&self.damaged);
        Self { inner: Arc::clone(&self.inner), faults: self.faults.clone(), damaged }
    }
}

impl<M: Metastore> Metastore for FaultyMetastore<M> {
    async fn load(
        &self,
        key: &KeyMeta,
        context: &CallContext,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        self.faults.run(Operation::Load, key, self.inner.load(key, context)).await
    }

    async fn load_latest(
        &self,
        id: &KeyId,
        up_to: Created,
        context: &CallContext,
    ) -> Result<Option<Latest>, BackendError> {
        self.faults.run(Operation::LoadLatest, id, self.inner.load_latest(id, up_to, context)).await
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        context: &CallContext,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let work = self.inner.load_many(keys, context);
        self.faults.run(Operation::LoadMany, &names.join(" "), work).await
    }

    async fn load_latest_many(
        &self,
        ids: &[KeyId],
        up_to: Created,
        context: &CallContext,
    ) -> Result<Vec<Option<Latest>>, BackendError> {
        let names: Vec<&str> = ids.iter().map(KeyId::as_str).collect();
        let work = self.inner.load_latest_many(ids, up_to, context);
        self.faults.run(Operation::LoadLatestMany, &names.join(" "), work).await
    }

    async fn insert(
        &self,
        record: &EnvelopeKeyRecord,
        context: &CallContext,
    ) -> Result<Insert, BackendError> {
        self.faults.run(Operation::Insert, record.meta(), self.inner.insert(record, context)).await
    }

    fn failovers(&self) -> u64 {
        self.inner.failovers().saturating_add(self.faults.0.failovers.load(Ordering::Relaxed))
    }
}

impl<M: MetastoreAdmin> MetastoreAdmin for FaultyMetastore<M> {
    async fn list(
        &self,
        prefix: &str,
        after: Option<&KeyMeta>,
        limit: usize,
        context: &CallContext,
    ) -> Result<Page, BackendError> {
        let from = after.map(ToString::to_string).unwrap_or_default();
        let listed = self.inner.list(prefix, after, limit, context);
        let mut page = self.faults.run(Operation::List, &from, listed).await?;
        page.damaged.extend(lock(&self.damaged).iter().cloned());
        Ok(page)
    }

    async fn revoke(&self, key: &KeyMeta, context: &CallContext) -> Result<bool, BackendError> {
        self.faults.run(Operation::Revoke, key, self.inner.revoke(key, context)).await
    }

    async fn replace_many(
        &self,
        replacements: &[Replacement],
        context: &CallContext,
    ) -> Result<Vec<bool>, BackendError> {
        let names: Vec<String> = replacements.iter().map(|replacement| replacement.key.to_string()).collect();
        let work = self.inner.replace_many(replacements, context);
        self.faults.run(Operation::ReplaceMany, &names.join(" "), work).await
    }

    async fn delete_version(&self, key: &KeyMeta, context: &CallContext) -> Result<bool, BackendError> {
        self.faults.run(Operation::DeleteVersion, key, self.inner.delete_version(key, context)).await
    }

    async fn delete(&self, id: &KeyId, context: &CallContext) -> Result<u64, BackendError> {
        self.faults.run(Operation::Delete, id, self.inner.delete(id, context)).await
    }

    async fn count(&self, context: &CallContext) -> Result<u64, BackendError> {
        self.faults.run(Operation::Count, "", self.inner.count(context)).await
    }
}

/// A KMS that fails on command. Its clones share the KMS and the script.
#[derive(Debug)]
pub struct FaultyKms<K> {
    inner: Arc<K>,
    faults: Faults,
}

impl<K> FaultyKms<K> {
    /// Wraps `inner`; nothing goes wrong until [`faults`](Self::faults) is told so.
    pub fn new(inner: K) -> Self {
        Self { inner: Arc::new(inner), faults: Faults::new() }
    }

    /// Returns the script.
    #[must_use]
    pub const fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Returns the KMS behind, which never fails on command.
    #[must_use]
    pub fn inner(&self) -> &K {
        &self.inner
    }
}

impl<K> Clone for FaultyKms<K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), faults: self.faults.clone() }
    }
}

impl<K: KeyManagementService> KeyManagementService for FaultyKms<K> {
    async fn wrap_key(
        &self,
        key: &SecretKey,
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        self.faults.run(Operation::WrapKey, meta, self.inner.wrap_key(key, meta, context)).await
    }

    async fn unwrap_key(
        &self,
        wrapped: &[u8],
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        self.faults.run(Operation::UnwrapKey, meta, self.inner.unwrap_key(wrapped, meta, context)).await
    }

    fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        self.faults.run_now(Operation::Inspect, || self.inner.inspect(wrapped))
    }

    fn lock_policy(&self) -> Option<LockPolicy> {
        self.inner.lock_policy()
    }
}

#[cfg(test)]
mod tests;
