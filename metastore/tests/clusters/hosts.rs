//! Several hosts in one URL, of which one will do.

use claviger::testing::call;
use claviger::{Insert, Metastore as _};
use claviger_metastore::{FindingId, MysqlMetastore, PostgresMetastore};
use claviger_testkit::{MariaDb, Postgres};

use crate::record;

/// The URL with these ports in the place of its one host.
fn at_ports(url: &str, ports: &[u16]) -> String {
    let (user, rest) = url.rsplit_once('@').unwrap();
    let hosts: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    format!("{user}@{}/{}", hosts.join(","), rest.split_once('/').unwrap().1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_that_plays_the_part_is_used_and_its_successor_after_it() {
    let mut primary = Postgres::start();
    let unchecked = PostgresMetastore::builder().danger_unchecked();
    unchecked.migrate().open(&primary.url("postgres")).await.unwrap();
    let standby = Postgres::standby_of(&primary, "second");
    // Nobody listens at the first.
    let url = at_ports(&primary.url("postgres"), &[1, standby.port(), primary.port()]);
    for which in ["", "?target_session_attrs=primary", "?target_session_attrs=read-write"] {
        let store = PostgresMetastore::open(&format!("{url}{which}")).await.unwrap();
        let record = record(&format!("_IK_{}_svc_prod", which.len()), 0);
        assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
    }
    for which in ["standby", "read-only"] {
        let url = format!("{url}?target_session_attrs={which}");
        let builder = PostgresMetastore::builder().accept(FindingId::ReadOnly);
        let store = builder.open(&url).await.unwrap();
        let error = store.insert(&record("_IK_b_svc_prod", 0), &call()).await.unwrap_err();
        assert!(format!("{error:?}").contains("25006"), "{error:?}");
    }
    let store = PostgresMetastore::open(&url).await.unwrap();
    let first = record("_IK_a_svc_prod", 0);
    assert_eq!(store.insert(&first, &call()).await.unwrap(), Insert::Inserted);
    while !standby.psql("postgres", "SELECT id FROM encryption_key").contains("_IK_a_") {}
    assert_eq!(store.failovers(), 0);
    primary.kill();
    standby.promote();
    assert_eq!(store.load(first.meta(), &call()).await.unwrap().as_ref(), Some(&first));
    assert_eq!(store.failovers(), 1);
    let second = record("_IK_c_svc_prod", 0);
    assert_eq!(store.insert(&second, &call()).await.unwrap(), Insert::Inserted);
    assert_eq!(store.failovers(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_mysql_hosts_the_one_that_takes_writes_is_used() {
    let servers = [MariaDb::start(), MariaDb::start()];
    let at = |ports: &[u16]| at_ports("mysql://service:word@127.0.0.1/keys", ports);
    for server in &servers {
        server.create_database("keys", "utf8mb4");
        // One user for both, who is not above the setting.
        let user = "service@127.0.0.1";
        server.sql("", &format!("CREATE USER {user} IDENTIFIED BY 'word'; GRANT ALL ON `keys`.* TO {user}"));
        let unchecked = MysqlMetastore::builder().danger_unchecked();
        unchecked.migrate().open(&at(&[server.port()])).await.unwrap();
    }
    let [first, second] = &servers;
    first.sql("", "SET GLOBAL read_only = 1");
    let store = MysqlMetastore::open(&at(&[first.port(), second.port()])).await.unwrap();
    assert_eq!(store.insert(&record("_IK_a_svc_prod", 0), &call()).await.unwrap(), Insert::Inserted);
    let rows = |server: &MariaDb| server.sql("keys", "SELECT count(*) FROM encryption_key");
    assert_eq!((rows(first), rows(second)), ("0".into(), "1".into()));
    // It is demoted, and the other takes its place.
    second.sql("", "SET GLOBAL read_only = 1");
    first.sql("", "SET GLOBAL read_only = 0");
    assert!(store.insert(&record("_IK_b_svc_prod", 0), &call()).await.unwrap_err().is_transient());
    assert_eq!(store.insert(&record("_IK_b_svc_prod", 0), &call()).await.unwrap(), Insert::Inserted);
    assert_eq!((rows(first), rows(second)), ("1".into(), "1".into()));
    assert_eq!(store.failovers(), 1);
}
