//! What a store does with its connections: to the primary, and to a replica if there is one.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use claviger::{BackendError, Consistency};
use sqlx::Pool;

use crate::schema::SchemaReport;
use crate::sql::pool::{ConnectionOf, Dialect, SqlError, SqlFuture, with_connection, with_live_connection};

/// How long an operator's call may take: lists of thousands of rows, deletions, checks.
pub(crate) const ADMIN_DEADLINE: Duration = Duration::from_secs(30);

/// How long it may take to count, which reads the index from end to end.
pub(crate) const COUNT_DEADLINE: Duration = Duration::from_secs(600);

/// What a database says of its table and its sessions.
pub(crate) trait TableDialect: Dialect {
    /// What a call must know of the table that is there.
    type Table: Copy + Send + Sync + 'static;

    /// What a call takes it for while there is none.
    const NO_TABLE: Self::Table;

    /// Looks at the table; `None` if there is none.
    fn table(connection: &mut ConnectionOf<Self>) -> SqlFuture<'_, Option<Self::Table>>;

    /// Looks for what is wrong, and changes nothing.
    fn report(connection: &mut ConnectionOf<Self>) -> SqlFuture<'_, SchemaReport>;

    /// Makes the session of a new connection what the statements need.
    fn set_up(
        _connection: &mut ConnectionOf<Self>,
    ) -> Pin<Box<dyn Future<Output = Result<(), sqlx::Error>> + Send + '_>> {
        Box::pin(async { Ok(()) })
    }
}

/// The table, once it is known.
pub(crate) type Known<D> = Arc<OnceLock<<D as TableDialect>::Table>>;

/// Returns the table, which is looked at once, when it is there.
pub(crate) async fn table<D: TableDialect>(
    known: &Known<D>,
    connection: &mut ConnectionOf<D>,
) -> Result<D::Table, SqlError> {
    if let Some(table) = known.get() {
        return Ok(*table);
    }
    Ok(match D::table(connection).await? {
        Some(table) => *known.get_or_init(|| table),
        None => D::NO_TABLE,
    })
}

/// The connections of a store and of its clones.
pub(crate) struct Connections<D: TableDialect> {
    pub(crate) pool: Pool<D::Database>,
    pub(crate) replica: Option<Pool<D::Database>>,
    /// How long a load or an insert may take.
    pub(crate) deadline: Duration,
    pub(crate) table: Known<D>,
}

impl<D: TableDialect> Clone for Connections<D> {
    fn clone(&self) -> Self {
        let (pool, replica, table) = (self.pool.clone(), self.replica.clone(), Arc::clone(&self.table));
        Self { pool, replica, deadline: self.deadline, table }
    }
}

impl<D: TableDialect> Connections<D> {
    /// Makes a read on the primary, on any connection that is alive.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        deadline: Duration,
        read: impl Fn(&mut ConnectionOf<D>, D::Table) -> SqlFuture<'_, T> + Clone + Send + Sync + 'static,
    ) -> Result<T, BackendError> {
        self.read_from(&self.pool, deadline, read).await
    }

    /// Makes a read that a replica may answer. The primary answers if the replica does not.
    pub(crate) async fn read_at<T: Send + 'static>(
        &self,
        consistency: Consistency,
        read: impl Fn(&mut ConnectionOf<D>, D::Table) -> SqlFuture<'_, T> + Clone + Send + Sync + 'static,
    ) -> Result<T, BackendError> {
        let Some(replica) = self.replica.as_ref().filter(|_| consistency == Consistency::Eventual) else {
            return self.read(self.deadline, read).await;
        };
        // Both together end before the one deadline.
        let half = self.deadline / 2;
        match self.read_from(replica, half, read.clone()).await {
            Ok(answer) => Ok(answer),
            Err(_) => self.read(half, read).await,
        }
    }

    async fn read_from<T: Send + 'static>(
        &self,
        pool: &Pool<D::Database>,
        deadline: Duration,
        read: impl Fn(&mut ConnectionOf<D>, D::Table) -> SqlFuture<'_, T> + Clone + Send + Sync + 'static,
    ) -> Result<T, BackendError> {
        let known = Arc::clone(&self.table);
        with_live_connection::<D, _>(pool, deadline, move |connection| {
            let (known, read) = (Arc::clone(&known), read.clone());
            Box::pin(async move {
                let table = table::<D>(&known, connection).await?;
                read(connection, table).await
            })
        })
        .await
    }

    /// Makes a write, once.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        deadline: Duration,
        write: impl FnOnce(&mut ConnectionOf<D>, D::Table) -> SqlFuture<'_, T> + Send + 'static,
    ) -> Result<T, BackendError> {
        let known = Arc::clone(&self.table);
        with_connection::<D, _>(&self.pool, deadline, move |connection| {
            Box::pin(async move {
                let table = table::<D>(&known, connection).await?;
                write(connection, table).await
            })
        })
        .await
    }

    pub(crate) async fn report(&self) -> Result<SchemaReport, BackendError> {
        with_live_connection::<D, _>(&self.pool, ADMIN_DEADLINE, D::report).await
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
        if let Some(replica) = &self.replica {
            replica.close().await;
        }
    }

    /// Says what there is to say of the store of this name.
    pub(crate) fn debug(&self, store: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(store)
            .field("connections", &self.pool.size())
            .field("idle", &self.pool.num_idle())
            .field("replica", &self.replica.is_some())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
