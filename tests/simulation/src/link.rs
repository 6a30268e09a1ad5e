//! One process's way to the store, to the KMS and to the operator's messages.

use std::collections::BTreeSet;
use std::sync::Arc;

use claviger::{
    BackendError, CallContext, Consistency, Created, EnvelopeKeyRecord, Insert, Invalidation,
    InvalidationSource, KeyId, KeyManagementService, KeyMeta, Latest, LockPolicy, Metastore, MetastoreAdmin,
    Page, Replacement, SecretKey, StaticKms, WrapHealth, WrappedKey,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use crate::oracle;
use crate::plan::{Mood, Road};
use crate::settings::ms;
use crate::table::Table;
use crate::world::{Fate, Shared, Trouble, failure};

/// What one process calls. Numbers from the fleet's size on are operators, whose calls are always well.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    world: Shared,
    who: usize,
    life: u64,
    masters: Arc<[StaticKms; 2]>,
    /// Wraps under this master key, whatever the fleet does.
    master: Option<usize>,
}

/// A call as the history tells of it. One that is dropped was not answered.
struct Call {
    world: Shared,
    who: usize,
    life: u64,
    road: Road,
    what: String,
    /// What is in trouble if this is not answered.
    subject: String,
    number: u64,
    is_over: bool,
}

/// Rows that an answer holds.
trait Rows {
    fn rows(&self) -> Vec<&EnvelopeKeyRecord>;

    /// Those that make a key fresh: not what is only looked at for its revocation.
    fn asked_for(&self) -> Vec<&EnvelopeKeyRecord>;
}

impl Link {
    pub(crate) fn new(world: Shared, who: usize, masters: Arc<[StaticKms; 2]>) -> Self {
        let life = world.lock().life(who);
        Self { world, who, life, masters, master: None }
    }

    /// Wraps and unwraps by this master key alone.
    pub(crate) fn with_master(&self, master: usize) -> Self {
        Self { master: Some(master), ..self.clone() }
    }

    fn begin(
        &self,
        road: Road,
        operation: &str,
        ids: &BTreeSet<KeyId>,
        context: &CallContext,
    ) -> (Call, Fate) {
        let mut world = self.world.lock();
        let fate = world.fate(self.who, road, ids);
        let number = world.calls.begin(self.who, road, fate.is_of_rows);
        let names: Vec<_> = ids.iter().take(3).map(KeyId::as_str).collect();
        let again = if context.attempt > 1 { format!(" ({})", context.attempt) } else { String::new() };
        let subject = format!("{road:?} {operation} {}", names.join(" "));
        oracle::retries::asked(&mut world, self.who, &subject, context.attempt);
        let what = format!("{operation} {}{again}", names.join(" "));
        let (world, who, life) = (self.world.clone(), self.who, self.life);
        (Call { world, who, life, road, what, subject, number, is_over: false }, fate)
    }

    /// Asks the table for something that changes nothing.
    async fn read<T: Rows + Send>(
        &self,
        operation: &str,
        ids: BTreeSet<KeyId>,
        context: &CallContext,
        look: impl FnOnce(&Table, Instant) -> T + Send,
    ) -> Result<T, BackendError> {
        let lag = self.world.lock().settings.replica_lag.unwrap_or_default();
        let (road, lag) = match context.consistency {
            Consistency::Strong => (Road::Reads, 0),
            Consistency::Eventual => (Road::Replica, lag),
        };
        let (call, fate) = self.begin(road, operation, &ids, context);
        let looked = || {
            let world = self.world.lock();
            let now = Instant::now();
            // The store was empty before.
            look(&world.table, now.checked_sub(ms(lag)).map_or(world.began, |then| then.max(world.began)))
        };
        let answer = run(&fate, looked).await?;
        call.answered(&answer);
        answer
    }

    /// Wraps or unwraps.
    async fn crypt<T: Send>(
        &self,
        operation: &str,
        meta: &KeyMeta,
        context: &CallContext,
        work: impl Future<Output = Result<T, BackendError>> + Send,
    ) -> Result<T, BackendError> {
        let (call, fate) = self.begin(Road::Kms, operation, &BTreeSet::from([meta.id().clone()]), context);
        let done = work.await;
        let answer = run(&fate, || done).await?;
        let answer = answer.and_then(|done| done);
        call.over(answer.as_ref().err());
        answer
    }
}

/// Spends the time of a call. The outer error is that of a call which nobody answers.
async fn run<T>(
    fate: &Fate,
    work: impl FnOnce() -> T + Send,
) -> Result<Result<T, BackendError>, BackendError> {
    pause(fate.there).await;
    match fate.trouble {
        Some(Trouble::Fail(class)) => Ok(Err(failure(class))),
        Some(Trouble::Hang { is_done }) => {
            if is_done {
                drop(work());
            }
            std::future::pending().await
        }
        Some(Trouble::LoseReply(class)) => {
            drop(work());
            pause(fate.back).await;
            Ok(Err(failure(class)))
        }
        None => {
            let answer = work();
            pause(fate.back).await;
            Ok(Ok(answer))
        }
    }
}

