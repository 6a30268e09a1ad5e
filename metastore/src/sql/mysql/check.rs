//! What can be wrong with a table, the server it is on, and the rights of its user.

mod columns;
mod zone;

use sqlx::mysql::MySqlConnection;
use sqlx::{query_as, raw_sql};

use crate::schema::{Finding, FindingId, SchemaReport, Severity};
use crate::sql::error::{SqlError, SqlFuture};
use crate::sql::mysql::fault::number;
use crate::sql::mysql::layout::{self, Column, is_strict};
use crate::sql::mysql::named::Named;

/// Looks at everything, and changes nothing.
pub(super) fn report(connection: &mut MySqlConnection) -> SqlFuture<'_, SchemaReport> {
    Box::pin(async move {
        let mut report = SchemaReport::default();
        let session = session(connection).await?;
        session.check(&mut report);
        check_settings(connection, &mut report).await?;
        check_cluster(connection, &mut report).await?;
        if !check_select(connection, &mut report).await? {
            return Ok(report);
        }
        let columns = layout::columns(connection).await?;
        let is_whole = columns::NAMES.iter().all(|&name| columns.iter().any(|column| column.name == name));
        let mut of_keys = SchemaReport::default();
        let has_key = check_key(connection, &mut of_keys).await?;
        // Without the key it would read the whole table.
        let of_rows = if is_whole && has_key {
            let is_timestamp = |column: &Column| column.name == "created" && column.kind == "timestamp";
            zone::check(connection, &session.zone, columns.iter().any(is_timestamp)).await?
        } else {
            SchemaReport::default()
        };
        // Rows of another zone would be made those of this one, for good.
        let is_of_other_zone = |finding: &Finding| {
            finding.id == FindingId::ZoneMismatch && finding.severity == Severity::Dangerous
        };
        let zone = (!of_rows.findings().iter().any(is_of_other_zone)).then_some(session.zone.as_str());
        columns::check(&columns, zone, &mut report);
        of_keys.findings().iter().for_each(|finding| report.add(finding.clone()));
        check_engine(connection, &mut report).await?;
        if is_whole {
            check_rights(connection, &mut report).await?;
        }
        of_rows.findings().iter().for_each(|finding| report.add(finding.clone()));
        Ok(report)
    })
}

/// What this connection is set to.
struct Session {
    mode: String,
    autocommit: String,
    zone: String,
    charsets: [String; 3],
}

const SESSION: &str = "SELECT CAST(@@SESSION.sql_mode AS CHAR), CAST(@@SESSION.autocommit + 0 AS CHAR), \
     CAST(@@SESSION.time_zone AS CHAR), CAST(@@SESSION.character_set_client AS CHAR), \
     CAST(@@SESSION.character_set_connection AS CHAR), \
     COALESCE(CAST(@@SESSION.character_set_results AS CHAR), 'none')";

async fn session(connection: &mut MySqlConnection) -> Result<Session, SqlError> {
    let (mode, autocommit, zone, client, own, results): (String, String, String, String, String, String) =
        query_as(SESSION).fetch_one(connection).await?;
    Ok(Session { mode, autocommit, zone, charsets: [client, own, results] })
}

impl Session {
    fn check(&self, report: &mut SchemaReport) {
        if !is_strict(&self.mode) {
            report.add(Finding::dangerous(
                FindingId::NotStrict,
                "The session's sql_mode is not strict: the server cuts what does not fit, and a key is lost.",
                "Leave STRICT_ALL_TABLES in the sessions' sql_mode, which is set for each: nothing else may \
                 set it.",
            ));
        }
        if self.autocommit != "1" {
            report.add(Finding::dangerous(
                FindingId::NotDurable,
                "The session's autocommit is off: an insert that was answered is undone when its connection \
                 closes.",
                "Leave autocommit = 1, which is set for each session: nothing else may set it.",
            ));
        }
        if self.charsets.iter().any(|charset| charset != "utf8mb4") {
            report.add(Finding::dangerous(
                FindingId::Encoding,
                format!(
                    "The session's character sets are {}: ids are changed on the way.",
                    self.charsets.join(", ")
                ),
                "Leave the sessions utf8mb4, the driver's default.",
            ));
        }
    }
}

