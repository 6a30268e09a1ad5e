//! Rows as other programs write and read them, and rows that nobody should have written.

use claviger::testing::{ReplaceOne as _, call};
use claviger::{Consistency, FailureClass, Insert, Latest, Metastore as _, MetastoreAdmin as _};

use crate::latest::LatestRecord as _;
use crate::support::{ASHERAH, NOW, Place, assert_permanent, chain, meta, record};

const JSONB: &str = "CREATE TABLE encryption_key (id TEXT NOT NULL, created TIMESTAMPTZ NOT NULL, \
     key_record JSONB NOT NULL, PRIMARY KEY (id, created))";

#[tokio::test]
async fn asherah_in_rust_finds_our_rows_and_we_find_its() {
    for table in ["", JSONB] {
        let place = match table {
            "" => Place::migrated().await,
            table => Place::holding(table).await,
        };
        let store = place.open().await;
        let (theirs, ours) = (record("_IK_a_svc_prod", NOW), record("_IK_a_svc_prod", NOW + 60));
        place
            .execute(&format!(
                "SET TIME ZONE 'America/Los_Angeles'; \
                 INSERT INTO encryption_key(id, created, key_record) \
                 VALUES ('_IK_a_svc_prod', to_timestamp({NOW}), '{}') ON CONFLICT DO NOTHING",
                theirs.to_json()
            ))
            .await;
        assert_eq!(store.insert(&theirs, &call()).await.unwrap(), Insert::AlreadyExists);
        assert_eq!(store.load(theirs.meta(), &call()).await.unwrap().as_ref(), Some(&theirs));
        assert_eq!(store.latest(theirs.meta().id()).await.unwrap().as_ref(), Some(&theirs));
        assert!(store.revoke(theirs.meta(), &call()).await.unwrap());
        assert_eq!(store.insert(&ours, &call()).await.unwrap(), Insert::Inserted);
        let select = format!(
            "SELECT key_record::text FROM encryption_key \
             WHERE id='_IK_a_svc_prod' AND created=to_timestamp({})",
            NOW + 60
        );
        let read = place.text(&select).await;
        assert_eq!(
            claviger::EnvelopeKeyRecord::from_json(ours.meta().clone(), read.as_bytes()).unwrap(),
            ours
        );
        let latest = "SELECT key_record::text FROM encryption_key WHERE id='_IK_a_svc_prod' \
                      ORDER BY created DESC LIMIT 1";
        assert_eq!(place.text(latest).await, read);
    }
}

#[tokio::test]
async fn rows_are_written_as_the_column_takes_them() {
    for table in [ASHERAH, &ASHERAH.replace("TEXT", "JSON"), &ASHERAH.replace("TEXT", "VARCHAR")] {
        let place = Place::holding(table).await;
        let record = record("_IK_a_svc_prod", NOW);
        assert_eq!(place.open().await.insert(&record, &call()).await.unwrap(), Insert::Inserted);
        let row = "SELECT created::text || ' ' || key_record::text FROM encryption_key";
        assert_eq!(place.text(row).await, format!("2023-11-14 22:13:20 {}", record.to_json()));
    }
}

#[tokio::test]
async fn garbage_in_a_row_is_damage_and_leaves_others_alone() {
    let another_time = record("_IK_a_svc_prod", NOW + 1).to_json();
    for garbage in ["", "{", "null", "{\"Created\":1700000000}", another_time.as_str()] {
        let place = Place::holding(ASHERAH).await;
        let store = place.open().await;
        place.write_row("_IK_a_svc_prod", "'2023-11-14 22:13:20'", garbage).await;
        let key = meta("_IK_a_svc_prod", NOW);
        let errors = [
            store.load(&key, &call()).await.unwrap_err(),
            store.latest(key.id()).await.unwrap_err(),
            store.load_many(std::slice::from_ref(&key), &call()).await.unwrap_err(),
            store.latest_many(std::slice::from_ref(key.id())).await.unwrap_err(),
            store.revoke(&key, &call()).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.class(), FailureClass::Damaged, "{}", chain(&error));
        }
        assert_eq!(
            store.insert(&record("_IK_a_svc_prod", NOW), &call()).await.unwrap(),
            Insert::AlreadyExists
        );
        let other = record("_IK_b_svc_prod", NOW);
        assert_eq!(store.insert(&other, &call()).await.unwrap(), Insert::Inserted);
        assert_eq!(store.latest(other.meta().id()).await.unwrap().as_ref(), Some(&other));
        let page = store.list("", None, 9, &call()).await.unwrap();
        assert_eq!(page.records, [other]);
        assert_eq!(
            page.damaged.first().map(|row| (row.id.as_str(), row.created)),
            Some(("_IK_a_svc_prod", Some(key.created())))
        );
        assert_eq!(store.delete(key.id(), &call()).await.unwrap(), 1);
    }
}

