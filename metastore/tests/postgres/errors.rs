//! What is said when the server cannot be used, and by which class.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use claviger::testing::call;
use claviger::{CallContext, Consistency, Created, Insert, Metastore as _, MetastoreAdmin as _};
use claviger_metastore::{FindingId, PostgresMetastore};
use claviger_testkit::{Postgres, shared_postgres};
use sqlx::{Connection as _, PgConnection};

use crate::latest::LatestRecord as _;
use crate::refused::assert_refused_unasked;
use crate::support::{
    ASHERAH, NOW, PLENTY, Place, as_user, assert_permanent, assert_transient, at_database, password, record,
};

#[tokio::test]
async fn who_is_not_let_in_is_told_so_for_good() {
    let place = Place::migrated().await;
    let wrong = place.url.replace(password(&place.url), "wr0ng");
    assert_permanent(PostgresMetastore::open(&wrong).await, "28P01");
    assert_permanent(PostgresMetastore::open(&as_user(&place.url, "nobody", "wr0ng")).await, "28P01");
    assert_permanent(PostgresMetastore::open(&at_database(shared_postgres(), "nowhere")).await, "3D000");
    let unchecked = PostgresMetastore::builder().danger_unchecked();
    assert_permanent(unchecked.open(&wrong).await, "28P01");
    // A replica is asked when it is needed.
    let store = PostgresMetastore::builder().replica_url(wrong).open(&place.url).await.unwrap();
    let record = record("_IK_a_svc_prod", NOW);
    assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
    assert_permanent(store.load(record.meta(), &call().consistency(Consistency::Eventual)).await, "28P01");
}

#[tokio::test]
async fn a_server_that_is_not_there_may_come_back() {
    let nowhere = "postgres://a:wr0ng@no-such-host.invalid/keys";
    assert_transient(PostgresMetastore::open(nowhere).await, "the connection failed");
    let mut server = Postgres::start();
    server.psql("postgres", ASHERAH);
    let store = PostgresMetastore::builder().open(&server.url("postgres")).await.unwrap();
    server.kill();
    assert_transient(PostgresMetastore::open(&server.url("postgres")).await, "Connection refused");
    let record = record("_IK_a_svc_prod", NOW);
    let soon = || CallContext::within(Duration::from_millis(300));
    assert_transient(store.load_latest(record.meta().id(), Created::MAX, &soon()).await, "");
    assert_transient(store.insert(&record, &soon()).await, "");
    assert_transient(store.list("", None, 1, &soon()).await, "");
    server.restart();
    let store = PostgresMetastore::builder().open(&server.url("postgres")).await.unwrap();
    assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
}

#[tokio::test]
async fn tls_is_used_as_the_url_says_and_never_given_up() {
    let place = Place::migrated().await;
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = format!("{}?sslmode={mode}", place.url);
        assert_permanent(PostgresMetastore::open(&url).await, "does not support TLS");
    }
    let mut server = Postgres::start();
    server.psql("postgres", ASHERAH);
    let certificate = with_tls(&mut server);
    let url = |parameters: &str| format!("{}?{parameters}", server.url("postgres"));
    assert_permanent(PostgresMetastore::open(&url("sslmode=disable")).await, "28000");
    assert_permanent(PostgresMetastore::open(&url("sslmode=verify-full")).await, "invalid peer certificate");
    assert_permanent(PostgresMetastore::open(&url("sslmode=verify-ca")).await, "invalid peer certificate");
    let verified = format!("sslmode=verify-full&sslrootcert={}", certificate.display());
    for parameters in ["sslmode=require", "sslmode=prefer", &verified] {
        let store = PostgresMetastore::open(&url(parameters)).await.unwrap();
        assert_eq!(store.count(&call()).await.unwrap(), 0);
    }
    let another_name = url(&verified).replace("127.0.0.1", "localhost");
    assert_permanent(PostgresMetastore::open(&another_name).await, "certificate");
}

