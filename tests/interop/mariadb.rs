//! We and both others in one table of MariaDB: in the one of Asherah's documentation and in ours, in
//! a server at UTC and in one in Los Angeles.

use std::error::Error as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use claviger::testing::call;
use claviger::{DataRowRecord, Error, FailureClass, MetastoreAdmin as _};
use claviger_metastore::{DangerousSchema, FindingId, MysqlBuilder, MysqlMetastore, SqlFault};
use claviger_testkit::{MariaDb, shared_mariadb};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};

use crate::clauses::led_by_each;
use crate::far_ahead;
use crate::peer::{Package, Place};
use crate::world::{MINUTE, NAMES, Names, PARTITION, World, assert_decrypts, assert_one_key};

/// Whose sessions are in which time zone; the others send the texts of UTC times whatever it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Server {
    Utc,
    LosAngeles,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Table {
    /// As Asherah's documentation creates it, in Debian's character set.
    Legacy,
    /// The same in the character set of a MariaDB that nobody configured.
    Latin1,
    /// As [`MysqlMetastore::migrate`] does.
    Own,
}

/// The zone of the machine that the server is on.
const SYSTEM: &str = "SYSTEM";

const LEGACY: &str = "CREATE TABLE encryption_key (
    id VARCHAR(255) NOT NULL,
    created TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    key_record TEXT NOT NULL,
    PRIMARY KEY (id, created),
    INDEX (created)
)";

led_by_each!(legacy, |packages| world(Server::Utc, Table::Legacy, packages));
led_by_each!(legacy_in_latin1, |packages| world(Server::Utc, Table::Latin1, packages));
led_by_each!(legacy_in_los_angeles, |packages| world(Server::LosAngeles, Table::Legacy, packages));
led_by_each!(own, |packages| world(Server::Utc, Table::Own, packages));
led_by_each!(own_in_los_angeles, |packages| world(Server::LosAngeles, Table::Own, packages));

/// Else we would find none of their keys and make all of them anew.
#[tokio::test]
async fn a_table_that_others_wrote_in_another_zone_is_refused_until_told_the_zone() {
    let (store, place) = open(Server::LosAngeles, Table::Legacy).await;
    let mut world = World::new(store, place, &[Package::Go, Package::Rust], ());
    let theirs: Vec<_> = world.peers().map(|peer| peer.encrypt(PARTITION, b"theirs")).collect();

    let error = MysqlMetastore::open(world.url()).await.unwrap_err();
    let dangerous = error.source().and_then(|source| source.downcast_ref::<DangerousSchema>()).unwrap();
    let [finding] = &dangerous.findings[..] else { panic!("{dangerous}") };
    assert_eq!(finding.id, FindingId::ZoneMismatch);
    assert!(finding.remedy.contains(SYSTEM), "{finding}");

    // As the remedy says.
    world.store = MysqlMetastore::builder().session_time_zone(SYSTEM).open(world.url()).await.unwrap();
    let ours = world.encrypt(b"ours").await;
    assert_one_key(theirs.iter().chain([&ours]));
}

/// Go writes `&` as `\u0026`. The Rust one cannot read such a row, which is not ours to mend.
#[tokio::test]
async fn rows_of_go_that_the_rust_one_cannot_read_are_read_by_us() {
    let (store, place) = open(Server::Utc, Table::Legacy).await;
    let names = Names { service: "R&D", ..NAMES };
    let mut world = World::named(names, store, place, &[Package::Go, Package::Rust], ());
    let theirs = world.lead.encrypt(PARTITION, b"theirs");
    for rust in &mut world.others {
        rust.assert_refuses(PARTITION, &theirs);
    }
    let ours = world.encrypt(b"ours").await;
    assert_one_key([&theirs, &ours]);
    let session = world.ours().session(PARTITION).unwrap();
    assert_decrypts(&session, &theirs, b"theirs").await;
    world.lead.assert_decrypts(PARTITION, &ours, b"ours");
}

