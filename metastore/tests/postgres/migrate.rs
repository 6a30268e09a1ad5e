//! Making the table.

use std::error::Error as _;

use claviger::testing::call;
use claviger::{Insert, Metastore as _, MetastoreAdmin as _};
use claviger_metastore::{FindingId, PostgresMetastore, SqlFault};
use tokio::task::JoinSet;

use crate::latest::LatestRecord as _;
use crate::support::{ASHERAH, NOW, Place, as_user, assert_permanent, chain, ids, record};

#[tokio::test]
async fn processes_that_come_first_at_once_make_one_table() {
    let place = Place::new().await;
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let url = place.url.clone();
        tasks.spawn(async move { PostgresMetastore::builder().migrate().open(&url).await });
    }
    tasks.join_all().await.into_iter().for_each(|made| drop(made.unwrap()));
    let store = place.open().await;
    assert_eq!(store.insert(&record("_IK_a_svc_prod", NOW), &call()).await.unwrap(), Insert::Inserted);
}

#[tokio::test]
async fn a_table_that_is_there_is_left_as_it_is() {
    let place = Place::holding(ASHERAH).await;
    let theirs = record("_IK_a_svc_prod", NOW);
    place.write_row("_IK_a_svc_prod", "'2023-11-14 22:13:20'", &theirs.to_json()).await;
    let store = PostgresMetastore::migrate(&place.url).await.unwrap();
    assert_eq!(store.latest(theirs.meta().id()).await.unwrap(), Some(theirs));
    let triggers = "SELECT count(*)::text FROM pg_trigger WHERE tgrelid = 'encryption_key'::regclass";
    assert_eq!(place.text(triggers).await, "0");
    let column = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute \
                  WHERE attrelid = 'encryption_key'::regclass AND attname = 'created'";
    assert_eq!(place.text(column).await, "timestamp without time zone");
}

#[tokio::test]
async fn open_takes_a_table_that_is_there_and_makes_none() {
    let place = Place::new().await;
    for builder in [PostgresMetastore::builder(), PostgresMetastore::builder().read_only(true)] {
        let refused = builder.open(&place.url).await.unwrap_err();
        assert!(!refused.is_transient() && chain(&refused).contains("table-missing"), "{}", chain(&refused));
    }
    let accepted =
        PostgresMetastore::builder().accept(FindingId::TableMissing).open(&place.url).await.unwrap();
    assert_eq!(ids(&accepted.check_schema(&call()).await.unwrap()), [FindingId::TableMissing]);
    PostgresMetastore::migrate(&place.url).await.unwrap().close().await;
    PostgresMetastore::open(&place.url).await.unwrap().close().await;
}

#[tokio::test]
async fn a_missing_table_is_a_permanent_error_until_migrated() {
    let place = Place::new().await;
    let store = place.unchecked().await;
    let record = record("_IK_a_svc_prod", NOW);
    assert_permanent(store.latest(record.meta().id()).await, "42P01");
    assert_permanent(store.insert(&record, &call()).await, "42P01");
    assert_permanent(store.revoke(record.meta(), &call()).await, "42P01");
    place.migrate().await;
    assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
    // A table that others make meanwhile is used as what it is.
    let place = Place::new().await;
    let store = place.unchecked().await;
    assert_permanent(store.insert(&record, &call()).await, "42P01");
    place.execute(ASHERAH).await;
    place.execute("SET TIME ZONE 'America/Los_Angeles'").await;
    assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
    assert_eq!(place.text("SELECT created::text FROM encryption_key").await, "2023-11-14 22:13:20");
    place.execute("DROP TABLE encryption_key").await;
    assert_permanent(store.latest(record.meta().id()).await, "42P01");
}

#[tokio::test]
async fn a_user_who_may_not_make_tables_is_told() {
    let place = Place::new().await;
    let user = format!("{}_user", place.name);
    place.execute(&format!("CREATE ROLE {user} LOGIN PASSWORD 'word'")).await;
    let url = as_user(&place.url, &user, "word");
    let refused = PostgresMetastore::migrate(&url).await.unwrap_err();
    let fault = refused.source().and_then(|source| source.downcast_ref());
    assert!(!refused.is_transient() && matches!(fault, Some(SqlFault::TableNotMade(_))), "{refused:?}");
    assert!(chain(&refused).contains("42501"), "{}", chain(&refused));
    assert_eq!(place.text("SELECT coalesce(to_regclass('encryption_key')::text, 'none')").await, "none");
    // Nor is there a schema to make it in.
    place.execute(&format!("ALTER ROLE {user} SET search_path = nowhere")).await;
    let refused = PostgresMetastore::migrate(&url).await.unwrap_err();
    assert!(chain(&refused).contains("3F000"), "{}", chain(&refused));
    // Where there is one, the right is not needed.
    place.execute(&format!("ALTER ROLE {user} RESET search_path")).await;
    place.migrate().await;
    place.execute(&format!("GRANT SELECT, INSERT ON encryption_key TO {user}")).await;
    PostgresMetastore::migrate(&url).await.unwrap();
}

#[tokio::test]
async fn an_empty_database_gets_the_table_once_and_keeps_it() {
    let place = Place::new().await;
    let refused = PostgresMetastore::open(&place.url).await.unwrap_err();
    assert!(chain(&refused).contains("PostgresMetastore::migrate"), "{}", chain(&refused));
    let store = PostgresMetastore::migrate(&place.url).await.unwrap();
    assert_eq!(store.insert(&record("_IK_a_svc_prod", NOW), &call()).await.unwrap(), Insert::Inserted);
    let again = PostgresMetastore::migrate(&place.url).await.unwrap();
    assert_eq!(again.count(&call()).await.unwrap(), 1);
    assert_eq!(place.open().await.count(&call()).await.unwrap(), 1);
}