/// Rows of others may have fractions of a second: what comes with the latest is of an earlier second.
#[tokio::test]
async fn the_one_before_the_latest_is_of_another_second() {
    let place = Place::holding(ASHERAH).await;
    let store = place.open().await;
    let (first, second) = (record("_IK_a_svc_prod", NOW - 1), record("_IK_a_svc_prod", NOW));
    for (record, times) in [
        (&first, ["'2023-11-14 22:13:19'"; 1].as_slice()),
        (&second, &["'2023-11-14 22:13:20'", "'2023-11-14 22:13:20.5'", "'2023-11-14 22:13:20.999999'"]),
    ] {
        for time in times {
            place.write_row("_IK_a_svc_prod", time, &record.to_json()).await;
        }
    }
    place.write_row("_IK_a_svc_prod", "'infinity'", "{}").await;
    let id = first.meta().id();
    for (up_to, expected) in [
        (NOW - 1, Latest::new(first.clone(), None)),
        (NOW, Latest::new(second.clone(), Some(first.clone()))),
        (NOW + 86_400, Latest::new(second.clone(), Some(first.clone()))),
    ] {
        let (up_to, expected) = (meta("", up_to).created(), Some(expected));
        assert_eq!(store.load_latest(id, up_to, &call()).await.unwrap(), expected);
        assert_eq!(
            store.load_latest_many(std::slice::from_ref(id), up_to, &call()).await.unwrap(),
            [expected]
        );
    }
}

