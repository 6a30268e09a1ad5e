//! What a store calls: its primary, and a replica if there is one.

use std::fmt;
use std::sync::{Arc, OnceLock};

use claviger::{BackendError, CallContext, Consistency};

use crate::schema::SchemaReport;
use crate::sql::FoldedIds;
use crate::sql::dialect::Dialect;
use crate::sql::error::{SqlError, SqlFuture};
use crate::sql::sessions::Sessions;
use crate::sql::statements::{On, Statements};
use crate::sql::store::Access;
use crate::sql::write::{Write, carry_out};

/// The table, once it is known.
pub(crate) type Known<D> = Arc<OnceLock<<D as Statements>::Table>>;

/// Returns the table, which is looked at once, when it is there.
async fn table<D: Dialect>(known: &Known<D>, session: &mut D::Session) -> Result<D::Table, SqlError> {
    if let Some(table) = known.get() {
        return Ok(*table);
    }
    Ok(match D::table(session).await? {
        Some(table) => *known.get_or_init(|| table),
        None => D::NO_TABLE,
    })
}

/// The connections of a store and of its clones.
pub(crate) struct Connections<D: Dialect> {
    pub(crate) primary: Sessions<D>,
    pub(crate) replica: Option<Sessions<D>>,
    pub(crate) folded_ids: FoldedIds,
    pub(crate) table: Known<D>,
}

impl<D: Dialect> Clone for Connections<D> {
    fn clone(&self) -> Self {
        Self {
            primary: self.primary.clone(),
            replica: self.replica.clone(),
            folded_ids: self.folded_ids,
            table: Arc::clone(&self.table),
        }
    }
}

impl<D: Dialect> Access for Connections<D> {
    type Dialect = D;

    fn folded_ids(&self) -> FoldedIds {
        self.folded_ids
    }

    /// Reads on the primary, on any session that is alive, or on the replica, if there is one and it may
    /// answer. If that fails, so does the read: its caller knows better than this how long to do without it.
    async fn read<T: Send + 'static>(
        &self,
        context: CallContext,
        work: impl Fn(On<'_, D>) -> SqlFuture<'_, T> + Clone + Send + Sync + 'static,
    ) -> Result<T, BackendError> {
        let sessions = match (context.consistency, &self.replica) {
            (Consistency::Eventual, Some(replica)) => replica,
            (Consistency::Eventual | Consistency::Strong, _) => &self.primary,
        };
        let known = Arc::clone(&self.table);
        let read = sessions.read(context, move |session| {
            let (known, work) = (Arc::clone(&known), work.clone());
            Box::pin(async move {
                let table = table::<D>(&known, session).await?;
                work(On { session, table }).await
            })
        });
        read.await
    }

    async fn write(&self, context: CallContext, writes: Vec<Write>) -> Result<Vec<u64>, BackendError> {
        let known = Arc::clone(&self.table);
        let written = self.primary.write(context, move |session| {
            Box::pin(async move {
                let table = table::<D>(&known, session).await?;
                let mut reached = Vec::with_capacity(writes.len());
                for write in &writes {
                    reached.push(carry_out::<D>(&mut On { session, table }, write).await?);
                }
                Ok(reached)
            })
        });
        written.await
    }

    async fn report(&self, context: CallContext) -> Result<SchemaReport, BackendError> {
        self.primary.look(context.remaining()).await
    }

    fn failovers(&self) -> u64 {
        self.primary.failovers()
    }

    async fn close(&self) {
        self.primary.close().await;
        if let Some(replica) = &self.replica {
            replica.close().await;
        }
    }

    fn debug(&self, fields: &mut fmt::DebugStruct<'_, '_>) {
        let (connections, idle) = self.primary.count();
        fields
            .field("connections", &connections)
            .field("idle", &idle)
            .field("replica", &self.replica.is_some());
    }
}
