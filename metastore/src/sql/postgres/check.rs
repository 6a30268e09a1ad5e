//! What can be wrong with a table, the server it is on, and the rights of its user.

mod rows;

use crate::schema::{Finding, FindingId, SchemaReport};
use crate::sql::error::{SqlError, SqlFuture};
use crate::sql::postgres::session::PostgresSession;
use crate::sql::{UNFOLD, UNFOLD_OR_READ};

/// Looks at everything, and changes nothing.
pub(super) fn report(session: &mut PostgresSession) -> SqlFuture<'_, SchemaReport> {
    Box::pin(async move {
        let mut report = SchemaReport::default();
        check_server(session, &mut report).await?;
        let Some(table) = table(session).await? else {
            report.add(Finding::dangerous(
                FindingId::TableMissing,
                "There is no table encryption_key in the schemas of the search path, or the user may not use \
                 its schema.",
                "Make it by `claviger schema apply`, or by PostgresMetastore::migrate.",
            ));
            return Ok(report);
        };
        check_table(&table, &mut report);
        let columns = columns(session).await?;
        check_columns(&columns, &mut report);
        let has_key = check_key(session, &mut report).await?;
        check_rights(&table, &columns, &mut report);
        let can_be_read = columns.len() == NAMES.len()
            && columns
                .iter()
                .all(|column| column.may_select && (column.name != "created" || column.is_time()));
        // Without the key it would read the whole table.
        if has_key && can_be_read {
            rows::check(session, &mut report).await?;
        }
        Ok(report)
    })
}

const NAMES: [&str; 3] = ["id", "created", "key_record"];

const SERVER: &str = "SELECT current_setting('server_encoding'), pg_is_in_recovery(), \
     current_setting('default_transaction_read_only'), current_setting('fsync', true), \
     current_setting('full_page_writes', true), current_setting('synchronous_commit', true), \
     coalesce(current_setting('synchronous_standby_names', true), '') <> ''";

type Server = (String, bool, String, Option<String>, Option<String>, Option<String>, bool);

async fn check_server(session: &mut PostgresSession, report: &mut SchemaReport) -> Result<(), SqlError> {
    let mut rows: Vec<Server> = session.look(SERVER).await?;
    let server = rows.pop().ok_or(sqlx::Error::RowNotFound)?;
    let (encoding, in_recovery, read_only, fsync, full_page_writes, synchronous_commit, has_standbys) =
        server;
    if encoding != "UTF8" {
        report.add(Finding::warning(
            FindingId::Encoding,
            format!("The database's encoding is {encoding}: ids with characters it lacks are refused."),
            "Create a database with ENCODING 'UTF8' and move the table there.",
        ));
    }
    if in_recovery {
        report.add(Finding::dangerous_to_write(
            FindingId::ReadOnly,
            "The server is a standby: it takes no new keys, and revocations reach it late.",
            "Connect to the primary; give the standby to PostgresBuilder::replica.",
        ));
    } else if read_only == "on" {
        report.add(Finding::dangerous_to_write(
            FindingId::ReadOnly,
            "Transactions are read-only (default_transaction_read_only is on): no key can be stored.",
            "ALTER the role's or the database's setting default_transaction_read_only to off.",
        ));
    }
    let off = |setting: Option<String>| setting.as_deref() == Some("off");
    for (setting, is_off) in [("fsync", off(fsync)), ("full_page_writes", off(full_page_writes))] {
        if is_off {
            report.add(Finding::warning(
                FindingId::NotDurable,
                format!(
                    "{setting} is off: a power cut can undo inserts that were answered, and damage others."
                ),
                format!("Set {setting} = on in postgresql.conf."),
            ));
        }
    }
    if has_standbys && synchronous_commit.as_deref() == Some("local") {
        report.add(Finding::warning(
            FindingId::NotDurable,
            "synchronous_standby_names names standbys, and synchronous_commit is local: what is answered is on \
             one machine, and a fail-over loses it.",
            "ALTER the role's or the database's setting synchronous_commit to on.",
        ));
    }
    if off(synchronous_commit) {
        report.add(Finding::warning(
            FindingId::NotDurable,
            "synchronous_commit is off: what is written here is durable all the same, but a crash can undo \
             what other programs that share the table have written.",
            "ALTER the role's or the database's setting synchronous_commit to on.",
        ));
    }
    Ok(())
}

struct Table {
    persistence: String,
    hides_rows: bool,
    may_delete: bool,
}

