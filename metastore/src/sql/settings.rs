//! What the builders of stores share.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use claviger::BackendError;
use sqlx::pool::PoolOptions;
use sqlx::{ConnectOptions as _, Connection, Pool};

use crate::schema::{FindingId, SchemaReport};
use crate::sql::connections::{ADMIN_DEADLINE, Connections, Known, TableDialect, table};
use crate::sql::pool::{ConnectionOf, SqlError};
use crate::task::to_its_end;

/// How a store is set up.
pub(crate) struct Settings<D: TableDialect> {
    pub(crate) accepted: Vec<FindingId>,
    pub(crate) checks: bool,
    pub(crate) replica: Option<Replica<D>>,
    pub(crate) connections_max: NonZeroU32,
    pub(crate) deadline: Duration,
}

pub(crate) enum Replica<D: TableDialect> {
    Pool(Pool<D::Database>),
    Url(String),
}

/// What the driver makes of a URL.
type OptionsOf<D> = <ConnectionOf<D> as Connection>::Options;

/// Below the two seconds that the core gives a store call, so that the caller learns what happened.
const DEADLINE: Duration = Duration::from_millis(1_500);

const CONNECTIONS_MAX: NonZeroU32 = match NonZeroU32::new(10) {
    Some(ten) => ten,
    None => NonZeroU32::MIN,
};

/// A connection is replaced after this time, so that load moves to servers that join a cluster.
const LIFETIME_MAX: Duration = Duration::from_secs(30 * 60);

/// Below the time after which firewalls and load balancers commonly forget a connection.
const IDLE_MAX: Duration = Duration::from_secs(4 * 60);

impl<D: TableDialect> Default for Settings<D> {
    fn default() -> Self {
        Self {
            accepted: Vec::new(),
            checks: true,
            replica: None,
            connections_max: CONNECTIONS_MAX,
            deadline: DEADLINE,
        }
    }
}

impl<D: TableDialect> Settings<D> {
    /// Connects to the database of a URL, which `options_of` reads, and looks at its table.
    pub(crate) async fn open(
        &self,
        url: &str,
        options_of: impl Fn(&str) -> Result<OptionsOf<D>, BackendError> + Send,
    ) -> Result<Connections<D>, BackendError> {
        let options = options_of(url)?;
        let table = Known::<D>::default();
        // Not by the pool, which tells no reason when a server refuses connections.
        self.look(options.clone(), Arc::clone(&table)).await?;
        let pool = self.make_pool(options);
        Ok(Connections { pool, replica: self.replica(options_of)?, deadline: self.deadline, table })
    }

    /// Uses a pool made by the caller, after a look at the table.
    pub(crate) async fn pool(
        &self,
        pool: Pool<D::Database>,
        options_of: impl Fn(&str) -> Result<OptionsOf<D>, BackendError> + Send,
    ) -> Result<Connections<D>, BackendError> {
        let table = Known::<D>::default();
        let mut connections = Connections { pool, replica: None, deadline: self.deadline, table };
        if self.checks {
            self.admit(connections.report().await?)?;
        }
        connections.replica = self.replica(options_of)?;
        Ok(connections)
    }

    async fn look(&self, options: OptionsOf<D>, known: Known<D>) -> Result<(), BackendError> {
        let checks = self.checks;
        let look = async move {
            let mut connection = options.connect().await?;
            D::set_up(&mut connection).await?;
            let report = if checks { D::report(&mut connection).await? } else { SchemaReport::default() };
            table::<D>(&known, &mut connection).await?;
            // It was good to the last; how it ends is of no consequence.
            connection.close().await.ok();
            Ok(report)
        };
        let report = to_its_end(async move {
            match tokio::time::timeout(ADMIN_DEADLINE, look).await {
                Ok(answer) => answer.map_err(|error: SqlError| error.classified::<D>()),
                Err(_) => Err(D::backend_error(sqlx::Error::PoolTimedOut)),
            }
        });
        self.admit(report.await?)
    }

    fn admit(&self, report: SchemaReport) -> Result<(), BackendError> {
        report.admit(&self.accepted).map_err(BackendError::permanent)
    }

    fn replica(
        &self,
        options_of: impl Fn(&str) -> Result<OptionsOf<D>, BackendError>,
    ) -> Result<Option<Pool<D::Database>>, BackendError> {
        Ok(match &self.replica {
            None => None,
            Some(Replica::Pool(pool)) => Some(pool.clone()),
            Some(Replica::Url(url)) => Some(self.make_pool(options_of(url)?)),
        })
    }

    fn make_pool(&self, options: OptionsOf<D>) -> Pool<D::Database> {
        PoolOptions::new()
            .max_connections(self.connections_max.get())
            .acquire_timeout(self.deadline)
            // It costs a round trip for each call. Who meets a dead connection closes it.
            .test_before_acquire(false)
            .max_lifetime(LIFETIME_MAX)
            .idle_timeout(IDLE_MAX)
            .after_connect(|connection, _| D::set_up(connection))
            .connect_lazy_with(options)
    }

    /// Adds what there is to say of the settings; no URL.
    pub(crate) fn debug(&self, fields: &mut fmt::DebugStruct<'_, '_>) {
        fields
            .field("accepted", &self.accepted)
            .field("checks", &self.checks)
            .field("replica", &self.replica.is_some())
            .field("connections_max", &self.connections_max)
            .field("deadline", &self.deadline);
    }
}
