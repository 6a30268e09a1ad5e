//! Many keys at once: in batches of a hundred, some of them side by side.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::time::Duration;

use claviger::{BackendError, CallContext, Created, EnvelopeKeyRecord, KeyId, KeyMeta, Latest};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::dynamodb::DynamoDbMetastore;
use crate::dynamodb::fault::DynamoDbFault;
use crate::dynamodb::item::{self, Item};
use crate::dynamodb::requests::BATCH_MAX;
use crate::task::runtime;

/// How many requests of one call are under way at once.
const CONCURRENT_MAX: usize = 8;

/// Before what was left undone is asked for again; doubled while nothing is got.
const PAUSE_FIRST: Duration = Duration::from_millis(20);

impl DynamoDbMetastore {
    /// Loads the versions, each once however often it is named.
    pub(super) async fn load_batches(
        &self,
        context: CallContext,
        keys: &[KeyMeta],
    ) -> Result<HashMap<KeyMeta, EnvelopeKeyRecord>, BackendError> {
        let keys = distinct(keys);
        let batches: Vec<Vec<Item>> =
            keys.chunks(BATCH_MAX).map(|batch| batch.iter().map(|key| item::key(key)).collect()).collect();
        let calls = batches.into_iter().map(|batch| {
            let store = self.clone();
            async move { store.load_batch(context, batch).await }
        });
        let batches = concurrently(calls).await?;
        let records: HashMap<_, _> =
            batches.into_iter().flatten().map(|record| (record.meta().clone(), record)).collect();
        let asked: HashSet<_> = keys.into_iter().collect();
        match records.keys().find(|key| !asked.contains(key)) {
            Some(other) => Err(DynamoDbFault::OtherItem(other.clone()).into()),
            None => Ok(records),
        }
    }

    /// Loads at most [`BATCH_MAX`] versions. What DynamoDB leaves undone, since the table is throttled
    /// or the answer grew too long, is asked for again until the call's time is up.
    async fn load_batch(
        &self,
        context: CallContext,
        mut keys: Vec<Item>,
    ) -> Result<Vec<EnvelopeKeyRecord>, BackendError> {
        let mut records = Vec::with_capacity(keys.len());
        let mut pause = PAUSE_FIRST;
        loop {
            let asked = keys.len();
            let (found, left) = self.batch_get(context, keys).await??;
            for item in &found {
                records.push(item::read(item)?);
            }
            if left.is_empty() {
                return Ok(records);
            }
            pause = if left.len() < asked { PAUSE_FIRST } else { pause * 2 };
            if Instant::now() + pause >= context.deadline {
                return Err(DynamoDbFault::Unprocessed { keys: left.len() }.into());
            }
            tokio::time::sleep(part_of(pause)).await;
            keys = left;
        }
    }

    /// Loads the latest version of each id, once however often it is named.
    pub(super) async fn load_latest_each(
        &self,
        context: CallContext,
        ids: &[KeyId],
        up_to: Created,
    ) -> Result<HashMap<KeyId, Latest>, BackendError> {
        let calls = distinct(ids).into_iter().cloned().map(|id| {
            let store = self.clone();
            async move { store.latest(context, &id, up_to).await }
        });
        let found = concurrently(calls.collect::<Vec<_>>()).await?;
        Ok(found.into_iter().flatten().map(|latest| (latest.record.meta().id().clone(), latest)).collect())
    }
}

/// Makes the calls, no more than [`CONCURRENT_MAX`] of them at once, and returns what they answer, in
/// no order; or the first failure.
async fn concurrently<T: Send + 'static>(
    calls: impl IntoIterator<Item = impl Future<Output = Result<T, BackendError>> + Send + 'static>,
) -> Result<Vec<T>, BackendError> {
    let runtime = runtime()?;
    let mut calls = calls.into_iter();
    // Dropped with the caller, and its tasks with it.
    let mut under_way = JoinSet::new();
    let mut answers = Vec::new();
    loop {
        while under_way.len() < CONCURRENT_MAX
            && let Some(call) = calls.next()
        {
            under_way.spawn_on(call, &runtime);
        }
        match under_way.join_next().await {
            None => return Ok(answers),
            Some(answer) => answers.push(answer.map_err(BackendError::transient)??),
        }
    }
}

fn distinct<T: Eq + Hash>(names: &[T]) -> Vec<&T> {
    let mut seen = HashSet::with_capacity(names.len());
    names.iter().filter(|name| seen.insert(*name)).collect()
}

/// A random part of a pause, half of it at least, so that callers do not come back all at once. It
/// needs to be spread, not secret.
fn part_of(pause: Duration) -> Duration {
    let spread = RandomState::new().hash_one(()) % 512;
    pause * (512 + u32::try_from(spread).unwrap_or_default()) / 1_024
}
