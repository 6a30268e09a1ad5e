//! Making the table.

use claviger::{Insert, Metastore as _, MetastoreAdmin as _};
use claviger_metastore::PostgresMetastore;
use tokio::task::JoinSet;

use crate::support::{ASHERAH, NOW, Place, as_user, assert_permanent, record};

#[tokio::test]
async fn processes_that_come_first_at_once_make_one_table() {
    let place = Place::new().await;
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let store = place.unchecked().await;
        tasks.spawn(async move { store.migrate().await });
    }
    tasks.join_all().await.into_iter().for_each(|made| made.unwrap());
    let store = place.open().await;
    assert_eq!(store.insert(&record("_IK_a_svc_prod", NOW)).await.unwrap(), Insert::Inserted);
}

#[tokio::test]
async fn a_table_that_is_there_is_left_as_it_is() {
    let place = Place::holding(ASHERAH).await;
    let theirs = record("_IK_a_svc_prod", NOW);
    place.write_row("_IK_a_svc_prod", "'2023-11-14 22:13:20'", &theirs.to_json()).await;
    let store = place.open().await;
    store.migrate().await.unwrap();
    assert_eq!(store.load_latest(theirs.meta().id()).await.unwrap(), Some(theirs));
    let triggers = "SELECT count(*)::text FROM pg_trigger WHERE tgrelid = 'encryption_key'::regclass";
    assert_eq!(place.text(triggers).await, "0");
    let column = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute \
                  WHERE attrelid = 'encryption_key'::regclass AND attname = 'created'";
    assert_eq!(place.text(column).await, "timestamp without time zone");
}

#[tokio::test]
async fn a_missing_table_is_a_permanent_error_until_migrated() {
    let place = Place::new().await;
    let store = place.unchecked().await;
    let record = record("_IK_a_svc_prod", NOW);
    assert_permanent(store.load_latest(record.meta().id()).await, "42P01");
    assert_permanent(store.insert(&record).await, "42P01");
    assert_permanent(store.revoke(record.meta()).await, "42P01");
    store.migrate().await.unwrap();
    assert_eq!(store.insert(&record).await.unwrap(), Insert::Inserted);
    // A table that others make meanwhile is used as what it is.
    let place = Place::new().await;
    let store = place.unchecked().await;
    assert_permanent(store.insert(&record).await, "42P01");
    place.execute(ASHERAH).await;
    place.execute("SET TIME ZONE 'America/Los_Angeles'").await;
    assert_eq!(store.insert(&record).await.unwrap(), Insert::Inserted);
    assert_eq!(place.text("SELECT created::text FROM encryption_key").await, "2023-11-14 22:13:20");
    place.execute("DROP TABLE encryption_key").await;
    assert_permanent(store.load_latest(record.meta().id()).await, "42P01");
}

#[tokio::test]
async fn a_user_who_may_not_make_tables_is_told() {
    let place = Place::new().await;
    let user = format!("{}_user", place.name);
    place.execute(&format!("CREATE ROLE {user} LOGIN PASSWORD 'word'")).await;
    let url = as_user(&place.url, &user, "word");
    let store = PostgresMetastore::builder().danger_unchecked().open(&url).await.unwrap();
    assert_permanent(store.migrate().await, "42501");
    assert_eq!(place.text("SELECT coalesce(to_regclass('encryption_key')::text, 'none')").await, "none");
}
