//! Rows as other programs write them, and rows that are no keys.

use claviger::testing::{ReplaceOne as _, call};
use claviger::{FailureClass, Insert, Metastore as _, MetastoreAdmin as _, Page};
use claviger_metastore::MysqlMetastore;

use crate::latest::LatestRecord as _;
use crate::support::{ASHERAH, LATIN1, NOW, Place, UTF8, assert_permanent, chain, meta, record};

const ID: &str = "_IK_a_svc_prod";
const AT: &str = "2023-11-14 22:13:20";

async fn pages(store: &MysqlMetastore, limit: usize) -> Vec<Page> {
    let mut pages = vec![store.list("", None, limit, &call()).await.unwrap()];
    while let Some(next) = pages.last().and_then(|page| page.next.as_ref()) {
        pages.push(store.list("", Some(next), limit, &call()).await.unwrap());
    }
    pages
}

/// As the Rust one writes it beside the keys, in both of its forms of case.
#[tokio::test]
async fn what_asherah_keeps_beside_the_keys_is_no_key() {
    for charset in [LATIN1, UTF8] {
        for table in ["", ASHERAH] {
            let place = if table.is_empty() {
                Place::migrated(charset).await
            } else {
                Place::holding(table, charset).await
            };
            let guard = "__asherah_internal_config_drift_guard_v1__:P4Box1cXU9ICNy3lMjV2RM_mKi3TyS";
            place
                .write_row("+00:00", guard, "2000-01-01 00:00:00", "{\"Created\":946684800,\"Key\":\"e30=\"}")
                .await;
            place.write_row("+00:00", ID, AT, &record(ID, NOW).to_json()).await;
            // It only looks like one.
            let key = record("__ASHERAH_internal_x", NOW);
            place.write_row("+00:00", key.meta().id().as_str(), AT, &key.to_json()).await;
            let store = place.open().await;
            for limit in [1, 2, 10] {
                let pages = pages(&store, limit).await;
                let listed: Vec<_> = pages.iter().flat_map(|page| page.records.clone()).collect();
                assert_eq!(listed.len(), 2);
                assert!(listed.contains(&key) && listed.contains(&record(ID, NOW)));
                assert!(pages.iter().all(|page| page.damaged.is_empty()));
            }
            assert_eq!(store.count(&call()).await.unwrap(), 2);
            store.latest(meta(guard, 1).id()).await.unwrap_err();
            store.delete(meta(guard, 1).id(), &call()).await.unwrap_err();
        }
    }
}

#[tokio::test]
async fn a_damaged_row_is_an_error_and_listed() {
    let place = Place::holding(ASHERAH, UTF8).await;
    place.execute("ALTER TABLE encryption_key MODIFY key_record TEXT NULL").await;
    let damaged = [
        ("_IK_half_svc_prod", "'{\"Created\":1700000000,\"Key\":\"AA'"),
        ("_IK_null_svc_prod", "NULL"),
        ("_IK_other_time_svc_prod", "'{\"Created\":1700000001,\"Key\":\"AAAA\"}'"),
    ];
    for (id, json) in damaged {
        place.execute(&format!("INSERT INTO encryption_key VALUES ('{id}', '{AT}', {json})")).await;
    }
    place
        .execute("SET sql_mode = ''; INSERT INTO encryption_key VALUES ('_IK_zero_svc_prod', 0, '{}')")
        .await;
    let sound = record("_IK_sound_svc_prod", NOW);
    place.write_row("+00:00", sound.meta().id().as_str(), AT, &sound.to_json()).await;
    let store = place.unchecked().await;
    for (id, _) in damaged {
        let answers = [
            store.load(&meta(id, NOW), &call()).await.map(drop),
            store.latest(meta(id, NOW).id()).await.map(drop),
            store.load_many(&[sound.meta().clone(), meta(id, NOW)], &call()).await.map(drop),
            store.latest_many(&[meta(id, NOW).id().clone()]).await.map(drop),
            store.revoke(&meta(id, NOW), &call()).await.map(drop),
        ];
        for error in answers.map(Result::unwrap_err) {
            assert_eq!(error.class(), FailureClass::Damaged, "{}", chain(&error));
            assert!(chain(&error).contains(id) && !chain(&error).contains("AAAA"), "{}", chain(&error));
        }
    }
    let zero = store.latest(meta("_IK_zero_svc_prod", NOW).id()).await.unwrap_err();
    assert_eq!(zero.class(), FailureClass::Damaged);
    for limit in [1, 2, 3, 100] {
        let pages = pages(&store, limit).await;
        let records: Vec<_> = pages.iter().flat_map(|page| &page.records).collect();
        assert_eq!(records, [&sound]);
        let ids: Vec<_> = pages.iter().flat_map(|page| &page.damaged).map(|row| row.id.as_str()).collect();
        assert_eq!(
            ids,
            ["_IK_half_svc_prod", "_IK_null_svc_prod", "_IK_other_time_svc_prod", "_IK_zero_svc_prod"]
        );
        assert!(pages.iter().all(|page| page.damaged.len() + page.records.len() <= limit));
    }
    assert_eq!(store.delete(meta("_IK_half_svc_prod", NOW).id(), &call()).await.unwrap(), 1);
}

