//! What a store calls: its primary, and a replica if there is one.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use claviger::{BackendError, Consistency};

use crate::schema::SchemaReport;
use crate::sql::FoldedIds;
use crate::sql::dialect::Dialect;
use crate::sql::error::{SqlError, SqlFuture};
use crate::sql::sessions::Sessions;
use crate::sql::statements::{On, Statements};
use crate::sql::store::{Access, Reading};
use crate::sql::write::{Write, carry_out};

/// How long an operator's call may take: lists of thousands of rows, deletions, checks.
pub(crate) const ADMIN_DEADLINE: Duration = Duration::from_secs(30);

/// How long it may take to count, which reads the index from end to end.
const COUNT_DEADLINE: Duration = Duration::from_secs(600);

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
    /// How long a load or an insert may take.
    pub(crate) deadline: Duration,
    pub(crate) folded_ids: FoldedIds,
    pub(crate) table: Known<D>,
}

impl<D: Dialect> Clone for Connections<D> {
    fn clone(&self) -> Self {
        Self {
            primary: self.primary.clone(),
            replica: self.replica.clone(),
            deadline: self.deadline,
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
        reading: Reading,
        work: impl Fn(On<'_, D>) -> SqlFuture<'_, T> + Clone + Send + Sync + 'static,
    ) -> Result<T, BackendError> {
        let (sessions, deadline) = match (reading, &self.replica) {
            (Reading::Load(Consistency::Eventual), Some(replica)) => (replica, self.deadline),
            (Reading::Load(_), _) => (&self.primary, self.deadline),
            (Reading::List, _) => (&self.primary, ADMIN_DEADLINE),
            (Reading::Count, _) => (&self.primary, COUNT_DEADLINE),
        };
        let known = Arc::clone(&self.table);
        let read = sessions.read(deadline, move |session| {
            let (known, work) = (Arc::clone(&known), work.clone());
            Box::pin(async move {
                let table = table::<D>(&known, session).await?;
                work(On { session, table }).await
            })
        });
        read.await
    }

    async fn write(&self, write: Write) -> Result<u64, BackendError> {
        let deadline = if matches!(write, Write::Insert(_)) { self.deadline } else { ADMIN_DEADLINE };
        let known = Arc::clone(&self.table);
        let written = self.primary.write(deadline, move |session| {
            Box::pin(async move {
                let table = table::<D>(&known, session).await?;
                carry_out::<D>(&mut On { session, table }, &write).await
            })
        });
        written.await
    }

    async fn report(&self) -> Result<SchemaReport, BackendError> {
        self.primary.look().await
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
            .field("replica", &self.replica.is_some())
            .field("deadline", &self.deadline);
    }
}