// Those that a server has not, it leaves out.
const SETTINGS: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN \
     ('sql_mode', 'innodb_flush_log_at_trx_commit', 'log_bin', 'sync_binlog')";

async fn check_settings(connection: &mut MySqlConnection, report: &mut SchemaReport) -> Result<(), SqlError> {
    let settings = Named::read(connection, SETTINGS).await?;
    if settings.get("sql_mode").is_some_and(|mode| !is_strict(mode)) {
        report.add(Finding::warning(
            FindingId::NotStrict,
            "The server's sql_mode is not strict: other programs that share the table have their values cut.",
            "SET GLOBAL sql_mode = CONCAT(@@GLOBAL.sql_mode, ',STRICT_ALL_TABLES'), and in its option file.",
        ));
    }
    let mut lax = Vec::new();
    if settings.get("innodb_flush_log_at_trx_commit").is_some_and(|value| value != "1") {
        lax.push("innodb_flush_log_at_trx_commit");
    }
    if settings.is("log_bin", "ON") && settings.get("sync_binlog").is_some_and(|value| value != "1") {
        lax.push("sync_binlog");
    }
    for setting in lax {
        report.add(Finding::warning(
            FindingId::NotDurable,
            format!("{setting} is not 1: a power cut can undo inserts that were answered."),
            format!("SET GLOBAL {setting} = 1, and in the server's option file."),
        ));
    }
    Ok(())
}

const CLUSTER: &str = "SHOW SESSION VARIABLES WHERE Variable_name IN ('wsrep_on', 'wsrep_sync_wait')";

/// Looks whether reads on a node of a Galera cluster wait for what other nodes have committed.
async fn check_cluster(connection: &mut MySqlConnection, report: &mut SchemaReport) -> Result<(), SqlError> {
    let settings = Named::read(connection, CLUSTER).await?;
    let bits = settings.get("wsrep_sync_wait").and_then(|bits| bits.parse::<u64>().ok());
    let waits = bits.is_some_and(|bits| bits & 1 == 1);
    if settings.is("wsrep_on", "ON") && !waits {
        report.add(Finding::warning(
            FindingId::StaleReads,
            "Reads on a node of the cluster do not wait for what other nodes have committed: revocations are \
             learned late, and keys that were just made elsewhere are missed for a moment.",
            "Leave wsrep_sync_wait = 1, which is set for each session, or set it in the servers' option files.",
        ));
    }
    Ok(())
}

/// Looks whether there is a table and it can be read; `false` if there is no more to be seen.
async fn check_select(connection: &mut MySqlConnection, report: &mut SchemaReport) -> Result<bool, SqlError> {
    let finding = match probe(connection, "SELECT 1 FROM encryption_key WHERE 1 = 0").await? {
        None => return Ok(true),
        Some(NO_SUCH_TABLE) => Finding::dangerous(
            FindingId::TableMissing,
            "There is no table encryption_key in the database.",
            "Make it by `claviger schema apply`, or by MysqlMetastore::migrate.",
        ),
        Some(_) => Finding::dangerous(
            FindingId::PermissionMissing,
            "The user may not read the table.",
            "GRANT SELECT, INSERT ON encryption_key TO the user.",
        ),
    };
    report.add(finding);
    Ok(false)
}

const NO_SUCH_TABLE: u16 = 1146;
/// Of the table; of a column.
const DENIED: [u16; 2] = [1142, 1143];
/// By the server's option; by the transaction's; by the storage engine.
const READ_ONLY: [u16; 3] = [1290, 1792, 1836];

/// Runs a statement that finds no rows, and returns the number of the error that says it is not
/// allowed.
async fn probe(connection: &mut MySqlConnection, sql: &'static str) -> Result<Option<u16>, SqlError> {
    let Err(error) = raw_sql(sql).execute(connection).await else { return Ok(None) };
    match number(&error) {
        Some(number)
            if number == NO_SUCH_TABLE || DENIED.contains(&number) || READ_ONLY.contains(&number) =>
        {
            Ok(Some(number))
        }
        _ => Err(error.into()),
    }
}

const PROBE_INSERT: &str = "INSERT INTO encryption_key (id, created, key_record) \
     SELECT id, created, key_record FROM encryption_key WHERE id = '' AND 1 = 0";