/// Gives the server a certificate for 127.0.0.1, and makes it refuse who does without TLS.
fn with_tls(server: &mut Postgres) -> PathBuf {
    let folder = PathBuf::from(server.psql("postgres", "SHOW data_directory").trim());
    let (certificate, key) = (folder.join("server.crt"), folder.join("server.key"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    openssl.args(["-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    let output = openssl.arg("-out").arg(&certificate).arg("-keyout").arg(&key).output();
    let output = output.expect("the program openssl is needed, which comes with PostgreSQL");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for file in [&certificate, &key] {
        give_to_owner_of(file, &folder);
    }
    fs::write(folder.join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 scram-sha-256\n").unwrap();
    server.psql("postgres", "ALTER SYSTEM SET ssl = on");
    server.kill();
    server.restart();
    certificate
}

/// The server reads a key only if it is its own, and nobody else's.
fn give_to_owner_of(file: &Path, folder: &Path) {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
    let owner = fs::metadata(folder).unwrap();
    chown(file, Some(owner.uid()), Some(owner.gid())).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn what_is_not_granted_is_refused_for_good() {
    let place = Place::migrated().await;
    let user = format!("{}_user", place.name);
    place
        .execute(&format!(
            "CREATE ROLE {user} LOGIN PASSWORD 'word'; GRANT SELECT ON encryption_key TO {user}; \
             INSERT INTO encryption_key VALUES ('_IK_b_svc_prod', to_timestamp({NOW}), '{}')",
            record("_IK_b_svc_prod", NOW).to_json()
        ))
        .await;
    let builder = PostgresMetastore::builder().accept(FindingId::PermissionMissing);
    let store = builder.open(&as_user(&place.url, &user, "word")).await.unwrap();
    let there = record("_IK_b_svc_prod", NOW);
    assert_permanent(store.insert(&record("_IK_a_svc_prod", NOW), &call()).await, "42501");
    assert_permanent(store.insert(&there, &call()).await, "42501");
    assert_permanent(store.revoke(there.meta(), &call()).await, "42501");
    assert_permanent(store.delete(there.meta().id(), &call()).await, "42501");
    assert_eq!(store.latest(there.meta().id()).await.unwrap(), Some(there));
}

#[tokio::test]
async fn the_servers_codes_have_their_classes() {
    let place = Place::holding(ASHERAH).await;
    let store = place.open().await;
    let codes = [
        ("53100", true),
        ("53200", true),
        ("40001", true),
        ("40P01", true),
        ("57P03", true),
        ("58030", true),
        ("25006", true),
        ("P0001", false),
        ("XX000", false),
        ("42501", false),
        ("0A000", false),
    ];
    for (code, transient) in codes {
        place
            .execute(&format!(
                "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                   RAISE EXCEPTION 'planted' USING ERRCODE = '{code}'; END $$; \
                 CREATE OR REPLACE TRIGGER fail BEFORE INSERT ON encryption_key \
                   FOR EACH ROW EXECUTE FUNCTION fail()"
            ))
            .await;
        let answer = store.insert(&record("_IK_a_svc_prod", NOW), &call()).await;
        if transient { assert_transient(answer, code) } else { assert_permanent(answer, code) }
    }
    place.execute("DROP TRIGGER fail ON encryption_key").await;
    assert_eq!(store.insert(&record("_IK_a_svc_prod", NOW), &call()).await.unwrap(), Insert::Inserted);
}

#[tokio::test]
async fn a_table_that_is_locked_is_a_matter_of_time() {
    let place = Place::migrated().await;
    let record = record("_IK_a_svc_prod", NOW);
    for (setting, says) in [
        ("statement_timeout", "57014"),
        ("lock_timeout", "55P03"),
        ("", "no answer from the database within"),
    ] {
        if !setting.is_empty() {
            place.execute(&format!("ALTER DATABASE {} SET {setting} = '200ms'", place.name)).await;
        }
        let time = if setting.is_empty() { Duration::from_millis(500) } else { PLENTY };
        // It has its connections before the table is locked.
        let builder = PostgresMetastore::builder().danger_unchecked().server_timeouts(false);
        let store = builder.open(&place.url).await.unwrap();
        assert_eq!(store.latest(record.meta().id()).await.unwrap(), None);
        place.execute(&format!("ALTER DATABASE {} RESET ALL", place.name)).await;
        let mut locker = PgConnection::connect(&place.url).await.unwrap();
        let mut locking = locker.begin().await.unwrap();
        sqlx::query("LOCK TABLE encryption_key").execute(&mut *locking).await.unwrap();
        let latest = store.load_latest(record.meta().id(), Created::MAX, &CallContext::within(time)).await;
        assert_transient(latest, says);
        assert_transient(store.insert(&record, &CallContext::within(time)).await, says);
        locking.rollback().await.unwrap();
    }
}

/// As one does that speaks PostgreSQL's protocol and has not its catalogue.
#[tokio::test]
async fn a_server_that_does_not_say_what_it_is_is_used_all_the_same() {
    let place = Place::migrated().await;
    let user = format!("{}_user", place.name);
    place
        .execute(&format!(
            "CREATE ROLE {user} LOGIN PASSWORD 'word'; GRANT ALL ON encryption_key TO {user}; \
             REVOKE EXECUTE ON FUNCTION pg_control_system FROM PUBLIC; \
             REVOKE SELECT ON pg_stat_activity FROM PUBLIC"
        ))
        .await;
    let store = PostgresMetastore::open(&as_user(&place.url, &user, "word")).await.unwrap();
    let record = record("_IK_a_svc_prod", NOW);
    assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
    assert_eq!(store.load(record.meta(), &call()).await.unwrap(), Some(record));
    assert_eq!(store.failovers(), 0);
}

#[tokio::test]
async fn too_many_connections_are_a_matter_of_time() {
    let place = Place::migrated().await;
    let user = format!("{}_user", place.name);
    place
        .execute(&format!(
            "CREATE ROLE {user} LOGIN PASSWORD 'word' CONNECTION LIMIT 0; GRANT ALL ON encryption_key TO {user}"
        ))
        .await;
    let url = as_user(&place.url, &user, "word");
    assert_transient(PostgresMetastore::open(&url).await, "53300");
}

#[tokio::test]
async fn debug_shows_no_password() {
    let place = Place::migrated().await;
    let builder = PostgresMetastore::builder().replica_url(place.url.clone());
    let store = builder.open(&place.url).await.unwrap();
    let shown = format!("{store:?} {:?}", store.invalidations());
    assert!(shown.contains("PostgresMetastore") && shown.contains("PostgresInvalidations"));
    assert!(!shown.contains(password(&place.url)) && !shown.contains("postgres://"), "{shown}");
}

#[tokio::test]
async fn a_server_that_is_demoted_is_left_for_its_successor() {
    let mut server = Postgres::start();
    server.psql("postgres", ASHERAH);
    let url = server.url("postgres");
    let store = PostgresMetastore::builder().open(&url).await.unwrap();
    let first = record("_IK_a_svc_prod", NOW);
    assert_eq!(store.insert(&first, &call()).await.unwrap(), Insert::Inserted);
    // A standby with nobody to follow.
    let folder = PathBuf::from(server.psql("postgres", "SHOW data_directory").trim());
    fs::write(folder.join("standby.signal"), "").unwrap();
    server.kill();
    server.restart();
    let error = PostgresMetastore::open(&url).await.unwrap_err();
    assert_eq!(crate::support::dangers(&error), [FindingId::ReadOnly]);
    let reader = PostgresMetastore::builder().accept(FindingId::ReadOnly);
    let reader = reader.open(&url).await.unwrap();
    assert_eq!(reader.latest(first.meta().id()).await.unwrap().as_ref(), Some(&first));
    let second = record("_IK_a_svc_prod", NOW + 60);
    assert_transient(reader.insert(&second, &call()).await, "25006");
    assert_transient(reader.revoke(first.meta(), &call()).await, "25006");
    assert_eq!(server.psql("postgres", "SELECT pg_promote()").trim(), "t");
    assert_eq!(reader.insert(&second, &call()).await.unwrap(), Insert::Inserted);
    assert!(reader.revoke(first.meta(), &call()).await.unwrap());
}

#[tokio::test]
async fn what_is_refused_here_says_so_also_when_the_server_is_gone() {
    let mut server = Postgres::start();
    let builder = PostgresMetastore::builder().danger_unchecked().migrate();
    let store = builder.open(&server.url("postgres")).await.unwrap();
    server.kill();
    assert_refused_unasked(&store).await;
}