/// Bytes that are no text can be in our table, if another program puts them there.
#[tokio::test]
async fn ids_that_are_no_text_are_listed_as_damaged_and_none_is_missed() {
    let place = Place::migrated(UTF8).await;
    let row = |hex: &str, created: &str, seconds: i64| {
        let json = record(ID, seconds).to_json();
        format!("INSERT INTO encryption_key VALUES (X'{hex}', '{created}', '{json}')")
    };
    // Before, between and after what replaces them: EF BF BD.
    for hex in ["80", "61FF", "61EE", "61F8FF", "62C3", "FFFE"] {
        place.execute(&row(hex, AT, NOW)).await;
        place.execute(&row(hex, "2024-01-01 00:00:00", 1_704_067_200)).await;
    }
    let sound = ["a", "a\u{fffd}", "a\u{10ffff}", "b", "zz"].map(|id| record(id, NOW));
    for record in &sound {
        place.write_row("+00:00", record.meta().id().as_str(), AT, &record.to_json()).await;
    }
    let store = place.open().await;
    for limit in [1, 2, 3, 5, 100] {
        let pages = pages(&store, limit).await;
        let records: Vec<_> = pages.iter().flat_map(|page| page.records.clone()).collect();
        assert_eq!(records, sound, "pages of {limit}");
        let damaged: Vec<_> = pages.iter().flat_map(|page| &page.damaged).collect();
        assert_eq!(damaged.len(), 12, "pages of {limit}");
        assert!(
            damaged.iter().all(|row| row.error.class() == FailureClass::Damaged && row.created.is_some())
        );
    }
    for record in &sound {
        assert_eq!(store.latest(record.meta().id()).await.unwrap().as_ref(), Some(record));
    }
}

#[tokio::test]
async fn a_column_that_updates_itself_is_held_still_by_our_updates() {
    let place = Place::new(UTF8).await;
    place
        .execute(
            &ASHERAH.replace(
                "DEFAULT CURRENT_TIMESTAMP",
                "DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP",
            ),
        )
        .await;
    let store = place.unchecked().await;
    let record = record(ID, NOW);
    place.write_row("+00:00", ID, AT, &record.to_json()).await;
    assert!(store.revoke(record.meta(), &call()).await.unwrap());
    assert!(store.replace_one(record.meta(), record.wrapped_key(), b"other", &call()).await.unwrap());
    let found = store.load(record.meta(), &call()).await.unwrap().unwrap();
    assert_eq!((found.is_revoked(), &**found.wrapped_key()), (true, &b"other"[..]));
    // Another program's update moves the row, which is why it is dangerous.
    place.execute("UPDATE encryption_key SET key_record = CONCAT(key_record, ' ')").await;
    assert_eq!(store.load(record.meta(), &call()).await.unwrap(), None);
}

/// Fractions of a second, where a column has them, are zeros.
#[tokio::test]
async fn times_with_fractions_are_found() {
    for kind in ["TIMESTAMP(6)", "DATETIME(3)"] {
        let place = Place::migrated(UTF8).await;
        place.execute(&format!("ALTER TABLE encryption_key MODIFY created {kind} NOT NULL")).await;
        place.write_row("+00:00", ID, AT, &record(ID, NOW).to_json()).await;
        let store = place.open().await;
        assert_eq!(store.load(&meta(ID, NOW), &call()).await.unwrap(), Some(record(ID, NOW)));
        assert!(store.revoke(&meta(ID, NOW), &call()).await.unwrap());
        assert_eq!(store.list("", None, 5, &call()).await.unwrap().records, [record(ID, NOW).revoked(true)]);
    }
}

/// A row that every update misses, as if others changed it each time: reads show it, updates do not.
#[tokio::test]
async fn a_rewrite_that_never_takes_is_a_transient_error() {
    let place = Place::migrated(UTF8).await;
    let record = record(ID, NOW);
    place.write_row("+00:00", ID, AT, &record.to_json()).await;
    for statement in [
        "RENAME TABLE encryption_key TO kept",
        "CREATE FUNCTION is_read() RETURNS INT NOT DETERMINISTIC READS SQL DATA RETURN (SELECT info NOT LIKE \
         'UPDATE%' FROM information_schema.processlist WHERE id = CONNECTION_ID())",
        "CREATE VIEW encryption_key AS SELECT id, created, key_record FROM kept WHERE is_read()",
    ] {
        place.execute(statement).await;
    }
    let store = place.unchecked().await;
    assert_eq!(store.load(record.meta(), &call()).await.unwrap().as_ref(), Some(&record));
    let revoked = store.revoke(record.meta(), &call()).await;
    let replaced = store.replace_one(record.meta(), record.wrapped_key(), b"new", &call()).await;
    for error in [revoked, replaced].map(Result::unwrap_err) {
        assert!(error.is_transient() && chain(&error).contains("kept being changed"), "{}", chain(&error));
    }
}

#[tokio::test]
async fn a_unique_violation_of_another_kind_is_not_taken_for_a_duplicate() {
    let place = Place::migrated(UTF8).await;
    place.execute("ALTER TABLE encryption_key ADD UNIQUE only_one (id)").await;
    let store = place.unchecked().await;
    assert_eq!(store.insert(&record(ID, NOW), &call()).await.unwrap(), Insert::Inserted);
    assert_eq!(store.insert(&record(ID, NOW), &call()).await.unwrap(), Insert::AlreadyExists);
    assert_permanent(store.insert(&record(ID, NOW + 1), &call()).await, "cannot tell the key");
}
