//! The latest record of an id, however late, without the one before it.

use claviger::testing::call;
use claviger::{BackendError, Created, EnvelopeKeyRecord, KeyId, Metastore};

/// What most tests ask for.
pub(crate) trait LatestRecord: Metastore {
    fn latest(
        &self,
        id: &KeyId,
    ) -> impl Future<Output = Result<Option<EnvelopeKeyRecord>, BackendError>> + Send {
        async move { Ok(self.load_latest(id, Created::MAX, &call()).await?.map(|latest| latest.record)) }
    }

    fn latest_many(
        &self,
        ids: &[KeyId],
    ) -> impl Future<Output = Result<Vec<Option<EnvelopeKeyRecord>>, BackendError>> + Send {
        async move {
            let found = self.load_latest_many(ids, Created::MAX, &call()).await?;
            Ok(found.into_iter().map(|latest| latest.map(|latest| latest.record)).collect())
        }
    }
}

impl<M: Metastore> LatestRecord for M {}