/// It sets the flag in the JSON and writes that back, with the flag last.
#[tokio::test]
async fn a_revocation_by_the_script_of_asherah_counts_in_a_live_session() {
    let (store, place) = open(Server::Utc, Table::Legacy).await;
    let mut world = World::new(store, place, &[Package::Go, Package::Rust], ());
    let ours = world.ours();
    let session = ours.session(PARTITION).unwrap();
    let revoked = session.encrypt(b"revoked").await.unwrap();

    let mut connection = MySqlConnection::connect(world.url()).await.unwrap();
    let id = revoked.parent().unwrap().id().as_str();
    let sql = "SELECT key_record FROM encryption_key WHERE id = ?";
    let json: String = sqlx::query_scalar(sql).bind(id).fetch_one(&mut connection).await.unwrap();
    let json = json.strip_suffix('}').unwrap().to_owned() + r#","Revoked":true}"#;
    let sql = "UPDATE encryption_key SET key_record = ? WHERE id = ?";
    sqlx::query(sql).bind(json).bind(id).execute(&mut connection).await.unwrap();

    let replaced = session.encrypt(b"replaced").await.unwrap();
    assert_ne!(replaced.parent(), revoked.parent());
    let followed = world.all_encrypt(b"followed").await;
    assert_one_key(followed.iter().chain([&replaced]));
    world.assert_all_decrypt(&[(&revoked, b"revoked"), (&replaced, b"replaced")]).await;
}

/// Its guard row, which is no key.
#[tokio::test]
async fn what_the_rust_one_keeps_beside_the_keys_stays_as_it_is() {
    let (store, place) = open(Server::Utc, Table::Legacy).await;
    let mut world = World::new(store, place, &[Package::Rust], ());
    let record = world.lead.encrypt(PARTITION, b"record");
    let guard = guard_rows(world.url()).await;
    let [(id, created, _)] = &guard[..] else { panic!("{guard:?}") };
    assert!(id.starts_with("__asherah_internal_config_drift_guard_v1__:"), "{id}");
    assert_eq!(created, "2000-01-01 00:00:00");

    let page = world.store.list("", None, 10, &call()).await.unwrap();
    assert!(page.damaged.is_empty(), "{page:?}");
    let keys: Vec<_> = page.records.iter().map(|key| key.meta().clone()).collect();
    assert_eq!(keys.len(), 2);
    for key in &keys {
        world.revoke(key).await;
    }
    world.assert_all_decrypt(&[(&record, b"record")]).await;
    assert_eq!(guard_rows(world.url()).await, guard);
}

async fn guard_rows(url: &str) -> Vec<(String, String, String)> {
    let mut connection = MySqlConnection::connect(url).await.unwrap();
    let sql =
        "SELECT id, CAST(created AS CHAR), key_record FROM encryption_key WHERE id LIKE '\\_\\_asherah%'";
    sqlx::query_as(sql).fetch_all(&mut connection).await.unwrap()
}

async fn world(server: Server, table: Table, packages: &[Package]) -> World<MysqlMetastore> {
    let (store, place) = open(server, table).await;
    let world = World::new(store, place, packages, ());
    match table {
        // The others fail on what the table cannot hold.
        Table::Latin1 => world.without_partitions(|partition| partition.contains('令')),
        Table::Legacy | Table::Own => world,
    }
}

/// A table of its own, and where the others find it.
pub(crate) async fn open(server: Server, table: Table) -> (MysqlMetastore, Place) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // Not the only test process on the server.
    let database = format!("interop_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let server_url = server.url();
    let charset = match table {
        Table::Legacy | Table::Own => "utf8mb4 COLLATE utf8mb4_general_ci",
        Table::Latin1 => "latin1 COLLATE latin1_swedish_ci",
    };
    execute(&server_url, &format!("CREATE DATABASE {database} CHARACTER SET {charset}")).await;
    let url = format!("{server_url}{database}");
    match table {
        Table::Legacy | Table::Latin1 => execute(&url, LEGACY).await,
        Table::Own => {
            let store = server.builder(table).danger_unchecked().migrate().open(&url).await.unwrap();
            store.close().await;
        }
    }
    let place = Place::Mysql(url);
    (reopen(server, table, &place).await, place)
}

