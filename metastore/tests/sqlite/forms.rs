//! Rows as other programs write them.

use claviger::testing::{ReplaceOne as _, call};
use claviger::{EnvelopeKeyRecord, FailureClass, Insert, Latest, Metastore as _, MetastoreAdmin as _};

use crate::latest::LatestRecord as _;
use crate::support::{NOW, Place, assert_permanent, chain, meta, record};

/// Each is one text or number for [`NOW`] that some writer's driver makes.
const FORMS: [&str; 12] = [
    "'2023-11-14T22:13:20Z'",
    "'2023-11-14 22:13:20.0'",
    "'2023-11-14 22:13:20.000000'",
    "'2023-11-14T22:13:20'",
    "'2023-11-14T22:13:20.123Z'",
    "'2023-11-14 22:13:20+00:00'",
    "'2023-11-15 00:13:20+02:00'",
    "'2023-11-14 14:13:20-08:00'",
    "1700000000",
    "'1700000000'",
    "1700000000.25",
    "1700000000123",
];

#[tokio::test]
async fn every_form_of_a_time_is_found() {
    for form in FORMS {
        let place = Place::new();
        let store = place.open().await;
        let record = record("_IK_a_svc_prod", NOW);
        place.write_row("_IK_a_svc_prod", form, &record.to_json()).await;
        let key = record.meta();
        assert_eq!(store.load(key, &call()).await.unwrap().as_ref(), Some(&record), "{form}");
        assert_eq!(store.latest(key.id()).await.unwrap().as_ref(), Some(&record), "{form}");
        let missing = meta("_IK_a_svc_prod", NOW + 1);
        let many = store.load_many(&[missing.clone(), key.clone()], &call()).await.unwrap();
        assert_eq!(many, [None, Some(record.clone())], "{form}");
        let many = store.latest_many(&[key.id().clone(), meta("b", NOW).id().clone()]).await.unwrap();
        assert_eq!(many, [Some(record.clone()), None], "{form}");
        assert_eq!(store.list("", None, 9, &call()).await.unwrap().records, [record], "{form}");
    }
}

/// However often the latest time is there, what comes with it is of an earlier one.
#[tokio::test]
async fn the_one_before_the_latest_is_of_another_second() {
    let place = Place::new();
    let store = place.open().await;
    let [first, second, later] = [NOW - 60, NOW, NOW + 1].map(|created| record("_IK_a", created));
    for form in ["'2023-11-14T22:12:20'", "'2023-11-14T22:12:20Z'"] {
        place.write_row("_IK_a", form, &first.to_json()).await;
    }
    for form in ["'2023-11-14T22:13:20Z'", "'2023-11-14 22:13:20'", "'2023-11-14 22:13:20.5'", "1700000000"] {
        place.write_row("_IK_a", form, &second.to_json()).await;
    }
    // Milliseconds; and past all bounds.
    place.write_row("_IK_a", "1700000001000", &later.to_json()).await;
    place.write_row("_IK_a", "300000000000000", &later.to_json()).await;
    let id = first.meta().id();
    for (up_to, expected) in [
        (NOW - 61, None),
        (NOW - 1, Some(Latest::new(first.clone(), None))),
        (NOW, Some(Latest::new(second.clone(), Some(first.clone())))),
        (NOW + 86_400, Some(Latest::new(later.clone(), Some(second.clone())))),
    ] {
        let up_to = meta("", up_to).created();
        assert_eq!(store.load_latest(id, up_to, &call()).await.unwrap(), expected);
        assert_eq!(
            store.load_latest_many(&[id.clone(), id.clone()], up_to, &call()).await.unwrap(),
            [expected.clone(), expected]
        );
    }
    assert_permanent(store.latest(id).await, "unreadable creation time");
    // Pages go on past the row that is past all times.
    for limit in 1..10 {
        let (mut records, mut damaged, mut after) = (0, 0, None);
        loop {
            let page = store.list("", after.as_ref(), limit, &call()).await.unwrap();
            (records, damaged, after) =
                (records + page.records.len(), damaged + page.damaged.len(), page.next);
            if after.is_none() {
                break;
            }
        }
        assert_eq!(damaged, 1, "{limit}");
        assert!(records >= 3, "{limit}");
    }
}