async fn pause(span: std::time::Duration) {
    if !span.is_zero() {
        sleep(span).await;
    }
}

impl Call {
    fn answered<T: Rows>(mut self, answer: &Result<T, BackendError>) {
        let said = match answer {
            Ok(rows) => {
                let mut world = self.world.lock();
                let begun = world.calls.end(self.number, true).unwrap_or_else(Instant::now);
                if self.life == world.life(self.who) {
                    rows.rows().into_iter().for_each(|row| world.calls.learn(self.who, row));
                    for row in rows.asked_for().into_iter().filter(|_| self.road == Road::Reads) {
                        world.calls.check(self.who, row, begun);
                    }
                }
                said(&rows.rows())
            }
            Err(error) => {
                self.ended(Some(error));
                format!("{:?}", error.class())
            }
        };
        if answer.is_ok() {
            oracle::retries::answered(&mut self.world.lock(), self.who, self.road, &self.subject);
        }
        self.is_over = true;
        self.tell(&said);
    }

    fn over(mut self, error: Option<&BackendError>) {
        self.is_over = true;
        self.ended(error);
        self.tell(&error.map_or_else(|| "done".to_owned(), |error| format!("{:?}", error.class())));
    }

    fn ended(&self, error: Option<&BackendError>) {
        let mut world = self.world.lock();
        world.calls.end(self.number, error.is_none());
        match error {
            Some(error) if error.is_transient() => {
                oracle::retries::failed(&mut world, self.who, &self.subject);
            }
            _ => oracle::retries::answered(&mut world, self.who, self.road, &self.subject),
        }
    }

    fn tell(&self, said: &str) {
        let road = format!("{:?}", self.road).to_lowercase();
        self.world.tell(format!("  {} {road}: {}: {said}", self.who, self.what));
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.is_over {
            let mut world = self.world.lock();
            world.calls.end(self.number, false);
            oracle::retries::dropped(&mut world, self.who, &self.subject);
            drop(world);
            self.tell("dropped");
        }
    }
}

/// Names the rows of an answer by their times.
fn said(rows: &[&EnvelopeKeyRecord]) -> String {
    if rows.is_empty() {
        return "none".to_owned();
    }
    let name = |row: &&EnvelopeKeyRecord| {
        format!("{}{}", crate::short(row.meta()), if row.is_revoked() { " revoked" } else { "" })
    };
    rows.iter().map(name).collect::<Vec<_>>().join(", ")
}

impl Rows for Option<EnvelopeKeyRecord> {
    fn rows(&self) -> Vec<&EnvelopeKeyRecord> {
        self.iter().collect()
    }

    fn asked_for(&self) -> Vec<&EnvelopeKeyRecord> {
        self.rows()
    }
}

impl Rows for Option<Latest> {
    fn rows(&self) -> Vec<&EnvelopeKeyRecord> {
        self.iter().flat_map(|latest| std::iter::once(&latest.record).chain(&latest.predecessor)).collect()
    }

    fn asked_for(&self) -> Vec<&EnvelopeKeyRecord> {
        self.iter().map(|latest| &latest.record).collect()
    }
}

impl<T: Rows> Rows for Vec<T> {
    fn rows(&self) -> Vec<&EnvelopeKeyRecord> {
        self.iter().flat_map(Rows::rows).collect()
    }

    fn asked_for(&self) -> Vec<&EnvelopeKeyRecord> {
        self.iter().flat_map(Rows::asked_for).collect()
    }
}

impl Metastore for Link {
    async fn load(
        &self,
        key: &KeyMeta,
        context: &CallContext,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        let what = format!("load {}", key.created());
        let ids = BTreeSet::from([key.id().clone()]);
        self.read(&what, ids, context, |table, at| table.row(key, at).cloned()).await
    }

    async fn load_latest(
        &self,
        id: &KeyId,
        up_to: Created,
        context: &CallContext,
    ) -> Result<Option<Latest>, BackendError> {
        let ids = BTreeSet::from([id.clone()]);
        self.read("load_latest", ids, context, |table, at| table.latest(id, up_to, at)).await
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        context: &CallContext,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        let ids = keys.iter().map(|key| key.id().clone()).collect();
        let look = |table: &Table, at| keys.iter().map(|key| table.row(key, at).cloned()).collect::<Vec<_>>();
        self.read("load_many", ids, context, look).await
    }

    async fn load_latest_many(
        &self,
        ids: &[KeyId],
        up_to: Created,
        context: &CallContext,
    ) -> Result<Vec<Option<Latest>>, BackendError> {
        let about = ids.iter().cloned().collect();
        let look = |table: &Table, at| ids.iter().map(|id| table.latest(id, up_to, at)).collect::<Vec<_>>();
        self.read("load_latest_many", about, context, look).await
    }

