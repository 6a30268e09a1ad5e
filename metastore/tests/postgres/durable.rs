//! Writes that were answered outlive a crash, whatever the session is set to.

use claviger::testing::{ReplaceOne as _, call};
use claviger::{Insert, Metastore as _, MetastoreAdmin as _};
use claviger_metastore::PostgresMetastore;
use claviger_testkit::Postgres;
use sqlx::{Connection as _, PgConnection, query, query_scalar};

use crate::support::{ASHERAH, NOW, Place, record};

/// Writes down how each transaction that changes a key will commit.
const WITNESS: &str = "CREATE TABLE seen (operation TEXT, setting TEXT); \
     CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
       INSERT INTO seen VALUES (TG_OP, current_setting('synchronous_commit')); RETURN NULL; \
     END $$; \
     CREATE TRIGGER witness AFTER INSERT OR UPDATE OR DELETE ON encryption_key \
       FOR EACH ROW EXECUTE FUNCTION witness()";

#[tokio::test]
async fn every_write_commits_durably_whatever_the_session_says() {
    for (set, expected) in [("off", "on"), ("local", "local"), ("on", "on"), ("remote_apply", "remote_apply")]
    {
        let place = Place::holding(ASHERAH).await;
        place.execute(WITNESS).await;
        place.execute(&format!("ALTER DATABASE {} SET synchronous_commit = {set}", place.name)).await;
        let store = place.open().await;
        let record = record("_IK_a_svc_prod", NOW);
        assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
        assert!(store.replace_one(record.meta(), record.wrapped_key(), b"new", &call()).await.unwrap());
        assert!(store.revoke(record.meta(), &call()).await.unwrap());
        assert_eq!(store.delete(record.meta().id(), &call()).await.unwrap(), 1);
        let seen = place.text("SELECT string_agg(operation || ' ' || setting, ', ') FROM seen").await;
        let each =
            ["INSERT", "UPDATE", "UPDATE", "DELETE"].map(|operation| format!("{operation} {expected}"));
        assert_eq!(seen, each.join(", "));
        // What the session is set to stays as it was.
        let insert = PostgresMetastore::statements().find(|(tag, _)| *tag == "claviger.insert").unwrap().1;
        let mut session = PgConnection::connect(&place.url).await.unwrap();
        let insert = query(insert).bind("claviger.insert").bind("_IK_b_svc_prod").bind(NOW).bind("{}");
        insert.execute(&mut session).await.unwrap();
        let setting = query_scalar("SELECT current_setting('synchronous_commit')");
        let after: String = setting.fetch_one(&mut session).await.unwrap();
        assert_eq!(after, set);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_server_answered_is_there() {
    // Without it the log would be written every ten seconds only.
    let mut server = Postgres::start_with(&[("synchronous_commit", "off"), ("wal_writer_delay", "10s")]);
    let url = server.url("postgres");
    PostgresMetastore::builder().danger_unchecked().migrate().open(&url).await.unwrap();
    let mut answered = Vec::new();
    for round in 0..3 {
        let store = PostgresMetastore::open(&url).await.unwrap();
        for second in 0..20 {
            let record = record("_IK_a_svc_prod", NOW + round * 100 + second);
            assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
            answered.push(record);
        }
        let last = answered.pop().unwrap();
        assert!(store.revoke(last.meta(), &call()).await.unwrap());
        answered.push(last.revoked(true));
        server.kill();
        server.restart();
        let store = PostgresMetastore::open(&url).await.unwrap();
        assert_eq!(store.list("", None, 1_000, &call()).await.unwrap().records, answered);
    }
}
