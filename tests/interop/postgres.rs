//! We and both others in one table of PostgreSQL: as they create it and as we do.

use std::error::Error as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use claviger_metastore::{DangerousSchema, FindingId, PostgresMetastore};
use claviger_testkit::shared_postgres;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::clauses::{clauses, led_by_each};
use crate::far_ahead;
use crate::peer::{Package, Place};
use crate::world::{PARTITION, World};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Table {
    /// As Asherah's documentation creates it. The Rust one cannot write to a column of type TEXT.
    Documented,
    /// As the Rust one's own tests create it.
    Json,
    /// The same, and the sessions are in another time zone than UTC.
    JsonInLosAngeles,
    /// As [`PostgresMetastore::migrate`] does.
    Own,
    /// The same, and the sessions are in another time zone than UTC.
    OwnInLosAngeles,
}

const DOCUMENTED: &str = "CREATE TABLE encryption_key (
    id VARCHAR(255) NOT NULL,
    created TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    key_record TEXT NOT NULL,
    PRIMARY KEY (id, created)
)";
const JSON: &str = "CREATE TABLE encryption_key (
    id TEXT NOT NULL,
    created TIMESTAMP NOT NULL,
    key_record JSONB NOT NULL,
    PRIMARY KEY (id, created)
)";

mod documented {
    use super::*;
    clauses!(world(Table::Documented, &[Package::Go]));
}
led_by_each!(json, |packages| world(Table::Json, packages));
led_by_each!(own, |packages| world(Table::Own, packages));
led_by_each!(own_in_los_angeles, |packages| world(Table::OwnInLosAngeles, packages));

/// The Rust one writes times of the session's zone to a column that has none, where Go and we write
/// UTC: none would find the other's keys.
#[tokio::test]
async fn a_table_that_the_rust_one_wrote_in_another_zone_is_refused() {
    let mut world = world(Table::JsonInLosAngeles, &[Package::Rust]).await;
    drop(world.lead.encrypt(PARTITION, b"theirs"));
    let error = PostgresMetastore::open(world.url()).await.unwrap_err();
    let dangerous = error.source().and_then(|source| source.downcast_ref::<DangerousSchema>()).unwrap();
    let [finding] = &dangerous.findings[..] else { panic!("{dangerous}") };
    assert_eq!(finding.id, FindingId::ZoneMismatch);
}

pub(crate) async fn world(table: Table, packages: &[Package]) -> World<PostgresMetastore> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // Not the only test process on the server.
    let database = format!("interop_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    execute(shared_postgres(), &format!("CREATE DATABASE {database}")).await;
    let (server, _) = shared_postgres().rsplit_once('/').unwrap();
    let url = format!("{server}/{database}");
    match table {
        Table::Documented => execute(&url, DOCUMENTED).await,
        Table::Json => execute(&url, JSON).await,
        Table::JsonInLosAngeles => {
            move_to_los_angeles(&url, &database).await;
            execute(&url, JSON).await;
        }
        Table::Own => migrate(&url).await,
        Table::OwnInLosAngeles => {
            move_to_los_angeles(&url, &database).await;
            migrate(&url).await;
        }
    }
    let store = PostgresMetastore::open(&url).await.unwrap();
    World::new(store, Place::Postgres(url), packages, ())
}

async fn move_to_los_angeles(url: &str, database: &str) {
    execute(url, &format!("ALTER DATABASE {database} SET timezone = 'America/Los_Angeles'")).await;
}

async fn migrate(url: &str) {
    let store = PostgresMetastore::builder().danger_unchecked().migrate().open(url).await.unwrap();
    store.close().await;
}

async fn execute(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn rows_far_ahead_are_read_by_all_and_cleared_away() {
    far_ahead::rows_far_ahead_are_read_by_all_and_cleared_away(
        world(Table::Documented, &[Package::Go]).await,
        &[Package::Go],
        async |world| execute(world.url(), far_ahead::documented("INTERVAL '1 day'")).await,
    )
    .await;
}