const PROBE_UPDATE: &str =
    "UPDATE encryption_key SET key_record = key_record, created = created WHERE id = '' AND 1 = 0";
const PROBE_DELETE: &str = "DELETE FROM encryption_key WHERE id = '' AND 1 = 0";

async fn check_rights(connection: &mut MySqlConnection, report: &mut SchemaReport) -> Result<(), SqlError> {
    match probe(connection, PROBE_INSERT).await? {
        None => {}
        Some(number) if READ_ONLY.contains(&number) => {
            report.add(Finding::dangerous_to_write(
                FindingId::ReadOnly,
                "The server takes no writes: it is a replica, or was demoted, and revocations reach it late.",
                "Connect to the primary; give the replica to MysqlBuilder::replica.",
            ));
            return Ok(());
        }
        Some(_) => report.add(Finding::dangerous_to_write(
            FindingId::PermissionMissing,
            "The user may not insert: no key can be made when the present ones expire or are revoked.",
            "GRANT INSERT ON encryption_key TO the user.",
        )),
    }
    let mut missing = Vec::new();
    for (right, sql) in [("UPDATE", PROBE_UPDATE), ("DELETE", PROBE_DELETE)] {
        if probe(connection, sql).await?.is_some() {
            missing.push(right);
        }
    }
    if !missing.is_empty() {
        let missing = missing.join(", ");
        report.add(Finding::warning(
            FindingId::AdminPermissionMissing,
            format!("The user has no right to {missing}: good for a service, too little for an operator."),
            format!("GRANT {missing} ON encryption_key TO the operators' user."),
        ));
    }
    Ok(())
}

const KEYS: &str = "SELECT CAST(index_name AS CHAR), \
     CAST(GROUP_CONCAT(column_name, IF(sub_part IS NULL, '', '(…)') ORDER BY seq_in_index) AS CHAR) \
     FROM information_schema.statistics \
     WHERE table_schema = DATABASE() AND table_name = 'encryption_key' AND non_unique = 0 GROUP BY index_name";

/// Looks for a unique key of id and time, by which rows are found and which keeps versions single.
async fn check_key(connection: &mut MySqlConnection, report: &mut SchemaReport) -> Result<bool, SqlError> {
    let keys: Vec<(String, String)> = query_as(KEYS).fetch_all(connection).await?;
    let has_key = keys.iter().any(|(_, columns)| columns.eq_ignore_ascii_case("id,created"));
    if !has_key {
        report.add(Finding::dangerous(
            FindingId::PrimaryKeyMissing,
            "No unique key has the columns id and created: one version can be stored twice, with two keys.",
            "ALTER TABLE encryption_key ADD PRIMARY KEY (id, created).",
        ));
    }
    // With another one, such as of the id alone, keys cannot rotate.
    let is_narrow = |columns: &str| !columns.eq_ignore_ascii_case("id,created");
    for (name, columns) in keys.iter().filter(|(_, columns)| has_key && is_narrow(columns)) {
        report.add(Finding::dangerous(
            FindingId::PrimaryKeyMissing,
            format!("The unique key {name} on ({columns}) is in the way of keys that differ elsewhere."),
            format!("ALTER TABLE encryption_key DROP INDEX {name}."),
        ));
    }
    Ok(has_key)
}

const ENGINE: &str = "SELECT COALESCE(CAST(t.engine AS CHAR), 'none'), COALESCE(CAST(e.transactions AS CHAR), '') \
     FROM information_schema.tables AS t LEFT JOIN information_schema.engines AS e ON e.engine = t.engine \
     WHERE t.table_schema = DATABASE() AND t.table_name = 'encryption_key'";

async fn check_engine(connection: &mut MySqlConnection, report: &mut SchemaReport) -> Result<(), SqlError> {
    let engine: Option<(String, String)> = query_as(ENGINE).fetch_optional(connection).await?;
    if let Some((engine, transactions)) = engine
        && transactions != "YES"
    {
        report.add(Finding::dangerous(
            FindingId::EngineNotTransactional,
            format!("The table's engine is {engine}, which has no transactions: a crash loses keys in use."),
            "ALTER TABLE encryption_key ENGINE = InnoDB.",
        ));
    }
    Ok(())
}