pub(crate) async fn reopen(server: Server, table: Table, place: &Place) -> MysqlMetastore {
    let Place::Mysql(url) = place else { panic!("{place:?} is no MariaDB") };
    server.builder(table).open(url).await.unwrap()
}

impl Server {
    fn url(self) -> String {
        static THERE: OnceLock<MariaDb> = OnceLock::new();
        match self {
            Self::Utc => shared_mariadb().to_owned(),
            Self::LosAngeles => THERE.get_or_init(|| MariaDb::start_in("America/Los_Angeles", &[])).url(""),
        }
    }

    fn builder(self, table: Table) -> MysqlBuilder {
        let builder = MysqlMetastore::builder();
        match (self, table) {
            (Self::LosAngeles, Table::Legacy | Table::Latin1) => builder.session_time_zone(SYSTEM),
            // No zone has a part in what our table holds.
            (Self::LosAngeles, Table::Own) | (Self::Utc, _) => builder,
        }
    }
}

async fn execute(url: &str, sql: &str) {
    let mut connection = MySqlConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// One row for all of these, as the table has it.
const TWINS: [&str; 3] = ["alice", "Alice", "ALICE"];

fn documented(contains: &str) -> &'static str {
    let blocks = include_str!("../../docs/metastores.md")
        .split("```sql\n")
        .filter_map(|block| block.split_once("```"));
    blocks.map(|(sql, _)| sql).find(|sql| sql.contains(contains)).unwrap()
}

async fn sealed_by_all(world: &mut World<MysqlMetastore>, text: &str) -> Vec<(&'static str, DataRowRecord)> {
    let mut records = Vec::new();
    for partition in TWINS {
        records.extend(world.peers().map(|peer| (partition, peer.encrypt(partition, text.as_bytes()))));
    }
    records
}

