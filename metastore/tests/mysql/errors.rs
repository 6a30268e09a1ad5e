//! Failures of real servers, each with its class, and none with a password.

use std::error::Error as _;
use std::num::NonZeroU32;

use claviger::testing::call;
use claviger::{FailureKind, Insert, Metastore as _, MetastoreAdmin as _};
use claviger_metastore::{DriverFault, FindingId, MysqlMetastore};
use claviger_testkit::{MariaDb, shared_mariadb};

use crate::latest::LatestRecord as _;
use crate::refused::assert_refused_unasked;
use crate::support::{
    ASHERAH, NOW, Place, UTF8, as_user, assert_permanent, assert_transient, builder, chain, execute,
    password, record,
};

const ID: &str = "_IK_a_svc_prod";

#[tokio::test]
async fn a_user_who_is_not_let_in_is_permanent_and_no_password_is_told() {
    let place = Place::migrated(UTF8).await;
    let wrong = as_user(&place.url, "claviger", "wr0ng-s3cret");
    let error = MysqlMetastore::open(&wrong).await.unwrap_err();
    assert!(!chain(&error).contains("wr0ng-s3cret"), "{}", chain(&error));
    let fault: &DriverFault = error.source().unwrap().downcast_ref().unwrap();
    assert_eq!(fault.code.as_deref(), Some("28000"));
    assert_eq!((fault.number, error.kind()), (Some(1045), Some(FailureKind::Unauthenticated)));
    assert!(fault.message.starts_with("Access denied"), "{fault}");
    assert_permanent(Err::<(), _>(error), "Access denied");
    // In a pool that was made before the password changed, too.
    let later = builder().danger_unchecked().open(&wrong).await;
    assert_permanent(later, "1045");
    assert_permanent(MysqlMetastore::open(&format!("{}nowhere", shared_mariadb())).await, "1049");
    assert_permanent(MysqlMetastore::open(shared_mariadb().trim_end_matches('/')).await, "1046");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_transient() {
    // Port 1 refuses, and no domain ends in invalid.
    assert_transient(
        MysqlMetastore::open("mysql://a:s3cret@127.0.0.1:1/keys").await,
        "the connection failed",
    );
    assert_transient(MysqlMetastore::open("mysql://a:s3cret@db.invalid/keys").await, "the connection failed");
}

#[tokio::test]
async fn tls_that_is_required_and_not_there_is_permanent() {
    let place = Place::migrated(UTF8).await;
    assert_permanent(MysqlMetastore::open(&format!("{}?ssl-mode=REQUIRED", place.url)).await, "TLS");
    // MySQL says 3159; MariaDB has one answer for all whom it does not let in.
    let server = MariaDb::start_with(&["--require-secure-transport=ON"]);
    assert_permanent(MysqlMetastore::open(&server.url("mysql")).await, "1045");
    let user =
        "CREATE USER IF NOT EXISTS by_tls IDENTIFIED BY 'less' REQUIRE SSL; GRANT ALL ON *.* TO by_tls";
    execute(shared_mariadb(), user).await;
    assert_permanent(MysqlMetastore::open(&as_user(&place.url, "by_tls", "less")).await, "1045");
}

#[tokio::test]
async fn denied_calls_and_missing_tables_are_permanent() {
    let place = Place::migrated(UTF8).await;
    let database = place.url.rsplit_once('/').unwrap().1;
    let user = format!("{database}_reader");
    let grant = format!("CREATE USER {user} IDENTIFIED BY 'less'; GRANT SELECT ON {database}.* TO {user}");
    execute(shared_mariadb(), &grant).await;
    let reader = builder().accept(FindingId::PermissionMissing);
    let reader = reader.open(&as_user(&place.url, &user, "less")).await.unwrap();
    assert_eq!(reader.latest(record(ID, NOW).meta().id()).await.unwrap(), None);
    assert_permanent(reader.insert(&record(ID, NOW), &call()).await, "1142");
    assert_permanent(reader.delete(record(ID, NOW).meta().id(), &call()).await, "1142");
    // The same connection goes on.
    assert_eq!(reader.load(record(ID, NOW).meta(), &call()).await.unwrap(), None);

    let store = place.open().await;
    assert_eq!(store.insert(&record(ID, NOW), &call()).await.unwrap(), Insert::Inserted);
    place.execute("DROP TABLE encryption_key").await;
    assert_permanent(store.insert(&record(ID, NOW), &call()).await, "1146");
    assert_permanent(store.latest(record(ID, NOW).meta().id()).await, "1146");
    assert_permanent(store.count(&call()).await, "1146");
    place.migrate().await;
    assert_eq!(store.insert(&record(ID, NOW), &call()).await.unwrap(), Insert::Inserted);
}

#[tokio::test]
async fn a_server_that_was_demoted_is_transient_and_its_connections_are_closed() {
    let server = MariaDb::start();
    let place = Place::at(&server, UTF8).await;
    place.migrate().await;
    server.sql(
        "",
        "CREATE USER service IDENTIFIED BY 'less'; GRANT ALL ON *.* TO service; \
                    REVOKE READ_ONLY ADMIN ON *.* FROM service",
    );
    // One connection, so that every call is on the one before it.
    let store = builder().max_connections(NonZeroU32::MIN);
    let store = store.open(&as_user(&place.url, "service", "less")).await.unwrap();
    assert_eq!(store.insert(&record(ID, NOW), &call()).await.unwrap(), Insert::Inserted);
    let newest_connection = || {
        let newest = "SELECT MAX(id) FROM information_schema.processlist WHERE user = 'service'";
        server.sql("", newest).trim().parse::<u64>().unwrap()
    };
    let before = newest_connection();
    server.sql("", "SET GLOBAL read_only = 1");
    assert_transient(store.insert(&record(ID, NOW + 1), &call()).await, "1290");
    // Reads go on, on another connection.
    assert_eq!(store.latest(record(ID, NOW).meta().id()).await.unwrap(), Some(record(ID, NOW)));
    assert!(newest_connection() > before);
    server.sql("", "SET GLOBAL read_only = 0");
    assert_eq!(store.insert(&record(ID, NOW + 1), &call()).await.unwrap(), Insert::Inserted);
}

#[tokio::test]
async fn a_full_disk_is_transient() {
    // The system's tablespace takes no more than this.
    let server = MariaDb::start_with(&[
        "--innodb-file-per-table=0",
        "--innodb-data-file-path=ibdata1:12M:autoextend:max:20M",
    ]);
    let place = Place::at(&server, UTF8).await;
    place.migrate().await;
    let store = place.open().await;
    let big = |second| {
        let record = record(ID, NOW + second);
        claviger::EnvelopeKeyRecord::new(record.meta().clone(), vec![7; 48_000], None)
    };
    let mut stored = 0;
    let full = loop {
        match store.insert(&big(stored), &call()).await {
            Ok(inserted) => assert_eq!(inserted, Insert::Inserted),
            Err(error) => break error,
        }
        stored += 1;
        assert!(stored < 1_000, "it fills up");
    };
    assert_transient(Err::<(), _>(full), "1114");
    assert_eq!(store.count(&call()).await.unwrap(), stored.unsigned_abs());
    assert_eq!(store.latest(big(0).meta().id()).await.unwrap(), Some(big(stored - 1)));
}

#[tokio::test]
async fn too_many_connections_is_transient() {
    let server = MariaDb::start_with(&["--max-connections=10"]);
    let place = Place::at(&server, UTF8).await;
    place.migrate().await;
    let url = as_user(&place.url, "service", "less");
    server.sql(
        "",
        "CREATE USER service IDENTIFIED BY 'less'; GRANT ALL ON *.* TO service WITH MAX_USER_CONNECTIONS 1",
    );
    let store = builder().open(&url).await.unwrap();
    // The server may still count the connection that looked at the table.
    let inserted = loop {
        match store.insert(&record(ID, NOW), &call()).await {
            Err(error) => assert_transient(Err::<(), _>(error), "1226"),
            Ok(inserted) => break inserted,
        }
    };
    assert_eq!(inserted, Insert::Inserted);
    assert_transient(MysqlMetastore::open(&url).await, "1226");
}

#[tokio::test]
async fn locks_that_others_hold_are_transient() {
    use sqlx::Connection as _;

    let place = Place::holding(ASHERAH, UTF8).await;
    let store = place.open().await;
    assert_eq!(store.insert(&record(ID, NOW), &call()).await.unwrap(), Insert::Inserted);
    let mut other = sqlx::mysql::MySqlConnection::connect(&place.url).await.unwrap();
    let lock = "BEGIN; SELECT * FROM encryption_key WHERE id = '_IK_a_svc_prod' FOR UPDATE";
    sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
    assert_transient(store.revoke(record(ID, NOW).meta(), &call()).await, "1205");
    assert_eq!(store.latest(record(ID, NOW).meta().id()).await.unwrap(), Some(record(ID, NOW)));
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    assert!(store.revoke(record(ID, NOW).meta(), &call()).await.unwrap());
}

#[tokio::test]
async fn nothing_shows_a_password() {
    let place = Place::migrated(UTF8).await;
    let store = builder().replica_url(&place.url).open(&place.url).await.unwrap();
    let text = format!("{store:?} {:?}", builder().replica_url(&place.url));
    assert!(text.contains("replica: true") && !text.contains(password(&place.url)), "{text}");
    store.close().await;
    assert_permanent(store.latest(record(ID, NOW).meta().id()).await, "closed");
}

#[tokio::test]
async fn what_is_refused_here_says_so_also_when_the_server_is_gone() {
    let mut server = MariaDb::start_with(&[]);
    let store = Place::at(&server, UTF8).await.migrate().await;
    server.kill();
    assert_refused_unasked(&store).await;
}
