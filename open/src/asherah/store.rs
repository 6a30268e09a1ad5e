//! Where Asherah's configuration says that keys are kept.

use super::{dsn, libpq};
use crate::endpoint::endpoint;
use crate::error::SpecError;
use crate::fields::Fields;
use crate::store::url::{MYSQL, POSTGRES, ServerUrl};
use crate::store::{ASHERAHS_TABLE, DynamoDbSpec, SqlSpec, StoreSpec};

pub(super) fn read(fields: &mut Fields) -> Result<StoreSpec, SpecError> {
    let kind = fields.need("Metastore", KINDS)?;
    let connection = fields.text("ConnectionString")?;
    let database = fields.text("SQLMetastoreDBType")?;
    let consistency = fields.text("ReplicaReadConsistency")?;
    let connections = fields.count("PoolMaxOpen")?;
    let tls = fields.text("MysqlTlsMode")?;
    let dynamodb = dynamodb(fields)?;
    let mut store = match &*kind {
        "memory" | "test-debug-memory" => StoreSpec::Memory,
        "sqlite" | "test-debug-sqlite" => {
            let path = connection.ok_or_else(|| lacks_connection(fields))?;
            let path = path.strip_prefix("sqlite:").unwrap_or(&path);
            StoreSpec::from_text(&format!("sqlite:{path}"), CALLED)?
        }
        "rdbms" => {
            let connection = connection.ok_or_else(|| lacks_connection(fields))?;
            rdbms(fields, &connection, database.as_deref().unwrap_or("mysql"), tls.as_deref())?
        }
        "dynamodb" => StoreSpec::DynamoDb(dynamodb),
        _ => return Err(fields.wrong(&format!("has a Metastore that is not known; {KINDS}"))),
    };
    if tls.is_some() && !matches!(store, StoreSpec::Mysql(_)) {
        return Err(fields.wrong(&format!("has a {}, which is MySQL's; leave it out", "MYSQL_TLS_MODE")));
    }
    if let StoreSpec::Mysql(sql) | StoreSpec::Postgres(sql) = &mut store {
        sql.options.connections_max = connections;
    }
    match (consistency.as_deref(), &mut store) {
        (None, _) => {}
        (Some(level), StoreSpec::Mysql(sql)) => {
            let statement = match level {
                "eventual" => "SET aurora_replica_read_consistency = 'EVENTUAL'",
                "global" => "SET aurora_replica_read_consistency = 'GLOBAL'",
                "session" => "SET aurora_replica_read_consistency = 'SESSION'",
                _ => {
                    let why =
                        "has a ReplicaReadConsistency that is not known; there are eventual, global, session";
                    return Err(fields.wrong(why));
                }
            };
            sql.options.on_connect = Some(statement);
        }
        (Some(_), _) => {
            return Err(fields.wrong("has a ReplicaReadConsistency, which is Aurora MySQL's; leave it out"));
        }
    }
    Ok(store)
}

fn rdbms(
    fields: &Fields,
    connection: &str,
    database: &str,
    tls: Option<&str>,
) -> Result<StoreSpec, SpecError> {
    if !matches!(database, "mysql" | "postgres") {
        return Err(fields.wrong("has a SQLMetastoreDBType that claviger has not; there are mysql, postgres"));
    }
    if connection.contains("://") {
        return match connection.split_once("://").map(|(scheme, _)| scheme) {
            Some("mysql" | "mariadb") => mysql(fields, connection, tls),
            Some("postgres" | "postgresql") => {
                ServerUrl::parse(connection, &POSTGRES, CALLED).map(SqlSpec::of).map(StoreSpec::Postgres)
            }
            _ => Err(fields.wrong("has a ConnectionString of another kind; say mysql://… or postgres://…")),
        };
    }
    if database == "postgres" {
        let url = libpq::to_url(connection, CALLED)?;
        return ServerUrl::parse(&url, &POSTGRES, CALLED).map(SqlSpec::of).map(StoreSpec::Postgres);
    }
    mysql(fields, &dsn::to_url(connection, CALLED)?, tls)
}

/// `tls` is said beside the URL, in the words of Go's driver.
fn mysql(fields: &Fields, url: &str, tls: Option<&str>) -> Result<StoreSpec, SpecError> {
    let mut url = url.to_owned();
    if let Some(tls) = tls {
        let called = "MYSQL_TLS_MODE";
        let mode = match tls {
            // Rust's Asherah verifies for both.
            "true" | "preferred" => "VERIFY_IDENTITY",
            "skip-verify" => "REQUIRED",
            "false" => "DISABLED",
            _ => {
                let why = format!("has a {called} that is not known; there are true, skip-verify, false");
                return Err(fields.wrong(&why));
            }
        };
        if url.contains("ssl-mode=") {
            return Err(fields.wrong(&format!("has a {called} beside the URL's own ssl-mode; keep one")));
        }
        url.push_str(if url.contains('?') { "&" } else { "?" });
        url.push_str(&format!("ssl-mode={mode}"));
    }
    ServerUrl::parse(&url, &MYSQL, CALLED).map(SqlSpec::of).map(StoreSpec::Mysql)
}

fn dynamodb(fields: &mut Fields) -> Result<DynamoDbSpec, SpecError> {
    let spec = DynamoDbSpec {
        table: fields.text("DynamoDBTableName")?.unwrap_or_else(|| ASHERAHS_TABLE.to_owned()),
        region: fields.text("DynamoDBRegion")?,
        endpoint: endpoint(fields, "DynamoDBEndpoint")?,
    };
    let signing = fields.text("DynamoDBSigningRegion")?;
    match signing {
        Some(signing) if spec.region.as_ref().is_some_and(|region| *region != signing) => {
            Err(fields.wrong("signs for another region than DynamoDBRegion; leave DynamoDBSigningRegion out"))
        }
        Some(signing) => Ok(DynamoDbSpec { region: Some(signing), ..spec }),
        None => Ok(spec),
    }
}

fn lacks_connection(fields: &Fields) -> SpecError {
    fields.wrong("lacks its ConnectionString; say where the database is")
}

const CALLED: &str = "ConnectionString";

const KINDS: &str = "say memory, sqlite, rdbms or dynamodb";