/// What an id that has no row means to them and to us; and that once each has rows of its own, as the
/// documentation has it, everybody reads everything.
#[tokio::test]
async fn ids_that_the_table_takes_for_one_are_read_with_the_option_and_after_the_documented_statements() {
    for (server, table, packages) in [
        (Server::Utc, Table::Legacy, [Package::Go, Package::Rust]),
        (Server::LosAngeles, Table::Latin1, [Package::Rust, Package::Go]),
    ] {
        let (store, place) = open(server, table).await;
        let mut world = World::new(store, place.clone(), &packages, ());
        let mut records = sealed_by_all(&mut world, "before").await;
        assert_eq!(world.count().await, 2, "one row for all three, and its parent");

        // Without the option, what it is.
        for (partition, record) in &records {
            let ours = world.ours().session(partition).unwrap();
            assert_eq!(record.parent().unwrap().id().as_str(), format!("_IK_{partition}_checkout_payments"));
            match *partition {
                "alice" => assert_decrypts(&ours, record, b"before").await,
                _ => assert_folded(&ours.decrypt(record).await.unwrap_err()),
            }
        }

        // With it everything is read, and what we seal is under a row of its own name.
        let plain = world.store.clone();
        world.store = server.builder(table).folded_ids(true).open(world.url()).await.unwrap();
        for (partition, record) in &records {
            assert_decrypts(&world.ours().session(partition).unwrap(), record, b"before").await;
        }
        world.clock.advance(MINUTE);
        let ours = world.ours().session("Alice").unwrap().encrypt(b"before").await.unwrap();
        assert_eq!(world.versions(ours.parent().unwrap().id()).await, 1);
        assert_eq!(world.versions(records[0].1.parent().unwrap().id()).await, 1);
        assert_eq!(world.versions(records.last().unwrap().1.parent().unwrap().id()).await, 0);
        records.push(("Alice", ours));
        // Theirs are under the latest of all three from now on, which is ours.
        records.extend(sealed_by_all(&mut world, "before").await);
        for (partition, record) in &records {
            assert_decrypts(&world.ours().session(partition).unwrap(), record, b"before").await;
            world.peers().for_each(|peer| peer.assert_decrypts(partition, record, b"before"));
        }
        let count = world.count().await;

        // The statements of the documentation, which name two of the three.
        let zone = if matches!(server, Server::Utc) { "+00:00" } else { SYSTEM };
        execute(world.url(), &documented("RENAME TABLE").replace("+00:00", zone)).await;
        world.store = MysqlMetastore::open(world.url()).await.unwrap();
        assert_eq!(world.store.check_schema(&call()).await.unwrap().findings(), []);
        assert_eq!(world.count().await, 2 * count - 1, "each version under both, and one parent");
        for (partition, record) in &records {
            let ours = world.ours().session(partition).unwrap();
            if *partition == "ALICE" {
                assert!(matches!(ours.decrypt(record).await, Err(Error::KeyNotFound(_))));
                world.peers().for_each(|peer| peer.assert_refuses(partition, record));
            } else {
                assert_decrypts(&ours, record, b"before").await;
                world.peers().for_each(|peer| peer.assert_decrypts(partition, record, b"before"));
            }
        }
        // And the one that was forgotten.
        let forgotten = format!("SET time_zone = '{zone}'; {}", documented("_IK_ALICE"));
        execute(world.url(), &forgotten).await;
        records.extend(sealed_by_all(&mut world, "before").await);
        for partition in TWINS {
            let ours = world.ours().session(partition).unwrap().encrypt(b"before").await.unwrap();
            records.push((partition, ours));
        }
        for (partition, record) in &records {
            assert_decrypts(&world.ours().session(partition).unwrap(), record, b"before").await;
            world.peers().for_each(|peer| peer.assert_decrypts(partition, record, b"before"));
        }
        plain.close().await;
    }
}

/// Alone the change of the column parts records from their keys, for everybody.
#[tokio::test]
async fn changing_the_column_alone_parts_records_from_their_keys() {
    let (store, place) = open(Server::Utc, Table::Legacy).await;
    let mut world = World::new(store, place, &[Package::Go, Package::Rust], ());
    let records = sealed_by_all(&mut world, "before").await;
    execute(world.url(), "ALTER TABLE encryption_key MODIFY id VARBINARY(255) NOT NULL").await;
    world.store = MysqlMetastore::builder().folded_ids(true).open(world.url()).await.unwrap();
    for (partition, record) in records.iter().filter(|(partition, _)| *partition != "alice") {
        let ours = world.ours().session(partition).unwrap();
        assert!(matches!(ours.decrypt(record).await, Err(Error::KeyNotFound(_))));
        world.peers().for_each(|peer| peer.assert_refuses(partition, record));
    }
}

#[track_caller]
fn assert_folded(error: &Error) {
    let Error::Metastore { source, .. } = error else { panic!("{error:?}") };
    assert_eq!(source.class(), FailureClass::Folded);
    let fault = source.source().and_then(|fault| fault.downcast_ref());
    assert!(matches!(fault, Some(SqlFault::FoldedId { .. })), "{error:?}");
}

#[tokio::test]
async fn rows_far_ahead_are_read_by_all_and_cleared_away() {
    for packages in [[Package::Go, Package::Rust], [Package::Rust, Package::Go]] {
        let (store, place) = open(Server::Utc, Table::Legacy).await;
        let world = World::new(store, place, &packages, ());
        far_ahead::rows_far_ahead_are_read_by_all_and_cleared_away(world, &packages, async |world| {
            execute(world.url(), far_ahead::documented("NOW() + INTERVAL 1 DAY")).await;
        })
        .await;
    }
}
