//! MySQL and MariaDB, as the stores' sessions see them.

use std::pin::Pin;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _, raw_sql};

use crate::schema::SchemaReport;
use crate::sql::dialect::Sharing;
use crate::sql::dialect::{Connected, Dialect, Setup};
use crate::sql::error::{SqlError, SqlFuture};
use crate::sql::hosts::unfit;
use crate::sql::mysql::layout::Layout;
use crate::sql::mysql::named::Named;
use crate::sql::mysql::statements::MysqlDialect;
use crate::sql::mysql::{check, fault, statements};

/// A connection of a server, which numbers them from its start on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backend {
    server: String,
    connection: u64,
}

impl Dialect for MysqlDialect {
    type Options = MySqlConnectOptions;
    type Backend = Backend;

    const NO_TABLE: Layout = Layout::OURS;
    /// They have numbers, which the server gives, and a proxy its own.
    const MAY_SHARE_NAMES: bool = false;

    fn leaves_session_good(error: &sqlx::Error) -> bool {
        fault::leaves_session_good(error)
    }

    fn is_crossed(_error: &sqlx::Error) -> bool {
        false
    }

    fn connect<'a>(options: &'a MySqlConnectOptions, setup: &'a Setup) -> SqlFuture<'a, Connected<Self>> {
        Box::pin(async move { introduce(options.connect().await?, setup).await })
    }

    fn farewell(session: MySqlConnection) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { drop(session.close().await) })
    }

    /// The server limits the wait for locks only, and that is the same for all.
    fn limit(_session: &mut MySqlConnection, _time: Duration) -> SqlFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn end<'a>(session: &'a mut MySqlConnection, backends: &'a [Backend]) -> SqlFuture<'a, Vec<Backend>> {
        Box::pin(async move { Ok(end(session, backends).await?) })
    }

    fn make_table(session: &mut MySqlConnection) -> SqlFuture<'_, ()> {
        Box::pin(statements::make_table(session))
    }

    fn table(session: &mut MySqlConnection) -> SqlFuture<'_, Option<Layout>> {
        Box::pin(Layout::read(session))
    }

    fn sharing<'a>(
        _first: &'a mut MySqlConnection,
        _second: &'a mut MySqlConnection,
    ) -> SqlFuture<'a, Sharing> {
        Box::pin(async { Ok(Sharing::Nothing) })
    }

    fn report(session: &mut MySqlConnection) -> SqlFuture<'_, SchemaReport> {
        check::report(session)
    }
}

/// Those that a server has not, it leaves out. In a cluster that never loses what one node answered,
/// all nodes have the cluster's name in common.
const WHO: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('server_uuid', 'server_uid', 'server_id', \
     'hostname', 'port', 'wsrep_on', 'group_replication_group_name', 'read_only', 'super_read_only')";

/// What of it names the one server.
const MACHINE: [&str; 5] = ["server_uuid", "server_uid", "server_id", "hostname", "port"];

const CLUSTER: &str = "SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_cluster_state_uuid', 'wsrep_ready')";

/// Sets the session up, and asks where it leads to.
async fn introduce(mut session: MySqlConnection, setup: &Setup) -> Result<Connected<MysqlDialect>, SqlError> {
    let variables = Named::read(&mut session, WHO).await?;
    let is_cluster = variables.is("wsrep_on", "ON");
    raw_sql(AssertSqlSafe(settings(setup))).execute(&mut session).await?;
    if is_cluster {
        // Where it cannot be set, the check says what comes of it.
        drop(raw_sql(WAIT_FOR_OTHER_NODES).execute(&mut session).await);
    }
    if let Some(sql) = &setup.on_connect {
        raw_sql(AssertSqlSafe(&**sql)).execute(&mut session).await?;
    }
    let is_read_only = variables.is("read_only", "ON") || variables.is("super_read_only", "ON");
    let cluster = if is_cluster { Named::read(&mut session, CLUSTER).await? } else { Named::default() };
    let is_ready = !is_cluster || cluster.is("wsrep_ready", "ON");
    if !is_ready || !setup.role.is_played_by(is_read_only, is_read_only) {
        return Err(unfit(setup.role));
    }
    let id = raw_sql("SELECT CAST(CONNECTION_ID() AS UNSIGNED)").fetch_one(&mut session).await?;
    let machine = variables.join(&MACHINE);
    let backend = Backend { server: machine.clone(), connection: id.try_get(0)? };
    let common = [cluster.get("wsrep_cluster_state_uuid"), variables.get("group_replication_group_name")];
    let server = common.into_iter().flatten().find(|name| !name.is_empty()).map_or(machine, str::to_owned);
    Ok(Connected { session, backend: Some(backend), server: Some(server) })
}

/// Makes a session in which nothing is cut, every statement commits, and nobody waits for a lock
/// longer than for an answer.
fn settings(setup: &Setup) -> String {
    let mut settings = "SET SESSION autocommit = 1, \
         sql_mode = CONCAT(@@SESSION.sql_mode, ',STRICT_ALL_TABLES')"
        .to_owned();
    if setup.server_timeouts {
        settings.push_str(", innodb_lock_wait_timeout = 1, lock_wait_timeout = 1");
    }
    settings
}

/// Has a read wait for what other nodes of a Galera cluster have committed.
const WAIT_FOR_OTHER_NODES: &str = "SET SESSION wsrep_sync_wait = @@SESSION.wsrep_sync_wait | 1";

/// A connection whose commit waits for a replica is left alone: see
/// [`abandoned`](crate::sql::abandoned).
const PROCESSES: &str = "SELECT CAST(id AS UNSIGNED), COALESCE(state, '') LIKE '%semi-sync%' \
     FROM information_schema.processlist";

async fn end(session: &mut MySqlConnection, backends: &[Backend]) -> Result<Vec<Backend>, sqlx::Error> {
    let server = Named::read(session, WHO).await?.join(&MACHINE);
    let processes = raw_sql(PROCESSES).fetch_all(&mut *session).await?;
    let mut left = Vec::new();
    for row in processes {
        let (connection, is_waiting): (u64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let backend = Backend { server: server.clone(), connection };
        if !backends.contains(&backend) {
            continue;
        }
        if is_waiting == 0 {
            // It may have gone meanwhile.
            drop(raw_sql(AssertSqlSafe(format!("KILL {connection}"))).execute(&mut *session).await);
        }
        left.push(backend);
    }
    Ok(left)
}