const TABLE: &str = "SELECT relpersistence::text, row_security_active(oid), \
     has_table_privilege(oid, 'DELETE') \
     FROM pg_class WHERE oid = to_regclass('encryption_key')";

async fn table(session: &mut PostgresSession) -> Result<Option<Table>, SqlError> {
    let mut rows: Vec<(String, bool, bool)> = session.look(TABLE).await?;
    Ok(rows.pop().map(|(persistence, hides_rows, may_delete)| Table { persistence, hides_rows, may_delete }))
}

fn check_table(table: &Table, report: &mut SchemaReport) {
    if table.persistence != "p" {
        report.add(Finding::dangerous(
            FindingId::NotDurable,
            "The table is unlogged or temporary: a crash of the server empties it, and all keys are lost.",
            "ALTER TABLE encryption_key SET LOGGED.",
        ));
    }
    if table.hides_rows {
        report.add(Finding::dangerous(
            FindingId::PermissionMissing,
            "Row security applies to the user: a key whose row is hidden is taken for missing, and made anew.",
            "ALTER TABLE encryption_key DISABLE ROW LEVEL SECURITY, or grant the user BYPASSRLS.",
        ));
    }
}

struct Column {
    name: String,
    base_type: String,
    /// How many characters it holds, if there is a limit.
    chars_max: Option<i32>,
    tells_apart: bool,
    may_select: bool,
    may_insert: bool,
    may_update: bool,
}

impl Column {
    fn is_time(&self) -> bool {
        ["timestamp", "timestamptz"].contains(&self.base_type.as_str())
    }
}

const COLUMNS: &str = "SELECT a.attname::text, t.typname::text, a.atttypmod, \
     coalesce(c.collisdeterministic, true), has_column_privilege(a.attrelid, a.attnum, 'SELECT'), \
     has_column_privilege(a.attrelid, a.attnum, 'INSERT'), \
     has_column_privilege(a.attrelid, a.attnum, 'UPDATE') \
     FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid \
     LEFT JOIN pg_collation AS c ON c.oid = a.attcollation \
     WHERE a.attrelid = to_regclass('encryption_key') AND a.attname IN ('id', 'created', 'key_record') \
       AND a.attnum > 0 AND NOT a.attisdropped";

async fn columns(session: &mut PostgresSession) -> Result<Vec<Column>, SqlError> {
    let rows: Vec<(String, String, i32, bool, bool, bool, bool)> = session.look(COLUMNS).await?;
    let column = |(name, base_type, modifier, tells_apart, may_select, may_insert, may_update)| Column {
        name,
        base_type,
        // The server counts four bytes of its own.
        chars_max: (modifier > 4).then_some(modifier - 4),
        tells_apart,
        may_select,
        may_insert,
        may_update,
    };
    Ok(rows.into_iter().map(column).collect())
}

fn check_columns(columns: &[Column], report: &mut SchemaReport) {
    for name in NAMES {
        let Some(column) = columns.iter().find(|column| column.name == name) else {
            report.add(Finding::dangerous(
                FindingId::ColumnMissing,
                format!("The table has no column {name}."),
                "Make a table by `claviger schema apply` in another schema, and move the rows there.",
            ));
            continue;
        };
        match name {
            "id" => check_id_column(column, report),
            "created" => check_created_column(column, report),
            _ => check_record_column(column, report),
        }
    }
}

/// As many characters as an id may have.
const ID_CHARS: i32 = 255;

fn check_id_column(column: &Column, report: &mut SchemaReport) {
    let remedy = "ALTER TABLE encryption_key ALTER COLUMN id TYPE VARCHAR(255) COLLATE \"C\".";
    let folds = match column.base_type.as_str() {
        "varchar" | "text" if !column.tells_apart => "its collation is not deterministic",
        "citext" => "citext takes upper and lower case for one",
        "bpchar" => "CHAR takes trailing blanks for nothing",
        "varchar" | "text" => {
            if let Some(chars) = column.chars_max.filter(|chars| *chars < ID_CHARS) {
                report.add(Finding::dangerous(
                    FindingId::ColumnType,
                    format!("id has {chars} characters: trailing blanks beyond are cut, longer ids refused."),
                    remedy,
                ));
            }
            return;
        }
        other => {
            let what = format!("id is of type {other}, which does not hold texts.");
            report.add(Finding::dangerous(FindingId::ColumnType, what, remedy));
            return;
        }
    };
    let what = format!(
        "id takes different ids for one, since {folds}: other programs seal for one under the other's key, and name \
         an id that has no row."
    );
    // What is compared as another type is not found by us.
    let remedy = if column.tells_apart { UNFOLD } else { UNFOLD_OR_READ };
    report.add(Finding::dangerous(FindingId::CollationFolds, what, remedy));
}

