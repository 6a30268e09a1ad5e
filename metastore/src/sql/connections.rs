//! What a store calls: its primary, and a replica if there is one.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use claviger::{BackendError, Consistency};

use crate::schema::SchemaReport;
use crate::sql::FoldedIds;
use crate::sql::dialect::{Dialect, SqlError, SqlFuture};
use crate::sql::sessions::Sessions;

/// How long an operator's call may take: lists of thousands of rows, deletions, checks.
pub(crate) const ADMIN_DEADLINE: Duration = Duration::from_secs(30);

/// How long it may take to count, which reads the index from end to end.
pub(crate) const COUNT_DEADLINE: Duration = Duration::from_secs(600);

/// The table, once it is known.
pub(crate) type Known<D> = Arc<OnceLock<<D as Dialect>::Table>>;

/// Returns the table, which is looked at once, when it is there.
pub(crate) async fn table<D: Dialect>(
    known: &Known<D>,
    session: &mut D::Session,
) -> Result<D::Table, SqlError> {
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

impl<D: Dialect> Connections<D> {
    /// Makes a read on the primary, on any session that is alive.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        deadline: Duration,
        read: impl Fn(&mut D::Session, D::Table) -> SqlFuture<'_, T> + Clone + Send + Sync + 'static,
    ) -> Result<T, BackendError> {
        self.read_from(&self.primary, deadline, read).await
    }

    /// Makes a read that a replica answers if there is one. If that fails, so does the read: its
    /// caller knows better than this how long to do without it.
    pub(crate) async fn read_at<T: Send + 'static>(
        &self,
        consistency: Consistency,
        read: impl Fn(&mut D::Session, D::Table) -> SqlFuture<'_, T> + Clone + Send + Sync + 'static,
    ) -> Result<T, BackendError> {
        let replica = self.replica.as_ref().filter(|_| consistency == Consistency::Eventual);
        self.read_from(replica.unwrap_or(&self.primary), self.deadline, read).await
    }

    async fn read_from<T: Send + 'static>(
        &self,
        sessions: &Sessions<D>,
        deadline: Duration,
        read: impl Fn(&mut D::Session, D::Table) -> SqlFuture<'_, T> + Clone + Send + Sync + 'static,
    ) -> Result<T, BackendError> {
        let known = Arc::clone(&self.table);
        sessions
            .read(deadline, move |session| {
                let (known, read) = (Arc::clone(&known), read.clone());
                Box::pin(async move {
                    let table = table::<D>(&known, session).await?;
                    read(session, table).await
                })
            })
            .await
    }

    /// Makes a write, once.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        deadline: Duration,
        write: impl FnOnce(&mut D::Session, D::Table) -> SqlFuture<'_, T> + Send + 'static,
    ) -> Result<T, BackendError> {
        let known = Arc::clone(&self.table);
        self.primary
            .write(deadline, move |session| {
                Box::pin(async move {
                    let table = table::<D>(&known, session).await?;
                    write(session, table).await
                })
            })
            .await
    }

    pub(crate) async fn report(&self) -> Result<SchemaReport, BackendError> {
        self.primary.look().await
    }

    pub(crate) async fn close(&self) {
        self.primary.close().await;
        if let Some(replica) = &self.replica {
            replica.close().await;
        }
    }

    /// Says what there is to say of the store of this name.
    pub(crate) fn debug(&self, store: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (connections, idle) = self.primary.count();
        f.debug_struct(store)
            .field("connections", &connections)
            .field("idle", &idle)
            .field("replica", &self.replica.is_some())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
