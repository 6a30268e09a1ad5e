//! What is seen of a server before a store is used: its table, and what lies between.

use std::sync::Arc;
use std::time::Duration;

use claviger::{BackendError, FailureKind};
use tokio::time::timeout;

use crate::schema::{Finding, FindingId, SchemaReport};
use crate::sql::dialect::{Dialect, Setup, Sharing};
use crate::sql::error::SqlError;
use crate::sql::hosts::Hosts;
use crate::task::to_its_end;

/// What was seen.
pub(crate) struct Seen<D: Dialect> {
    pub(crate) report: SchemaReport,
    pub(crate) sharing: Sharing,
    pub(crate) table: Option<D::Table>,
    pub(crate) server: Option<String>,
}

/// What is done before a store is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// The table is made if there is none.
    pub(crate) makes_table: bool,
    /// What is wrong is looked for.
    pub(crate) checks: bool,
}

impl Start {
    /// A look, which changes nothing.
    pub(crate) const CHECKED: Self = Self { makes_table: false, checks: true };
}

/// How long opening a store may take: a look at its server and table, which may be made.
pub(crate) const OPENING_MAX: Duration = Duration::from_secs(30);

/// Looks at the server, as `start` says, within `time`.
///
/// On connections of its own: a pool tells no reason when a server refuses them.
pub(crate) async fn look<D: Dialect>(
    hosts: &Arc<Hosts<D>>,
    setup: Setup,
    start: Start,
    time: Duration,
) -> Result<Seen<D>, BackendError> {
    let hosts = Arc::clone(hosts);
    // Its statements may take longer than those of calls, and are few.
    let setup = Setup { server_timeouts: false, ..setup };
    to_its_end(async move {
        let looking = async {
            let first = hosts.connect_once(&setup, time).await?;
            let (mut session, server) = (first.session, first.server);
            let sharing = sharing(&hosts, &setup, &mut session, time).await?;
            let seen = look_at::<D>(&mut session, start).await;
            let (mut report, table) = seen.map_err(SqlError::classified::<D>)?;
            // It was good to the last.
            D::farewell(session).await;
            if start.checks && sharing == Sharing::Names {
                report.add(shared_names());
            }
            Ok(Seen { report, sharing, table, server })
        };
        timeout(time, looking)
            .await
            .unwrap_or(Err(BackendError::transient(Silence(time)).with_kind(FailureKind::Unreachable)))
    })
    .await
}

/// The server did not answer what was asked at the start.
#[derive(Debug, thiserror::Error)]
#[error("the database could not be looked at within {0:?}")]
struct Silence(Duration);

async fn sharing<D: Dialect>(
    hosts: &Hosts<D>,
    setup: &Setup,
    first: &mut D::Session,
    time: Duration,
) -> Result<Sharing, BackendError> {
    if !D::MAY_SHARE_NAMES || !setup.named_statements {
        return Ok(Sharing::Nothing);
    }
    let mut second = hosts.connect_once(setup, time).await?.session;
    let sharing = D::sharing(first, &mut second).await.map_err(SqlError::classified::<D>)?;
    D::farewell(second).await;
    Ok(sharing)
}

async fn look_at<D: Dialect>(
    session: &mut D::Session,
    start: Start,
) -> Result<(SchemaReport, Option<D::Table>), SqlError> {
    if start.makes_table {
        D::make_table(session).await?;
    }
    let report = if start.checks { D::report(session).await? } else { SchemaReport::default() };
    Ok((report, D::table(session).await?))
}

fn shared_names() -> Finding {
    Finding::dangerous(
        FindingId::SharedStatements,
        "A pooler between gives one server connection to several sessions, and does not keep their prepared \
         statements apart, as PgBouncer does in transaction and statement mode before version 1.21 or with \
         max_prepared_statements = 0: a load can run as another program's DELETE.",
        "Set max_prepared_statements in PgBouncer 1.21 or later, or use its session mode, or add \
         prepared-statements=off to the URL.",
    )
}