#[tokio::test]
async fn times_that_are_none_are_damage_and_pages_go_on_past_them() {
    let place = Place::holding(ASHERAH).await;
    let store = place.open().await;
    let sound = [record("_IK_a_svc_prod", NOW), record("_IK_b_svc_prod", NOW)];
    for record in &sound {
        assert_eq!(store.insert(record, &call()).await.unwrap(), Insert::Inserted);
    }
    for time in [
        "'infinity'",
        "'-infinity'",
        "'1969-12-31 23:59:59'",
        "'0001-01-01 00:00:00 BC'",
        "'294276-12-31 23:59:59'",
    ] {
        place.write_row("_IK_a_svc_prod", time, &sound[0].to_json()).await;
    }
    let error = store.latest(sound[0].meta().id()).await.unwrap_err();
    assert_eq!(error.class(), FailureClass::Damaged, "{}", chain(&error));
    for limit in [1, 2, 3, 100] {
        let (mut records, mut damaged, mut after) = (Vec::new(), 0, None);
        for pages in 0.. {
            assert!(pages < 10, "pages of {limit} do not end");
            let page = store.list("", after.as_ref(), limit, &call()).await.unwrap();
            records.extend(page.records);
            damaged += page.damaged.len();
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(records, sound, "pages of {limit}");
        // A page that ends with a time before all keys, or after them, passes over others like it.
        assert!((2..=5).contains(&damaged), "{damaged} in pages of {limit}");
    }
}

#[tokio::test]
async fn a_guard_row_of_asherah_is_no_key() {
    let place = Place::migrated().await;
    let store = place.open().await;
    let guard = "__asherah_internal_config_drift_guard_v1__:P4Box1cXU9ICNy3lMjV2RM_mKi3TyS-zYHPowt-w2-Y";
    let json = "{\"Created\":946684800,\"Key\":\"eyJzY2hlbWFfdmVyc2lvbiI6MX0=\"}";
    place.write_row(guard, "'2000-01-01 00:00:00+00'", json).await;
    assert_eq!(store.count(&call()).await.unwrap(), 0);
    let page = store.list("", None, 9, &call()).await.unwrap();
    assert!(page.records.is_empty() && page.damaged.is_empty());
    assert_permanent(store.latest(meta(guard, 946_684_800).id()).await, "reserved");
    assert_permanent(store.delete(meta(guard, 946_684_800).id(), &call()).await, "reserved");
    assert_eq!(place.text("SELECT count(*)::text FROM encryption_key").await, "1");
    for id in ["__asherah_internal", "__ASHERAH_INTERNAL_x", "x__asherah_internal_x", "--asherah-internal-x"]
    {
        assert_eq!(store.insert(&record(id, NOW), &call()).await.unwrap(), Insert::Inserted);
    }
    assert_eq!(store.count(&call()).await.unwrap(), 4);
    assert_eq!(store.list("", None, 9, &call()).await.unwrap().records.len(), 4);
}

#[tokio::test]
async fn ids_that_the_column_would_cut_are_refused_before() {
    let place = Place::migrated().await;
    let store = place.open().await;
    let full = "x".repeat(255);
    assert_eq!(store.insert(&record(&full, NOW), &call()).await.unwrap(), Insert::Inserted);
    for blanks in [" ", "   "] {
        let longer = record(&format!("{full}{blanks}"), NOW);
        assert_permanent(store.insert(&longer, &call()).await, "over the limit of 255");
        assert_permanent(store.latest(longer.meta().id()).await, "over the limit of 255");
    }
    let blank_at_the_end = record(&format!("{} ", "x".repeat(254)), NOW);
    assert_eq!(store.insert(&blank_at_the_end, &call()).await.unwrap(), Insert::Inserted);
    let read = store.latest(blank_at_the_end.meta().id()).await.unwrap();
    assert_eq!(read, Some(blank_at_the_end));
    assert_eq!(store.count(&call()).await.unwrap(), 2);
}

#[tokio::test]
async fn an_insert_that_the_table_takes_away_is_an_error() {
    let place = Place::migrated().await;
    place
        .execute(
            "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
             CREATE TRIGGER swallow BEFORE INSERT ON encryption_key FOR EACH ROW EXECUTE FUNCTION swallow()",
        )
        .await;
    let store = place.open().await;
    assert_permanent(store.insert(&record("_IK_a_svc_prod", NOW), &call()).await, "kept no row");
}

#[tokio::test]
async fn a_rewrite_that_never_takes_is_a_transient_error() {
    let place = Place::migrated().await;
    let (store, record) = (place.open().await, record("_IK_a_svc_prod", NOW));
    assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
    place
        .execute(
            "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
             CREATE TRIGGER swallow BEFORE UPDATE ON encryption_key FOR EACH ROW EXECUTE FUNCTION swallow()",
        )
        .await;
    let revoked = store.revoke(record.meta(), &call()).await;
    let replaced = store.replace_one(record.meta(), record.wrapped_key(), b"new", &call()).await;
    for error in [revoked, replaced].map(Result::unwrap_err) {
        assert!(error.is_transient() && chain(&error).contains("kept being changed"), "{}", chain(&error));
    }
}

#[tokio::test]
async fn a_unique_violation_of_another_kind_is_not_taken_for_a_duplicate() {
    let place = Place::migrated().await;
    place.execute("CREATE UNIQUE INDEX ON encryption_key (id)").await;
    let store = place.open().await;
    assert_eq!(store.insert(&record("_IK_a_svc_prod", NOW), &call()).await.unwrap(), Insert::Inserted);
    assert_eq!(store.insert(&record("_IK_a_svc_prod", NOW), &call()).await.unwrap(), Insert::AlreadyExists);
    assert_permanent(store.insert(&record("_IK_a_svc_prod", NOW + 1), &call()).await, "cannot tell the key");
}

#[tokio::test]
async fn keys_that_the_table_cannot_hold_are_refused_before_the_database_is_asked() {
    let place = Place::migrated().await;
    let store = place.open().await;
    // A closed store would answer that it is closed.
    store.close().await;
    let long = "x".repeat(256);
    let cases = [
        ("", "key id is empty"),
        (long.as_str(), "key id of 256 characters is over the limit of 255"),
        ("a\0b", "key id contains NUL"),
        ("__asherah_internal_x", "key id is reserved"),
    ];
    for (id, says) in cases {
        let key = meta(id, 1);
        assert!(store.insert(&record(id, 1), &call()).await.is_err_and(|error| !error.was_asked()));
        assert_permanent(store.insert(&record(id, 1), &call()).await, says);
        assert_permanent(store.load(&key, &call()).await, says);
        assert_permanent(store.load(&key, &call().consistency(Consistency::Eventual)).await, says);
        assert_permanent(store.load_many(std::slice::from_ref(&key), &call()).await, says);
        assert_permanent(store.revoke(&key, &call()).await, says);
        assert_permanent(store.replace_one(&key, b"old", b"new", &call()).await, says);
        assert_permanent(store.latest(key.id()).await, says);
        assert_permanent(store.latest_many(std::slice::from_ref(key.id())).await, says);
        assert_permanent(store.delete(key.id(), &call()).await, says);
    }
}