#[tokio::test]
async fn more_keys_than_one_statement_looks_for_are_found() {
    let place = Place::new();
    let store = place.open().await;
    let (first, last) = (record("_IK_first", NOW), record("_IK_last", NOW));
    assert_eq!(store.insert(&first, &call()).await.unwrap(), Insert::Inserted);
    place.write_row("_IK_last", "'2023-11-14T22:13:20Z'", &last.to_json()).await;
    let mut keys: Vec<_> = (0..2_500).map(|number| meta("_IK_missing", NOW + number)).collect();
    keys[0] = first.meta().clone();
    keys[999] = last.meta().clone();
    keys[1_000] = first.meta().clone();
    keys[2_499] = last.meta().clone();
    let mut expected = vec![None; keys.len()];
    for (place, record) in [(0, &first), (999, &last), (1_000, &first), (2_499, &last)] {
        expected[place] = Some(record.clone());
    }
    assert_eq!(store.load_many(&keys, &call()).await.unwrap(), expected);
    let ids: Vec<_> = keys.iter().map(|key| key.id().clone()).collect();
    assert_eq!(store.latest_many(&ids).await.unwrap(), expected);
}

#[tokio::test]
async fn a_version_stored_in_another_form_is_a_duplicate() {
    for form in FORMS {
        let place = Place::new();
        let store = place.open().await;
        let theirs = record("_IK_a_svc_prod", NOW);
        place.write_row("_IK_a_svc_prod", form, &theirs.to_json()).await;
        let ours = EnvelopeKeyRecord::new(theirs.meta().clone(), *b"another", None);
        assert_eq!(store.insert(&ours, &call()).await.unwrap(), Insert::AlreadyExists, "{form}");
        assert_eq!(store.load(theirs.meta(), &call()).await.unwrap(), Some(theirs), "{form}");
        assert_eq!(place.rows_of("_IK_a_svc_prod").await, 1);
    }
}

#[tokio::test]
async fn forms_are_ordered_by_the_time_they_mean() {
    for form in FORMS {
        let place = Place::new();
        let store = place.open().await;
        let theirs = record("_IK_a_svc_prod", NOW);
        place.write_row("_IK_a_svc_prod", form, &theirs.to_json()).await;
        let older = record("_IK_a_svc_prod", NOW - 1);
        assert_eq!(store.insert(&older, &call()).await.unwrap(), Insert::Inserted);
        assert_eq!(store.latest(theirs.meta().id()).await.unwrap().as_ref(), Some(&theirs), "{form}");
        let newer = record("_IK_a_svc_prod", NOW + 1);
        assert_eq!(store.insert(&newer, &call()).await.unwrap(), Insert::Inserted);
        assert_eq!(store.latest(theirs.meta().id()).await.unwrap().as_ref(), Some(&newer), "{form}");
        assert_eq!(
            store.list("", Some(older.meta()), 9, &call()).await.unwrap().records,
            [theirs, newer],
            "{form}"
        );
    }
}