fn check_created_column(column: &Column, report: &mut SchemaReport) {
    if !column.is_time() {
        report.add(Finding::dangerous(
            FindingId::ColumnType,
            format!("created is of type {}, which is no time to the second.", column.base_type),
            "ALTER TABLE encryption_key ALTER COLUMN created TYPE TIMESTAMPTZ USING an expression that says \
             which time is meant.",
        ));
    }
}

/// What a record needs that a KMS with many regions has wrapped.
const RECORD_CHARS: i32 = 65_535;

fn check_record_column(column: &Column, report: &mut SchemaReport) {
    let remedy = "ALTER TABLE encryption_key ALTER COLUMN key_record TYPE JSON USING key_record::json, or to \
                  TEXT where older Asherahs in Java or C# write to the table.";
    match (column.base_type.as_str(), column.chars_max) {
        ("text" | "json" | "jsonb", _) | ("varchar", None) => {}
        ("varchar", Some(chars)) if chars >= RECORD_CHARS => {}
        ("varchar", Some(chars)) => report.add(Finding::warning(
            FindingId::ColumnType,
            format!("key_record has {chars} characters: longer records are refused."),
            remedy,
        )),
        (other, _) => report.add(Finding::dangerous(
            FindingId::ColumnType,
            format!("key_record is of type {other}, which does not hold JSON texts."),
            remedy,
        )),
    }
}

const UNIQUE_KEYS: &str = "SELECT ARRAY( \
       SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY AS k (attnum, n) \
       JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
       WHERE k.n <= i.indnkeyatts ORDER BY k.n) \
     FROM pg_index AS i \
     WHERE i.indrelid = to_regclass('encryption_key') AND i.indisunique AND i.indisvalid \
       AND i.indpred IS NULL AND i.indexprs IS NULL";

/// Returns `true` if rows are found by a unique key.
async fn check_key(session: &mut PostgresSession, report: &mut SchemaReport) -> Result<bool, SqlError> {
    let keys: Vec<(Vec<String>,)> = session.look(UNIQUE_KEYS).await?;
    let has = |columns: [&str; 2]| keys.iter().any(|(key,)| *key == columns);
    if has(["id", "created"]) {
        return Ok(true);
    }
    let remedy = "ALTER TABLE encryption_key ADD PRIMARY KEY (id, created), after having removed doubles.";
    report.add(if has(["created", "id"]) {
        let what = "The primary key begins with created: every look-up by id reads the whole table.";
        Finding::warning(FindingId::PrimaryKeyMissing, what, remedy)
    } else {
        let what = "Nothing keeps two processes from storing different keys under one id and time.";
        Finding::dangerous(FindingId::PrimaryKeyMissing, what, remedy)
    });
    Ok(false)
}

fn check_rights(table: &Table, columns: &[Column], report: &mut SchemaReport) {
    let may_select = columns.iter().all(|column| column.may_select);
    let may_insert = columns.iter().all(|column| column.may_insert);
    let found = |missing: &str, comes_of_it: &str| {
        let what = format!("The user lacks {missing} on the table: keys cannot be {comes_of_it}.");
        (FindingId::PermissionMissing, what, format!("GRANT {missing} ON encryption_key TO the user."))
    };
    match (may_select, may_insert) {
        (true, true) => {}
        (true, false) => {
            let (id, what, remedy) = found("INSERT", "created");
            report.add(Finding::dangerous_to_write(id, what, remedy));
        }
        (false, _) => {
            let missing = if may_insert { "SELECT" } else { "SELECT, INSERT" };
            let (id, what, remedy) = found(missing, "loaded or created");
            report.add(Finding::dangerous(id, what, remedy));
        }
    }
    let mut missing = Vec::new();
    if columns.iter().any(|column| column.name == "key_record" && !column.may_update) {
        missing.push("UPDATE");
    }
    if !table.may_delete {
        missing.push("DELETE");
    }
    if !missing.is_empty() {
        let missing = missing.join(", ");
        report.add(Finding::warning(
            FindingId::AdminPermissionMissing,
            format!("The user lacks {missing} on the table, which revoking, rewrapping or deleting needs."),
            format!("GRANT {missing} ON encryption_key TO those who operate it; a service needs neither."),
        ));
    }
}