    async fn insert(
        &self,
        record: &EnvelopeKeyRecord,
        context: &CallContext,
    ) -> Result<Insert, BackendError> {
        let ids = BTreeSet::from([record.meta().id().clone()]);
        let what = format!("insert {}", record.meta().created());
        let (call, fate) = self.begin(Road::Writes, &what, &ids, context);
        let (sender, answer) = oneshot::channel();
        let (this, record) = (self.clone(), record.clone());
        // What was sent arrives, whether or not anybody waits for the answer.
        self.world.sent.spawn(async move {
            let answer = run(&fate, || {
                let mut world = this.world.lock();
                oracle::creation::inserted(&mut world, this.who, &record);
                world.table.insert(&record, Instant::now())
            });
            if let Ok(answer) = timeout(ms(60_000), answer).await {
                drop(sender.send(answer));
            }
        });
        let answer = match answer.await {
            Ok(answer) => answer?,
            Err(_hangs) => std::future::pending().await,
        };
        match &answer {
            Ok(Insert::Inserted) => call.over(None),
            Ok(Insert::AlreadyExists) => call.exists(),
            Err(error) => call.over(Some(error)),
        }
        answer
    }

    fn failovers(&self) -> u64 {
        0
    }
}

impl Call {
    fn exists(mut self) {
        self.is_over = true;
        self.ended(None);
        self.tell("exists");
    }
}

impl MetastoreAdmin for Link {
    async fn list(
        &self,
        prefix: &str,
        after: Option<&KeyMeta>,
        limit: usize,
        _context: &CallContext,
    ) -> Result<Page, BackendError> {
        Ok(self.world.lock().table.page(prefix, after, limit, Instant::now()))
    }

    async fn revoke(&self, key: &KeyMeta, _context: &CallContext) -> Result<bool, BackendError> {
        let mut world = self.world.lock();
        world.table.revoke(key, Instant::now());
        Ok(world.table.row(key, Instant::now()).is_some())
    }

    async fn replace_many(
        &self,
        replacements: &[Replacement],
        _context: &CallContext,
    ) -> Result<Vec<bool>, BackendError> {
        let mut world = self.world.lock();
        Ok(replacements.iter().map(|new| world.table.replace(new, Instant::now())).collect())
    }

    async fn delete_version(&self, key: &KeyMeta, _context: &CallContext) -> Result<bool, BackendError> {
        Ok(self.world.lock().table.delete(key, Instant::now()))
    }

    async fn delete(&self, id: &KeyId, _context: &CallContext) -> Result<u64, BackendError> {
        let mut world = self.world.lock();
        let now = Instant::now();
        let of_id = |row: &&EnvelopeKeyRecord| row.meta().id() == id;
        let keys: Vec<_> = world.table.all(now).filter(of_id).map(|row| row.meta().clone()).collect();
        Ok(keys.iter().filter(|key| world.table.delete(key, now)).count() as u64)
    }

    async fn count(&self, _context: &CallContext) -> Result<u64, BackendError> {
        Ok(self.world.lock().table.all(Instant::now()).count() as u64)
    }
}

impl KeyManagementService for Link {
    async fn wrap_key(
        &self,
        key: &SecretKey,
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        let master = self.master.unwrap_or_else(|| self.world.lock().master);
        let [first, second] = &*self.masters;
        let kms = if master == 0 { first } else { second };
        self.crypt("wrap_key", meta, context, kms.wrap_key(key, meta, context)).await
    }

    async fn unwrap_key(
        &self,
        wrapped: &[u8],
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        let [first, second] = &*self.masters;
        let work = async {
            match self.master {
                Some(0) => first.unwrap_key(wrapped, meta, context).await,
                Some(_) => second.unwrap_key(wrapped, meta, context).await,
                None => match first.unwrap_key(wrapped, meta, context).await {
                    Ok(key) => Ok(key),
                    Err(_) => second.unwrap_key(wrapped, meta, context).await,
                },
            }
        };
        self.crypt("unwrap_key", meta, context, work).await
    }

    fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        let [first, _] = &*self.masters;
        first.inspect(wrapped)
    }

    fn lock_policy(&self) -> Option<LockPolicy> {
        None
    }
}

/// Word of the operator, if it arrives.
#[derive(Debug)]
pub(crate) struct Push {
    world: Shared,
    who: usize,
    messages: mpsc::UnboundedReceiver<Invalidation>,
    is_connected: bool,
}

impl Push {
    pub(crate) const fn new(
        world: Shared,
        who: usize,
        messages: mpsc::UnboundedReceiver<Invalidation>,
    ) -> Self {
        Self { world, who, messages, is_connected: false }
    }
}

impl InvalidationSource for Push {
    async fn next(&mut self, _context: &CallContext) -> Result<Invalidation, BackendError> {
        let mood = self.world.lock().mood(self.who, Road::Push);
        match mood {
            Mood::Down(class) | Mood::LosesReplies(class) => {
                self.is_connected = false;
                return Err(failure(class));
            }
            Mood::Calm | Mood::Hangs | Mood::Slow(_) | Mood::Flaky(_) => {}
        }
        if !self.is_connected {
            self.is_connected = true;
            return Ok(Invalidation::Everything);
        }
        match self.messages.recv().await {
            Some(message) => Ok(message),
            None => std::future::pending().await,
        }
    }
}
