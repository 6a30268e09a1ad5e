//! Where Asherah's configuration says that keys are kept.

use std::num::NonZeroU32;

use super::dsn;
use crate::error::SpecError;
use crate::fields::Fields;
use crate::store::url::{MYSQL, POSTGRES, ServerUrl};
use crate::store::{ASHERAHS_TABLE, DynamoDbSpec, SqlSpec, StoreSpec};

pub(super) fn read(fields: &mut Fields) -> Result<StoreSpec, SpecError> {
    let kind = fields.need("Metastore", KINDS)?;
    let connection = fields.text("ConnectionString")?;
    let database = fields.text("SQLMetastoreDBType")?;
    let consistency = fields.text("ReplicaReadConsistency")?;
    let connections: Option<u32> = fields.number("PoolMaxOpen")?;
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
            rdbms(fields, &connection, database.as_deref().unwrap_or("mysql"))?
        }
        "dynamodb" => StoreSpec::DynamoDb(dynamodb),
        _ => return Err(fields.wrong(&format!("has a Metastore that is not known; {KINDS}"))),
    };
    if let StoreSpec::Mysql(sql) | StoreSpec::Postgres(sql) = &mut store {
        sql.options.connections_max = connections.and_then(NonZeroU32::new);
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

fn rdbms(fields: &Fields, connection: &str, database: &str) -> Result<StoreSpec, SpecError> {
    if !matches!(database, "mysql" | "postgres") {
        return Err(fields.wrong("has a SQLMetastoreDBType that claviger has not; there are mysql, postgres"));
    }
    if connection.contains("://") {
        return match connection.split_once("://").map(|(scheme, _)| scheme) {
            Some("mysql" | "mariadb") => {
                ServerUrl::parse(connection, &MYSQL, CALLED).map(SqlSpec::of).map(StoreSpec::Mysql)
            }
            Some("postgres" | "postgresql") => {
                ServerUrl::parse(connection, &POSTGRES, CALLED).map(SqlSpec::of).map(StoreSpec::Postgres)
            }
            _ => Err(fields.wrong("has a ConnectionString of another kind; say mysql://… or postgres://…")),
        };
    }
    if database == "postgres" {
        let why =
            "has a ConnectionString in PostgreSQL's key=value form; say it as postgres://USER@HOST/DATABASE";
        return Err(fields.wrong(why));
    }
    let url = dsn::to_url(connection, CALLED)?;
    ServerUrl::parse(&url, &MYSQL, CALLED).map(SqlSpec::of).map(StoreSpec::Mysql)
}

fn dynamodb(fields: &mut Fields) -> Result<DynamoDbSpec, SpecError> {
    let spec = DynamoDbSpec {
        table: fields.text("DynamoDBTableName")?.unwrap_or_else(|| ASHERAHS_TABLE.to_owned()),
        region: fields.text("DynamoDBRegion")?,
        endpoint: fields.text("DynamoDBEndpoint")?,
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