#[tokio::test]
async fn revoke_and_replace_reach_every_form_and_leave_it_as_it_is() {
    for form in FORMS {
        let place = Place::new();
        let store = place.open().await;
        let record = record("_IK_a_svc_prod", NOW);
        let key = record.meta().clone();
        place.write_row("_IK_a_svc_prod", form, &record.to_json()).await;
        assert!(store.replace_one(&key, record.wrapped_key(), b"new", &call()).await.unwrap(), "{form}");
        assert!(store.revoke(&key, &call()).await.unwrap(), "{form}");
        let expected = EnvelopeKeyRecord::new(key.clone(), *b"new", record.parent().cloned()).revoked(true);
        assert_eq!(store.load(&key, &call()).await.unwrap(), Some(expected), "{form}");
        assert_eq!(store.delete(key.id(), &call()).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_revocation_reaches_both_forms_of_a_version_that_was_stored_twice() {
    let place = Place::new();
    let store = place.open().await;
    let record = record("_IK_a_svc_prod", NOW);
    assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
    place.write_row("_IK_a_svc_prod", "'2023-11-14T22:13:20Z'", &record.to_json()).await;
    assert!(store.revoke(record.meta(), &call()).await.unwrap());
    let revoked = record.revoked(true);
    assert_eq!(store.list("", None, 9, &call()).await.unwrap().records, [revoked.clone(), revoked]);
}

#[tokio::test]
async fn of_two_forms_of_one_time_ours_counts() {
    let place = Place::new();
    let store = place.open().await;
    let ours = record("_IK_a_svc_prod", NOW);
    let theirs = EnvelopeKeyRecord::new(ours.meta().clone(), *b"theirs", None);
    place.write_row("_IK_a_svc_prod", "'2023-11-14T22:13:20Z'", &theirs.to_json()).await;
    place.write_row("_IK_a_svc_prod", "'2023-11-14 22:13:20'", &ours.to_json()).await;
    assert_eq!(store.latest(ours.meta().id()).await.unwrap().as_ref(), Some(&ours));
    let many = store.latest_many(std::slice::from_ref(ours.meta().id())).await.unwrap();
    assert_eq!(many, [Some(ours.clone())]);
    let many = store.load_many(std::slice::from_ref(ours.meta()), &call()).await.unwrap();
    assert_eq!(many, [Some(ours.clone())]);
    assert_eq!(store.load(ours.meta(), &call()).await.unwrap(), Some(ours));
}

#[tokio::test]
async fn an_unreadable_time_is_an_error_where_it_could_matter() {
    for form in ["'yesterday'", "'2023-11-14 22:13:20 +0000 UTC'", "''", "x'00'", "'2023-14-14 22:13:20'"] {
        let place = Place::new();
        let store = place.open().await;
        let record = record("_IK_a_svc_prod", NOW);
        assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
        place.write_row("_IK_a_svc_prod", form, &record.to_json()).await;
        let id = record.meta().id();
        assert_permanent(store.latest(id).await, "unreadable creation time");
        assert_permanent(store.latest_many(std::slice::from_ref(id)).await, "unreadable creation time");
        let missing = meta("_IK_a_svc_prod", NOW + 1);
        assert_permanent(store.load(&missing, &call()).await, "unreadable creation time");
        let among = [record.meta().clone(), missing];
        assert_permanent(store.load_many(&among, &call()).await, "unreadable creation time");
        let many = store.load_many(&among[..1], &call()).await.unwrap();
        assert_eq!(many, [Some(record.clone())]);
        // A version that is there is there.
        assert_eq!(store.load(record.meta(), &call()).await.unwrap(), Some(record));
    }
}

#[tokio::test]
async fn a_row_that_contradicts_its_record_is_refused() {
    let place = Place::new();
    let store = place.open().await;
    let record = record("_IK_a_svc_prod", NOW);
    // A writer in another time zone.
    place.write_row("_IK_a_svc_prod", "'2023-11-14 23:13:20'", &record.to_json()).await;
    let shifted = meta("_IK_a_svc_prod", NOW + 3_600);
    assert_permanent(store.load(&shifted, &call()).await, "cannot be read");
    assert_eq!(store.load(&shifted, &call()).await.unwrap_err().class(), FailureClass::Damaged);
    assert_permanent(store.latest(shifted.id()).await, "cannot be read");
    assert_permanent(store.load_many(std::slice::from_ref(&shifted), &call()).await, "cannot be read");
    let page = store.list("", None, 9, &call()).await.unwrap();
    assert!(page.records.is_empty());
    assert_eq!(page.damaged.first().unwrap().created, Some(shifted.created()));
    assert_permanent(store.revoke(&shifted, &call()).await, "cannot be read");
}

#[tokio::test]
async fn garbage_in_a_row_is_refused_and_leaves_others_alone() {
    for garbage in ["", "{", "null", "{\"Created\":1700000000}", "{\"Created\":1700000000,\"Key\":\"*\"}"] {
        let place = Place::new();
        let store = place.open().await;
        place.write_row("_IK_a_svc_prod", "'2023-11-14 22:13:20'", garbage).await;
        let key = meta("_IK_a_svc_prod", NOW);
        assert_permanent(store.load(&key, &call()).await, "cannot be read");
        assert_permanent(store.latest(key.id()).await, "cannot be read");
        let other = record("_IK_b_svc_prod", NOW);
        assert_eq!(store.insert(&other, &call()).await.unwrap(), Insert::Inserted);
        assert_eq!(store.latest(other.meta().id()).await.unwrap(), Some(other));
    }
}

#[tokio::test]
async fn a_record_stored_as_a_blob_is_found_and_can_be_revoked() {
    let place = Place::new();
    let store = place.open().await;
    let record = record("_IK_a_svc_prod", NOW);
    let hex: String = record.to_json().bytes().map(|byte| format!("{byte:02x}")).collect();
    let blob = format!("x'{hex}'");
    let insert = format!("INSERT INTO encryption_key VALUES (?1, '2023-11-14 22:13:20', {blob})");
    let pool = place.pool().await;
    sqlx::query(sqlx::AssertSqlSafe(insert)).bind("_IK_a_svc_prod").execute(&pool).await.unwrap();
    assert_eq!(store.load(record.meta(), &call()).await.unwrap().as_ref(), Some(&record));
    assert!(store.revoke(record.meta(), &call()).await.unwrap());
    assert_eq!(store.latest(record.meta().id()).await.unwrap(), Some(record.revoked(true)));
}

#[tokio::test]
async fn ours_are_written_as_asherah_queries_them() {
    let place = Place::new();
    let record = record("_IK_a_svc_prod", NOW);
    assert_eq!(place.open().await.insert(&record, &call()).await.unwrap(), Insert::Inserted);
    let select = "SELECT typeof(created) || ' ' || created || ' ' || typeof(key_record) || ' ' || key_record \
                  FROM encryption_key";
    let row: String = sqlx::query_scalar(select).fetch_one(&place.pool().await).await.unwrap();
    assert_eq!(row, format!("text 2023-11-14 22:13:20 text {}", record.to_json()));
}

#[tokio::test]
async fn a_guard_row_of_asherah_is_no_key() {
    let place = Place::new();
    let store = place.open().await;
    let guard = "__asherah_internal_config_drift_guard_v1__:P4Box1cXU9ICNy3lMjV2RM_mKi3TyS-zYHPowt-w2-Y";
    let json = "{\"Created\":946684800,\"Key\":\"eyJzY2hlbWFfdmVyc2lvbiI6MX0=\"}";
    place.write_row(guard, "'2000-01-01 00:00:00'", json).await;
    assert_eq!(store.count(&call()).await.unwrap(), 0);
    assert_eq!(store.list("", None, 9, &call()).await.unwrap().records, []);
    assert_permanent(store.latest(meta(guard, 946_684_800).id()).await, "reserved");
    assert_permanent(store.delete(meta(guard, 946_684_800).id(), &call()).await, "reserved");
    assert_eq!(place.rows_of(guard).await, 1);
}

#[tokio::test]
async fn ids_that_only_look_reserved_are_keys() {
    let place = Place::new();
    let store = place.open().await;
    for id in ["__asherah_internal", "__ASHERAH_INTERNAL_x", "x__asherah_internal_x", "--asherah-internal-x"]
    {
        assert_eq!(store.insert(&record(id, NOW), &call()).await.unwrap(), Insert::Inserted);
    }
    assert_eq!(store.count(&call()).await.unwrap(), 4);
    assert_eq!(store.list("", None, 9, &call()).await.unwrap().records.len(), 4);
}

async fn with(sql: &str) -> Place {
    let place = Place::new();
    place.open().await.close().await;
    let pool = place.pool().await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&pool).await.unwrap();
    pool.close().await;
    place
}

#[tokio::test]
async fn a_rewrite_that_never_takes_is_a_transient_error() {
    let place =
        with("CREATE TRIGGER swallow BEFORE UPDATE ON encryption_key BEGIN SELECT RAISE(IGNORE); END").await;
    let (store, record) = (place.open().await, record("_IK_a_svc_prod", NOW));
    assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
    let revoked = store.revoke(record.meta(), &call()).await;
    let replaced = store.replace_one(record.meta(), record.wrapped_key(), b"new", &call()).await;
    for error in [revoked, replaced].map(Result::unwrap_err) {
        assert!(error.is_transient() && chain(&error).contains("kept being changed"), "{}", chain(&error));
    }
}

#[tokio::test]
async fn an_insert_that_the_table_takes_away_is_an_error() {
    let place = with(
        "CREATE TRIGGER swallow BEFORE INSERT ON encryption_key WHEN new.id LIKE 'gone%' \
         BEGIN SELECT RAISE(IGNORE); END",
    )
    .await;
    let store = place.open().await;
    assert_permanent(store.insert(&record("gone", NOW), &call()).await, "kept no row");
    // Also of several that are committed together.
    let records = ["gone_a", "kept", "gone_b"].map(|id| record(id, NOW));
    let mut calls = tokio::task::JoinSet::new();
    for record in records {
        let store = store.clone();
        calls.spawn(async move { (record.meta().id().to_string(), store.insert(&record, &call()).await) });
    }
    for (id, answer) in calls.join_all().await {
        if id == "kept" {
            assert_eq!(answer.unwrap(), Insert::Inserted);
        } else {
            assert_permanent(answer, "kept no row");
        }
    }
}

#[tokio::test]
async fn a_unique_violation_of_another_kind_is_not_taken_for_a_duplicate() {
    let place = with("CREATE UNIQUE INDEX only_one ON encryption_key (id)").await;
    let store = place.open().await;
    assert_eq!(store.insert(&record("_IK_a_svc_prod", NOW), &call()).await.unwrap(), Insert::Inserted);
    assert_eq!(store.insert(&record("_IK_a_svc_prod", NOW), &call()).await.unwrap(), Insert::AlreadyExists);
    assert_permanent(store.insert(&record("_IK_a_svc_prod", NOW + 1), &call()).await, "cannot tell the key");
}
